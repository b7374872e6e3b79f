//! `spin:key-value@3.0.0` on a Redis server, as in Spin: a key is the guest's key, without the store's label, so that all stores on one
//! Redis database are one; a listing is of the whole database.
//!
//! What is not Spin's: time limits, and that nothing is connected before the first call. A server that is down costs a call a moment.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use redis::{
    AsyncCommands as _, Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

use crate::key_value::Error;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long to wait for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Keys asked for at a time.
const PAGE: usize = 1_000;
/// Largest value or listing, in bytes, as in Spin.
const LIMIT: usize = 128 << 20;

/// A server; all calls share one connection, which is made again when it breaks.
pub(crate) struct Redis {
    client: Client,
    manager: OnceCell<ConnectionManager>,
}

impl Redis {
    /// # Errors
    /// For an address that is none. It may hold a password and is not told.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url).ok().context("its url is none of Redis: write redis://[user:password@]host:port/database")?;
        Ok(Self { client, manager: OnceCell::new() })
    }

    async fn connection(&self) -> Result<ConnectionManager, Error> {
        let connect = async || {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(ANSWER))
                // The next call tries again; this one must not wait.
                .set_number_of_retries(0);
            ConnectionManager::new_lazy_with_config(self.client.clone(), config)
        };
        self.manager.get_or_try_init(connect).await.cloned().map_err(explain)
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let value: Option<Vec<u8>> = self.connection().await?.get(key).await.map_err(explain)?;
        match value {
            Some(value) if value.len() > LIMIT => Err(too_large()),
            value => Ok(value),
        }
    }

    pub(crate) async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), Error> {
        self.connection().await?.set(key, value).await.map_err(explain)
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), Error> {
        self.connection().await?.del(key).await.map_err(explain)
    }

    pub(crate) async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.connection().await?.exists(key).await.map_err(explain)
    }

    pub(crate) async fn keys(&self) -> Result<Vec<String>, Error> {
        let mut connection = self.connection().await?;
        let (mut keys, mut bytes, mut cursor) = (BTreeSet::new(), 0, 0_u64);
        loop {
            // Page by page: other clients are served in between. A key may come twice.
            let page = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE).query_async(&mut connection).await;
            let (next, page): (u64, Vec<String>) = page.map_err(explain)?;
            bytes += page.iter().map(String::len).sum::<usize>();
            if bytes > LIMIT {
                return Err(too_large());
            }
            keys.extend(page);
            cursor = next;
            if cursor == 0 {
                return Ok(keys.into_iter().collect());
            }
        }
    }
}

fn too_large() -> Error {
    Error::Other(format!("query result exceeds limit of {LIMIT} bytes"))
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn explain(error: RedisError) -> Error {
    Error::Other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused_without_being_told() {
        let error = format!("{:#}", Redis::new("http://user:geheim@a.test").err().expect("refused"));
        assert!(error.contains("redis://") && !error.contains("geheim"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_error_and_is_asked_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let redis = Redis::new(&format!("redis://:geheim@127.0.0.1:{port}/1")).expect("an address");
        for _ in 0..2 {
            let Err(Error::Other(text)) = redis.get("k").await else { panic!("it was answered") };
            assert!(!text.contains("geheim"), "{text}");
        }
    }
}
