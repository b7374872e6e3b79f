//! Whether each of the three stores lives.
//!
//! They are probed side by side, each for itself and for [`LIMIT`] at most: a store that hangs is as good as none, and must not hide how the
//! others are. A probe is cheap, because everybody may ask for one.

use std::time::Duration;

use cache::entry;
use futures::join;
use http::{Method, StatusCode};
use outbound::Failure;
use storage::Bucket;

/// How long a store may take to answer.
pub const LIMIT: Duration = Duration::from_secs(2);
/// How often the bucket is asked before a passing fault of it counts.
const TRIES: u32 = 3;
/// How long the signature of that question is good: the store's clock may be another.
const LINK: Duration = Duration::from_secs(300);
/// Longest error of the bucket that is read, in bytes.
const ERROR_CAP: usize = 64 * 1024;
/// Seconds between two tries to write to the database, whoever asks and how often.
const WRITES: i64 = 30;
/// Seconds for which the database may take no writing because somebody else is at it.
const BUSY: i64 = 60;
/// Seconds for which it is remembered since when it has taken none: longer than from one look to the next.
const REMEMBERED: u64 = 900;

/// How a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    Well,
    /// It answers, and takes nothing.
    ReadOnly(String),
    /// It answers wrongly or not at all; why, for the log.
    Down(String),
}

impl Beat {
    #[must_use]
    pub fn is_well(&self) -> bool {
        *self == Self::Well
    }

    /// In words, without internals.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Well => "answers",
            Self::ReadOnly(_) => "can be read, but refuses to be written",
            Self::Down(_) => "does not answer as it should",
        }
    }
}

/// How the three are.
#[derive(Clone, Debug)]
pub struct Pulse {
    pub database: Beat,
    pub storage: Beat,
    pub cache: Beat,
}

impl Pulse {
    /// Each store with its name.
    #[must_use]
    pub fn stores(&self) -> [(&'static str, &Beat); 3] {
        [("database", &self.database), ("storage", &self.storage), ("cache", &self.cache)]
    }
}

/// Probes all three. What is not well is told to the log, with its cause.
pub async fn take(bucket: &Bucket) -> Pulse {
    let (database, storage, cache) = join!(database(), within(storage(bucket)), within(cache()));
    let pulse = Pulse { database, storage: storage.unwrap_or_else(Beat::Down), cache: cache.unwrap_or_else(Beat::Down) };
    for (store, beat) in pulse.stores() {
        if let Beat::ReadOnly(cause) | Beat::Down(cause) = beat {
            meter::log(
                serde_json::json!({"level": "error", "event": "store_unhealthy", "store": store, "how": beat.words(), "cause": cause}),
            );
        }
    }
    pulse
}

async fn database() -> Beat {
    // The schema's own record, so that an empty database is not taken for a healthy one.
    let sql = "SELECT (SELECT count(*) FROM schema_migrations), (SELECT at FROM last_write WHERE one = 1), unixepoch()";
    let read = async { database::one(sql, Vec::new()).await.map_err(|error| format!("{error:?}")) };
    let (last_write, now) = match within(read).await {
        Ok(Some(row)) if row.integer(0) > 0 => (row.integer(1), row.integer(2)),
        Ok(_) => return Beat::Down("the database has no schema".to_owned()),
        Err(cause) => return Beat::Down(cause),
    };
    // One that lies ahead was written by a clock that was wrong, and says nothing.
    let last_write = if last_write > now { 0 } else { last_write };
    if last_write > now - WRITES {
        return Beat::Well;
    }
    let cause = match write().await {
        Some(Ok(())) => return Beat::Well,
        // It is full, or has become read-only.
        Some(Err(database::Error::Failed(cause))) => return Beat::ReadOnly(cause),
        Some(Err(error)) => format!("{error:?}"),
        None => format!("no answer within {LIMIT:?}"),
    };
    // One that is busy with somebody else's writing takes ours later, unless that goes on and on.
    let seconds = now - within(refused_since(last_write, now)).await.unwrap_or(now);
    if seconds < BUSY { Beat::Well } else { Beat::ReadOnly(format!("nothing written for {seconds} s: {cause}")) }
}

/// Since when the database has taken no writing, as whoever saw it first has noted. In the cache, because an instance does not live from one look
/// to the next.
async fn refused_since(last_write: i64, now: i64) -> Result<i64, String> {
    let noted = cache::read::<i64>(entry::HEALTH).await.map_err(|error| error.to_string())?;
    // What was noted before the last write that succeeded was another time.
    let since = noted.filter(|since| *since > last_write).unwrap_or(now);
    cache::write(entry::HEALTH, &since, REMEMBERED).await.map_err(|error| error.to_string())?;
    Ok(since)
}

/// Whether the database takes writing at this moment.
pub async fn takes_writing() -> bool {
    matches!(write().await, Some(Ok(())))
}

/// `None`: it has not said anything in time.
async fn write() -> Option<Result<(), database::Error>> {
    let write = async { database::run("UPDATE last_write SET at = unixepoch() WHERE one = 1", Vec::new()).await.map(drop) };
    clock::within(LIMIT, write).await
}

/// Asks for an object that is not there. Everybody may make us ask, and a listing, which would do as well, costs a dozen times as much (R2 and S3
/// bill it as writing). "No such key" is what our own bucket answers to a good key; to a wrong one, or where there is no such bucket, it is
/// something else.
async fn storage(bucket: &Bucket) -> Result<Beat, String> {
    let link = bucket.link("health-check", LINK).map_err(|error| error.to_string())?;
    let mut attempt = 1;
    let answer = loop {
        let answer = look(&link, attempt).await;
        let passing = answer.as_ref().map_or(true, |(status, _)| outbound::is_passing(*status));
        if !passing || attempt == TRIES {
            break answer;
        }
        outbound::pause(attempt).await;
        attempt += 1;
    };
    let (status, code) = answer.map_err(|failure| failure.to_string())?;
    if is_ours(status, &code) { Ok(Beat::Well) } else { Err(format!("status {status}, code {code}")) }
}

/// Whether that is the answer of our bucket to our key. Should somebody have put such an object there, that is well too.
fn is_ours(status: StatusCode, code: &str) -> bool {
    status.is_success() || status == StatusCode::NOT_FOUND && code == "NoSuchKey"
}

/// The status, and the code that the store gives with an error.
async fn look(link: &str, attempt: u32) -> Result<(StatusCode, String), Failure> {
    let response = outbound::try_to_send("storage", outbound::empty(Method::GET, link)?, LIMIT, attempt).await?;
    let status = response.status();
    if status.is_success() {
        return Ok((status, String::new()));
    }
    let body = outbound::read("storage", response, ERROR_CAP, LIMIT).await?;
    let text = String::from_utf8_lossy(&body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.to_owned());
    Ok((status, code.unwrap_or_default()))
}

/// Only reads: a probe that writes each time would be a load of its own.
async fn cache() -> Result<Beat, String> {
    cache::read::<i64>(entry::HEALTH).await.map(|_| Beat::Well).map_err(|error| error.to_string())
}

/// What a probe answers, or why it does not.
async fn within<T>(probe: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    clock::within(LIMIT, probe).await.unwrap_or_else(|| Err(format!("no answer within {LIMIT:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_bucket_says_that_there_is_no_such_object() {
        for (status, code) in [(404, "NoSuchKey"), (200, "")] {
            assert!(is_ours(StatusCode::from_u16(status).expect("a status"), code), "{status} {code}");
        }
        for (status, code) in [
            (404, "NoSuchBucket"),
            // Of whatever else answers at the address.
            (404, ""),
            (403, "SignatureDoesNotMatch"),
            (403, "AccessDenied"),
            (301, "PermanentRedirect"),
            (503, "SlowDown"),
        ] {
            assert!(!is_ours(StatusCode::from_u16(status).expect("a status"), code), "{status} {code}");
        }
    }
}
