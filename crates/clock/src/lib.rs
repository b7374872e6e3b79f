//! What time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix seconds, the unit of every time in the database and in answers.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// Unix milliseconds, for names that should sort by time.
#[must_use]
pub fn now_millis() -> i64 {
    i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
