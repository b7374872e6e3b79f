//! Whether each of the three stores lives.
//!
//! They are probed side by side, each for itself and for [`LIMIT`] at most: a store that hangs is as good as none, and must not hide how the
//! others are. A probe is cheap, because everybody may ask for one.

use std::{pin::pin, time::Duration};

use futures::{
    future::{Either, select},
    join,
};
use storage::Bucket;

/// How long a store may take to answer.
pub const LIMIT: Duration = Duration::from_secs(2);
/// Seconds between two tries to write to the database, whoever asks and how often.
const WRITES: i64 = 30;

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
    let (database, storage, cache) = join!(database(clock::now()), within(storage(bucket)), within(cache()));
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

async fn database(now: i64) -> Beat {
    // The schema's own record, so that an empty database is not taken for a healthy one.
    let sql = "SELECT (SELECT count(*) FROM schema_migrations), (SELECT at FROM last_write WHERE one = 1)";
    let read = async { database::one(sql, Vec::new()).await.map_err(|error| format!("{error:?}")) };
    let last_write = match within(read).await {
        Ok(Some(row)) if row.integer(0) > 0 => row.integer(1),
        Ok(_) => return Beat::Down("the database has no schema".to_owned()),
        Err(cause) => return Beat::Down(cause),
    };
    if last_write > now - WRITES {
        return Beat::Well;
    }
    match write(now).await {
        // It is full, or has become read-only. One that is busy with somebody else's writing takes ours later.
        Some(Err(database::Error::Failed(cause))) => Beat::ReadOnly(cause),
        _ => Beat::Well,
    }
}

/// Whether the database takes writing at this moment.
pub async fn takes_writing() -> bool {
    matches!(write(clock::now()).await, Some(Ok(())))
}

/// `None`: it has not said anything in time.
async fn write(now: i64) -> Option<Result<(), database::Error>> {
    let write = async { database::run("UPDATE last_write SET at = ?1 WHERE one = 1", vec![now.into()]).await.map(drop) };
    match select(pin!(write), pin!(spin_sdk::time::sleep(LIMIT))).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(((), _)) => None,
    }
}

async fn storage(bucket: &Bucket) -> Result<Beat, String> {
    bucket.list("health-check", None, 1).await.map(|_| Beat::Well).map_err(|error| error.to_string())
}

/// Only reads: a probe that writes each time would be a load of its own.
async fn cache() -> Result<Beat, String> {
    cache::read::<String>(cache::entry::HEALTH).await.map(|_| Beat::Well).map_err(|error| error.to_string())
}

/// What a probe answers, or why it does not.
async fn within<T>(probe: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match select(pin!(probe), pin!(spin_sdk::time::sleep(LIMIT))).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err(format!("no answer within {LIMIT:?}")),
    }
}
