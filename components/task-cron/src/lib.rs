//! `POST /internal/tasks`: finishes tasks whose callback never came, hands over those the provider could not take, and pays back those
//! whose time is over. A scheduler calls it with the cron secret, at any time and as often as it likes: one run is at work at a time (crates/job).

use job::{Done, Run};
use problem::Problem;
use serde_json::json;
use service::{Call, Reply, Request, Service};
use spin_sdk::{http::IntoResponse, http_service};

static SERVICE: Service = Service {
    name: "task-cron",
    settings: &[
        "public_url",
        "cron_secret",
        "data_encryption_key",
        "kie_base_url",
        "kie_result_host",
        "kie_api_key",
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
    job::serve(&call, "tasks", |run| finish(&call, run)).await
}

async fn finish(call: &Call, run: Run) -> Result<Done, Problem> {
    // By the database's clock: a host whose clock is ahead would pay back what is still being made.
    let report = task::sweep::sweep(&call.settings, run.started_at).await?;
    Ok(json!({"tasks": report}).into())
}
