//! Google: OpenID Connect. The identity is `sub`; an e-mail address can change hands, that cannot.

use cache::entry;
use config::Settings;
use http::Method;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use problem::Problem;
use serde::Deserialize;
use serde_json::Value;

use crate::{Attempt, Identity, LIMIT, Provider, form, now, redirect_uri, refused, unavailable, url};

/// Both are genuine (OpenID Connect discovery of Google).
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// How far the two clocks may differ, in seconds.
const SKEW: u64 = 60;
/// Longest time signing keys are kept, in seconds; Google's own `max-age` is about this.
const KEYS_SECONDS: u64 = 6 * 3_600;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    nonce: Option<String>,
    azp: Option<String>,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    name: Option<String>,
    picture: Option<String>,
    /// The Workspace domain that runs the mailbox.
    hd: Option<String>,
    #[serde(default)]
    iat: u64,
}

pub(crate) fn authorize_url(settings: &Settings, state: &str, nonce: &str, challenge: &str, hint: Option<&str>) -> Result<url::Url, Problem> {
    let mut url = url(settings, "google_base_url", "/o/oauth2/v2/auth")?;
    url.query_pairs_mut()
        .append_pair("client_id", settings.text("google_client_id")?)
        .append_pair("redirect_uri", &redirect_uri(settings, Provider::Google)?)
        .append_pair("response_type", "code")
        .append_pair("scope", "openid email profile")
        .append_pair("state", state)
        .append_pair("nonce", nonce)
        .append_pair("code_challenge", challenge)
        .append_pair("code_challenge_method", "S256")
        .extend_pairs(hint.map(|hint| ("login_hint", hint)));
    Ok(url)
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
    let request = outbound::full(Method::POST, url.as_str(), "application/x-www-form-urlencoded", body).map_err(unavailable)?;
    let (status, answer) = outbound::json::<Value>("google", request, LIMIT).await.map_err(unavailable)?;
    if status.is_server_error() {
        return Err(unavailable(format!("token endpoint: status {status}")));
    }
    let Some(token) = answer["id_token"].as_str() else {
        return Err(refused(format!("token endpoint: status {status}, error {}", answer["error"])));
    };
    verify(settings, token, Some(&attempt.nonce)).await
}

/// Verifies an id token here, against Google's published keys, and reads the identity in it.
///
/// `nonce`: what the token must carry, when we asked for one.
///
/// # Errors
/// `unauthenticated` for any token that is not for us, now, from Google, about a verified address.
pub async fn verify(settings: &Settings, token: &str, nonce: Option<&str>) -> Result<Identity, Problem> {
    let header = decode_header(token).map_err(refused)?;
    let key_id = header.kid.ok_or_else(|| refused("the id token names no key"))?;
    let key = signing_key(settings, &key_id).await?;
    let client_id = settings.text("google_client_id")?;

    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[client_id]);
    validation.set_issuer(&ISSUERS);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.leeway = SKEW;
    validation.validate_nbf = true;
    let claims: Claims = decode(token, &key, &validation).map_err(refused)?.claims;

    if claims.azp.as_deref().is_some_and(|party| party != client_id) {
        return Err(refused("the id token is for another party"));
    }
    if claims.iat > u64::try_from(now()).unwrap_or_default() + SKEW {
        return Err(refused("the id token comes from the future"));
    }
    if nonce.is_some_and(|nonce| claims.nonce.as_deref() != Some(nonce)) {
        return Err(refused("the id token answers another sign-in"));
    }
    let email = claims.email.filter(|_| claims.email_verified).ok_or_else(|| refused("no verified e-mail address"))?.to_lowercase();
    Ok(Identity {
        provider: Provider::Google.name(),
        openid: claims.sub,
        // Google runs the mailbox only for gmail.com and for Workspace domains (`hd`).
        authoritative_for_email: email.ends_with("@gmail.com") || claims.hd.is_some(),
        name: claims.name.filter(|name| !name.is_empty()).unwrap_or_else(|| email.split('@').next().unwrap_or("Guest").to_owned()),
        picture: claims.picture,
        email,
    })
}

/// A signing key by its id: from the cache, or fetched once more when Google has new ones.
async fn signing_key(settings: &Settings, id: &str) -> Result<DecodingKey, Problem> {
    let cached = cache::get::<JwkSet>(&entry::config("google_keys")).await;
    if let Some(key) = cached.as_ref().and_then(|keys| keys.find(id)) {
        return DecodingKey::from_jwk(key).map_err(refused);
    }
    let url = url(settings, "google_certs_base_url", "/oauth2/v3/certs")?;
    let request = outbound::empty(Method::GET, url.as_str()).map_err(unavailable)?;
    let response = outbound::send("google", request, LIMIT).await.map_err(unavailable)?;
    if !response.status().is_success() {
        return Err(unavailable(format!("certs: status {}", response.status())));
    }
    let max_age = response.headers().get("cache-control").and_then(|value| value.to_str().ok()).and_then(max_age);
    let bytes = outbound::read(response, 256 * 1024, LIMIT).await.map_err(unavailable)?;
    let keys: JwkSet = serde_json::from_slice(&bytes).map_err(unavailable)?;
    cache::set(&entry::config("google_keys"), &keys, max_age.unwrap_or(3_600).min(KEYS_SECONDS)).await;
    let key = keys.find(id).ok_or_else(|| refused("the id token's key is none of Google's"))?;
    DecodingKey::from_jwk(key).map_err(refused)
}

fn max_age(cache_control: &str) -> Option<u64> {
    cache_control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")).and_then(|seconds| seconds.parse().ok())
}
