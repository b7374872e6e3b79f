//! Google: OpenID Connect. The identity is `sub`; an e-mail address can change hands, that cannot.

use cache::entry;
use config::Settings;
use http::Method;
use outbound::form;
use problem::Problem;
use serde_json::Value;

use crate::{
    Attempt, Identity, LIMIT, Provider,
    id_token::{IdToken, Key, KeySet},
    redirect_uri, refused, unavailable, url,
};

/// The one issuer that answers of the redirect flow name (RFC 9207).
pub(crate) fn is_issuer(issuer: &str) -> bool {
    issuer == "https://accounts.google.com"
}

/// Longest time signing keys are kept, in seconds; Google's own `max-age` is about this.
const KEYS_SECONDS: u64 = 6 * 3_600;

pub(crate) fn authorize_url(settings: &Settings, state: &str, nonce: &str, challenge: &str, hint: Option<&str>) -> Result<String, Problem> {
    let redirect_uri = redirect_uri(settings, Provider::Google)?;
    let mut query = vec![
        ("client_id", settings.text("google_client_id")?),
        ("redirect_uri", &redirect_uri),
        ("response_type", "code"),
        ("scope", "openid email profile"),
        ("state", state),
        ("nonce", nonce),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ];
    query.extend(hint.map(|hint| ("login_hint", hint)));
    Ok(format!("{}?{}", url(settings, "google_base_url", "/o/oauth2/v2/auth")?, form(&query)))
}

pub(crate) async fn identity(settings: &Settings, code: &str, attempt: &Attempt) -> Result<Identity, Problem> {
    let body = form(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("client_id", settings.text("google_client_id")?),
        ("client_secret", settings.text("google_client_secret")?),
        ("redirect_uri", &redirect_uri(settings, Provider::Google)?),
        ("code_verifier", &attempt.verifier),
    ]);
    let url = url(settings, "google_token_base_url", "/token")?;
    let request = outbound::full(Method::POST, &url, "application/x-www-form-urlencoded", body).map_err(unavailable)?;
    let (status, answer) = outbound::json::<Value>("google", request, LIMIT).await.map_err(unavailable)?;
    if status.is_server_error() {
        return Err(unavailable(format!("token endpoint: status {status}")));
    }
    let Some(token) = answer["id_token"].as_str() else {
        return Err(refused(format!("token endpoint: status {status}, error {}", answer["error"])));
    };
    verify(settings, token, &attempt.nonce).await
}

/// Verifies an id token here, against Google's published keys, and reads the identity in it.
///
/// `nonce`: what the token must carry, so that it answers this sign-in and no other.
///
/// # Errors
/// `unauthenticated` for any token that is not for us, now, from Google, about a verified address.
pub async fn verify(settings: &Settings, token: &str, nonce: &str) -> Result<Identity, Problem> {
    let token = IdToken::parse(token).map_err(refused)?;
    let key = signing_key(settings, token.key_id()).await?;
    let claims = token.verify(&key, settings.text("google_client_id")?, Some(nonce), clock::now()).map_err(refused)?;
    let email = claims.email.filter(|_| claims.email_verified).ok_or_else(|| refused("no verified e-mail address"))?.to_lowercase();
    Ok(Identity {
        provider: Provider::Google.name(),
        openid: claims.sub,
        // Google gives an address at gmail.com to one person, once. In a Workspace domain (`hd`) its owner can give it to the next.
        authoritative_for_email: email.ends_with("@gmail.com"),
        name: claims.name.filter(|name| !name.is_empty()).unwrap_or_else(|| email.split('@').next().unwrap_or("Guest").to_owned()),
        picture: claims.picture,
        email,
    })
}

/// A signing key by its id: from the cache, or fetched once more when Google has new ones.
async fn signing_key(settings: &Settings, id: &str) -> Result<Key, Problem> {
    let cached = cache::get::<KeySet>(&entry::config("google_keys")).await;
    if let Some(key) = cached.and_then(|keys| keys.find(id)) {
        return Ok(key);
    }
    let url = url(settings, "google_certs_base_url", "/oauth2/v3/certs")?;
    let request = outbound::empty(Method::GET, &url).map_err(unavailable)?;
    let response = outbound::send("google", request, LIMIT).await.map_err(unavailable)?;
    if !response.status().is_success() {
        return Err(unavailable(format!("certs: status {}", response.status())));
    }
    let max_age = response.headers().get("cache-control").and_then(|value| value.to_str().ok()).and_then(max_age);
    let bytes = outbound::read("google", response, 256 * 1024, LIMIT).await.map_err(unavailable)?;
    let keys: KeySet = serde_json::from_slice(&bytes).map_err(unavailable)?;
    cache::set(&entry::config("google_keys"), &keys, max_age.unwrap_or(3_600).min(KEYS_SECONDS)).await;
    keys.find(id).ok_or_else(|| refused("the id token's key is none of Google's"))
}

fn max_age(cache_control: &str) -> Option<u64> {
    cache_control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")).and_then(|seconds| seconds.parse().ok())
}
