//! One's own data: profile, credits, account book, figures.

use http::Method;
use problem::Problem;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use session::SignedIn;
use spin_sdk::{http::IntoResponse, http_service};

static SERVICE: Service = Service { name: "account", settings: &["public_url", "session_secret"] };

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["api", "me", rest @ ..] = path.as_slice() else { return Err(Problem::not_found("address")) };
    if !matches!(rest, [] | ["credits"] | ["credits", "history"] | ["stats"]) {
        return Err(Problem::not_found("address"));
    }
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    let caller = session::require(&call).await?;
    match rest {
        [] => profile(&caller).await,
        ["credits"] => reply::ok(&user::credits(&caller.user_id, clock::now()).await?),
        ["credits", "history"] => history(&call, &caller).await,
        _ => reply::ok(&user::stats(&caller.user_id).await?),
    }
}

/// GET /api/me
async fn profile(caller: &SignedIn) -> Result<Reply, Problem> {
    let user = user::by_id(&caller.user_id, clock::now()).await?.ok_or_else(|| Problem::not_found("account"))?;
    reply::ok(&json!({"user": user, "credits": user.credits}))
}

/// GET /api/me/credits/history?limit=&offset=
async fn history(call: &Call, caller: &SignedIn) -> Result<Reply, Problem> {
    let limit = call.number("limit", 20, 1..=100)?;
    let offset = call.number("offset", 0, 0..=1_000_000)?;
    let history = user::history(&caller.user_id, limit, offset).await?;
    reply::ok(&json!({"history": history, "limit": limit, "offset": offset}))
}
