//! For those who run the product: are the books right, what has the payment provider said, and gifts of credits.
//!
//! An admin is a user whose role says so, or whose address is in the variable `admin_emails`.

use http::{Method, StatusCode};
use order::inbox;
use problem::{Code, FieldError, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};
use user::{Gift, Given, User};

static SERVICE: Service = Service { name: "admin", settings: &["public_url", "session_secret", "admin_emails"] };

/// Offending rows that are shown of a rule; the count is always whole.
const SHOWN: usize = 100;
/// Most credits of one gift.
const MOST_CREDITS: i64 = 10_000;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["api", "admin", "audit"], &Method::GET | &Method::HEAD) => books(&call).await,
        (["api", "admin", "events"], &Method::GET | &Method::HEAD) => events(&call).await,
        (["api", "admin", "gifts"], &Method::POST) => give(call).await,
        (["api", "admin", "audit" | "events"], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        (["api", "admin", "gifts"], _) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::not_found("address")),
    }
}

async fn require_admin(call: &Call) -> Result<User, Problem> {
    let caller = session::require(call).await?;
    let user = user::by_id(&caller.user_id, clock::now()).await?.ok_or_else(|| Problem::not_found("account"))?;
    // Addresses are verified by whoever signs people in, and a user has one.
    let named = call.settings.text("admin_emails")?.split(',').any(|email| email.trim().eq_ignore_ascii_case(&user.email));
    if user.role == "admin" || named { Ok(user) } else { Err(Problem::new(Code::Forbidden, "This is for admins.")) }
}

/// GET /api/admin/audit: every rule, how many rows it is about, and which break it.
async fn books(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let mut rules: Vec<Value> = Vec::new();
    let mut clean = true;
    for invariant in audit::INVARIANTS.iter().chain(audit::OVERDUE) {
        let looked_at = database::one(invariant.count, Vec::new()).await?.map_or(0, |row| row.integer(0));
        let offenders: Vec<String> = database::run(invariant.offenders, Vec::new()).await?.iter().map(|row| row.text(0)).collect();
        clean &= offenders.is_empty();
        rules.push(json!({
            "id": invariant.id, "rule": invariant.rule, "looked_at": looked_at, "violations": offenders.len(),
            "offenders": &offenders[..offenders.len().min(SHOWN)],
        }));
    }
    if !clean {
        eprintln!("{}", json!({"level": "error", "event": "audit_violated", "request_id": call.request_id}));
    }
    reply::ok(&json!({"clean": clean, "rules": rules}))
}

/// GET /api/admin/events?status=&limit=&offset=: the inbox of payment events, newest first, without what is in them.
async fn events(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let limit = call.number("limit", 20, 1..=100)?;
    let offset = call.number("offset", 0, 0..=1_000_000)?;
    let status = call.query("status");
    if status.is_some_and(|status| !["received", "done", "ignored"].contains(&status)) {
        return Err(Problem::invalid("status", "An event is received, done or ignored."));
    }
    reply::ok(&json!({"events": inbox::list(status, limit, offset).await?, "limit": limit, "offset": offset}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    user_id: Option<String>,
    email: Option<String>,
    credits: i64,
    key: String,
    expires_in_days: Option<i64>,
    note: Option<String>,
}

/// POST /api/admin/gifts: credits for somebody, once for each key. The same gift again is answered with the first one.
async fn give(mut call: Call) -> Result<Reply, Problem> {
    let admin = require_admin(&call).await?;
    let input: Input = call.json().await?;
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: &str| errors.push(FieldError { field: field.into(), message: message.into() });
    if input.user_id.is_some() == input.email.is_some() {
        wrong("user_id", "Either user_id or email.");
    }
    if !(1..=MOST_CREDITS).contains(&input.credits) {
        wrong("credits", "From 1 to 10000.");
    }
    if input.key.is_empty() || input.key.len() > 100 || !input.key.bytes().all(|byte| byte.is_ascii_graphic()) {
        wrong("key", "1 to 100 visible ASCII characters: this gift's own name.");
    }
    if input.expires_in_days.is_some_and(|days| !(1..=3_650).contains(&days)) {
        wrong("expires_in_days", "From 1 to 3650.");
    }
    if input.note.as_ref().is_some_and(|note| note.chars().count() > 200 || note.chars().any(char::is_control)) {
        wrong("note", "At most 200 characters on one line.");
    }
    if !errors.is_empty() {
        let mut problem = Problem::new(Code::InvalidInput, "The gift cannot be made like this.");
        problem.errors = errors;
        return Err(problem);
    }
    // Addresses are kept in lower case.
    let email = input.email.map(|email| email.trim().to_lowercase());
    let now = clock::now();
    let gift = Gift {
        user_id: input.user_id.as_deref(),
        email: email.as_deref(),
        credits: input.credits,
        key: &input.key,
        lasts: input.expires_in_days.map(|days| days * 86_400),
        note: input.note.as_deref(),
    };
    let (status, movement) = match user::give(&gift, now).await? {
        Given::Now(movement) => (StatusCode::CREATED, movement),
        Given::Before(movement) => (StatusCode::OK, movement),
        Given::Otherwise => return Err(Problem::new(Code::Conflict, "Another gift was made with this key.")),
        Given::Nobody => return Err(Problem::invalid("user_id", "There is no such user.")),
    };
    eprintln!("{}", json!({"level": "info", "event": "gift", "request_id": call.request_id, "admin": admin.id, "gift": movement.id}));
    reply::json(status, &json!({"gift": movement}))
}
