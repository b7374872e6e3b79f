//! `spin:key-value@3.0.0` in memory or in a SQLite file.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{OptionalExtension, params};

pub(crate) use crate::bindings::spin::key_value::key_value::Error;

/// Where a store lies.
#[derive(Clone, Debug)]
pub enum KvLocation {
    /// Gone when the application ends.
    Memory,
    /// A SQLite file; labels on one file are separate.
    File(PathBuf),
}

/// A guest's handle on a store.
pub struct Store {
    label: Arc<str>,
    backend: Arc<Backend>,
}

enum Backend {
    Memory(Mutex<BTreeMap<String, Vec<u8>>>),
    File(Mutex<rusqlite::Connection>),
}

/// The stores of an application, by label.
#[derive(Default)]
pub(crate) struct Stores(BTreeMap<String, Arc<Backend>>);

impl Stores {
    pub(crate) fn open(locations: &BTreeMap<String, KvLocation>) -> anyhow::Result<Self> {
        let mut files: HashMap<PathBuf, Arc<Backend>> = HashMap::new();
        let mut stores = BTreeMap::new();
        for (label, location) in locations {
            let backend = match location {
                KvLocation::Memory => Arc::new(Backend::Memory(Mutex::default())),
                KvLocation::File(path) => match files.get(path) {
                    Some(backend) => backend.clone(),
                    None => {
                        let backend = Arc::new(Backend::File(Mutex::new(open(path)?)));
                        files.insert(path.clone(), backend.clone());
                        backend
                    }
                },
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
        // A read by key takes microseconds and in WAL mode waits for no writer: handing it to another thread would cost more. Only
        // when somebody of ours has the file at this moment is it worth a thread to wait on.
        if let Backend::File(database) = &*self.backend
            && let Ok(database) = database.try_lock()
        {
            return read(&database, &self.label, &key).map_err(|error| Error::Other(error.to_string()));
        }
        self.ask(move |backend, label| match backend {
            Backend::Memory(map) => Ok(lock(map).get(&key).cloned()),
            Backend::File(database) => read(&lock(database), label, &key),
        })
        .await
    }

    pub(crate) async fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        self.ask(move |backend, label| match backend {
            Backend::Memory(map) => {
                lock(map).insert(key, value);
                Ok(())
            }
            Backend::File(database) => {
                let database = lock(database);
                let sql =
                    "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (store, key) DO UPDATE SET value = ?3";
                database.prepare_cached(sql)?.execute(params![label, key, value]).map(drop)
            }
        })
        .await
    }

    pub(crate) async fn delete(&self, key: String) -> Result<(), Error> {
        self.ask(move |backend, label| match backend {
            Backend::Memory(map) => {
                lock(map).remove(&key);
                Ok(())
            }
            Backend::File(database) => {
                let database = lock(database);
                database.prepare_cached("DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2")?.execute(params![label, key]).map(drop)
            }
        })
        .await
    }

    pub(crate) async fn keys(&self) -> Result<Vec<String>, Error> {
        self.ask(move |backend, label| match backend {
            Backend::Memory(map) => Ok(lock(map).keys().cloned().collect()),
            Backend::File(database) => {
                let database = lock(database);
                let mut statement = database.prepare_cached("SELECT key FROM spin_key_value WHERE store = ?1")?;
                statement.query_map(params![label], |row| row.get(0))?.collect()
            }
        })
        .await
    }

    /// Memory is asked at once; a file on a blocking thread.
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Backend, &str) -> rusqlite::Result<T> + Send + 'static) -> Result<T, Error> {
        if let Backend::Memory(_) = *self.backend {
            return work(&self.backend, &self.label).map_err(|error| Error::Other(error.to_string()));
        }
        let (backend, label) = (self.backend.clone(), self.label.clone());
        let result = tokio::task::spawn_blocking(move || work(&backend, &label)).await;
        result.map_err(|error| Error::Other(error.to_string()))?.map_err(|error| Error::Other(error.to_string()))
    }
}

fn read(database: &rusqlite::Connection, label: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = database.prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?;
    statement.query_row(params![label, key], |row| row.get(0)).optional()
}

impl Clone for Store {
    fn clone(&self) -> Self {
        Self { label: self.label.clone(), backend: self.backend.clone() }
    }
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
