//! `spin:key-value@3.0.0`: which store a label stands for, and stores in memory or in a SQLite file. Servers are in `redis.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{OptionalExtension, params};

pub(crate) use crate::bindings::spin::key_value::key_value::Error;
use crate::redis::Redis;

/// Where a store lies.
#[derive(Clone)]
pub enum KvLocation {
    /// Gone when the application ends.
    Memory,
    /// A SQLite file; labels on one file are separate.
    File(PathBuf),
    /// A Redis server; labels on one of its databases are one store.
    Redis { url: String },
}

impl std::fmt::Debug for KvLocation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => out.write_str("Memory"),
            Self::File(path) => write!(out, "File({})", path.display()),
            // The address may hold a password.
            Self::Redis { .. } => out.write_str("Redis"),
        }
    }
}

/// A guest's handle on a store.
#[derive(Clone)]
pub struct Store {
    label: Arc<str>,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Local(Arc<Local>),
    Redis(Arc<Redis>),
}

enum Local {
    Memory(Mutex<BTreeMap<String, Vec<u8>>>),
    File(Mutex<rusqlite::Connection>),
}

/// The stores of an application, by label.
#[derive(Default)]
pub(crate) struct Stores(BTreeMap<String, Backend>);

impl Stores {
    pub(crate) fn open(locations: &BTreeMap<String, KvLocation>) -> anyhow::Result<Self> {
        let mut files: HashMap<PathBuf, Backend> = HashMap::new();
        let mut stores = BTreeMap::new();
        for (label, location) in locations {
            let backend = match location {
                KvLocation::Memory => Backend::Local(Arc::new(Local::Memory(Mutex::default()))),
                KvLocation::File(path) => match files.get(path) {
                    Some(backend) => backend.clone(),
                    None => {
                        let backend = Backend::Local(Arc::new(Local::File(Mutex::new(open(path)?))));
                        files.insert(path.clone(), backend.clone());
                        backend
                    }
                },
                KvLocation::Redis { url } => {
                    let redis = Redis::new(url).map_err(|error| error.context(format!("the key-value store {label:?} cannot be used")))?;
                    Backend::Redis(Arc::new(redis))
                }
            };
            stores.insert(label.clone(), backend);
        }
        Ok(Self(stores))
    }

    pub(crate) fn store(&self, label: &str) -> Option<Store> {
        self.0.get(label).map(|backend| Store { label: label.into(), backend: backend.clone() })
    }
}

fn open(path: &std::path::Path) -> anyhow::Result<rusqlite::Connection> {
    use anyhow::Context;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let database = rusqlite::Connection::open(path).with_context(|| format!("cannot open the key-value store {}", path.display()))?;
    database.busy_timeout(Duration::from_secs(5))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // A cache may lose its last moments when the machine stops; a disk flush per entry would cost more than what it caches.
    database.pragma_update(None, "synchronous", "NORMAL")?;
    let table =
        "CREATE TABLE IF NOT EXISTS spin_key_value (store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (store, key))";
    database.execute(table, [])?;
    Ok(database)
}

impl Store {
    pub(crate) async fn get(&self, key: String) -> Result<Option<Vec<u8>>, Error> {
        let local = match &self.backend {
            Backend::Redis(redis) => return redis.get(&key).await,
            Backend::Local(local) => local,
        };
        // A read by key takes microseconds and in WAL mode waits for no writer: handing it to another thread would cost more. Only
        // when somebody of ours has the file at this moment is it worth a thread to wait on.
        if let Local::File(database) = &**local
            && let Ok(database) = database.try_lock()
        {
            return read(&database, &self.label, &key).map_err(|error| Error::Other(error.to_string()));
        }
        ask(local, &self.label, move |local, label| match local {
            Local::Memory(map) => Ok(lock(map).get(&key).cloned()),
            Local::File(database) => read(&lock(database), label, &key),
        })
        .await
    }

    pub(crate) async fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        let local = match &self.backend {
            Backend::Redis(redis) => return redis.set(&key, value).await,
            Backend::Local(local) => local,
        };
        ask(local, &self.label, move |local, label| match local {
            Local::Memory(map) => {
                lock(map).insert(key, value);
                Ok(())
            }
            Local::File(database) => {
                let database = lock(database);
                let sql =
                    "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (store, key) DO UPDATE SET value = ?3";
                database.prepare_cached(sql)?.execute(params![label, key, value]).map(drop)
            }
        })
        .await
    }

    pub(crate) async fn delete(&self, key: String) -> Result<(), Error> {
        let local = match &self.backend {
            Backend::Redis(redis) => return redis.delete(&key).await,
            Backend::Local(local) => local,
        };
        ask(local, &self.label, move |local, label| match local {
            Local::Memory(map) => {
                lock(map).remove(&key);
                Ok(())
            }
            Local::File(database) => {
                let database = lock(database);
                database.prepare_cached("DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2")?.execute(params![label, key]).map(drop)
            }
        })
        .await
    }

    pub(crate) async fn keys(&self) -> Result<Vec<String>, Error> {
        let local = match &self.backend {
            Backend::Redis(redis) => return redis.keys().await,
            Backend::Local(local) => local,
        };
        ask(local, &self.label, move |local, label| match local {
            Local::Memory(map) => Ok(lock(map).keys().cloned().collect()),
            Local::File(database) => {
                let database = lock(database);
                let mut statement = database.prepare_cached("SELECT key FROM spin_key_value WHERE store = ?1")?;
                statement.query_map(params![label], |row| row.get(0))?.collect()
            }
        })
        .await
    }

    pub(crate) async fn exists(&self, key: String) -> Result<bool, Error> {
        match &self.backend {
            Backend::Redis(redis) => redis.exists(&key).await,
            Backend::Local(_) => self.get(key).await.map(|value| value.is_some()),
        }
    }
}

fn read(database: &rusqlite::Connection, label: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = database.prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?;
    statement.query_row(params![label, key], |row| row.get(0)).optional()
}

/// Memory is asked at once; a file on a blocking thread.
async fn ask<T: Send + 'static>(
    local: &Arc<Local>,
    label: &Arc<str>,
    work: impl FnOnce(&Local, &str) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Error> {
    if let Local::Memory(_) = **local {
        return work(local, label).map_err(|error| Error::Other(error.to_string()));
    }
    let (local, label) = (local.clone(), label.clone());
    let result = tokio::task::spawn_blocking(move || work(&local, &label)).await;
    result.map_err(|error| Error::Other(error.to_string()))?.map_err(|error| Error::Other(error.to_string()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn story(location: KvLocation) {
        let stores = Stores::open(&BTreeMap::from([("a".to_owned(), location.clone()), ("b".to_owned(), location)])).expect("opens");
        let store = stores.store("a").expect("known");
        store.set("k".into(), vec![1]).await.expect("set");
        store.set("k".into(), vec![2]).await.expect("set again");
        assert_eq!(store.get("k".into()).await.expect("get"), Some(vec![2]));
        assert_eq!(store.keys().await.expect("keys"), ["k"]);
        assert_eq!(stores.store("b").expect("known").get("k".into()).await.expect("get"), None, "labels are separate");
        store.delete("k".into()).await.expect("delete");
        assert_eq!(store.get("k".into()).await.expect("get"), None);
        assert!(stores.store("c").is_none());
    }

    #[tokio::test]
    async fn a_store_in_memory_keeps_what_it_is_given() {
        story(KvLocation::Memory).await;
    }

    #[tokio::test]
    async fn a_store_in_a_file_keeps_what_it_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        story(KvLocation::File(folder.path().join("kv.db"))).await;
    }
}
