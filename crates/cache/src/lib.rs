//! Spin key-value as a cache: values that carry their expiry.
//!
//! The store has no expiry of its own, so each value is kept as `{"expires_at": unix seconds, "value": ...}` and an expired one is
//! absent. A cache that fails is a miss with a line in the log: SQL is the truth and can always answer.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use meter::{Store as Measured, Waiting};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use spin_sdk::key_value::{Error, Store};

thread_local! {
    static STORE: RefCell<Option<Rc<Store>>> = const { RefCell::new(None) };
}

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
    let (store, _waiting) = measured().await?;
    store.delete(key).await
}

/// As [`get`], telling a failing store from a missing value.
///
/// # Errors
/// The store's.
pub async fn read<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let (store, _waiting) = measured().await?;
    let Some(bytes) = store.get(key).await? else { return Ok(None) };
    Ok(open(&bytes, now()))
}

/// As [`set`], with the store's error.
///
/// # Errors
/// The store's.
pub async fn write<T: Serialize>(key: &str, value: &T, seconds: u64) -> Result<(), Error> {
    let envelope = Envelope { expires_at: now().saturating_add(seconds), value };
    let bytes = serde_json::to_vec(&envelope).map_err(|error| Error::Other(error.to_string()))?;
    let (store, _waiting) = measured().await?;
    store.set(key, bytes).await
}

/// Deletes every expired entry and answers (looked at, deleted). Reads each entry once: meant for the sweep, not for requests.
///
/// # Errors
/// The store's.
pub async fn sweep() -> Result<(u64, u64), Error> {
    let (store, _waiting) = measured().await?;
    let (mut seen, mut deleted) = (0, 0);
    // All keys first: a listing that is read halfway may hold the store while we ask it for values.
    for key in store.get_keys().await.collect().await? {
        seen += 1;
        meter::called(Measured::Cache);
        let Some(bytes) = store.get(&key).await? else { continue };
        if serde_json::from_slice::<Expiry>(&bytes).is_ok_and(|entry| entry.expires_at <= now()) {
            meter::called(Measured::Cache);
            store.delete(&key).await?;
            deleted += 1;
        }
    }
    Ok((seen, deleted))
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
    fn a_value_of_another_shape_is_absent() {
        assert_eq!(open::<String>(b"{\"expires_at\":100,\"value\":{\"a\":1}}", 1), None);
        assert_eq!(open::<String>(b"not json", 1), None);
    }
}
