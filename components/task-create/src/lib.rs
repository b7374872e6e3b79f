//! `POST /api/tasks`: order pictures. `GET /api/tasks`: the list.
//!
//! Spin routes by path alone, so the list, which lives at the same path, is answered here too.

use database::Error;
use http::{Method, StatusCode};
use idempotency::Work;
use problem::Problem;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use task::{Task, View, create::Order};

static SERVICE: Service = Service {
    name: "task-create",
    settings: &[
        "public_url",
        "session_secret",
        "kie_base_url",
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
    match call.method {
        Method::POST => create(call).await,
        Method::GET | Method::HEAD => list(&call).await,
        _ => Err(Problem::method_not_allowed("GET, HEAD, POST")),
    }
}

/// POST /api/tasks: charge one credit a hairstyle, hand the tasks to the provider, answer without waiting for pictures.
async fn create(mut call: Call) -> Result<Reply, Problem> {
    let caller = session::require(&call).await?;
    let (input, body) = call.json_and_bytes().await?;
    let order = Order::parse(input)?;
    idempotency::once(&call, &caller.user_id, "POST /api/tasks", &body, async |work| {
        let tasks = order_pictures(&call, &caller.user_id, &order, work).await?;
        let now = clock::now();
        let (tasks, balance) = task::create::outcome(&tasks, now).await?;
        let public_url = call.settings.public_url()?;
        let views: Vec<View> = tasks.iter().map(|task| task.view(public_url, now)).collect();
        let spent: i64 = tasks.iter().filter(|task| task.status != "failed").map(|task| task.price).sum();
        Ok((StatusCode::ACCEPTED, json!({"tasks": views, "credits": {"spent": spent, "balance": balance}})))
    })
    .await
}

async fn order_pictures(call: &Call, user_id: &str, order: &Order, work: Option<&Work>) -> Result<Vec<Task>, Problem> {
    // The same request was cut off after the tasks were made, and perhaps the photo has gone since. Whether the provider got them is
    // not known, so they are left to its callback and to their deadline.
    if let Some(work) = work.filter(|work| work.resumed) {
        let tasks = task::create::of_work(user_id, order, &work.id).await?;
        if !tasks.is_empty() {
            return Ok(tasks);
        }
    }
    let now = clock::now();
    let work_id = work.map(|work| work.id.as_str());
    let tasks = match (task::create::create(user_id, order, work_id, now, clock::now_millis()).await, work_id) {
        (Ok(tasks), _) => tasks,
        // Whoever was believed to be cut off was only slow.
        (Err(Error::Taken(_)), Some(work_id)) => return Ok(task::create::of_work(user_id, order, work_id).await?),
        (Err(error), _) => return Err(error.into()),
    };
    if tasks.is_empty() {
        return Err(Problem::invalid("upload_id", "There is no such upload of yours, or it has expired. Upload the photo again."));
    }
    if let Err(problem) = task::hand_over::hand_over(&call.settings, &tasks, now).await {
        // The tasks are charged and stored; their deadline pays back what the provider never got. The client may see them.
        eprintln!("{}", json!({"level": "error", "event": "hand_over_not_noted", "request_id": call.request_id, "cause": problem.cause}));
    }
    Ok(tasks)
}

/// GET /api/tasks?limit=&offset=
async fn list(call: &Call) -> Result<Reply, Problem> {
    let caller = session::require(call).await?;
    let limit = call.number("limit", 20, 1..=100)?;
    let offset = call.number("offset", 0, 0..=1_000_000)?;
    let now = clock::now();
    let public_url = call.settings.public_url()?;
    let tasks: Vec<View> = task::list(&caller.user_id, limit, offset).await?.iter().map(|task| task.view(public_url, now)).collect();
    reply::ok(&json!({"tasks": tasks, "limit": limit, "offset": offset}))
}
