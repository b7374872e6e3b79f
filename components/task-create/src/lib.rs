//! `POST /api/tasks`: order pictures. `GET /api/tasks`: the list.
//!
//! Spin routes by path alone, so the list, which lives at the same path, is answered here too.

use database::Error;
use http::{Method, StatusCode};
use idempotency::Work;
use limit::Class;
use payment::Creem;
use problem::{Code, Problem};
use seal::Keys;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use task::{
    Task, View,
    create::{Order, Terms},
};

static SERVICE: Service = Service {
    name: "task-create",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
        "daily_picture_limit",
        "creem_base_url",
        "creem_api_key",
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

/// POST /api/tasks: have the person's own words checked, charge one credit a hairstyle, hand the tasks to the provider, answer without waiting for pictures.
async fn create(mut call: Call) -> Result<Reply, Problem> {
    let caller = limit::writer(&call, Class::Tasks).await?;
    let (input, body) = call.json_and_bytes().await?;
    let order = Order::parse(input)?;
    idempotency::once(&call, &caller.user_id, "POST /api/tasks", &body, async |work| {
        let keys = Keys::from_settings(&call.settings)?;
        let (tasks, balance) = order_pictures(&call, &caller.user_id, &order, &keys, work).await?;
        let now = clock::now();
        let (tasks, balance) = match balance {
            Some(balance) => (tasks, balance),
            None => task::create::outcome(&tasks, now).await?,
        };
        let public_url = call.settings.public_url()?;
        let views: Vec<View> = tasks.iter().map(|task| task.view(&keys, public_url, now)).collect();
        let spent: i64 = tasks.iter().filter(|task| task.status != "failed").map(|task| task.price).sum();
        Ok((StatusCode::ACCEPTED, json!({"tasks": views, "credits": {"spent": spent, "balance": balance}})))
    })
    .await
}

/// The tasks of an order, and what its owner has left, if that is known already.
async fn order_pictures(
    call: &Call,
    user_id: &str,
    order: &Order,
    keys: &Keys,
    work: Option<&Work>,
) -> Result<(Vec<Task>, Option<i64>), Problem> {
    // The same request was cut off after the tasks were made, and perhaps the photo has gone since. Whether the provider got them is
    // not known, so they are left to its callback and to their deadline.
    if let Some(work) = work.filter(|work| work.resumed) {
        let tasks = task::create::of_work(user_id, order, &work.id).await?;
        if !tasks.is_empty() {
            return Ok((tasks, None));
        }
    }
    let work_id = work.map(|work| work.id.as_str());
    let moderation = match order.words() {
        Some(words) => moderate(call, user_id, words).await?,
        None => None,
    };
    let day_limit = Some(call.settings.integer("daily_picture_limit")?).filter(|limit| *limit > 0);
    let terms = Terms { work_id, moderation, day_limit, keys };
    let now = clock::now();
    let tasks = match (task::create::create(user_id, order, &terms, now, clock::now_millis()).await, work_id) {
        (Ok(tasks), _) => tasks,
        // Whoever was believed to be cut off was only slow.
        (Err(Error::Taken(_)), Some(work_id)) => return Ok((task::create::of_work(user_id, order, work_id).await?, None)),
        (Err(error), _) => {
            return Err(match error {
                Error::Refused(event @ ("spend_limit_reached" | "share_of_the_day_used")) => {
                    let level = if event == "spend_limit_reached" { "error" } else { "warn" };
                    meter::log(json!({"level": level, "event": event, "limit": day_limit}));
                    Problem::from(error).retry_after(until_tomorrow(now))
                }
                error => error.into(),
            });
        }
    };
    if tasks.is_empty() {
        return Err(Problem::invalid("upload_id", "There is no such upload of yours, or it has expired. Upload the photo again."));
    }
    match task::hand_over::hand_over(&call.settings, &tasks, now).await {
        Ok(Some((tasks, balance))) => Ok((tasks, Some(balance))),
        Ok(None) => Ok((tasks, None)),
        Err(problem) => {
            // The tasks are charged and stored; their deadline pays back what the provider never got. The client may see them.
            meter::log(json!({"level": "error", "event": "hand_over_not_noted", "cause": problem.cause}));
            Ok((tasks, None))
        }
    }
}

/// Seconds until the next day begins (UTC), which is when pictures are counted anew.
fn until_tomorrow(now: i64) -> u32 {
    u32::try_from(86_400 - now.rem_euclid(86_400)).unwrap_or(3_600)
}

/// Asks the moderation about a person's own words and keeps its verdict; answers its name. Without a clear yes nothing is made: the
/// provider's terms demand that every such text is checked before.
async fn moderate(call: &Call, user_id: &str, words: &str) -> Result<Option<String>, Problem> {
    let verdict = Creem::from_settings(&call.settings)?.moderate(words, &call.request_id).await.map_err(|error| {
        let detail = "Your own words could not be checked. Nothing was charged; try again in a moment, or order without them.";
        Problem::new(Code::ProviderUnavailable, detail).retry_after(10).because(error)
    })?;
    let sql = "INSERT INTO prompt_verdicts (id, user_id, provider_id, decision, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let id = uuid::Uuid::now_v7().to_string();
    let parameters = vec![id.into(), user_id.into(), verdict.id.clone().into(), verdict.decision.into(), clock::now().into()];
    database::run(sql, parameters).await?;
    if verdict.decision == "allow" {
        return Ok(verdict.id);
    }
    meter::log(
        json!({"level": "warn", "event": "prompt_refused", "request_id": call.request_id, "user": user_id, "decision": verdict.decision}),
    );
    Err(Problem::invalid("detail", "These words cannot be used for a picture. Put them otherwise, or order without them."))
}

/// GET /api/tasks?limit=&offset=&cursor=
async fn list(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let page = call.page()?;
    let now = clock::now();
    let keys = Keys::from_settings(&call.settings)?;
    let public_url = call.settings.public_url()?;
    let tasks = task::list(&caller.user_id, &page).await?;
    let next_cursor = page.next(tasks.len(), tasks.last().map(|task| (task.created_at, task.id.as_str())));
    let tasks: Vec<View> = tasks.iter().map(|task| task.view(&keys, public_url, now)).collect();
    reply::ok(&json!({"tasks": tasks, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}
