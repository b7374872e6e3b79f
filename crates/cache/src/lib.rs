//! Spin key-value as a cache: values that carry their expiry.
//!
//! The store has no expiry of its own, so each value is kept as `{"expires_at": unix seconds, "value": ...}` and an expired one is
//! absent. A cache that fails is a miss with a line in the log: SQL is the truth and can always answer. So is one that says nothing for
//! [`LIMIT`]: a host need not have a limit of its own (Spin's Redis has none). After that it is left alone for [`REST`] seconds.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use futures::future::join_all;
use meter::{Store as Measured, Waiting};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use spin_sdk::{
    key_value::{Error, Store},
    wit_bindgen::StreamResult,
};

thread_local! {
    static STORE: RefCell<Option<Rc<Store>>> = const { RefCell::new(None) };
    /// Until when (Unix seconds) this instance asks the store for nothing.
    static RESTS_UNTIL: Cell<u64> = const { Cell::new(0) };
}

/// For how long one entry is waited for: longer than the embedded host lets a Redis take to be reached and to answer.
const LIMIT: Duration = Duration::from_secs(4);
/// Seconds for which a store that has said nothing in time is not asked: otherwise each request would wait for it anew.
const REST: u64 = 5;

/// Keys and lifetimes (seconds) of everything that is kept, so that no two uses can meet.
pub mod entry {
    /// A session, by the hash of its id: a day, then the table is asked whether it is still in use.
    pub const SESSION_SECONDS: u64 = 86_400;
    #[must_use]
    pub fn session(id_hash: &str) -> String {
        format!("session:{id_hash}")
    }

    /// A task's answer, by its `task_no`: 2 h once it is final.
    pub const TASK_FINAL_SECONDS: u64 = 2 * 3_600;
    #[must_use]
    pub fn task_result(task_no: &str) -> String {
        format!("task:result:{task_no}")
    }

    /// Anything fetched from elsewhere that may be fetched again, such as signing keys.
    #[must_use]
    pub fn config(key: &str) -> String {
        format!("config:{key}")
    }

    /// How a provider has done lately.
    #[must_use]
    pub fn breaker(provider: &str) -> String {
        format!("breaker:{provider}")
    }

    /// What the health check writes and reads.
    pub const HEALTH: &str = "temp:health";

    /// That the database takes nothing, and whether the operator was told: outlives two reminders.
    pub const OUTAGE: &str = "temp:outage";
    pub const OUTAGE_SECONDS: u64 = 2 * 86_400;
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    expires_at: u64,
    value: T,
}

/// The part of an entry that says whether it is still there.
#[derive(Deserialize)]
struct Expiry {
    expires_at: u64,
}

/// The value under `key`, unless it is absent, expired, of another shape, or the store is out of order.
pub async fn get<T: DeserializeOwned>(key: &str) -> Option<T> {
    look(key).await.flatten()
}

/// As [`get`], with `None` for a store that is out of order: what is not there can be put there, where there is no store it cannot.
pub async fn look<T: DeserializeOwned>(key: &str) -> Option<Option<T>> {
    match read(key).await {
        Ok(value) => Some(value),
        Err(error) => {
            complain("get", key, &error);
            None
        }
    }
}

/// Keeps `value` for `seconds`.
pub async fn set<T: Serialize>(key: &str, value: &T, seconds: u64) {
    if let Err(error) = write(key, value, seconds).await {
        complain("set", key, &error);
    }
}

/// Removes `key`.
///
/// # Errors
/// The store's: a caller for whom the removal matters (a revoked session) must know.
pub async fn delete(key: &str) -> Result<(), Error> {
    ask(Ask::Delete(key)).await.map(drop)
}

/// As [`get`], telling a failing store from a missing value.
///
/// # Errors
/// The store's.
pub async fn read<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    Ok(ask(Ask::Get(key)).await?.and_then(|bytes| open(&bytes, now())))
}

/// As [`set`], with the store's error.
///
/// # Errors
/// The store's.
pub async fn write<T: Serialize>(key: &str, value: &T, seconds: u64) -> Result<(), Error> {
    let envelope = Envelope { expires_at: now().saturating_add(seconds), value };
    let bytes = serde_json::to_vec(&envelope).map_err(|error| Error::Other(error.to_string()))?;
    ask(Ask::Set(key, bytes)).await.map(drop)
}

enum Ask<'a> {
    Get(&'a str),
    Set(&'a str, Vec<u8>),
    Delete(&'a str),
}

/// One call of the store, which may take no longer than [`LIMIT`]; the bytes, for those that answer some.
async fn ask(ask: Ask<'_>) -> Result<Option<Vec<u8>>, Error> {
    if now() < RESTS_UNTIL.get() {
        return Err(Error::Other("it is left alone, because it has just not answered".into()));
    }
    let work = async {
        let (store, _waiting) = measured().await?;
        match ask {
            Ask::Get(key) => store.get(key).await,
            Ask::Set(key, bytes) => store.set(key, bytes).await.map(|()| None),
            Ask::Delete(key) => store.delete(key).await.map(|()| None),
        }
    };
    clock::within(LIMIT, work).await.unwrap_or_else(|| {
        STORE.set(None);
        RESTS_UNTIL.set(now() + REST);
        Err(Error::Other("no answer in time".into()))
    })
}

/// What a sweep did, and what the next one should know.
#[derive(Debug, Serialize)]
pub struct Swept {
    /// Keys that are in the store.
    pub seen: u64,
    /// Entries that were read, which is the share whose turn it was.
    pub looked_at: u64,
    pub deleted: u64,
    /// Entries that could not be read: somebody else's of another type, where a store is shared.
    pub unreadable: u64,
    /// In how many shares the keys should be taken next time.
    pub shares: u64,
}

/// Most entries that one sweep reads, and most that it fails to read before it takes the store to be out of order.
const SHARE: usize = 4_000;
const UNREADABLE: u64 = 100;
/// Keys that are read at a time, and entries that are read side by side.
const LISTED: usize = 1_000;
const AT_ONCE: usize = 16;

/// Deletes the expired entries of one share of the keys: the `turn`-th of as many as the sweep before answered (at first: 1). Where there are more
/// keys than a share holds, it takes less than was asked for, so neither memory nor time grows with the store. After `shares` turns everything
/// has been looked at.
///
/// The store lists its keys only from the first to the last, and a listing that is read halfway may hold it (on Spin it does) while we ask for
/// values: so it is read to its end, and what is not of the share is dropped at once.
///
/// # Errors
/// The store's.
pub async fn sweep(turn: u64, shares: u64) -> Result<Swept, Error> {
    let (store, _waiting) = measured().await?;
    let mut shares = shares.clamp(1, 1 << 40).next_power_of_two();
    let share = turn % shares;
    let (mut seen, mut chosen) = (0, Vec::new());
    let (mut listing, result) = store.get_keys().await.into_inner();
    let mut buffer = Vec::with_capacity(LISTED);
    loop {
        let (status, mut keys) = listing.read(buffer).await;
        for key in keys.drain(..) {
            seen += 1;
            if number(&key) % shares == share {
                chosen.push(key);
            }
            if chosen.len() > SHARE {
                // Half of them are of the same share of twice as many.
                shares *= 2;
                chosen.retain(|key| number(key) % shares == share);
            }
        }
        buffer = keys;
        if !matches!(status, StreamResult::Complete(_)) {
            break;
        }
    }
    result.await?;
    let (mut deleted, mut unreadable) = (0, 0);
    for keys in chosen.chunks(AT_ONCE) {
        let entries = join_all(keys.iter().map(|key| store.get(key))).await;
        for (key, entry) in keys.iter().zip(entries) {
            match entry {
                Ok(Some(bytes)) if serde_json::from_slice::<Expiry>(&bytes).is_ok_and(|entry| entry.expires_at <= now()) => {
                    store.delete(key).await?;
                    deleted += 1;
                }
                Ok(_) => {}
                Err(error) if unreadable == UNREADABLE => return Err(error),
                Err(_) => unreadable += 1,
            }
        }
    }
    if chosen.len() < SHARE / 4 && shares > 1 {
        shares /= 2;
    }
    Ok(Swept { seen, looked_at: chosen.len() as u64, deleted, unreadable, shares })
}

/// A number that a key always has (FNV-1a), with the bits of its end mixed into the lowest.
fn number(key: &str) -> u64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}

/// How many entries there are of each kind: what stands before the last colon's part of a key.
///
/// # Errors
/// The store's.
pub async fn count() -> Result<BTreeMap<String, u64>, Error> {
    let mut kinds = BTreeMap::new();
    let (store, _waiting) = measured().await?;
    for key in store.get_keys().await.collect().await? {
        let kind = key.rsplit_once(':').map_or(key.as_str(), |(kind, _)| kind).to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    Ok(kinds)
}

/// Deletes the entries whose key begins with `prefix`, and answers how many.
///
/// # Errors
/// The store's.
pub async fn invalidate(prefix: &str) -> Result<u64, Error> {
    let (store, _waiting) = measured().await?;
    let mut deleted = 0;
    for key in store.get_keys().await.collect().await? {
        if key.starts_with(prefix) {
            meter::called(Measured::Cache);
            store.delete(&key).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn open<T: DeserializeOwned>(bytes: &[u8], now: u64) -> Option<T> {
    // The expiry is read first: a value of an older shape is absent as well, not an error.
    let envelope: Envelope<T> = serde_json::from_slice(bytes).ok()?;
    (envelope.expires_at > now).then_some(envelope.value)
}

/// The store for one call, which is counted, and the wait for it.
async fn measured() -> Result<(Rc<Store>, Waiting), Error> {
    let waiting = meter::waiting(Measured::Cache);
    let store = store().await?;
    meter::called(Measured::Cache);
    Ok((store, waiting))
}

async fn store() -> Result<Rc<Store>, Error> {
    if let Some(store) = STORE.with_borrow(Clone::clone) {
        return Ok(store);
    }
    let store = Rc::new(Store::open_default().await?);
    STORE.set(Some(store.clone()));
    Ok(store)
}

fn complain(action: &str, key: &str, error: &Error) {
    // Only the kind of entry is logged: the rest of a key may identify a person or a session.
    let kind = key.split(':').next().unwrap_or_default();
    meter::log(serde_json::json!({"level": "warn", "event": "cache_failed", "action": action, "kind": kind, "cause": error.to_string()}));
}

fn now() -> u64 {
    u64::try_from(clock::now()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_value_is_absent() {
        let bytes = serde_json::to_vec(&Envelope { expires_at: 100, value: "x" }).expect("json");
        assert_eq!(open::<String>(&bytes, 99).as_deref(), Some("x"));
        assert_eq!(open::<String>(&bytes, 100), None);
    }

    #[test]
    fn keys_fall_into_shares_evenly() {
        for shares in [2, 8, 64] {
            let mut counts = vec![0; 64];
            for key in 0..64_000 {
                counts[usize::try_from(number(&format!("task:result:TASK_{key:020}")) % shares).expect("small")] += 1;
            }
            let fair = 64_000 / i32::try_from(shares).expect("small");
            assert!(counts.iter().take(usize::try_from(shares).expect("small")).all(|count| (count - fair).abs() < fair / 4), "{counts:?}");
        }
    }

    #[test]
    fn a_value_of_another_shape_is_absent() {
        assert_eq!(open::<String>(b"{\"expires_at\":100,\"value\":{\"a\":1}}", 1), None);
        assert_eq!(open::<String>(b"not json", 1), None);
    }
}
