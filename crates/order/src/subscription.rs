//! Plans: one subscription at a time, paid by the month or by the year, granting credits each month.

use database::{Error, Row, one, run};
use payment::{Subscription, Transaction};
use serde::Serialize;

/// A subscription as its owner sees it.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    pub id: String,
    pub product_id: Option<String>,
    /// `basic`, `pro` or `premium`.
    pub plan_type: String,
    /// `monthly` or `yearly`.
    pub billing_cycle: String,
    /// `active`, `cancelled` or `expired`.
    pub status: String,
    /// Whether it is behind with its payments or paused: no new credits until that is over.
    pub frozen: bool,
    /// Whether it ends with the period that is paid.
    pub ends_with_period: bool,
    /// Credits each month.
    pub credits: i64,
    /// Unix seconds: the end of the period that is paid.
    pub expires_at: Option<i64>,
    /// Unix seconds.
    pub next_billing_at: Option<i64>,
    /// Unix seconds: when the next month's credits come, of what is paid already.
    pub next_credits_at: Option<i64>,
    /// Unix seconds.
    pub cancelled_at: Option<i64>,
    /// Unix seconds.
    pub created_at: i64,
    /// creem's `sub_...`.
    #[serde(skip)]
    pub provider_id: Option<String>,
}

/// A user's subscription: the one that is active, else the last one. Of two that are active (both were paid before either was known) the one
/// that goes on being paid comes first, so that cancelling one after the other ends both.
///
/// # Errors
/// The database's.
pub async fn of_user(user_id: &str) -> Result<Option<Plan>, Error> {
    let sql = "SELECT s.id, product_id, s.plan_type, s.billing_cycle, status, provider_status IN ('past_due', 'unpaid', 'paused'), \
                   provider_status = 'scheduled_cancel', coalesce(credits, 0), expires_at, next_billing_at, \
                   (SELECT min(due_at) FROM subscription_months JOIN subscription_periods p ON p.id = period_id \
                    WHERE p.subscription_id = s.id AND granted_at IS NULL), cancelled_at, s.created_at, third_party_subscription_id \
               FROM subscriptions s LEFT JOIN products ON products.id = product_id \
               WHERE user_id = ?1 ORDER BY status = 'active' DESC, provider_status = 'scheduled_cancel', s.created_at DESC, s.id DESC LIMIT 1";
    let row = one(sql, vec![user_id.into()]).await?;
    Ok(row.map(|row: Row| Plan {
        id: row.text(0),
        product_id: row.optional_text(1),
        plan_type: row.text(2),
        billing_cycle: row.text(3),
        status: row.text(4),
        frozen: row.integer(5) != 0,
        ends_with_period: row.integer(6) != 0,
        credits: row.integer(7),
        expires_at: row.optional_integer(8),
        next_billing_at: row.optional_integer(9),
        next_credits_at: row.optional_integer(10),
        cancelled_at: row.optional_integer(11),
        created_at: row.integer(12),
        provider_id: row.optional_text(13),
    }))
}

/// Applies what creem says of a subscription, and of the payment it names, if any; files the event that brought it. Without a plan's
/// order that it fits, nothing happens and the event stays open.
///
/// # Errors
/// The database's.
pub async fn apply(subscription: &Subscription, event_id: Option<&str>, told_at: Option<i64>, now: i64) -> Result<(), Error> {
    let transaction = subscription.last_transaction.clone();
    insert(subscription, transaction, subscription.period_start, subscription.period_end, None, None, event_id, told_at, now).await
}

/// Applies a payment of a subscription that creem's list of payments tells of. What it was for is not told: it is the plan that has its price,
/// else the one the subscription is for now.
///
/// # Errors
/// The database's.
pub async fn apply_payment(subscription: &Subscription, payment: &Transaction, now: i64) -> Result<(), Error> {
    // Old news about the subscription itself: only the payment counts.
    let (id, start, end) = (Some(payment.id.clone()), payment.period_start, payment.period_end);
    insert(subscription, id, start, end, payment.amount, payment.amount_paid, None, Some(0), now).await
}

/// Lets creem be asked about a subscription at the next sweep.
///
/// # Errors
/// The database's.
pub async fn look_again(provider_id: &str, now: i64) -> Result<(), Error> {
    let sql = "UPDATE subscriptions SET next_look_at = min(coalesce(next_look_at, ?2), ?2) WHERE third_party_subscription_id = ?1";
    run(sql, vec![provider_id.into(), now.into()]).await.map(drop)
}

const NEWS: &str = include_str!("../sql/subscription_news.sql");

#[expect(clippy::too_many_arguments, reason = "one column each")]
async fn insert(
    subscription: &Subscription,
    transaction: Option<String>,
    period_start: Option<i64>,
    period_end: Option<i64>,
    price: Option<i64>,
    amount_paid: Option<i64>,
    event_id: Option<&str>,
    told_at: Option<i64>,
    now: i64,
) -> Result<(), Error> {
    let parameters = vec![
        subscription.order_id.clone().into(),
        subscription.id.as_str().into(),
        subscription.product.clone().into(),
        subscription.customer.clone().into(),
        subscription.status.as_str().into(),
        told_at.or(subscription.updated_at).unwrap_or(now * 1_000).into(),
        period_start.into(),
        period_end.into(),
        subscription.next_billing_at.into(),
        subscription.canceled_at.into(),
        transaction.into(),
        amount_paid.into(),
        event_id.map(str::to_owned).into(),
        now.into(),
        price.into(),
    ];
    run(NEWS, parameters).await.map(drop)
}

const GRANT: &str = include_str!("../sql/grant_due_months.sql");
/// Months granted in one statement.
const BATCH: i64 = 200;

/// Grants the months of paid plans whose time has come; answers how many.
///
/// # Errors
/// The database's.
pub async fn grant_due_months(now: i64) -> Result<usize, Error> {
    let mut granted = 0;
    loop {
        let batch = run(GRANT, vec![now.into(), BATCH.into()]).await?.len();
        granted += batch;
        if batch < usize::try_from(BATCH).unwrap_or_default() {
            return Ok(granted);
        }
    }
}
