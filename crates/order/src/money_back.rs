//! Refunds and disputes: credits follow the money.

use database::{Error, run};
use payment::{Dispute, Refund, Transaction};

/// Applies a refund and files its event. Without a payment of ours that it fits, the event stays open.
///
/// # Errors
/// The database's.
pub async fn refund(refund: &Refund, event_id: &str, now: i64) -> Result<(), Error> {
    let Refund { of, id, amount, status } = refund;
    News { payment: &of.transaction, order: of.order.as_deref(), checkout: of.checkout.as_deref(), disputed: None }
        .apply(Some((id, *amount, status)), Some(event_id), now)
        .await
}

/// Holds back the credits of a payment that is disputed, and files the event.
///
/// # Errors
/// The database's.
pub async fn dispute(dispute: &Dispute, event_id: &str, now: i64) -> Result<(), Error> {
    let of = &dispute.of;
    News { payment: &of.transaction, order: of.order.as_deref(), checkout: of.checkout.as_deref(), disputed: Some(true) }
        .apply(None, Some(event_id), now)
        .await
}

/// Brings a payment in step with what the provider says of it now.
///
/// # Errors
/// The database's.
pub async fn compare(transaction: &Transaction, now: i64) -> Result<(), Error> {
    let disputed = transaction.was_paid().then(|| transaction.is_disputed());
    News { payment: transaction, order: transaction.order.as_deref(), checkout: None, disputed }.apply(None, None, now).await
}

struct News<'a> {
    payment: &'a Transaction,
    order: Option<&'a str>,
    checkout: Option<&'a str>,
    disputed: Option<bool>,
}

impl News<'_> {
    async fn apply(self, refund: Option<(&str, i64, &str)>, event_id: Option<&str>, now: i64) -> Result<(), Error> {
        let sql = "INSERT INTO money_back (transaction_id, provider_order_id, checkout_id, amount_paid, refunded_amount, disputed, refund_id, \
                   refund_amount, refund_status, event_id, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let parameters = vec![
            self.payment.id.as_str().into(),
            self.order.map(str::to_owned).into(),
            self.checkout.map(str::to_owned).into(),
            self.payment.amount_paid.into(),
            self.payment.refunded_amount.into(),
            self.disputed.map(i64::from).into(),
            refund.map(|(id, _, _)| id.to_owned()).into(),
            refund.map(|(_, amount, _)| amount).into(),
            refund.map(|(_, _, status)| status.to_owned()).into(),
            event_id.map(str::to_owned).into(),
            now.into(),
        ];
        run(sql, parameters).await.map(drop)
    }
}
