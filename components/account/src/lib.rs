//! One's own data: profile, credits, account book, figures; all of it to take along; and the end of it.

use futures::try_join;
use http::{HeaderValue, Method, StatusCode, header};
use limit::Class;
use page::Page;
use problem::Problem;
use seal::Keys;
use serde_json::{Value, json};
use service::{Call, Reply, Request, Service, reply};
use session::SignedIn;
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

static SERVICE: Service = Service {
    name: "account",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
        "s3_endpoint",
        "s3_region",
        "s3_bucket",
        "s3_access_key_id",
        "s3_secret_access_key",
    ],
};

/// Longest list in an export; the lists of the API page through what is beyond.
const EXPORTED: i64 = 10_000;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["api", "me"], &Method::GET | &Method::HEAD) => profile(&call).await,
        (["api", "me"], &Method::DELETE) => erase(&call).await,
        (["api", "me", "credits"], &Method::GET | &Method::HEAD) => credits(&call).await,
        (["api", "me", "credits", "history"], &Method::GET | &Method::HEAD) => history(&call).await,
        (["api", "me", "stats"], &Method::GET | &Method::HEAD) => stats(&call).await,
        (["api", "me", "export"], &Method::GET) => export(&call).await,
        (["api", "me"], _) => Err(Problem::method_not_allowed("GET, HEAD, DELETE")),
        (["api", "me", "credits" | "stats"] | ["api", "me", "credits", "history"], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        (["api", "me", "export"], _) => Err(Problem::method_not_allowed("GET")),
        _ => Err(Problem::not_found("address")),
    }
}

/// GET /api/me
async fn profile(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let user = user::by_id(&caller.user_id, clock::now()).await?.ok_or_else(|| Problem::not_found("account"))?;
    reply::ok(&json!({"user": user, "credits": user.credits}))
}

/// GET /api/me/credits
async fn credits(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    reply::ok(&user::credits(&caller.user_id, clock::now()).await?)
}

/// GET /api/me/credits/history?limit=&offset=&cursor=
async fn history(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let page = call.page()?;
    let (history, next_cursor) = user::history(&caller.user_id, &page).await?;
    reply::ok(&json!({"history": history, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/me/stats
async fn stats(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    reply::ok(&user::stats(&caller.user_id).await?)
}

/// GET /api/me/export: everything that is kept about the caller, as a file. Photos and pictures are in it by their addresses.
async fn export(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::Heavy).await?;
    let id = caller.user_id.as_str();
    let now = clock::now();
    let keys = Keys::from_settings(&call.settings)?;
    let public_url = call.settings.public_url()?;
    let page = Page::parse(EXPORTED, 0, None)?;
    let user = user::by_id(id, now).await?.ok_or_else(|| Problem::not_found("account"))?;
    let ((history, _), tasks) = try_join!(async { user::history(id, &page).await }, async { Ok(task::list(id, &page).await?) })?;
    let (identities, uploads, orders) = try_join!(
        async { Ok::<_, Problem>(user::identities(id).await?) },
        rows(
            "uploads",
            &["id", "key", "content_type", "original_name", "size", "width", "height", "sha256", "created_at", "expires_at"],
            &caller
        ),
        rows(
            "orders",
            &[
                "id",
                "status",
                "amount",
                "currency",
                "credits",
                "product_id",
                "payment_provider",
                "payment_id",
                "paid_at",
                "created_at",
                "updated_at"
            ],
            &caller
        )
    )?;
    let (subscriptions, verdicts, sessions, sign_ins) = try_join!(
        rows(
            "subscriptions",
            &["id", "plan_type", "billing_cycle", "status", "enabled_at", "expires_at", "cancelled_at", "created_at"],
            &caller
        ),
        rows("prompt_verdicts", &["provider_id", "decision", "created_at"], &caller),
        session::list(call, &caller),
        session::log(call, id)
    )?;
    let mut uploads = uploads;
    for upload in &mut uploads {
        // As components/upload seals it.
        let place = format!("name of {}", upload["id"].as_str().unwrap_or_default());
        upload["original_name"] = upload["original_name"].as_str().and_then(|sealed| keys.open(&place, sealed)).into();
    }
    let tasks: Vec<_> = tasks.iter().map(|task| task.view(&keys, public_url, now)).collect();
    let mut answer = reply::ok(&json!({
        "exported_at": now, "user": user, "credits": user.credits, "identities": identities, "sessions": sessions, "sign_ins": sign_ins,
        "uploads": uploads, "tasks": tasks, "orders": orders, "subscriptions": subscriptions, "credit_history": history,
        "moderation_verdicts": verdicts, "longest_list": EXPORTED,
    }))?;
    answer.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"ai-hairstyle-export.json\""));
    Ok(answer)
}

/// The caller's rows of one table, each as an object of its columns.
async fn rows(table: &str, columns: &[&str], caller: &SignedIn) -> Result<Vec<Value>, Problem> {
    let pairs: Vec<String> = columns.iter().map(|column| format!("'{column}', {column}")).collect();
    let sql = format!("SELECT json_object({}) FROM {table} WHERE user_id = ?1 ORDER BY created_at DESC LIMIT {EXPORTED}", pairs.join(", "));
    let rows = database::run(&sql, vec![caller.user_id.as_str().into()]).await?;
    rows.iter().map(|row| serde_json::from_str(&row.text(0)).map_err(Problem::internal)).collect()
}

/// DELETE /api/me: the account is gone when this is answered, with 200 when nothing of it is left anywhere, with 202 when its files are still
/// being removed. What was paid and spent stays in the books, under an id that leads nowhere.
async fn erase(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::Heavy).await?;
    let now = clock::now();
    let bucket = Bucket::from_settings(&call.settings)?;
    erasure::begin(&caller.user_id, now).await?;
    let left = match erasure::go_on(&bucket, &caller.user_id, now).await {
        Ok(left) => Some(left),
        Err(problem) => {
            // The sweep goes on with it.
            meter::log(json!({"level": "error", "event": "erasure_cut_off", "user": caller.user_id, "cause": problem.cause}));
            None
        }
    };
    let done = left == Some(erasure::Left::default());
    let answer =
        json!({"erased": true, "done": done, "left": left, "kept": "Payments and credit movements, without your name and address."});
    let answer = reply::json(if done { StatusCode::OK } else { StatusCode::ACCEPTED }, &answer)?;
    reply::with_header(answer, header::SET_COOKIE, &session::forget_cookie(call)?)
}
