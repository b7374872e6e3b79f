//! GitHub sign-in: the web flow of an OAuth app, and the two API calls that tell who somebody is. One address stands
//! for both github.com and api.github.com.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::consent::{self, Parameters, given};
use crate::fault::Fault;
use crate::google;
use crate::page::page;
use crate::signature::{self, stable_number};
use crate::world::{World, fresh_id, locked, pause};

const CODE_LIFE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(crate) struct Github {
    codes: Mutex<HashMap<String, Grant>>,
    tokens: Mutex<HashMap<String, Token>>,
}

struct Grant {
    email: String,
    redirect_uri: String,
    challenge: Option<String>,
    scopes: Vec<String>,
    at: Instant,
}

#[derive(Clone)]
struct Token {
    email: String,
    scopes: Vec<String>,
    unverified: bool,
}

impl Github {
    pub(crate) fn forget(&self) {
        locked(&self.codes).clear();
        locked(&self.tokens).clear();
    }
}

pub(crate) fn router(world: &Arc<World>) -> Router {
    Router::new()
        .route("/login/oauth/authorize", get(authorize))
        .route("/login/oauth/access_token", post(access_token))
        .route("/user", get(user))
        .route("/user/emails", get(emails))
        .route("/avatars/{file}", get(google::avatar))
        .with_state(Arc::clone(world))
}

/// A hint is an e-mail address or a login name; whoever has no address gets one.
fn email_of(hint: &str) -> String {
    let hint = hint.to_lowercase();
    if hint.contains('@') { hint } else { format!("{hint}@example.com") }
}

/// Login names take letters, digits and single dashes.
fn login_of(email: &str) -> String {
    let (local, domain) = email.split_once('@').unwrap_or((email, ""));
    let name = if domain == "example.com" { local.to_owned() } else { format!("{local}-{}", domain.split('.').next().unwrap_or_default()) };
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// The account's number: stable for an address, of the size real ones have.
fn id_of(email: &str) -> i64 {
    i64::try_from(stable_number(&format!("github {email}")) % 190_000_000).unwrap_or_default() + 1_000
}

async fn authorize(State(world): State<Arc<World>>, RawQuery(query): RawQuery) -> Response {
    let asked = consent::parameters(query.unwrap_or_default().as_bytes());
    if given(&asked, "client_id") != Some(world.credentials.github_client_id.as_str()) {
        return (StatusCode::NOT_FOUND, page("Not found", "")).into_response();
    }
    let redirect_uri = given(&asked, "redirect_uri").unwrap_or_default().to_owned();
    let Some(back) = consent::may_return_to(&world, &redirect_uri) else {
        let body = "<p class=bad>redirect_uri_mismatch: the redirect_uri is not associated with this application.</p>";
        return (StatusCode::BAD_REQUEST, page("Cannot go back", body)).into_response();
    };
    let method = given(&asked, "code_challenge_method");
    if given(&asked, "code_challenge").is_some() && method != Some("S256") {
        return (StatusCode::BAD_REQUEST, page("Only S256 is supported", "")).into_response();
    }
    let state = given(&asked, "state").unwrap_or_default();
    let email = given(&asked, "login").or_else(|| given(&asked, "login_hint")).map(email_of);
    let refused = asked.contains_key(consent::DENY) || world.faults.strikes(email.as_deref().unwrap_or_default(), &Fault::GithubDenies);
    if refused {
        let answer = [
            ("error", "access_denied"),
            ("error_description", "The user has denied your application access."),
            ("error_uri", "https://docs.github.com/apps/managing-oauth-apps/troubleshooting-authorization-request-errors/#access-denied"),
            ("state", state),
        ];
        return consent::send_back(back, &answer);
    }
    let Some(email) = email else {
        return consent::ask("GitHub", "login", &asked);
    };
    let code = fresh_id("")[..20].to_owned();
    let scopes = given(&asked, "scope").unwrap_or_default().split([' ', ',']).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    let grant = Grant { email, redirect_uri, challenge: given(&asked, "code_challenge").map(str::to_owned), scopes, at: Instant::now() };
    locked(&world.github.codes).insert(code.clone(), grant);
    consent::send_back(back, &[("code", &code), ("state", state)])
}

async fn access_token(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or_default();
    let form = if text(header::CONTENT_TYPE).starts_with("application/json") { json_form(&body) } else { consent::parameters(&body) };
    let code = given(&form, "code").unwrap_or_default();
    let email = locked(&world.github.codes).get(code).map(|g| g.email.clone()).unwrap_or_default();
    let subject = format!("POST /login/oauth/access_token {email}");
    let slow = world.faults.strike(&subject, |fault| match fault {
        Fault::GithubTokenSlow { ms } => Some(*ms),
        _ => None,
    });
    if let Some(ms) = slow {
        pause(ms).await;
    }
    let told = world.faults.strike(&subject, |fault| match fault {
        Fault::GithubTokenAnswers { status } => StatusCode::from_u16(*status).ok(),
        _ => None,
    });
    if let Some(status) = told {
        return (status, "As told by the sandbox.").into_response();
    }
    let answer = match exchange(&world, &form) {
        Ok(grant) => issue(&world, grant, &subject),
        Err((error, description)) => json!({
            "error": error, "error_description": description,
            "error_uri": format!("https://docs.github.com/apps/managing-oauth-apps/troubleshooting-oauth-app-access-token-request-errors/#{error}"),
        }),
    };
    // HTTP 200 in every case; JSON only for those who ask for it.
    if text(header::ACCEPT).contains("json") {
        return Json(answer).into_response();
    }
    let mut encoded = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in answer.as_object().into_iter().flatten() {
        encoded.append_pair(name, value.as_str().unwrap_or_default());
    }
    ([(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")], encoded.finish()).into_response()
}

fn json_form(body: &[u8]) -> Parameters {
    let fields: serde_json::Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

fn exchange(world: &World, form: &Parameters) -> Result<Grant, (&'static str, &'static str)> {
    let credentials = &world.credentials;
    let known = given(form, "client_id") == Some(credentials.github_client_id.as_str())
        && given(form, "client_secret") == Some(credentials.github_client_secret.as_str());
    if !known {
        return Err(("incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect."));
    }
    const BAD_CODE: (&str, &str) = ("bad_verification_code", "The code passed is incorrect or expired.");
    let code = given(form, "code").ok_or(BAD_CODE)?;
    let grant = locked(&world.github.codes).remove(code).filter(|g| g.at.elapsed() <= CODE_LIFE).ok_or(BAD_CODE)?;
    if given(form, "redirect_uri").is_some_and(|uri| uri != grant.redirect_uri) {
        return Err(("redirect_uri_mismatch", "The redirect_uri MUST match the registered callback URL for this application."));
    }
    if let Some(challenge) = &grant.challenge {
        let fits = given(form, "code_verifier").is_some_and(|verifier| signature::pkce_challenge(verifier) == *challenge);
        if !fits {
            return Err(BAD_CODE);
        }
    }
    Ok(grant)
}

fn issue(world: &World, grant: Grant, subject: &str) -> Value {
    let mut scopes = grant.scopes;
    if world.faults.strikes(subject, &Fault::GithubNoEmailScope) {
        scopes.retain(|s| s != "user:email");
    }
    let answer_scope = scopes.join(",");
    let token = fresh_id("gho_");
    let unverified = world.faults.strikes(subject, &Fault::GithubEmailUnverified);
    locked(&world.github.tokens).insert(token.clone(), Token { email: grant.email, scopes, unverified });
    json!({ "access_token": token, "token_type": "bearer", "scope": answer_scope })
}

/// What both API calls check first: that the caller has a name, and a token.
fn identified(world: &World, headers: &HeaderMap, path: &str) -> Result<Token, Response> {
    if headers.get(header::USER_AGENT).is_none_or(|v| v.is_empty()) {
        let text = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header \
                    (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required).\n";
        return Err((StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response());
    }
    let told = world.faults.strike(&format!("GET {path}"), |fault| match fault {
        Fault::GithubApiAnswers { status } => StatusCode::from_u16(*status).ok(),
        _ => None,
    });
    if let Some(status) = told {
        return Err(api_error(status, "As told by the sandbox."));
    }
    let authorization = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("token ")).unwrap_or_default();
    locked(&world.github.tokens).get(token).cloned().ok_or_else(|| api_error(StatusCode::UNAUTHORIZED, "Bad credentials"))
}

fn api_error(status: StatusCode, message: &str) -> Response {
    let body = json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.as_str() });
    (status, Json(body)).into_response()
}

async fn user(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let token = match identified(&world, &headers, "/user") {
        Ok(token) => token,
        Err(refused) => return refused,
    };
    let id = id_of(&token.email);
    let body = json!({
        "login": login_of(&token.email), "id": id, "node_id": format!("U_{id}"), "type": "User", "site_admin": false,
        "avatar_url": format!("{}/avatars/{id}.svg", world.places.github), "name": consent::name_of(&token.email), "email": null,
    });
    ([("x-oauth-scopes", token.scopes.join(", "))], Json(body)).into_response()
}

async fn emails(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let token = match identified(&world, &headers, "/user/emails") {
        Ok(token) => token,
        Err(refused) => return refused,
    };
    if !token.scopes.iter().any(|s| s == "user:email" || s == "user") {
        return api_error(StatusCode::NOT_FOUND, "Not Found");
    }
    let hidden = format!("{}+{}@users.noreply.github.com", id_of(&token.email), login_of(&token.email));
    // The primary one is not the first: who takes the first without looking gets the wrong one.
    let body = json!([
        { "email": hidden, "primary": false, "verified": true, "visibility": null },
        { "email": token.email, "primary": true, "verified": !token.unverified, "visibility": "private" },
    ]);
    ([("x-oauth-scopes", token.scopes.join(", "))], Json(body)).into_response()
}
