//! What components leave behind for the alarms: that requests fail, and that somebody outside said something an operator has to know.
//!
//! Both are rows that one statement counts up, written only when something goes wrong. Losing one loses a number, so nothing here fails a
//! request.

use database::run;
use serde_json::json;

/// A provider says that our account there has no credits.
pub const OUT_OF_CREDITS: &str = "out_of_credits";

/// A provider refuses our key: it is wrong, was exchanged, or is of another environment.
pub const KEY_REFUSED: &str = "key_refused";

/// Counts a request that a component could not answer by a fault of ours or of somebody we need.
pub async fn request_failed(component: &str, now: i64) {
    let sql = "INSERT INTO request_errors (minute, component, errors) VALUES (?1 / 60, ?2, 1) \
               ON CONFLICT (minute, component) DO UPDATE SET errors = errors + 1";
    noted(run(sql, vec![now.into(), component.into()]).await.map(drop));
}

/// Notes what somebody outside said.
pub async fn seen(kind: &str, subject: &str, now: i64) {
    let sql = "INSERT INTO signals (kind, subject, seen_at, times) VALUES (?1, ?2, ?3, 1) \
               ON CONFLICT (kind, subject) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at), times = times + 1";
    noted(run(sql, vec![kind.into(), subject.into(), now.into()]).await.map(drop));
}

fn noted(result: Result<(), database::Error>) {
    if let Err(error) = result {
        meter::log(json!({"level": "warn", "event": "signal_not_noted", "cause": format!("{error:?}")}));
    }
}
