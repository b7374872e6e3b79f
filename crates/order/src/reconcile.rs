//! Asking the payment provider instead of waiting to be told. With every webhook lost, the books end up the same.
//!
//! Orders, subscriptions and payments each carry the time of their next look. A sweep moves that time forward in the statement that
//! takes them, so two sweeps never ask the same thing, and whoever dies in between is followed by the next look. A question without an answer
//! is no look: it is asked again within the hour.

use std::time::{Duration, Instant};

use database::{Error, Row, run};
use futures::future::join_all;
use payment::{Checkout, Creem, Of, Subscription};
use problem::Problem;
use serde::Serialize;
use serde_json::json;

use crate::{
    inbox, money_back,
    settle::{Settled, settle},
    subscription,
};

/// Seconds after which an order that nobody paid is given up.
const ORDER_LIFETIME: i64 = 86_400;
/// Seconds for which an order that was given up is still asked about: its page may be open somewhere.
const AFTERLIFE: i64 = 30 * 86_400;
/// Seconds for which a payment is watched for refunds and disputes: card disputes may come for about half a year.
const WATCHED: i64 = 180 * 86_400;
/// Seconds after which is asked again, at the latest, what creem did not answer.
const AGAIN: i64 = 3_600;
/// Looks made side by side.
const BATCH: usize = 20;
/// For how long a sweep takes batch after batch of each kind; the rest is for the next one.
const TIME: Duration = Duration::from_secs(10);

/// What a sweep found out.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Pending orders that were asked about, and what came of it.
    pub orders: usize,
    pub settled: usize,
    pub expired: usize,
    /// Paid orders and subscriptions that were compared.
    pub payments: usize,
    pub subscriptions: usize,
    /// Open events that were tried again, and those that could be applied.
    pub events: usize,
    pub applied: usize,
    /// Months of plans that were granted.
    pub months: usize,
}

/// What came of a batch.
#[derive(Clone, Copy)]
struct Batch {
    looked_at: usize,
    failed: usize,
}

/// Looks at everything whose time has come. Where a whole batch of one kind goes unanswered, the rest of that kind is left for the next sweep:
/// it would not be answered either.
///
/// # Errors
/// The database's. What creem does not answer is logged and asked again later.
pub async fn sweep(creem: &Creem<'_>, now: i64) -> Result<Report, Problem> {
    let mut report = Report::default();
    let started = Instant::now();
    let goes_on = |batch: Batch, kinds: u32| batch.looked_at == BATCH && batch.failed < BATCH && started.elapsed() < TIME * kinds;
    while goes_on(open_orders(creem, now, &mut report).await?, 1) {}
    while goes_on(counted(subscriptions(creem, now).await?, &mut report.subscriptions), 2) {}
    while goes_on(counted(paid_orders(creem, now).await?, &mut report.payments), 3) {}
    (report.events, report.applied) = inbox::retry(now).await?;
    report.months = subscription::grant_due_months(now).await?;
    Ok(report)
}

/// Settles a paid checkout, and for a plan brings in the subscription with its first payment. For the way back from paying, too.
///
/// # Errors
/// The database's. A subscription that cannot be asked about now is left to the next sweep.
pub async fn follow(creem: &Creem<'_>, checkout: &Checkout, now: i64) -> Result<Settled, Problem> {
    let settled = settle(checkout, None, now).await?;
    if let (Settled::Now | Settled::Before, Some(id)) = (settled, &checkout.subscription) {
        let mut news = match creem.subscription(id).await {
            Ok(news) => news,
            Err(error) => {
                complain("subscription", id, &error.into());
                return Ok(settled);
            }
        };
        news.order_id = news.order_id.or_else(|| checkout.request_id.clone());
        if !matches!(news.status.as_str(), "active" | "scheduled_cancel") {
            news.last_transaction = None;
        }
        subscription::apply(&news, None, None, now).await?;
    }
    Ok(settled)
}

fn counted(batch: Batch, sum: &mut usize) -> Batch {
    *sum += batch.looked_at;
    batch
}

/// How many rows a batch may have, for SQL.
fn limit() -> i64 {
    i64::try_from(BATCH).unwrap_or(i64::MAX)
}

async fn open_orders(creem: &Creem<'_>, now: i64, report: &mut Report) -> Result<Batch, Error> {
    let sql = "UPDATE orders SET looks = looks + 1, next_look_at = CASE \
                   WHEN status = 'pending' THEN ?1 + (120 << min(looks, 5)) WHEN ?1 < created_at + ?3 THEN ?1 + 604800 END \
               WHERE id IN (SELECT id FROM orders INDEXED BY orders_next_look WHERE status IN ('pending', 'expired') AND next_look_at <= ?1 \
                            ORDER BY next_look_at LIMIT ?2) \
               AND +status IN ('pending', 'expired') AND next_look_at <= ?1 RETURNING id, checkout_id, created_at";
    let rows = run(sql, vec![now.into(), limit().into(), AFTERLIFE.into()]).await?;
    report.orders += rows.len();
    let looks = rows.iter().map(async |row| {
        let (id, over) = (row.text(0), now >= row.integer(2) + ORDER_LIFETIME);
        let Some(checkout_id) = row.optional_text(1) else { return Ok(if over { expire(&id, false, now).await? } else { Looked::Waits }) };
        let checkout = match creem.checkout(&checkout_id).await {
            Ok(checkout) => checkout,
            // There is no such checkout, or not for a key of the wrong environment. Whatever else is refused (a key that was exchanged, too
            // many questions) says nothing of the order.
            Err(payment::Error::Refused { status }) if over && status.as_u16() == 404 => return Ok(expire(&id, true, now).await?),
            Err(error) => return Err(error.into()),
        };
        match follow(creem, &checkout, now).await? {
            Settled::Now | Settled::Before => Ok(Looked::Settled),
            Settled::NotPaid if checkout.status == "expired" => Ok(expire(&id, false, now).await?),
            Settled::NotPaid if over && checkout.status != "processing" => Ok(expire(&id, true, now).await?),
            _ => Ok(Looked::Waits),
        }
    });
    let mut failed = Vec::new();
    for (row, looked) in rows.iter().zip(join_all(looks).await) {
        match looked {
            Ok(Looked::Settled) => report.settled += 1,
            Ok(Looked::Expired) => report.expired += 1,
            Ok(Looked::Waits) => {}
            Err(problem) => {
                complain("order", &row.text(0), &problem);
                failed.push(row.text(0));
            }
        }
    }
    // Those that were settled meanwhile have another time to be looked at, or none.
    let again = "UPDATE orders SET next_look_at = min(coalesce(next_look_at, ?2), ?2) \
                 WHERE id IN (SELECT value FROM json_each(?1)) AND +status IN ('pending', 'expired')";
    ask_again(again, &failed, now).await?;
    Ok(Batch { looked_at: rows.len(), failed: failed.len() })
}

/// Lets what was not answered be asked again soon, also where this was to be the last look.
async fn ask_again(sql: &str, failed: &[String], now: i64) -> Result<(), Error> {
    if failed.is_empty() {
        return Ok(());
    }
    run(sql, vec![json!(failed).to_string().into(), (now + AGAIN).into()]).await.map(drop)
}

/// The ids of those looks that failed, each with a line in the log.
fn failures(what: &str, rows: &[Row], looks: Vec<Result<(), Problem>>) -> Vec<String> {
    let mut failed = Vec::new();
    for (row, looked) in rows.iter().zip(looks) {
        if let Err(problem) = looked {
            complain(what, &row.text(0), &problem);
            failed.push(row.text(0));
        }
    }
    failed
}

enum Looked {
    Settled,
    Expired,
    Waits,
}

/// Gives up an order. A payment that comes all the same makes a new one of it; while the page is payable that is looked for.
async fn expire(id: &str, payable: bool, now: i64) -> Result<Looked, Error> {
    let sql = "UPDATE orders SET status = 'expired', next_look_at = ?3, updated_at = ?2 WHERE id = ?1 AND status = 'pending' RETURNING 1";
    let next = payable.then_some(now + ORDER_LIFETIME);
    let expired = run(sql, vec![id.into(), now.into(), next.into()]).await?;
    Ok(if expired.is_empty() { Looked::Waits } else { Looked::Expired })
}

/// Refunds and disputes of packs that nobody told us about.
async fn paid_orders(creem: &Creem<'_>, now: i64) -> Result<Batch, Error> {
    let sql = "UPDATE orders SET looks = looks + 1, next_look_at = CASE \
                   WHEN disputed_at > ?1 - ?3 OR looks = 0 THEN ?1 + 86400 WHEN ?1 < paid_at + ?3 THEN ?1 + 604800 END \
               WHERE id IN (SELECT id FROM orders INDEXED BY orders_next_look WHERE status = 'completed' AND next_look_at <= ?1 \
                            ORDER BY next_look_at LIMIT ?2) \
               AND +status = 'completed' AND next_look_at <= ?1 RETURNING id, payment_id";
    let rows = run(sql, vec![now.into(), limit().into(), WATCHED.into()]).await?;
    let looks = rows.iter().map(async |row| {
        for transaction in creem.transactions(Of::Order(&row.text(1))).await? {
            money_back::compare(&transaction, now).await?;
        }
        Ok(())
    });
    let failed = failures("payment", &rows, join_all(looks).await);
    let again = "UPDATE orders SET next_look_at = min(coalesce(next_look_at, ?2), ?2) \
                 WHERE id IN (SELECT value FROM json_each(?1)) AND +status = 'completed'";
    ask_again(again, &failed, now).await?;
    Ok(Batch { looked_at: rows.len(), failed: failed.len() })
}

async fn subscriptions(creem: &Creem<'_>, now: i64) -> Result<Batch, Error> {
    // A running one daily, and hourly while its renewal is due; one that is over as long as its payments can come back.
    let sql = "UPDATE subscriptions SET looks = looks + 1, next_look_at = CASE \
                   WHEN status = 'active' AND expires_at <= ?1 THEN ?1 + 3600 \
                   WHEN status = 'active' THEN min(?1 + 86400, coalesce(max(expires_at, ?1) + 300, ?1 + 3600)) \
                   WHEN EXISTS (SELECT 1 FROM subscription_periods WHERE subscription_id = subscriptions.id AND disputed_at > ?1 - ?3) \
                       THEN ?1 + 86400 \
                   WHEN ?1 < coalesce(expires_at, updated_at) + ?3 THEN ?1 + 604800 END \
               WHERE id IN (SELECT id FROM subscriptions WHERE next_look_at <= ?1 ORDER BY next_look_at LIMIT ?2) AND next_look_at <= ?1 \
               RETURNING id, third_party_subscription_id, (SELECT checkout_id FROM orders WHERE orders.id = subscriptions.id), \
                         (SELECT erased_at FROM users WHERE users.id = user_id) IS NOT NULL";
    let rows = run(sql, vec![now.into(), limit().into(), WATCHED.into()]).await?;
    let looks = rows.iter().map(async |row| {
        let owner_is_gone = row.integer(3) != 0;
        compare(creem, row.text(0), row.optional_text(1), row.optional_text(2), owner_is_gone, now).await
    });
    let failed = failures("subscription", &rows, join_all(looks).await);
    let again = "UPDATE subscriptions SET next_look_at = min(coalesce(next_look_at, ?2), ?2) WHERE id IN (SELECT value FROM json_each(?1))";
    ask_again(again, &failed, now).await?;
    Ok(Batch { looked_at: rows.len(), failed: failed.len() })
}

/// Brings one subscription and all payments of it in step with creem.
async fn compare(
    creem: &Creem<'_>,
    id: String,
    provider_id: Option<String>,
    checkout: Option<String>,
    owner_is_gone: bool,
    now: i64,
) -> Result<(), Problem> {
    let provider_id = match (provider_id, checkout) {
        (Some(provider_id), _) => provider_id,
        // Its order was settled by news that did not name it.
        (None, Some(checkout)) => match creem.checkout(&checkout).await?.subscription {
            Some(provider_id) => provider_id,
            None => return Ok(()),
        },
        (None, None) => return Ok(()),
    };
    let mut news: Subscription = creem.subscription(&provider_id).await?;
    // A page that was open when its owner left was paid after all, or a plan that was over goes on: nobody is left who could cancel it.
    if owner_is_gone && !matches!(news.status.as_str(), "scheduled_cancel" | "canceled" | "expired") {
        news = creem.cancel_subscription(&provider_id).await?;
        meter::log(json!({"level": "warn", "event": "plan_of_nobody_cancelled", "subscription": provider_id}));
    }
    news.order_id.get_or_insert(id);
    news.last_transaction = None;
    subscription::apply(&news, None, None, now).await?;
    let Some(customer) = &news.customer else { return Ok(()) };
    let mut payments = creem.transactions(Of::Customer(customer)).await?;
    payments.retain(|payment| payment.subscription.as_ref() == Some(&news.id) && payment.was_paid());
    payments.sort_by_key(|payment| payment.period_start);
    for payment in &payments {
        subscription::apply_payment(&news, payment, now).await?;
        money_back::compare(payment, now).await?;
    }
    Ok(())
}

fn complain(what: &str, id: &str, problem: &Problem) {
    meter::log(json!({"level": "warn", "event": "reconciliation_failed", "what": what, "id": id, "cause": problem.cause}));
}
