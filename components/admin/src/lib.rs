//! For those who run the product: people, tasks, payment events, the books, the cache, and the log of what admins do.
//!
//! An admin is a user whose role says so. The first ones come from the variable `admin_emails`: whoever has such an address, vouched for by
//! whoever runs its mailbox, is given the role at this door, and loses it here when the address is no longer in the list. Whatever an admin
//! changes, and who becomes one, is an entry of the log first; see [`acts`].

use database::Error;
use http::{Method, StatusCode};
use limit::Class;
use order::inbox;
use problem::{Code, FieldError, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use service::{Call, Reply, Request, Service, reply};
use session::SignedIn;
use spin_sdk::{http::IntoResponse, http_service};
use user::User;

mod acts;
mod overview;

static SERVICE: Service = Service {
    name: "admin",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
        "admin_emails",
        "daily_picture_limit",
    ],
};

/// Offending rows that are shown of a rule; the count is always whole.
const SHOWN: usize = 100;
/// Most credits of one gift.
const MOST_CREDITS: i64 = 10_000;
/// Who gives a role in the log when it comes from the settings.
const BY_ADDRESS: &str = "admin_emails";
/// For how many seconds a provider's word about an address counts: as long as a session that begins with it may live.
const VOUCHED_FOR: i64 = 30 * 86_400;

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
        (["api", "admin", "events", id, "replay"], &Method::POST) => replay(&call, id).await,
        (["api", "admin", "users"], &Method::GET | &Method::HEAD) => users(&call).await,
        (["api", "admin", "users", id], &Method::GET | &Method::HEAD) => person(&call, id).await,
        (["api", "admin", "users", id, "role"], &Method::POST) => {
            let id = (*id).to_owned();
            set_role(call, &id).await
        }
        (["api", "admin", "tasks"], &Method::GET | &Method::HEAD) => tasks(&call).await,
        (["api", "admin", "cache"], &Method::GET | &Method::HEAD) => cache_stats(&call).await,
        (["api", "admin", "cache", "invalidate"], &Method::POST) => invalidate(call).await,
        (["api", "admin", "log"], &Method::GET | &Method::HEAD) => log(&call).await,
        (["api", "admin", "overview"], &Method::GET | &Method::HEAD) => figures(&call).await,
        (["api", "admin", "alarms"], &Method::GET | &Method::HEAD) => alarms(&call).await,
        (["api", "admin", "jobs"], &Method::GET | &Method::HEAD) => jobs(&call).await,
        (
            ["api", "admin", "audit" | "events" | "users" | "tasks" | "cache" | "log" | "overview" | "alarms" | "jobs"]
            | ["api", "admin", "users", _],
            _,
        ) => Err(Problem::method_not_allowed("GET, HEAD")),
        (["api", "admin", "gifts"] | ["api", "admin", "cache", "invalidate"], _)
        | (["api", "admin", "events", _, "replay"] | ["api", "admin", "users", _, "role"], _) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::not_found("address")),
    }
}

/// An admin who looks.
async fn require_admin(call: &Call) -> Result<User, Problem> {
    admin(call, limit::reader(call).await?).await
}

/// An admin who changes something.
async fn require_acting_admin(call: &Call) -> Result<User, Problem> {
    admin(call, limit::writer(call, Class::Admin).await?).await
}

async fn admin(call: &Call, caller: SignedIn) -> Result<User, Problem> {
    let now = clock::now();
    let user = user::by_id(&caller.user_id, now).await?.ok_or_else(|| Problem::not_found("account"))?;
    let forbidden = || Problem::new(Code::Forbidden, "This is for admins.");
    let is_admin = user.role == "admin";
    let in_the_list = call.settings.list("admin_emails")?.any(|email| email.eq_ignore_ascii_case(&user.email));
    // Who has an address is known to who runs its mailbox. That another provider checked it once, perhaps years ago, is not enough.
    if in_the_list && user::is_vouched_for(&user.id, now - VOUCHED_FOR).await? {
        if !is_admin {
            acts::record(BY_ADDRESS, "role", &user.id, &json!({"role": "admin", "before": user.role}), now).await?;
        }
        return Ok(user);
    }
    if !is_admin {
        return Err(forbidden());
    }
    if acts::last_role(&user.id).await?.is_some_and(|given_by| given_by == BY_ADDRESS) {
        acts::record(BY_ADDRESS, "role", &user.id, &json!({"role": "user", "before": user.role}), now).await?;
        return Err(forbidden());
    }
    Ok(user)
}

/// GET /api/admin/audit: every rule, how many rows it is about, and which break it.
async fn books(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let mut rules: Vec<Value> = Vec::new();
    let mut clean = true;
    for invariant in audit::INVARIANTS.iter().chain(audit::OVERDUE) {
        let looked_at = database::run_long(invariant.count, Vec::new()).await?.first().map_or(0, |row| row.integer(0));
        let offenders: Vec<String> = database::run_long(invariant.offenders, Vec::new()).await?.iter().map(|row| row.text(0)).collect();
        clean &= offenders.is_empty();
        rules.push(json!({
            "id": invariant.id, "rule": invariant.rule, "looked_at": looked_at, "violations": offenders.len(),
            "offenders": &offenders[..offenders.len().min(SHOWN)],
        }));
    }
    let (acts, first_wrong, head) = acts::verify().await?;
    clean &= first_wrong.is_none();
    rules.push(json!({
        "id": "L1", "rule": "the admins' log is a chain, and each act is as it was written", "looked_at": acts,
        "violations": i64::from(first_wrong.is_some()), "offenders": first_wrong.map(|seq| seq.to_string()).into_iter().collect::<Vec<_>>(),
        // To be compared with the last `admin_act` in the operator's log: a log that was cut is a chain as well.
        "head": head,
    }));
    if !clean {
        meter::log(json!({"level": "error", "event": "audit_violated", "request_id": call.request_id}));
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
    let admin = require_acting_admin(&call).await?;
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
    let user = match (&input.user_id, &email) {
        (Some(id), _) => user::by_id(id, now).await?,
        (None, Some(email)) => user::by_email(email, now).await?,
        (None, None) => None,
    };
    let user = user.ok_or_else(|| Problem::invalid("user_id", "There is no such user."))?;
    let lasts = input.expires_in_days.map(|days| days * 86_400);
    let detail = json!({"key": input.key, "credits": input.credits, "lasts": lasts, "note": input.note});
    let status = match acts::record(&admin.id, "gift", &user.id, &detail, now).await {
        Ok(()) => StatusCode::CREATED,
        // Made before, by this request or another.
        Err(Error::Taken(_)) => StatusCode::OK,
        Err(error) => return Err(error.into()),
    };
    let (owner, movement) = user::gift(&input.key).await?.ok_or_else(|| Problem::internal("a gift that is taken and not there"))?;
    let same = owner == user.id && movement.amount == input.credits && movement.expires_at.map(|at| at - movement.created_at) == lasts;
    if !same {
        return Err(Problem::new(Code::Conflict, "Another gift was made with this key."));
    }
    reply::json(status, &json!({"gift": movement}))
}

/// POST /api/admin/events/{id}/replay: an event that is still open is tried again now.
async fn replay(call: &Call, id: &str) -> Result<Reply, Problem> {
    let admin = require_acting_admin(call).await?;
    let event = inbox::by_id(id).await?.ok_or_else(|| Problem::not_found("event"))?;
    if event.status != "received" {
        return Err(Problem::new(Code::Conflict, "This event was dealt with; applying it again would change nothing."));
    }
    let now = clock::now();
    acts::record(&admin.id, "replay", id, &json!({"type": event.kind}), now).await?;
    inbox::retry_one(id, now).await?;
    reply::ok(&json!({"event": inbox::by_id(id).await?}))
}

/// GET /api/admin/users?email=&limit=&offset=&cursor=
async fn users(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let page = call.page()?;
    let now = clock::now();
    let users = match call.query("email") {
        Some(email) => user::by_email(&email.trim().to_lowercase(), now).await?.into_iter().collect(),
        None => user::all(&page, now).await?,
    };
    let next_cursor = page.next(users.len(), users.last().map(|user| (user.created_at, user.id.as_str())));
    let users: Vec<Value> = users.iter().map(told).collect();
    reply::ok(&json!({"users": users, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/admin/users/{id}
async fn person(call: &Call, id: &str) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let user = user::by_id(id, clock::now()).await?.ok_or_else(|| Problem::not_found("user"))?;
    reply::ok(&json!({"user": told(&user), "stats": user::stats(id).await?, "identities": user::identities(id).await?}))
}

/// A user with the balance, which `User` leaves to the answers of its owner.
fn told(user: &User) -> Value {
    let mut value = json!(user);
    value["credits"] = user.credits.into();
    value
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    role: String,
}

/// POST /api/admin/users/{id}/role `{role}`
async fn set_role(mut call: Call, id: &str) -> Result<Reply, Problem> {
    let admin = require_acting_admin(&call).await?;
    let Role { role } = call.json().await?;
    if !["user", "admin"].contains(&role.as_str()) {
        return Err(Problem::invalid("role", "user or admin."));
    }
    let now = clock::now();
    let user = user::by_id(id, now).await?.ok_or_else(|| Problem::not_found("user"))?;
    if user.role != role {
        acts::record(&admin.id, "role", id, &json!({"role": role, "before": user.role}), now).await?;
    }
    let user = user::by_id(id, now).await?.ok_or_else(|| Problem::not_found("user"))?;
    reply::ok(&json!({"user": told(&user)}))
}

/// GET /api/admin/tasks?status=&user_id=&limit=&offset=&cursor=: without what was asked for, which is between its owner and the provider.
async fn tasks(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let page = call.page()?;
    let status = call.query("status");
    if status.is_some_and(|status| !["pending", "processing", "completed", "failed"].contains(&status)) {
        return Err(Problem::invalid("status", "A task is pending, processing, completed or failed."));
    }
    let (created_at, id) = page.before();
    // What is not asked for is left out: with `?1 IS NULL OR status = ?1` no index could be used.
    let of_status = if status.is_some() { "status = ?1" } else { "?1 IS NULL" };
    let of_user = if call.query("user_id").is_some() { "user_id = ?2" } else { "?2 IS NULL" };
    let sql = format!(
        "SELECT created_at, id, json_object('id', id, 'task_no', task_no, 'user_id', user_id, \
                   'email', (SELECT email FROM users WHERE users.id = user_id), 'status', status, 'failure_reason', failure_reason, \
                   'external_provider', external_provider, 'external_task_id', external_task_id, 'price', price, 'attempts', attempts, \
                   'next_attempt_at', next_attempt_at, 'created_at', created_at, 'updated_at', updated_at, 'completed_at', completed_at) \
         FROM ai_tasks WHERE {of_status} AND {of_user} AND (created_at, id) < (?5, ?6) \
         ORDER BY created_at DESC, id DESC LIMIT ?3 OFFSET ?4"
    );
    let optional = |text: Option<&str>| database::Value::from(text.map(str::to_owned));
    let parameters =
        vec![optional(status), optional(call.query("user_id")), page.limit.into(), page.offset.into(), created_at.into(), id.into()];
    let rows = database::run(&sql, parameters).await?;
    let last = rows.last().map(|row| (row.integer(0), row.text(1)));
    let next_cursor = page.next(rows.len(), last.as_ref().map(|(created_at, id)| (*created_at, id.as_str())));
    let tasks = rows.iter().map(|row| serde_json::from_str(&row.text(2)).map_err(Problem::internal));
    let tasks = tasks.collect::<Result<Vec<Value>, _>>()?;
    reply::ok(&json!({"tasks": tasks, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/admin/cache: how many entries there are, of which kind.
async fn cache_stats(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let kinds = cache::count().await.map_err(out_of_order)?;
    reply::ok(&json!({"total_keys": kinds.values().sum::<u64>(), "keys_by_prefix": kinds}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalidation {
    prefix: String,
}

/// POST /api/admin/cache/invalidate `{prefix}`: SQL is the truth, so whatever is taken out comes back when it is asked for.
async fn invalidate(mut call: Call) -> Result<Reply, Problem> {
    let admin = require_acting_admin(&call).await?;
    let Invalidation { prefix } = call.json().await?;
    if prefix.is_empty() || prefix.len() > 200 || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::invalid("prefix", "1 to 200 visible ASCII characters, such as task:result:"));
    }
    acts::record(&admin.id, "invalidate", &prefix, &json!({}), clock::now()).await?;
    let deleted = cache::invalidate(&prefix).await.map_err(out_of_order)?;
    reply::ok(&json!({"deleted": deleted}))
}

fn out_of_order(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::ServiceUnavailable, "The cache is out of order.").retry_after(5).because(error)
}

/// GET /api/admin/log?limit=&offset=&cursor=: what admins did, newest first.
async fn log(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let page = call.page()?;
    let (acts, next_cursor) = acts::list(&page).await?;
    reply::ok(&json!({"log": acts, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/admin/overview: how the product does, in figures of this minute.
async fn figures(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    reply::ok(&overview::figures(call.settings.integer("daily_picture_limit")?, clock::now()).await?)
}

/// GET /api/admin/alarms?state=&limit=&offset=&cursor=: newest first.
async fn alarms(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let page = call.page()?;
    let open = match call.query("state") {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => return Err(Problem::invalid("state", "An alarm is open or closed.")),
    };
    let (alarms, next_cursor) = overview::alarms(open, &page).await?;
    reply::ok(&json!({"alarms": alarms, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/admin/jobs?job=&limit=&offset=&cursor=: runs of the scheduled jobs, newest first.
async fn jobs(call: &Call) -> Result<Reply, Problem> {
    require_admin(call).await?;
    let page = call.page()?;
    let (runs, next_cursor) = overview::jobs(call.query("job"), &page).await?;
    reply::ok(&json!({"runs": runs, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}
