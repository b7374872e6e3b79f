//! GitHub: plain OAuth. The identity is the numeric `id`; a login name can be given up and taken by somebody else.

use config::Settings;
use http::{HeaderValue, Method, header};
use outbound::form;
use problem::Problem;
use serde::Deserialize;
use serde_json::Value;

use crate::{Attempt, Identity, LIMIT, Provider, redirect_uri, refused, unavailable, url};

#[derive(Deserialize)]
struct Person {
    id: i64,
    login: String,
    name: Option<String>,
    avatar_url: Option<String>,
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

pub(crate) fn authorize_url(settings: &Settings, state: &str, challenge: &str, hint: Option<&str>) -> Result<String, Problem> {
    let redirect_uri = redirect_uri(settings, Provider::Github)?;
    let mut query = vec![
        ("client_id", settings.text("github_client_id")?),
        ("redirect_uri", &redirect_uri),
        ("scope", "user:email"),
        ("state", state),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ];
    query.extend(hint.map(|hint| ("login", hint)));
    Ok(format!("{}?{}", url(settings, "github_base_url", "/login/oauth/authorize")?, form(&query)))
}

pub(crate) async fn identity(settings: &Settings, code: &str, attempt: &Attempt) -> Result<Identity, Problem> {
    let body = form(&[
        ("client_id", settings.text("github_client_id")?),
        ("client_secret", settings.text("github_client_secret")?),
        ("code", code),
        ("redirect_uri", &redirect_uri(settings, Provider::Github)?),
        ("code_verifier", &attempt.verifier),
    ]);
    let url = url(settings, "github_base_url", "/login/oauth/access_token")?;
    let mut request = outbound::full(Method::POST, &url, "application/x-www-form-urlencoded", body).map_err(unavailable)?;
    // Without it the answer is form-encoded.
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let (status, answer) = outbound::json::<Value>("github", request, LIMIT).await.map_err(unavailable)?;
    if status.is_server_error() {
        return Err(unavailable(format!("token endpoint: status {status}")));
    }
    // Refusals come with status 200.
    let Some(token) = answer["access_token"].as_str() else {
        return Err(refused(format!("token endpoint: status {status}, error {}", outbound::code_in(&answer["error"]))));
    };

    let (person, emails) =
        futures::join!(ask::<Person>(settings, token, "/user"), ask::<Vec<Email>>(settings, token, "/user/emails?per_page=100"));
    let (person, emails) = (person?, emails?);
    let email = emails.into_iter().find(|email| email.primary && email.verified);
    let email = email.ok_or_else(|| refused("no verified primary e-mail address"))?.email.to_lowercase();
    Ok(Identity {
        provider: Provider::Github.name(),
        openid: person.id.to_string(),
        // GitHub checked the address once; it does not run the mailbox.
        authoritative_for_email: false,
        vouches_for_email: false,
        name: person.name.filter(|name| !name.is_empty()).unwrap_or(person.login),
        picture: person.avatar_url,
        email,
    })
}

async fn ask<T: serde::de::DeserializeOwned>(settings: &Settings, token: &str, path: &str) -> Result<T, Problem> {
    let url = url(settings, "github_api_url", path)?;
    let mut request = outbound::empty(Method::GET, &url).map_err(unavailable)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(refused)?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    // A request without it is refused.
    headers.insert(header::USER_AGENT, HeaderValue::from_static("ai-hairstyle"));
    headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
    let response = outbound::send("github", request, LIMIT).await.map_err(unavailable)?;
    let status = response.status();
    let bytes = outbound::read("github", response, 1 << 20, LIMIT).await.map_err(unavailable)?;
    if status.is_server_error() {
        return Err(unavailable(format!("{path}: status {status}")));
    }
    if !status.is_success() {
        return Err(refused(format!("{path}: status {status}")));
    }
    // What does not fit is about a person, and stays out of the log.
    serde_json::from_slice(&bytes).map_err(|error| unavailable(format!("{path}: {}", outbound::place_in(&error))))
}
