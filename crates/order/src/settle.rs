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
/// An order that was given up before somebody paid it after all stays given up; a new order with its terms takes the payment. So does
/// one that was paid already, by another checkout: who pays twice gets twice.
///
/// # Errors
/// The database's.
pub async fn settle(checkout: &Checkout, event_id: Option<&str>, now: i64) -> Result<Settled, Error> {
    if checkout.paid.is_none() {
        return Ok(Settled::NotPaid);
    }
    let Some(order_id) = &checkout.request_id else { return Ok(Settled::Unmatched) };
    match settle_as(order_id, checkout, event_id, now).await? {
        Settled::Unmatched => {
            let another = format!("{order_id}-{}", checkout.id);
            revive(order_id, &another, checkout, now).await?;
            settle_as(&another, checkout, event_id, now).await
        }
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

/// Makes the order that takes a payment which the one it is for cannot take.
async fn revive(order_id: &str, another: &str, checkout: &Checkout, now: i64) -> Result<(), Error> {
    let Some(product) = &checkout.product else { return Ok(()) };
    let parameters = vec![order_id.into(), another.into(), now.into(), checkout.id.as_str().into(), product.as_str().into()];
    run(REVIVE, parameters).await.map(drop)
}
