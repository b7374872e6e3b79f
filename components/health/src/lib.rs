//! `GET /health`: is each of the three stores there? `GET /health/live`: does this component run?

use http::{Method, StatusCode};
use problem::Problem;
use pulse::Pulse;
use serde::Serialize;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

static SERVICE: Service = Service {
    name: "health",
    settings: &["public_url", "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key_id", "s3_secret_access_key"],
};

/// `status` is "ok" or "degraded" with 200, "down" with 503.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    database: bool,
    storage: bool,
    cache: bool,
}

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["health"], &Method::GET | &Method::HEAD) => health(&call).await,
        (["health", "live"], &Method::GET | &Method::HEAD) => reply::ok(&serde_json::json!({"status": "ok"})),
        (["health"] | ["health", "live"], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        _ => Err(Problem::not_found("address")),
    }
}

/// Without the database or the bucket the product cannot do what it is for, and whoever balances the load should try elsewhere. Without the
/// cache everything goes on, more slowly (sessions are in the database as well): taking the node out would turn that into an outage.
async fn health(call: &Call) -> Result<Reply, Problem> {
    let Pulse { database, storage, cache } = pulse::take(&Bucket::from_settings(&call.settings)?).await;
    let (database, storage, cache) = (database.is_well(), storage.is_well(), cache.is_well());
    let (code, status) = match (database && storage, cache) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
    };
    reply::json(code, &Health { status, database, storage, cache })
}
