//! Sign-in: out to the provider and back, and the sessions that follow from it.

use http::{Method, header};
use identity::{Attempt, Provider};
use problem::{Code, Problem};
use serde::Deserialize;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use session::SignedIn;
use spin_sdk::{http::IntoResponse, http_service};
use user::{Identity, User};

static SERVICE: Service = Service {
    name: "auth",
    settings: &[
        "public_url",
        "session_secret",
        "signup_credits",
        "google_base_url",
        "google_token_base_url",
        "google_certs_base_url",
        "google_client_id",
        "google_client_secret",
        "github_base_url",
        "github_api_url",
        "github_client_id",
        "github_client_secret",
    ],
};

/// Binds a sign-in to the browser that began it; without it a stranger could sign somebody in as himself.
const STATE_COOKIE: &str = "__signin";
/// How long a sign-in may take, in seconds.
const ATTEMPT_SECONDS: u64 = 600;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["auth", "login", provider], &Method::GET) => login(&call, known(provider)?).await,
        (["auth", "callback", provider], &Method::GET) => callback(&call, known(provider)?).await,
        (["auth", "google"], &Method::POST) => one_tap(call).await,
        (["auth", "session"], &Method::GET) => session_of(&call).await,
        (["auth", "logout"], &Method::POST) => logout(&call).await,
        (["auth", "sessions"], &Method::GET) => sessions(&call).await,
        (["auth", "sessions", id], &Method::DELETE) => revoke(&call, id).await,
        (["auth", "login" | "callback", _] | ["auth", "session" | "sessions"], _) => Err(Problem::method_not_allowed("GET")),
        (["auth", "google" | "logout"], _) => Err(Problem::method_not_allowed("POST")),
        (["auth", "sessions", _], _) => Err(Problem::method_not_allowed("DELETE")),
        _ => Err(Problem::not_found("address")),
    }
}

fn known(provider: &str) -> Result<Provider, Problem> {
    Provider::named(provider).ok_or_else(|| Problem::not_found("way to sign in"))
}

/// GET /auth/login/{provider}: remember the attempt, send the person to the provider.
async fn login(call: &Call, provider: Provider) -> Result<Reply, Problem> {
    let return_to = identity::safe_return(call.query("redirect_to"));
    let (attempt, state) = Attempt::begin(provider, &return_to)?;
    let payload = serde_json::to_string(&attempt).map_err(Problem::internal)?;
    database::run(
        "INSERT INTO one_time_tokens (token_hash, kind, payload, expires_at) VALUES (?1, 'signin', ?2, ?3)",
        vec![fingerprint::of(&state).into(), payload.into(), (clock::now() + ATTEMPT_SECONDS as i64).into()],
    )
    .await?;
    let hint = call.query("login_hint").filter(|hint| hint.len() <= 200);
    let url = attempt.authorize_url(&call.settings, &state, hint)?;
    reply::with_header(reply::redirect(&url)?, header::SET_COOKIE, &session::set_cookie(call, STATE_COOKIE, &state, ATTEMPT_SECONDS)?)
}

/// GET /auth/callback/{provider}: the person is back; make sure it is the same browser and the same attempt, then sign in.
async fn callback(call: &Call, provider: Provider) -> Result<Reply, Problem> {
    let refuse = |why: &str| Problem::new(Code::Unauthenticated, "The sign-in did not succeed. Start again.").because(why);
    if call.has_repeated_query() {
        return Err(refuse("repeated parameter"));
    }
    let state = call.query("state").filter(|state| !state.is_empty()).ok_or_else(|| refuse("no state"))?;
    if session::cookie_of(call, STATE_COOKIE).as_deref() != Some(state) {
        return Err(refuse("the state is not this browser's"));
    }
    // Consumed whatever follows: a state serves once.
    let attempt = database::one(
        "DELETE FROM one_time_tokens WHERE token_hash = ?1 AND kind = 'signin' RETURNING payload, expires_at",
        vec![fingerprint::of(state).into()],
    )
    .await?;
    let attempt = attempt.filter(|row| row.integer(1) > clock::now()).ok_or_else(|| refuse("the state is unknown, used or expired"))?;
    let attempt: Attempt = serde_json::from_str(&attempt.text(0)).map_err(Problem::internal)?;
    if attempt.provider != provider {
        return Err(refuse("the state belongs to another provider"));
    }
    if call.query("error").is_some() {
        return Err(refuse("the provider or the person declined"));
    }
    let code = call.query("code").filter(|code| !code.is_empty()).ok_or_else(|| refuse("no code"))?;
    let identity = attempt.finish(&call.settings, code).await?;
    let (_, token) = sign_in(call, &identity).await?;
    let response = reply::redirect(&attempt.return_to)?;
    let response = reply::with_header(response, header::SET_COOKIE, &session::cookie(call, &token)?)?;
    reply::with_header(response, header::SET_COOKIE, &session::set_cookie(call, STATE_COOKIE, "", 0)?)
}

#[derive(Deserialize)]
struct OneTap {
    credential: String,
}

/// POST /auth/google `{credential}`: an id token from Google's own button.
async fn one_tap(mut call: Call) -> Result<Reply, Problem> {
    let input: OneTap = call.json().await?;
    let identity = identity::google::verify(&call.settings, &input.credential, None).await?;
    let (user, token) = sign_in(&call, &identity).await?;
    let body = json!({"user": user, "credits": user.credits, "token": token});
    reply::with_header(reply::ok(&body)?, header::SET_COOKIE, &session::cookie(&call, &token)?)
}

/// Finds or makes the user, and starts a new session; one that the browser had is over.
async fn sign_in(call: &Call, identity: &Identity) -> Result<(User, String), Problem> {
    let signup_credits = call.settings.integer("signup_credits")?;
    let new_id = uuid::Uuid::now_v7().to_string();
    let user = user::for_identity(identity, &new_id, signup_credits, clock::now()).await?;
    if let Some(previous) = session::find(call).await? {
        // It may be over already, and that is all right.
        let _ = session::end(&previous.user_id, &previous.session).await;
    }
    let token = session::start(call, &user.id).await?;
    Ok((user, token))
}

/// GET /auth/session: who is this? Writes nothing for a stranger.
async fn session_of(call: &Call) -> Result<Reply, Problem> {
    let user = match session::find(call).await? {
        Some(SignedIn { user_id, .. }) => user::by_id(&user_id, clock::now()).await?,
        None => None,
    };
    let credits = user.as_ref().map_or(0, |user| user.credits);
    reply::ok(&json!({"user": user, "credits": credits}))
}

/// POST /auth/logout, `?all=true` for every session. The session is dead at once.
async fn logout(call: &Call) -> Result<Reply, Problem> {
    if let Some(caller) = session::find(call).await? {
        if call.query("all") == Some("true") {
            session::end_all(&caller.user_id).await?;
        } else {
            match session::end(&caller.user_id, &caller.session).await {
                Err(problem) if problem.code != Code::NotFound => return Err(problem),
                _ => {}
            }
        }
    }
    reply::with_header(reply::no_content(), header::SET_COOKIE, &session::forget_cookie(call)?)
}

/// GET /auth/sessions: where am I signed in?
async fn sessions(call: &Call) -> Result<Reply, Problem> {
    let caller = session::require(call).await?;
    reply::ok(&json!({"sessions": session::list(&caller).await?}))
}

/// DELETE /auth/sessions/{id}
async fn revoke(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = session::require(call).await?;
    session::end(&caller.user_id, id).await?;
    Ok(reply::no_content())
}
