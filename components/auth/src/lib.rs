//! Sign-in: out to the provider and back, and the sessions that follow from it.

use http::{Method, header};
use identity::{Attempt, Provider};
use limit::Class;
use problem::{Code, Problem};
use seal::Keys;
use serde::Deserialize;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use session::SignedIn;
use spin_sdk::{http::IntoResponse, http_service};
use user::{Identity, User, Welcome};

static SERVICE: Service = Service {
    name: "auth",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
        "signup_credits",
        "signups_per_address",
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
/// Holds the secret of the nonce that Google's button was given.
const ONE_TAP_COOKIE: &str = "__onetap";
/// How long the button may wait, in seconds; Google's tokens are good for as long.
const ONE_TAP_SECONDS: u64 = 3_600;
/// Ways to sign in are added and taken away only in a session that began so many seconds ago at most.
const RECENT: i64 = 3_600;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["auth", "login", provider], &Method::GET) => login(&call, known(provider)?).await,
        (["auth", "callback", provider], &Method::GET) => match callback(&call, known(provider)?).await {
            // A person stands here, not a program: the console says what went wrong, in words.
            Err(problem) if call.takes_html() => turned_away(&problem).await,
            outcome => outcome,
        },
        (["auth", "link", provider], &Method::POST) => link(&call, known(provider)?).await,
        (["auth", "google"], &Method::POST) => one_tap(call).await,
        (["auth", "google", "nonce"], &Method::GET) => nonce(&call),
        (["auth", "session"], &Method::GET | &Method::HEAD) => session_of(&call).await,
        (["auth", "logout"], &Method::POST) => logout(&call).await,
        (["auth", "sessions"], &Method::GET | &Method::HEAD) => sessions(&call).await,
        (["auth", "sessions", id], &Method::DELETE) => revoke(&call, id).await,
        (["auth", "identities"], &Method::GET | &Method::HEAD) => identities(&call).await,
        (["auth", "identities", id], &Method::DELETE) => unlink(&call, id).await,
        (["auth", "login" | "callback", _] | ["auth", "google", "nonce"], _) => Err(Problem::method_not_allowed("GET")),
        (["auth", "session" | "sessions" | "identities"], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        (["auth", "google" | "logout"] | ["auth", "link", _], _) => Err(Problem::method_not_allowed("POST")),
        (["auth", "sessions" | "identities", _], _) => Err(Problem::method_not_allowed("DELETE")),
        _ => Err(Problem::not_found("address")),
    }
}

fn known(provider: &str) -> Result<Provider, Problem> {
    Provider::named(provider).ok_or_else(|| Problem::not_found("way to sign in"))
}

/// GET /auth/login/{provider}: remember the attempt, send the person to the provider.
async fn login(call: &Call, provider: Provider) -> Result<Reply, Problem> {
    limit::client(call, Class::SignIn).await?;
    let (url, state) = begin(call, provider, None).await?;
    reply::with_header(reply::redirect(&url)?, header::SET_COOKIE, &session::set_cookie(call, STATE_COOKIE, &state, ATTEMPT_SECONDS)?)
}

/// POST /auth/link/{provider}: begin to add a way to sign in; answers where the page has to go. Not a GET: a link on another site could
/// send a person to a provider where somebody else is signed in, whose identity would then open this account.
async fn link(call: &Call, provider: Provider) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::SignIn).await?;
    require_recent(&caller).await?;
    let (url, state) = begin(call, provider, Some(caller.user_id)).await?;
    let cookie = session::set_cookie(call, STATE_COOKIE, &state, ATTEMPT_SECONDS)?;
    reply::with_header(reply::ok(&json!({"url": url}))?, header::SET_COOKIE, &cookie)
}

async fn require_recent(caller: &SignedIn) -> Result<(), Problem> {
    if session::is_recent(caller, RECENT).await? {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "For this one has to have signed in within the last hour. Sign in again."))
}

async fn begin(call: &Call, provider: Provider, link_to: Option<String>) -> Result<(String, String), Problem> {
    let return_to = identity::safe_return(call.query("redirect_to"));
    let (attempt, state) = Attempt::begin(provider, &return_to, link_to)?;
    let name = fingerprint::of(&state);
    // A JSON string, sealed: what is in it would let its reader finish the sign-in.
    let payload = json!(Keys::from_settings(&call.settings)?.seal_json(&name, &attempt)?).to_string();
    database::run(
        "INSERT INTO one_time_tokens (token_hash, kind, payload, expires_at) VALUES (?1, 'signin', ?2, ?3)",
        vec![name.into(), payload.into(), (clock::now() + ATTEMPT_SECONDS as i64).into()],
    )
    .await?;
    let hint = call.query("login_hint").filter(|hint| hint.len() <= 200);
    Ok((attempt.authorize_url(&call.settings, &state, hint)?, state))
}

/// GET /auth/callback/{provider}: the person is back; make sure it is the same browser and the same attempt, then sign in.
async fn callback(call: &Call, provider: Provider) -> Result<Reply, Problem> {
    limit::client(call, Class::SignIn).await?;
    let refuse = |why: &str| Problem::new(Code::Unauthenticated, "The sign-in did not succeed. Start again.").because(why);
    if call.has_repeated_query() {
        return Err(refuse("repeated parameter"));
    }
    let state = call.query("state").filter(|state| !state.is_empty()).ok_or_else(|| refuse("no state"))?;
    if session::cookie_of(call, STATE_COOKIE).as_deref() != Some(state) {
        return Err(refuse("the state is not this browser's"));
    }
    // Consumed whatever follows: a state serves once.
    let name = fingerprint::of(state);
    let attempt = database::one(
        "DELETE FROM one_time_tokens WHERE token_hash = ?1 AND kind = 'signin' RETURNING payload ->> '$', expires_at",
        vec![name.as_str().into()],
    )
    .await?;
    let attempt = attempt.filter(|row| row.integer(1) > clock::now()).ok_or_else(|| refuse("the state is unknown, used or expired"))?;
    let attempt: Option<Attempt> = Keys::from_settings(&call.settings)?.open_json(&name, &attempt.text(0));
    let attempt = attempt.ok_or_else(|| refuse("no key opens the attempt"))?;
    if attempt.provider != provider || attempt.is_from_another(call.query("iss")) {
        return Err(refuse("the state belongs to another provider"));
    }
    if call.query("error").is_some() {
        return Err(refuse("the provider or the person declined"));
    }
    let code = call.query("code").filter(|code| !code.is_empty()).ok_or_else(|| refuse("no code"))?;
    let identity = attempt.finish(&call.settings, code).await?;
    let token = match &attempt.link_to {
        Some(user_id) => {
            // Whoever began it is still there.
            let caller = session::find(call).await?.filter(|caller| caller.user_id == *user_id);
            attach(call, caller.ok_or_else(|| refuse("somebody else began this"))?, &identity).await?
        }
        None => sign_in(call, &identity).await?.1,
    };
    let response = reply::with_header(reply::redirect(&attempt.return_to)?, header::SET_COOKIE, &session::cookie(call, &token)?)?;
    reply::with_header(response, header::SET_COOKIE, &session::set_cookie(call, STATE_COOKIE, "", 0)?)
}

/// Back to the console, with the problem's code.
async fn turned_away(problem: &Problem) -> Result<Reply, Problem> {
    service::count_fault(&SERVICE, problem).await;
    meter::log(json!({"level": "warn", "event": "sign_in_failed", "code": problem.code, "cause": problem.cause}));
    reply::redirect(&format!("/?sign_in={}", json!(problem.code).as_str().unwrap_or_default()))
}

/// Adds a way to sign in to the caller's account, and exchanges the session for a new one: an id that somebody may have seen before is good
/// for nothing in an account that more people's word opens now. The other sessions stay, or whoever got hold of one could shut its owner out.
async fn attach(call: &Call, caller: SignedIn, identity: &Identity) -> Result<String, Problem> {
    user::attach(&caller.user_id, identity, clock::now()).await?;
    let token = session::start(call, &caller.user_id).await?;
    end(&caller.user_id, &caller.session).await?;
    meter::log(json!({"level": "info", "event": "identity_added", "user": caller.user_id, "provider": identity.provider}));
    Ok(token)
}

/// GET /auth/google/nonce: what Google's own button has to be given, bound to this browser by a cookie. Nothing is stored.
fn nonce(call: &Call) -> Result<Reply, Problem> {
    let (secret, nonce) = identity::one_tap_nonce()?;
    let answer = reply::ok(&json!({"nonce": nonce, "client_id": call.settings.text("google_client_id")?}))?;
    reply::with_header(answer, header::SET_COOKIE, &session::set_cookie(call, ONE_TAP_COOKIE, &secret, ONE_TAP_SECONDS)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneTap {
    credential: String,
}

/// POST /auth/google `{credential}`: an id token from Google's own button.
async fn one_tap(mut call: Call) -> Result<Reply, Problem> {
    session::refuse_other_sites(&call)?;
    limit::client(&call, Class::SignIn).await?;
    let input: OneTap = call.json().await?;
    let refuse = |why: &str| Problem::new(Code::Unauthenticated, "The sign-in did not succeed. Start again.").because(why);
    let secret = session::cookie_of(&call, ONE_TAP_COOKIE).filter(|secret| !secret.is_empty());
    let secret = secret.ok_or_else(|| refuse("no nonce was asked for, see GET /auth/google/nonce"))?;
    let identity = identity::one_tap(&call.settings, &input.credential, &secret).await?;
    // A token serves once. It is remembered for longer than it is good.
    let used = database::run(
        "INSERT INTO one_time_tokens (token_hash, kind, payload, expires_at) VALUES (?1, 'used', '{}', ?2)",
        vec![fingerprint::of(&input.credential).into(), (clock::now() + 2 * ONE_TAP_SECONDS as i64).into()],
    );
    match used.await {
        Ok(_) => {}
        Err(database::Error::Taken(_)) => return Err(refuse("the token was used before")),
        Err(error) => return Err(error.into()),
    }
    let (user, token) = sign_in(&call, &identity).await?;
    let body = json!({"user": user, "credits": user.credits, "token": token});
    let answer = reply::with_header(reply::ok(&body)?, header::SET_COOKIE, &session::cookie(&call, &token)?)?;
    reply::with_header(answer, header::SET_COOKIE, &session::set_cookie(&call, ONE_TAP_COOKIE, "", 0)?)
}

/// Finds or makes the user, and starts a new session; one that the browser had is over.
async fn sign_in(call: &Call, identity: &Identity) -> Result<(User, String), Problem> {
    let address = call.client()?.filter(|client| client.distinct);
    let welcome = Welcome {
        credits: call.settings.integer("signup_credits")?,
        mailbox: Keys::from_settings(&call.settings)?.fingerprints("mailbox", &user::mailbox(&identity.email)),
        address: address.map(|client| limit::fingerprint(call, &client.network())).transpose()?,
        a_day: call.settings.integer("signups_per_address")?,
    };
    let new_id = uuid::Uuid::now_v7().to_string();
    let user = user::for_identity(identity, &new_id, &welcome, clock::now()).await?;
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
        Some(caller) => {
            limit::read(call, &caller).await?;
            user::by_id(&caller.user_id, clock::now()).await?
        }
        None => None,
    };
    let credits = user.as_ref().map_or(0, |user| user.credits);
    reply::ok(&json!({"user": user, "credits": credits}))
}

/// POST /auth/logout, `?all=true` for every session. The session is dead at once.
async fn logout(call: &Call) -> Result<Reply, Problem> {
    // Also where no cookie came along: another site's form brings none of ours, but our answer would make the browser forget it.
    if call.bearer().is_none() {
        session::refuse_other_sites(call)?;
    }
    let all = call.query("all");
    // Whoever meant all sessions must not believe that they are over.
    if all.is_some_and(|all| all != "true") {
        return Err(Problem::invalid("all", "all is true, or left out."));
    }
    if let Some(caller) = session::find(call).await? {
        if all.is_some() {
            session::end_others(&caller).await?;
        }
        end(&caller.user_id, &caller.session).await?;
    }
    reply::with_header(reply::no_content(), header::SET_COOKIE, &session::forget_cookie(call)?)
}

/// Ends a session, or finds it over.
async fn end(user_id: &str, session: &str) -> Result<(), Problem> {
    match session::end(user_id, session).await {
        Err(problem) if problem.code != Code::NotFound => Err(problem),
        _ => Ok(()),
    }
}

/// GET /auth/identities: how can I sign in?
async fn identities(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    reply::ok(&json!({"identities": user::identities(&caller.user_id).await?}))
}

/// DELETE /auth/identities/{id}: this way to sign in opens the account no more. Sessions that may have begun with it are over, all but this one.
async fn unlink(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::SignIn).await?;
    require_recent(&caller).await?;
    user::may_detach(&caller.user_id, id).await?;
    // The sessions first: whoever is cut off can ask again as long as there is something to take away.
    session::end_others(&caller).await?;
    let provider = user::detach(&caller.user_id, id).await?;
    meter::log(json!({"level": "info", "event": "identity_removed", "user": caller.user_id, "provider": provider}));
    // Somebody may have come in with it just before it went.
    session::end_others(&caller).await?;
    Ok(reply::no_content())
}

/// GET /auth/sessions: where am I signed in?
async fn sessions(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    reply::ok(&json!({"sessions": session::list(call, &caller).await?}))
}

/// DELETE /auth/sessions/{id}
async fn revoke(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::SignIn).await?;
    session::end(&caller.user_id, id).await?;
    Ok(reply::no_content())
}
