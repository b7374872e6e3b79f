//! `GET /health`: is each of the three stores there? `GET /health/live`: does this component run?

use futures::join;
use http::{Method, StatusCode};
use problem::Problem;
use serde::Serialize;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

static SERVICE: Service = Service {
    name: "health",
    settings: &["public_url", "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key_id", "s3_secret_access_key"],
};

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

/// Probes the stores side by side; one that fails hides nothing about the others.
async fn health(call: &Call) -> Result<Reply, Problem> {
    let bucket = Bucket::from_settings(&call.settings)?;
    let (database, storage, cache) = join!(database(), storage(&bucket), cache());
    let well = database && storage && cache;
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &Health { status: if well { "ok" } else { "degraded" }, database, storage, cache })
}

/// Reads the schema's own record, so that an empty database is not taken for a healthy one.
async fn database() -> bool {
    let rows = database::one("SELECT count(*) FROM schema_migrations", vec![]).await;
    told("database", rows.map_err(|error| format!("{error:?}")).map(|row| row.is_some_and(|row| row.integer(0) > 0)))
}

async fn storage(bucket: &Bucket) -> bool {
    told("storage", bucket.list("health-check", None, 1).await.map(|_| true).map_err(|error| error.to_string()))
}

/// Only reads: a probe that writes each time would be a load of its own.
async fn cache() -> bool {
    let read = cache::read::<String>(cache::entry::HEALTH).await;
    told("cache", read.map(|_| true).map_err(|error| error.to_string()))
}

fn told(store: &str, probe: Result<bool, String>) -> bool {
    probe.unwrap_or_else(|cause| {
        eprintln!("{}", serde_json::json!({"level": "error", "event": "store_unhealthy", "store": store, "cause": cause}));
        false
    })
}
