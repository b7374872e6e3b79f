//! The one step that turns a paid checkout into credits, or into a subscription.

use database::{Error, one, run};
use payment::Checkout;

/// What settling came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The order was completed now.
    Now,
    /// The order was completed before.
    Before,
    /// Not paid (yet): nothing to do.
    NotPaid,
    /// Paid, and there is no order that it could settle: unknown, or for another product. A person has to look.
    Unmatched,
}

/// Settles the order of a paid checkout: payment, grant and completion in one statement, once however often it is asked. The event
/// that brought the news is filed by the same statement. Webhook, return page and reconciliation all come here.
///
/// An order that was given up before somebody paid it after all stays given up; a new order with its terms takes the payment.
///
/// # Errors
/// The database's.
pub async fn settle(checkout: &Checkout, event_id: Option<&str>, now: i64) -> Result<Settled, Error> {
    if checkout.paid.is_none() {
        return Ok(Settled::NotPaid);
    }
    let Some(order_id) = &checkout.request_id else { return Ok(Settled::Unmatched) };
    match settle_as(order_id, checkout, event_id, now).await? {
        Settled::Unmatched if revive(order_id, now).await? => settle_as(&late(order_id), checkout, event_id, now).await,
        settled => Ok(settled),
    }
}

async fn settle_as(order_id: &str, checkout: &Checkout, event_id: Option<&str>, now: i64) -> Result<Settled, Error> {
    let (Some(paid), Some(product)) = (&checkout.paid, &checkout.product) else { return Ok(Settled::Unmatched) };
    // The checkout may be unknown to us (the link was lost after it was opened); then the reference we gave it counts. An order
    // that was settled before is found too, and left as it is. `RETURNING` shows the row before the trigger that completes the
    // order has run: without a time of payment yet, it was this statement that paid it. An order that takes a late payment leaves
    // the checkout with the order that was given up.
    let sql = "UPDATE orders SET status = iif(status = 'pending', 'paid', status), \
                   checkout_id = iif(EXISTS (SELECT 1 FROM orders WHERE id <> ?1 AND checkout_id = ?2), checkout_id, ?2), \
                   payment_id = iif(status = 'pending', ?3, payment_id), updated_at = iif(status = 'pending', ?5, updated_at), \
                   transaction_id = coalesce(transaction_id, ?6), amount_paid = coalesce(amount_paid, ?7), \
                   provider_customer_id = coalesce(provider_customer_id, ?8), \
                   provider_subscription_id = coalesce(provider_subscription_id, ?9), event_id = coalesce(?10, event_id) \
               WHERE id = ?1 AND status NOT IN ('cancelled', 'expired') AND (checkout_id IS NULL OR checkout_id = ?2) \
               AND EXISTS (SELECT 1 FROM products WHERE id = product_id AND provider_product_id = ?4) RETURNING paid_at IS NULL";
    let parameters = vec![
        order_id.into(),
        checkout.id.as_str().into(),
        paid.id.as_str().into(),
        product.as_str().into(),
        now.into(),
        paid.transaction.clone().into(),
        paid.amount_paid.into(),
        checkout.customer.clone().into(),
        checkout.subscription.clone().into(),
        event_id.map(str::to_owned).into(),
    ];
    Ok(match one(sql, parameters).await? {
        Some(row) if row.integer(0) != 0 => Settled::Now,
        Some(_) => Settled::Before,
        None => Settled::Unmatched,
    })
}

/// Makes the order that takes a late payment, and answers whether there is one.
async fn revive(order_id: &str, now: i64) -> Result<bool, Error> {
    let sql = "INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at, next_look_at) \
               SELECT ?2, user_id, amount, currency, credits, product_id, credits_valid_for, ?3, ?3, ?3 FROM orders \
               WHERE id = ?1 AND status IN ('cancelled', 'expired') AND NOT EXISTS (SELECT 1 FROM orders WHERE id = ?2)";
    run(sql, vec![order_id.into(), late(order_id).into(), now.into()]).await?;
    Ok(one("SELECT 1 FROM orders WHERE id = ?1", vec![late(order_id).into()]).await?.is_some())
}

fn late(order_id: &str) -> String {
    format!("{order_id}-late")
}
