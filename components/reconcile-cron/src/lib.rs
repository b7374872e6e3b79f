//! `POST /internal/reconcile`: asks the payment provider what its webhooks may have told in vain, tries open events again, and grants
//! the months of plans whose time has come. A scheduler calls it with the cron secret, at any time and as often as it likes: one run is at
//! work at a time (crates/job).

use job::{Done, Run};
use payment::Creem;
use problem::Problem;
use serde_json::json;
use service::{Call, Reply, Request, Service};
use spin_sdk::{http::IntoResponse, http_service};

static SERVICE: Service = Service { name: "reconcile-cron", settings: &["public_url", "cron_secret", "creem_base_url", "creem_api_key"] };

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    job::serve(&call, "reconcile", |run| reconcile(&call, run)).await
}

async fn reconcile(call: &Call, run: Run) -> Result<Done, Problem> {
    // By the database's clock: months of plans and what was never paid are over for all hosts at once.
    let report = order::reconcile::sweep(&Creem::from_settings(&call.settings)?, run.started_at).await?;
    Ok(json!({"payments": report}).into())
}
