//! Reading and cancelling tasks, and the catalogue they are chosen from.

use std::sync::OnceLock;

use bytes::Bytes;
use futures::try_join;
use http::{HeaderValue, Method, StatusCode, header};
use limit::Class;
use problem::Problem;
use seal::Keys;
use serde::Serialize;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use task::View;

static SERVICE: Service = Service {
    name: "tasks",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
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

/// The answer about one task.
#[derive(Serialize)]
struct Shown<'a> {
    task: &'a View,
}

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["api", "tasks", task_no], &Method::GET | &Method::HEAD) => show(&call, task_no).await,
        (["api", "tasks", task_no, "cancel"], &Method::POST) => cancel(&call, task_no).await,
        (["api", "hairstyles"], &Method::GET | &Method::HEAD) => {
            static TEXT: OnceLock<Bytes> = OnceLock::new();
            catalogue(&TEXT, || json!({"hairstyles": catalogue::HAIRSTYLES, "models": catalogue::MODELS}))
        }
        (["api", "hair-colors"], &Method::GET | &Method::HEAD) => {
            static TEXT: OnceLock<Bytes> = OnceLock::new();
            catalogue(&TEXT, || json!({"hair_colors": catalogue::HAIR_COLORS}))
        }
        (["api", "tasks", _] | ["api", "hairstyles" | "hair-colors"], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        (["api", "tasks", _, "cancel"], _) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::not_found("address")),
    }
}

/// GET /api/tasks/{task_no}: with an `ETag`, and `Retry-After` while there is something to wait for. A picture whose callback got lost
/// is brought home by whoever looks at it first.
async fn show(call: &Call, task_no: &str) -> Result<Reply, Problem> {
    // Side by side; a caller without a session is refused before the cache is asked.
    let (caller, glimpse) = try_join!(limit::reader(call), task::glimpse(&call.settings, task_no))?;
    let view = task::by_no(&call.settings, &caller.user_id, task_no, glimpse, clock::now()).await?;
    let etag = view.etag();
    let mut response = if call.header("if-none-match").is_some_and(|known| reply::matches(known, &etag)) {
        reply::status(StatusCode::NOT_MODIFIED)
    } else {
        reply::ok(&Shown { task: &view })?
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).map_err(Problem::internal)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if !view.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    Ok(response)
}

/// POST /api/tasks/{task_no}/cancel
async fn cancel(call: &Call, task_no: &str) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::Tasks).await?;
    let now = clock::now();
    let task = task::cancel(&caller.user_id, task_no, now).await?;
    let keys = Keys::from_settings(&call.settings)?;
    reply::ok(&Shown { task: &task.view(&keys, call.settings.public_url()?, now) })
}

/// What is part of the component itself is written once for each instance.
fn catalogue(text: &OnceLock<Bytes>, value: impl FnOnce() -> serde_json::Value) -> Result<Reply, Problem> {
    let mut response = reply::prepared(text.get_or_init(|| value().to_string().into()).clone());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}
