//! `POST /internal/alarms`: looks whether all is well, and tells the operator what is not. A scheduler calls it with the cron secret, every
//! minute or every five.

use alarm::check;
use job::{Done, Run};
use problem::Problem;
use serde_json::json;
use service::{Call, Reply, Request, Service};
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

static SERVICE: Service = Service {
    name: "alarm-cron",
    settings: &[
        "public_url",
        "cron_secret",
        "alarm_webhook_url",
        "alarm_webhook_host",
        "alarm_webhook_secret",
        "alarm_errors_per_five_minutes",
        "daily_picture_limit",
        "s3_endpoint",
        "s3_region",
        "s3_bucket",
        "s3_access_key_id",
        "s3_secret_access_key",
    ],
};

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    match job::serve(&call, "alarms", |run| look(&call, run)).await {
        // Not even the run could be written down.
        Err(problem) if problem.status().is_server_error() => outage(&call, problem).await,
        answer => answer,
    }
}

/// One look at everything.
async fn look(call: &Call, run: Run) -> Result<Done, Problem> {
    // The database's clock: a host whose own is wrong must not write times that the others take for true.
    let now = run.started_at;
    let bucket = Bucket::from_settings(&call.settings)?;
    let (pulse, providers, rows) = futures::join!(pulse::take(&bucket), check::providers(), check::rows(&call.settings, now));
    let mut findings = check::stores(&pulse);
    findings.extend(providers);
    findings.extend(rows?);
    // Should an audit fail, all that was found beside it is told first.
    let audited = check::books(&run, now).await.map(|audited| findings.extend(audited));
    if audited.is_ok() {
        // The look itself works: what was told without the database is over.
        alarm::outages_are_over(now).await?;
    }
    let report = alarm::take_in(&call.settings, &findings, now).await?;
    alarm::clean(now).await?;
    audited?;
    // What could not be told is tried again; the scheduler's own failure is heard elsewhere than the receiver's.
    Ok(Done { report: json!(report), failed: report.untold > 0 })
}

/// The look failed, most likely because the database takes nothing: told without it.
async fn outage(call: &Call, problem: Problem) -> Result<Reply, Problem> {
    let finding = check::outage(pulse::takes_writing().await);
    let report = alarm::tell_without_rows(&call.settings, &finding, clock::now()).await;
    meter::log(json!({"level": "error", "event": "alarms_without_rows", "kind": finding.kind, "report": report}));
    Err(problem)
}
