//! The inbox of payment events.
//!
//! An event is kept before anything is done about it. Its effect and its filing as done are one statement, so a crash leaves it open
//! with no effect or done with it. What is open (its order is not settled yet, it came before the event it builds on, a fault of
//! ours) is tried again by the sweep, ever more rarely.

use database::{Error, Row, one, run};
use payment::{Checkout, Dispute, Event, Refund, Subscription};
use serde::Serialize;
use serde_json::json;

use crate::{
    money_back,
    settle::{Settled, settle},
    subscription,
};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect has taken place, now or by other news before it.
    Applied,
    /// It was dealt with when it came before.
    Duplicate,
    /// Nothing follows from it: of a kind we do not know, or not about a payment.
    Ignored,
    /// Nothing of ours fits it yet, or it cannot be read: it stays open.
    Open,
}

impl Outcome {
    /// In a word, for answers and the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Open => "open",
        }
    }
}

/// Puts an event into the inbox and applies it.
///
/// # Errors
/// The database's; the event may be in the inbox all the same.
pub async fn receive(event: &Event, payload: &str, now: i64) -> Result<Outcome, Error> {
    let sql = "INSERT INTO payment_events (id, type, payload, received_at, next_attempt_at) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT (id) DO UPDATE SET deliveries = deliveries + 1 RETURNING status";
    let parameters = vec![event.id.as_str().into(), event.kind.as_str().into(), payload.into(), now.into(), (now + delay(0)).into()];
    if one(sql, parameters).await?.is_some_and(|row| row.text(0) != "received") {
        return Ok(Outcome::Duplicate);
    }
    apply(event, now).await
}

async fn apply(event: &Event, now: i64) -> Result<Outcome, Error> {
    let id = event.id.as_str();
    match event.kind.as_str() {
        "checkout.completed" => match Checkout::read(&event.object) {
            None => Ok(Outcome::Open),
            Some(checkout) => match settle(&checkout, Some(id), now).await? {
                Settled::Now | Settled::Before => Ok(Outcome::Applied),
                Settled::NotPaid => ignore(id, "not paid", now).await,
                Settled::Unmatched => Ok(Outcome::Open),
            },
        },
        "refund.created" => match Refund::read(&event.object) {
            None => Ok(Outcome::Open),
            Some(refund) => {
                money_back::refund(&refund, id, now).await?;
                standing(id).await
            }
        },
        "dispute.created" => match Dispute::read(&event.object) {
            None => Ok(Outcome::Open),
            Some(dispute) => {
                money_back::dispute(&dispute, id, now).await?;
                standing(id).await
            }
        },
        kind if event.is_about_a_subscription() => match Subscription::of_event(kind, &event.object) {
            None => Ok(Outcome::Open),
            Some(news) => {
                subscription::apply(&news, Some(id), news.updated_at.or(event.created_at), now).await?;
                if kind == "subscription.paid" && news.last_transaction.is_none() {
                    // A payment without its number: creem's list of payments has it.
                    subscription::look_again(&news.id, now).await?;
                }
                standing(id).await
            }
        },
        _ => ignore(id, "unknown type", now).await,
    }
}

/// Whether an event was filed by the statement that applied it.
async fn standing(event_id: &str) -> Result<Outcome, Error> {
    let row = one("SELECT status FROM payment_events WHERE id = ?1", vec![event_id.into()]).await?;
    Ok(if row.is_some_and(|row| row.text(0) == "done") { Outcome::Applied } else { Outcome::Open })
}

async fn ignore(event_id: &str, why: &'static str, now: i64) -> Result<Outcome, Error> {
    let sql = "UPDATE payment_events SET status = 'ignored', outcome = ?2, processed_at = ?3 WHERE id = ?1 AND status = 'received'";
    run(sql, vec![event_id.into(), why.into(), now.into()]).await?;
    Ok(Outcome::Ignored)
}

/// Events tried again in one sweep.
const BATCH: i64 = 50;

/// Tries the open events whose time has come; answers (tried, applied).
///
/// # Errors
/// The database's. One event's trouble is logged and does not stop the others.
pub async fn retry(now: i64) -> Result<(usize, usize), Error> {
    let sql = "UPDATE payment_events SET attempts = attempts + 1, next_attempt_at = ?1 + (60 << min(attempts + 1, 10)) \
               WHERE id IN (SELECT id FROM payment_events INDEXED BY payment_events_due WHERE status = 'received' AND next_attempt_at <= ?1 \
                            ORDER BY received_at, rowid LIMIT ?2) \
               AND +status = 'received' AND next_attempt_at <= ?1 RETURNING id, payload, attempts, received_at";
    let mut rows = run(sql, vec![now.into(), BATCH.into()]).await?;
    // In the order they came: a refund builds on a payment.
    rows.sort_by_key(|row| (row.integer(3), row.text(0)));
    let mut applied = 0;
    for row in &rows {
        let outcome = match serde_json::from_str::<Event>(&row.text(1)) {
            Ok(event) => apply(&event, now).await,
            Err(_) => Ok(Outcome::Open),
        };
        applied += usize::from(matches!(outcome, Ok(Outcome::Applied)));
        if !matches!(outcome, Ok(Outcome::Applied | Outcome::Ignored)) {
            meter::log(json!({"level": "error", "event": "payment_event_open", "id": row.text(0), "attempts": row.integer(2),
                       "cause": outcome.err().map(|error| format!("{error:?}"))}));
        }
    }
    Ok((rows.len(), applied))
}

/// Tries one open event again now, whenever its time would have come.
///
/// # Errors
/// The database's.
pub async fn retry_one(id: &str, now: i64) -> Result<(), Error> {
    let sql = "UPDATE payment_events SET attempts = attempts + 1, next_attempt_at = ?2 + (60 << min(attempts + 1, 10)) \
               WHERE id = ?1 AND status = 'received' RETURNING payload";
    if let Some(row) = one(sql, vec![id.into(), now.into()]).await?
        && let Ok(event) = serde_json::from_str::<Event>(&row.text(0))
    {
        apply(&event, now).await?;
    }
    Ok(())
}

/// Seconds until an open event is tried again: 1, 2, 4, ... minutes, at most 17 hours.
fn delay(attempts: u32) -> i64 {
    60 << attempts.min(10)
}

/// An event as an admin sees it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PaymentEvent))]
pub struct Listed {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// `received` (open), `done` or `ignored`.
    pub status: String,
    pub outcome: Option<String>,
    /// How often it came, and how often we tried it again.
    pub deliveries: i64,
    pub attempts: i64,
    /// Unix seconds.
    pub received_at: i64,
    /// Unix seconds.
    pub processed_at: Option<i64>,
}

/// One event.
///
/// # Errors
/// The database's.
pub async fn by_id(id: &str) -> Result<Option<Listed>, Error> {
    let sql = format!("SELECT {LISTED} FROM payment_events WHERE id = ?1");
    Ok(one(&sql, vec![id.into()]).await?.as_ref().map(read))
}

/// The inbox, newest first.
///
/// # Errors
/// The database's.
pub async fn list(status: Option<&str>, limit: i64, offset: i64) -> Result<Vec<Listed>, Error> {
    // With `?1 IS NULL OR status = ?1` no index could be used.
    let of_status = if status.is_some() { "status = ?1" } else { "?1 IS NULL" };
    let sql = format!("SELECT {LISTED} FROM payment_events WHERE {of_status} ORDER BY received_at DESC, rowid DESC LIMIT ?2 OFFSET ?3");
    let rows = run(&sql, vec![status.map(str::to_owned).into(), limit.into(), offset.into()]).await?;
    Ok(rows.iter().map(read).collect())
}

const LISTED: &str = "id, type, status, outcome, deliveries, attempts, received_at, processed_at";

fn read(row: &Row) -> Listed {
    Listed {
        id: row.text(0),
        kind: row.text(1),
        status: row.text(2),
        outcome: row.optional_text(3),
        deliveries: row.integer(4),
        attempts: row.integer(5),
        received_at: row.integer(6),
        processed_at: row.optional_integer(7),
    }
}
