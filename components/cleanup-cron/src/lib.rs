//! `POST /internal/cleanup`: removes what has had its time: uploads, files that belong to nothing, cache entries, rows, and whoever has asked
//! to be erased. A scheduler calls it with the cron secret.
//!
//! A run takes bounded batches for some seconds and notes where it stopped; the next one goes on there (crates/job). One step failing does
//! not keep the others from running; what the store would not remove is a failure too. How long what is kept: crates/retention,
//! docs/retention.md. What time it is, the database says: a host whose clock runs ahead would take everything to be over.

use std::time::Duration;

use job::{Done, Run};
use problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{Call, Reply, Request, Service};
use spin_sdk::{http::IntoResponse, http_service};
use storage::{Bucket, Refused};

mod rows;
mod uploads;
mod walk;

static SERVICE: Service = Service {
    name: "cleanup-cron",
    settings: &["public_url", "cron_secret", "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key_id", "s3_secret_access_key"],
};

/// For how long a run takes batch after batch; the rest is for the next one. Some hosts end a request after half a minute.
const TIME: Duration = Duration::from_secs(18);

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    job::serve(&call, "cleanup", |run| async {
        let bucket = Bucket::from_settings(&call.settings)?;
        sweep(&Sweep { bucket, now: run.started_at, run }).await
    })
    .await
}

/// One run.
struct Sweep {
    bucket: Bucket,
    run: Run,
    /// Unix seconds, by the database's clock.
    now: i64,
}

impl Sweep {
    /// Whether there is time for another batch.
    fn goes_on(&self) -> bool {
        self.run.elapsed() < TIME
    }
}

/// Where the next run goes on.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    walk: walk::Place,
    cache: Turn,
    lots: rows::Lots,
}

/// Which share of the cache's keys is next.
#[derive(Default, Serialize, Deserialize)]
struct Turn {
    turn: u64,
    shares: u64,
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
    walk: Value,
}

async fn sweep(sweep: &Sweep) -> Result<Done, Problem> {
    let mut position: Position = sweep.run.position();
    let uploads = uploads::sweep(sweep).await;
    let erasures = erasure::sweep(&sweep.bucket, sweep.now).await;
    let cache = expired_entries(&mut position.cache).await;
    let (mut database, rows_failed) = rows::sweep(sweep).await;
    let balances = rows::balances(sweep, &mut position.lots).await;
    let mut walked = walk::Report::default();
    // The longest last: it takes the time that the others left. A run whose lease is lost ends here, whatever its steps came to.
    let walk = loop {
        match walk::page(sweep, &mut position.walk, &mut walked).await {
            Ok(walk::Next::Folder) if sweep.goes_on() => {}
            Ok(walk::Next::Page) if sweep.goes_on() => sweep.run.reached(&position).await?,
            Ok(next) => {
                walked.round_ended = matches!(next, walk::Next::Round);
                break Ok(());
            }
            Err(problem) => break Err(problem),
        }
    };
    sweep.run.reached(&position).await?;
    let refused = walked.refused + uploads.as_ref().map_or(0, |report| report.refused);
    // Somebody of whom something is left is looked at again, and should have been gone.
    let left = erasures.as_ref().is_ok_and(|(looked_at, done)| done < looked_at);
    let steps = [uploads.is_err(), erasures.is_err(), cache.is_err(), balances.is_err(), walk.is_err()];
    let failed = rows_failed || refused > 0 || left || steps.contains(&true);
    database.insert("expired_balances".to_owned(), told("expired_balances", balances));
    let report = Report {
        deleted_files: uploads.as_ref().map_or(0, |report| report.deleted) + walked.deleted,
        deleted_cache_keys: cache.as_ref().map_or(0, |report| report.deleted),
        uploads: told("uploads", uploads),
        cache: told("cache", cache),
        database: Value::Object(database),
        erasures: told("erasures", erasures.map(|(looked_at, done)| json!({"looked_at": looked_at, "done": done}))),
        walk: told("walk", walk.map(|()| walked)),
    };
    Ok(Done { report: json!(report), failed })
}

async fn expired_entries(turn: &mut Turn) -> Result<cache::Swept, Problem> {
    let swept = cache::sweep(turn.turn, turn.shares).await;
    let swept = swept.map_err(|error| Problem::new(Code::ServiceUnavailable, "The cache is out of order.").because(error))?;
    *turn = Turn { turn: turn.turn.wrapping_add(1), shares: swept.shares };
    Ok(swept)
}

/// Tells the log of objects that the store would not remove, and counts them.
fn refused(step: &str, refused: &[Refused]) -> usize {
    if let Some(first) = refused.first() {
        let (count, code) = (refused.len(), &first.code);
        meter::log(json!({"level": "error", "event": "deletions_refused", "step": step, "count": count, "code": code}));
    }
    refused.len()
}

/// A step's report, or a word that it failed; why is in the log.
fn told<T: Serialize>(step: &str, result: Result<T, Problem>) -> Value {
    match result {
        Ok(report) => json!(report),
        Err(problem) => {
            meter::log(json!({"level": "error", "event": "sweep_step_failed", "step": step, "cause": problem.cause}));
            json!({"error": problem.code})
        }
    }
}
