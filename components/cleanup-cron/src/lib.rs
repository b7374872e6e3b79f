//! `POST /internal/cleanup`: removes what has had its time: uploads, cache entries, rows, and whoever has asked to be erased. A scheduler calls it with the cron secret.
//!
//! It may be called at any time and by two schedulers at once: every step takes a bounded batch by one conditional statement and
//! leaves the rest for the next call. One step failing does not keep the others from running.

use clock::now;
use http::{Method, StatusCode};
use problem::{Code, Problem};
use serde::Serialize;
use serde_json::{Value, json};
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

mod uploads;

static SERVICE: Service = Service {
    name: "cleanup-cron",
    settings: &["public_url", "cron_secret", "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key_id", "s3_secret_access_key"],
};

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    if call.method != Method::POST {
        return Err(Problem::method_not_allowed("POST"));
    }
    session::require_scheduler(&call)?;
    sweep(&call).await
}

/// What was removed and finished. `deleted_files` and `deleted_cache_keys` are the two figures every scheduler may rely on.
#[derive(Serialize)]
struct Report {
    deleted_files: usize,
    deleted_cache_keys: u64,
    uploads: Value,
    cache: Value,
    database: Value,
    erasures: Value,
}

async fn sweep(call: &Call) -> Result<Reply, Problem> {
    let now = now();
    let bucket = Bucket::from_settings(&call.settings)?;
    let uploads = uploads::sweep(&bucket, now).await;
    let cache = cache::sweep().await.map_err(|error| Problem::new(Code::ServiceUnavailable, "cache").because(error));
    let database = rows(now).await;
    let erasures = erasure::sweep(&bucket, now).await;
    let failed = [erasures.is_err(), uploads.is_err(), cache.is_err(), database.is_err()].contains(&true);
    let report = Report {
        deleted_files: uploads.as_ref().map_or(0, |report| report.deleted),
        deleted_cache_keys: cache.as_ref().map_or(0, |(_, deleted)| *deleted),
        uploads: told("uploads", uploads),
        cache: told("cache", cache.map(|(seen, deleted)| json!({"seen": seen, "deleted": deleted}))),
        database: told("database", database),
        erasures: told("erasures", erasures.map(|(looked_at, done)| json!({"looked_at": looked_at, "done": done}))),
    };
    eprintln!("{}", json!({"level": "info", "event": "sweep", "request_id": call.request_id, "report": report}));
    reply::json(if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &report)
}

/// Rows whose time is over, and balances whose lots have expired since they were last written.
async fn rows(now: i64) -> Result<Value, Problem> {
    let tokens = database::run(
        "DELETE FROM one_time_tokens WHERE rowid IN (SELECT rowid FROM one_time_tokens WHERE expires_at <= ?1 LIMIT 5000) RETURNING 1",
        vec![now.into()],
    )
    .await?;
    let keys = database::run(
        "DELETE FROM idempotency_keys WHERE rowid IN (SELECT rowid FROM idempotency_keys WHERE expires_at <= ?1 LIMIT 5000) RETURNING 1",
        vec![now.into()],
    )
    .await?;
    let sessions = session::sweep(now).await?;
    let counters = database::run(
        "DELETE FROM rate_counters WHERE (class, subject) IN (SELECT class, subject FROM rate_counters WHERE window_ends <= ?1 LIMIT 5000) RETURNING 1",
        vec![now.into()],
    )
    .await?;
    let sql = "UPDATE users SET updated_at = ?1, credits = (\
                   SELECT coalesce(sum(remaining), 0) FROM credit_lots \
                   WHERE user_id = users.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1)) \
               WHERE id IN (SELECT user_id FROM credit_lots WHERE remaining > 0 AND expires_at <= ?1) \
                 AND credits <> (\
                   SELECT coalesce(sum(remaining), 0) FROM credit_lots \
                   WHERE user_id = users.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1)) \
               RETURNING 1";
    let balances = database::run(sql, vec![now.into()]).await?;
    Ok(
        json!({"expired_tokens": tokens.len(), "expired_keys": keys.len(), "expired_sessions": sessions, "expired_counters": counters.len(), "expired_balances": balances.len()}),
    )
}

/// A step's report, or a word that it failed; why is in the log.
fn told<T: Serialize>(step: &str, result: Result<T, Problem>) -> Value {
    match result {
        Ok(report) => json!(report),
        Err(problem) => {
            eprintln!("{}", json!({"level": "error", "event": "sweep_step_failed", "step": step, "cause": problem.cause}));
            json!({"error": problem.code})
        }
    }
}
