//! The task read as a native program: axum and rusqlite on the same files, with the same checks and the same answer. What a request
//! costs here it would cost anywhere, so this is the limit for `cargo xtask bench`. It is measured and never deployed.
//!
//! SQLite is asked on the asynchronous threads themselves: for reads by key that is the fastest a native program can be.

use std::{cell::OnceCell, net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use anyhow::Result;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use clap::Parser;
use config::Settings;
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{Connection, OptionalExtension, params};
use seal::Keys;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// The app's database.
    #[arg(long)]
    database: PathBuf,
    /// The app's key-value store.
    #[arg(long)]
    key_value: PathBuf,
    #[arg(long)]
    public_url: String,
    #[arg(long)]
    session_secret: String,
    #[arg(long)]
    data_encryption_key: String,
}

struct Twin {
    options: Options,
    keys: Keys,
}

thread_local! {
    static STORES: OnceCell<(Connection, Connection)> = const { OnceCell::new() };
}

/// What the cache holds.
#[derive(Deserialize)]
struct Envelope {
    expires_at: i64,
    value: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let settings = Settings::from_values([(seal::VARIABLE, options.data_encryption_key.as_str())]);
    let keys = Keys::from_settings(&settings).map_err(|problem| anyhow::anyhow!("{:?}", problem.cause))?;
    let listener = TcpListener::bind(options.listen).await?;
    let twin = Arc::new(Twin { options, keys });
    let app = Router::new().route("/hello", get(|| async { "hello" })).route("/api/tasks/{task_no}", get(show)).with_state(twin);
    println!("listening on http://{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, app).await?;
    Ok(())
}

async fn show(State(twin): State<Arc<Twin>>, Path(task_no): Path<String>, headers: HeaderMap) -> Response {
    let started = Instant::now();
    let id = uuid::Uuid::now_v7().to_string();
    let answer = STORES.with(|stores| {
        let (database, cache) = match stores.get() {
            Some(stores) => stores,
            None => {
                let opened = open(&twin.options.database).and_then(|database| Ok((database, open(&twin.options.key_value)?)));
                match opened {
                    Ok(opened) => stores.get_or_init(|| opened),
                    Err(error) => return Err(error),
                }
            }
        };
        twin.read(database, cache, &headers, &task_no)
    });
    let mut response = match answer {
        Ok(Some(view)) => {
            let etag = format!(
                "\"{}-{}-{}-{}\"",
                text(&view["status"]),
                view["updated_at"],
                (view["progress"].as_f64().unwrap_or(0.0) * 100.0) as i64,
                u8::from(!view["source_url"].is_null())
            );
            let running = !matches!(text(&view["status"]), "completed" | "failed");
            let body = serde_json::to_vec(&json!({"task": view})).unwrap_or_default();
            let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
            let headers = response.headers_mut();
            headers.extend(HeaderValue::from_str(&etag).ok().map(|etag| (header::ETAG, etag)));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
            if running {
                headers.insert(header::RETRY_AFTER, 2.into());
            }
            response
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            eprintln!("{error:?}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    };
    let elapsed = started.elapsed();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in [("x-request-id", id.clone()), ("server-timing", format!("total;dur={:.1}", elapsed.as_secs_f64() * 1e3))] {
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (HeaderName::from_static(name), value)));
    }
    // The same line for an operator.
    let line = json!({"level": "info", "event": "request", "request_id": id, "component": "twin", "method": "GET", "path": task_no,
                      "status": response.status().as_u16(), "ms": elapsed.as_millis() as u64});
    eprintln!("{}", line.to_string().as_str());
    response
}

impl Twin {
    fn read(&self, database: &Connection, cache: &Connection, headers: &HeaderMap, task_no: &str) -> rusqlite::Result<Option<Value>> {
        let now = unix_now();
        let Some(session) = token(headers).and_then(|token| verify(&self.options.session_secret, token)) else { return Ok(None) };
        let entry = format!("session:{session}");
        let stored = self.cached(cache, &entry, now)?;
        let user_id = match stored.as_ref().and_then(|stored| stored["user_id"].as_str()) {
            Some(user_id) => user_id.to_owned(),
            None => {
                let mut statement = database.prepare_cached("SELECT user_id FROM sessions WHERE id_hash = ?1 AND expires_at > ?2")?;
                let Some(user_id) = statement.query_row(params![session, now], |row| row.get(0)).optional()? else { return Ok(None) };
                user_id
            }
        };
        let entry = format!("task:result:{task_no}");
        if let Some(mut cached) = self.cached(cache, &entry, now)? {
            return Ok((cached["user_id"] == user_id.as_str()).then(|| cached["view"].take()));
        }
        let sql = "SELECT id, task_no, user_id, status, input_params, result_urls, failure_reason, external_provider, external_task_id, price, \
                   attempts, created_at, updated_at, completed_at, status = 'processing' AND next_attempt_at <= ?3 AND claimed_until <= ?3, \
                   (SELECT '/files/' || u.key FROM uploads u WHERE u.id = ai_tasks.input_params ->> 'upload_id' AND u.status = 'stored' \
                   AND u.expires_at > unixepoch()) FROM ai_tasks WHERE task_no = ?1 AND user_id = ?2";
        let mut statement = database.prepare_cached(sql)?;
        let view = statement.query_row(params![task_no, user_id, now], |row| {
            let id: String = row.get(0)?;
            let status: String = row.get(3)?;
            let parameters: Value = serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default();
            let results: Option<String> = row.get(5)?;
            let results: Vec<String> = results.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let created_at: i64 = row.get(11)?;
            let progress: f64 = match status.as_str() {
                "completed" | "failed" => 1.0,
                "processing" => ((now - created_at).max(0) as f64 / 40.0).clamp(0.05, 0.95),
                _ => 0.0,
            };
            let detail = parameters["detail"].as_str().and_then(|sealed| self.keys.open(&format!("wish of {id}"), sealed));
            let source = row.get::<_, Option<String>>(15)?.map(|path| format!("{}{path}", self.options.public_url));
            let results: Vec<_> = results.iter().map(|path| format!("{}{path}", self.options.public_url)).collect();
            Ok(json!({
                "task_no": row.get::<_, String>(1)?, "status": status, "progress": (progress * 100.0).round() / 100.0,
                "hairstyle": parameters["hairstyle"], "hair_color": parameters["hair_color"], "detail": detail, "model": parameters["model"],
                "upload_id": parameters["upload_id"], "price": row.get::<_, i64>(9)?, "result_urls": results, "source_url": source,
                "failure_reason": row.get::<_, Option<String>>(6)?, "created_at": created_at, "updated_at": row.get::<_, i64>(12)?,
                "completed_at": row.get::<_, Option<i64>>(13)?,
            }))
        });
        view.optional()
    }

    /// A sealed value of the cache.
    fn cached(&self, cache: &Connection, entry: &str, now: i64) -> rusqlite::Result<Option<Value>> {
        let mut statement = cache.prepare_cached("SELECT value FROM spin_key_value WHERE store = 'default' AND key = ?1")?;
        let found: Option<Vec<u8>> = statement.query_row([entry], |row| row.get(0)).optional()?;
        let envelope = found.and_then(|bytes| serde_json::from_slice::<Envelope>(&bytes).ok()).filter(|found| found.expires_at > now);
        Ok(envelope.and_then(|envelope| self.keys.open_json(entry, &envelope.value)))
    }
}

/// As the embedded host opens it.
fn open(path: &std::path::Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.busy_timeout(std::time::Duration::from_secs(5))?;
    database.pragma_update(None, "foreign_keys", true)?;
    Ok(database)
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == "__session").map(|(_, value)| value)
}

/// The hash of the session's id, if we signed it.
fn verify(secret: &str, token: &str) -> Option<String> {
    let (id, signature) = token.split_once('.')?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(b"session\0");
    mac.update(id.as_bytes());
    mac.verify_slice(&BASE64.decode(signature).ok()?).ok()?;
    Some(fingerprint::of(id))
}

fn unix_now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
