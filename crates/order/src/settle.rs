//! The one step that turns a paid checkout into credits, or into a subscription.

use database::{Error, one, run};
use payment::Checkout;

const SETTLE: &str = include_str!("../sql/settle.sql");
const REVIVE: &str = include_str!("../sql/revive.sql");

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
    Ok(match one(SETTLE, parameters).await? {
        Some(row) if row.integer(0) != 0 => Settled::Now,
        Some(_) => Settled::Before,
        None => Settled::Unmatched,
    })
}

/// Makes the order that takes a late payment, and answers whether there is one.
async fn revive(order_id: &str, now: i64) -> Result<bool, Error> {
    run(REVIVE, vec![order_id.into(), late(order_id).into(), now.into()]).await?;
    Ok(one("SELECT 1 FROM orders WHERE id = ?1", vec![late(order_id).into()]).await?.is_some())
}

fn late(order_id: &str) -> String {
    format!("{order_id}-late")
}
