//! Work that a scheduler asks for over HTTP: one run at a time, each run recorded, the next one going on where the last one stopped.
//!
//! A run is a row of `job_runs` (migrations/0008), and inserting it is taking the lease: of two schedulers that call at once one starts
//! a run and the other is told that there is one. A run that is cut off loses its lease [`LEASE`] seconds after its last word, and the
//! next one takes over its position.

use std::time::Instant;

use database::{Error, one, run};
use http::{Method, StatusCode};
use problem::{Code, Problem};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use service::{Call, Reply, reply};
use subtle::ConstantTimeEq;

/// Seconds for which a run that says nothing keeps others away. Longer than any single step takes.
pub const LEASE: i64 = 120;

/// A run that has the job to itself.
pub struct Run {
    id: String,
    /// Unix seconds.
    pub started_at: i64,
    started: Instant,
    position: Option<String>,
}

/// What came of a run.
pub struct Done {
    /// Counts and durations; the members become members of the answer.
    pub report: Value,
    /// Whether some step failed. The scheduler is told 503, and what was done stays done.
    pub failed: bool,
}

impl From<Value> for Done {
    fn from(report: Value) -> Self {
        Self { report, failed: false }
    }
}

/// Serves a scheduler's `POST`: checks its secret, takes the lease, works, and records how it went.
///
/// # Errors
/// `method_not_allowed`, `unauthenticated`, and whatever the work ends with.
pub async fn serve<Fut>(call: &Call, job: &'static str, work: impl FnOnce(Run) -> Fut) -> Result<Reply, Problem>
where
    Fut: Future<Output = Result<Done, Problem>>,
{
    if call.method != Method::POST {
        return Err(Problem::method_not_allowed("POST"));
    }
    require_scheduler(call)?;
    let Some(run) = Run::start(job, clock::now()).await? else {
        // Not an error: whoever calls every minute would be told of one whenever there is much to do.
        return reply::ok(&json!({"job": job, "outcome": "already_running"}));
    };
    let (id, started) = (run.id.clone(), run.started);
    let result = work(run).await;
    let (outcome, mut report) = match &result {
        Ok(done) if !done.failed => ("done", done.report.clone()),
        Ok(done) => ("failed", done.report.clone()),
        // Why is in the log line of the request.
        Err(problem) => ("failed", json!({"error": problem.code})),
    };
    if let Some(report) = report.as_object_mut() {
        report.insert("ms".to_owned(), json!(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)));
    }
    let ended = end(&id, outcome, &report).await;
    eprintln!(
        "{}",
        json!({"level": "info", "event": "job_ended", "job": job, "run": id, "outcome": outcome, "request_id": call.request_id, "report": report})
    );
    let done = result?;
    ended?;
    let mut answer = json!({"job": job, "run": id, "outcome": outcome});
    if let (Some(answer), Some(report)) = (answer.as_object_mut(), report.as_object()) {
        answer.extend(report.clone());
    }
    reply::json(if done.failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &answer)
}

impl Run {
    /// Takes the lease; `None`: somebody has it.
    async fn start(job: &str, now: i64) -> Result<Option<Self>, Error> {
        let id = uuid::Uuid::now_v7().to_string();
        let sql = "INSERT INTO job_runs (id, job, started_at, leased_until, position) \
                   SELECT ?1, ?2, ?3, ?3 + ?4, (SELECT position FROM job_runs WHERE job = ?2 ORDER BY started_at DESC, id DESC LIMIT 1) \
                   RETURNING position";
        match one(sql, vec![id.as_str().into(), job.into(), now.into(), LEASE.into()]).await {
            Ok(row) => {
                let position = row.and_then(|row| row.optional_text(0));
                Ok(Some(Self { id, started_at: now, started: Instant::now(), position }))
            }
            Err(Error::Taken(what)) if what == "job_runs.job" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the last run stopped; the beginning if there was none, or if it was a version of the job with other positions.
    #[must_use]
    pub fn position<T: DeserializeOwned + Default>(&self) -> T {
        self.position.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Notes how far the run has come, and keeps the lease.
    ///
    /// # Errors
    /// `conflict` when the lease is lost, and the database's: the run has to stop.
    pub async fn reached<T: Serialize>(&self, position: &T) -> Result<(), Problem> {
        let position = serde_json::to_string(position).map_err(Problem::internal)?;
        let sql = "UPDATE job_runs SET position = ?2, leased_until = ?3 WHERE id = ?1 AND outcome = 'running' RETURNING 1";
        let held = run(sql, vec![self.id.as_str().into(), position.into(), (clock::now() + LEASE).into()]).await?;
        if held.is_empty() {
            return Err(Problem::new(Code::Conflict, "Another run has taken over.").because("the lease of this run has passed"));
        }
        Ok(())
    }

    /// How long the run has gone on, in whole seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

async fn end(id: &str, outcome: &str, report: &Value) -> Result<(), Error> {
    let sql = "UPDATE job_runs SET outcome = ?2, ended_at = ?3, report = ?4 WHERE id = ?1 AND outcome = 'running'";
    run(sql, vec![id.into(), outcome.into(), clock::now().into(), report.to_string().into()]).await.map(drop)
}

/// Passes a scheduler only. The variable `cron_secret` may hold several secrets while they are exchanged.
fn require_scheduler(call: &Call) -> Result<(), Problem> {
    let given = fingerprint::of(call.bearer().unwrap_or_default());
    // Compared by their fingerprints: of one length, whatever was given, and in constant time.
    let known = call
        .settings
        .list("cron_secret")?
        .fold(false, |known, secret| known | bool::from(fingerprint::of(secret).as_bytes().ct_eq(given.as_bytes())));
    if known { Ok(()) } else { Err(Problem::new(Code::Unauthenticated, "This is called by a scheduler, with the cron secret.")) }
}
