//! `POST /webhooks/kie/{task_id}`: the AI provider says that it is done with a task.
//!
//! A callback is a hint. It is verified, then the provider is asked, and only its answer counts. The provider repeats a callback
//! that isn't answered with 200; a repetition finds nothing to do.

use http::Method;
use problem::{Code, Problem};
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use task::finish;

static SERVICE: Service = Service {
    name: "task-callback",
    settings: &[
        "public_url",
        "data_encryption_key",
        "kie_base_url",
        "kie_result_host",
        "kie_api_key",
        "kie_webhook_hmac_key",
        "s3_endpoint",
        "s3_region",
        "s3_bucket",
        "s3_access_key_id",
        "s3_secret_access_key",
    ],
};

/// Longest callback, in bytes. Real ones are a few KiB.
const CAP: usize = 256 * 1024;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["webhooks", "kie", task_id], &Method::POST) => callback(call, task_id).await,
        (["webhooks", "kie", _], _) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::not_found("address")),
    }
}

async fn callback(mut call: Call, task_id: &str) -> Result<Reply, Problem> {
    let now = clock::now();
    let body = call.bytes(CAP).await?;
    let external_id = provider::callback::verify(call.settings.list("kie_webhook_hmac_key")?, &call.headers, &body, now)?;
    let Some(claimed) = finish::claim(task_id, &external_id, now).await? else {
        return nothing_to_do(task_id, &external_id).await;
    };
    call.note_user(&claimed.user_id);
    let outcome = finish::finish(&call.settings, &claimed, now).await?;
    reply::ok(&json!({"outcome": format!("{outcome:?}").to_lowercase()}))
}

/// Final before: fine. Claimed by somebody else at this moment: the provider should come again. Not this task's: not found.
async fn nothing_to_do(task_id: &str, external_id: &str) -> Result<Reply, Problem> {
    match finish::standing(task_id, external_id).await? {
        Some((status, true)) if status == "completed" || status == "failed" => reply::ok(&json!({"outcome": "nothing"})),
        Some((_, true)) => Err(Problem::new(Code::ServiceUnavailable, "This task is being finished at this moment.").retry_after(5)),
        // A task that failed before its provider id was known ends here too.
        Some((status, false)) if status == "failed" => reply::ok(&json!({"outcome": "nothing"})),
        _ => Err(Problem::not_found("task")),
    }
}
