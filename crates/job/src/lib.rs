//! Work that a scheduler asks for over HTTP: one run at a time, each run recorded, the next one going on where the last one stopped.
//!
//! A run is a row of `job_runs` (migrations/0008), and inserting it is taking the lease: of two schedulers that call at once one starts
//! a run and the other is told that there is one. The lease goes by the database's clock, so hosts whose clocks differ agree on it. While a
//! run works, it is renewed; a run that is cut off loses it [`LEASE`] seconds after its last word, and the next one takes over its position.
//! Should that clock have been ahead for a while, what it left in the future counts for nothing (migrations/0013).
//!
//! A host that stood still for longer than that (a paused machine) may wake up as a run that has been taken over from. It finds out at its
//! next word and stops, but until then two are at work: so every step of a job is one that may be done twice.
//!
//! [`serve`] starts a run whenever it is asked. [`serve_if_due`] starts one only if the last one that went well is old enough, so that a job
//! that is due once a day can stand in the same list as those that are called every five minutes.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use database::{Error, one, run};
use futures::future::{Either, select};
use http::{Method, StatusCode};
use problem::{Code, Problem};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use service::{Call, Reply, reply};
use subtle::ConstantTimeEq;

mod sql;

/// Seconds for which a run that says nothing keeps others away. A lease that reaches further ahead than two of these is none (migrations/0013).
pub const LEASE: i64 = 120;
/// How often a run says that it is still there.
const BEAT: Duration = Duration::from_secs(30);

/// A run that has the job to itself.
pub struct Run {
    id: String,
    /// Unix seconds, by the database's clock.
    pub started_at: i64,
    started: Instant,
    position: Option<String>,
}

/// What came of a run.
pub struct Done {
    /// Counts and durations; the members become members of the answer. Kept and logged: nothing that says who somebody is.
    pub report: Value,
    /// Whether some step failed. The scheduler is told 503, and what was done stays done.
    pub failed: bool,
}

impl From<Value> for Done {
    fn from(report: Value) -> Self {
        Self { report, failed: false }
    }
}

/// Serves a scheduler's `POST`: checks its secret, takes the lease, works, and records how it went. While another run is at work, the answer
/// is 200 with `{"outcome": "already_running"}`.
///
/// # Errors
/// `method_not_allowed`, `unauthenticated`, `invalid_input` for an odd `?now`, `conflict` for a run that was taken over from, and whatever the work ends with.
pub async fn serve<Fut>(call: &Call, job: &'static str, work: impl FnOnce(Run) -> Fut) -> Result<Reply, Problem>
where
    Fut: Future<Output = Result<Done, Problem>>,
{
    serve_if_due(call, job, 0, work).await
}

/// As [`serve`], for work that is due once in `every` seconds, counted from the start of the last run that went well; one that failed or
/// was cut off does not count. Before that the answer is 200 with `{"outcome": "not_due"}`, unless the request says `?now=true`.
///
/// Schedulers are late and early by seconds: take somewhat less than the period, 23 hours for what is called daily.
///
/// # Errors
/// As [`serve`].
pub async fn serve_if_due<Fut>(call: &Call, job: &'static str, every: i64, work: impl FnOnce(Run) -> Fut) -> Result<Reply, Problem>
where
    Fut: Future<Output = Result<Done, Problem>>,
{
    if call.method != Method::POST {
        return Err(Problem::method_not_allowed("POST"));
    }
    require_scheduler(call)?;
    let every = match call.query("now") {
        None => every,
        Some("true") => 0,
        Some(_) => return Err(Problem::invalid("now", "now is true, or left out.")),
    };
    let run = match Run::start(job, every).await? {
        Start::Begun(run) => run,
        // Not errors: whoever calls every minute would be told of one whenever there is much to do, or nothing.
        Start::AlreadyRunning => return reply::ok(&json!({"job": job, "outcome": "already_running"})),
        Start::NotDue => return reply::ok(&json!({"job": job, "outcome": "not_due"})),
    };
    let (id, started) = (run.id.clone(), run.started);
    let result = match select(pin!(work(run)), pin!(keep(&id))).await {
        Either::Left((result, _)) => result,
        // Here the work is dropped, wherever it is.
        Either::Right((lost, _)) => Err(lost),
    };
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
    meter::log(
        json!({"level": if outcome == "done" { "info" } else { "error" }, "event": "job_ended", "job": job, "run": id, "outcome": outcome,
               "report": report}),
    );
    let done = result?;
    ended?;
    let mut answer = json!({"job": job, "run": id, "outcome": outcome});
    if let (Some(answer), Some(report)) = (answer.as_object_mut(), report.as_object()) {
        answer.extend(report.clone());
    }
    reply::json(if done.failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &answer)
}

/// What came of asking for a run.
enum Start {
    Begun(Run),
    AlreadyRunning,
    NotDue,
}

impl Run {
    async fn start(job: &str, every: i64) -> Result<Start, Error> {
        let id = uuid::Uuid::now_v7().to_string();
        match one(sql::START, vec![id.as_str().into(), job.into(), LEASE.into(), every.into()]).await {
            Ok(Some(row)) => {
                let (position, started_at) = (row.optional_text(0), row.integer(1));
                Ok(Start::Begun(Self { id, started_at, started: Instant::now(), position }))
            }
            Ok(None) => Ok(Start::NotDue),
            Err(Error::Taken(what)) if what == "job_runs.job" => Ok(Start::AlreadyRunning),
            Err(error) => Err(error),
        }
    }

    /// Where the last run stopped; the beginning if there was none, or if it was a version of the job with other positions.
    #[must_use]
    pub fn position<T: DeserializeOwned + Default>(&self) -> T {
        self.position.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Notes how far the run has come, for the next one, and renews the lease.
    ///
    /// # Errors
    /// `conflict` when the lease is lost, and the database's: the run has to stop.
    pub async fn reached<T: Serialize>(&self, position: &T) -> Result<(), Problem> {
        let position = serde_json::to_string(position).map_err(Problem::internal)?;
        still_there(&run(sql::REACHED, vec![self.id.as_str().into(), position.into(), LEASE.into()]).await?)
    }

    /// How long the run has gone on.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Renews the lease for as long as it is polled; comes back only when it is lost. A database that does not answer costs a beat, not the run:
/// there are three more before the lease passes.
async fn keep(id: &str) -> Problem {
    loop {
        spin_sdk::time::sleep(BEAT).await;
        match run(sql::RENEW, vec![id.into(), LEASE.into()]).await.map(|held| still_there(&held)) {
            Ok(Ok(())) => {}
            Ok(Err(lost)) => return lost,
            Err(error) => meter::log(json!({"level": "warn", "event": "lease_not_renewed", "run": id, "cause": format!("{error:?}")})),
        }
    }
}

fn still_there(held: &[database::Row]) -> Result<(), Problem> {
    if held.is_empty() {
        return Err(Problem::new(Code::Conflict, "Another run has taken over.").because("the lease of this run has passed"));
    }
    Ok(())
}

async fn end(id: &str, outcome: &str, report: &Value) -> Result<(), Error> {
    run(sql::END, vec![id.into(), outcome.into(), report.to_string().into()]).await.map(drop)
}

/// Passes a scheduler only. The variable `cron_secret` may hold several secrets while they are exchanged; an empty one opens nothing.
fn require_scheduler(call: &Call) -> Result<(), Problem> {
    let given = fingerprint::of(call.bearer().unwrap_or_default());
    // Compared by their fingerprints: of one length, whatever was given, and in constant time.
    let known = call
        .settings
        .list("cron_secret")?
        .fold(false, |known, secret| known | bool::from(fingerprint::of(secret).as_bytes().ct_eq(given.as_bytes())));
    if known { Ok(()) } else { Err(Problem::new(Code::Unauthenticated, "This is called by a scheduler, with the cron secret.")) }
}
