//! Google: OpenID Connect. The identity is `sub`; an e-mail address can change hands, that cannot.

use std::cell::RefCell;

use cache::entry;
use config::Settings;
use http::Method;
use outbound::{Breaker, form};
use problem::{Code, Problem};
use seal::Keys;
use serde::{Deserialize, Serialize};
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
/// For so many seconds after they were fetched they are not fetched again: a token may name any key, and strangers write tokens.
const KEYS_SETTLE: i64 = 60;

/// Google's signing keys, and when they were fetched (Unix seconds).
#[derive(Clone, Serialize, Deserialize)]
struct Published {
    keys: KeySet,
    fetched_at: i64,
    good_until: i64,
}

thread_local! {
    /// What this instance fetched last: for when key-value is out of order.
    static FETCHED: RefCell<Option<Published>> = const { RefCell::new(None) };
}

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
        return Err(refused(format!("token endpoint: status {status}, error {}", outbound::code_in(&answer["error"]))));
    };
    verify(settings, token, &attempt.nonce, None).await
}

/// Verifies an id token here, against Google's published keys, and reads the identity in it.
///
/// `nonce`: what the token must carry, so that it answers this sign-in and no other. `breaker`: the door to Google, for those who have not
/// come through it already.
///
/// # Errors
/// `unauthenticated` for any token that is not for us, now, from Google, about a verified address.
pub async fn verify(settings: &Settings, token: &str, nonce: &str, breaker: Option<&Breaker>) -> Result<Identity, Problem> {
    let token = IdToken::parse(token).map_err(refused)?;
    let key = signing_key(settings, token.key_id(), breaker).await?;
    let claims = token.verify(&key, settings.text("google_client_id")?, Some(nonce), clock::now()).map_err(refused)?;
    let email = claims.email.filter(|_| claims.email_verified).ok_or_else(|| refused("no verified e-mail address"))?.to_lowercase();
    Ok(Identity {
        provider: Provider::Google.name(),
        openid: claims.sub,
        // Google gives an address at gmail.com to one person, once. In a Workspace domain (`hd`) its owner can give it to the next.
        authoritative_for_email: email.ends_with("@gmail.com"),
        vouches_for_email: runs_mailbox(&email, claims.hd.as_deref()),
        name: claims.name.filter(|name| !name.is_empty()).unwrap_or_else(|| email.split('@').next().unwrap_or("Guest").to_owned()),
        picture: claims.picture,
        email,
    })
}

/// Whether Google runs the mailbox: its own, or one of a domain whose Workspace the account belongs to. Of any other address Google knows
/// what somebody typed once, and that it was theirs then.
fn runs_mailbox(email: &str, hd: Option<&str>) -> bool {
    let Some((_, domain)) = email.rsplit_once('@') else { return false };
    domain == "gmail.com" || hd.is_some_and(|hd| hd.eq_ignore_ascii_case(domain))
}

/// A signing key by its id: from the cache, or fetched when Google has new ones, once a minute at most.
async fn signing_key(settings: &Settings, id: &str, breaker: Option<&Breaker>) -> Result<Key, Problem> {
    let unknown = || refused("the id token's key is none of Google's");
    let now = clock::now();
    // Sealed: whoever could put a key of his own there could sign tokens for anybody.
    let (entry, seal) = (entry::config("google_keys"), Keys::from_settings(settings)?);
    // Where key-value does not answer, what this instance knows will do.
    let known = match cache::look::<String>(&entry).await {
        Some(found) => found.and_then(|sealed| seal.open_json::<Published>(&entry, &sealed)),
        None => FETCHED.with_borrow(Clone::clone).filter(|fetched| fetched.good_until > now),
    };
    if let Some(known) = known {
        if let Some(key) = known.keys.find(id) {
            return Ok(key);
        }
        if now < known.fetched_at.saturating_add(KEYS_SETTLE) {
            return Err(unknown());
        }
    }
    let pass = match breaker {
        Some(breaker) => Some(breaker.pass().await.map_err(unavailable)?),
        None => None,
    };
    let fetched = fetch(settings, now).await;
    if let Some(pass) = pass {
        pass.told(!matches!(&fetched, Err(problem) if problem.code == Code::ProviderUnavailable)).await;
    }
    let fetched = fetched?;
    let seconds = u64::try_from(fetched.good_until - now).unwrap_or_default();
    cache::set(&entry, &seal.seal_json(&entry, &fetched)?, seconds).await;
    FETCHED.set(Some(fetched.clone()));
    fetched.keys.find(id).ok_or_else(unknown)
}

async fn fetch(settings: &Settings, now: i64) -> Result<Published, Problem> {
    let url = url(settings, "google_certs_base_url", "/oauth2/v3/certs")?;
    let request = outbound::empty(Method::GET, &url).map_err(unavailable)?;
    let response = outbound::send("google", request, LIMIT).await.map_err(unavailable)?;
    if !response.status().is_success() {
        return Err(unavailable(format!("certs: status {}", response.status())));
    }
    let max_age = response.headers().get("cache-control").and_then(|value| value.to_str().ok()).and_then(max_age);
    let bytes = outbound::read("google", response, 256 * 1024, LIMIT).await.map_err(unavailable)?;
    let keys: KeySet = serde_json::from_slice(&bytes).map_err(|error| unavailable(outbound::place_in(&error)))?;
    // At least for as long as nobody may ask again.
    let seconds = max_age.unwrap_or(3_600).min(KEYS_SECONDS);
    Ok(Published { keys, fetched_at: now, good_until: now + i64::try_from(seconds).unwrap_or_default().max(KEYS_SETTLE) })
}

fn max_age(cache_control: &str) -> Option<u64> {
    cache_control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")).and_then(|seconds| seconds.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::runs_mailbox;

    #[test]
    fn google_vouches_for_mailboxes_it_runs_and_for_no_others() {
        for (email, hd) in
            [("ada@gmail.com", None), ("ada@company.example", Some("company.example")), ("ada@company.example", Some("Company.Example"))]
        {
            assert!(runs_mailbox(email, hd), "{email} {hd:?}");
        }
        for (email, hd) in [
            ("ada@company.example", None),
            ("ada@company.example", Some("")),
            ("ada@company.example", Some("other.example")),
            ("ada@company.example", Some("example")),
            ("ada@evilgmail.com", None),
            ("ada@gmail.com.evil.example", None),
            ("ada", Some("ada")),
        ] {
            assert!(!runs_mailbox(email, hd), "{email} {hd:?}");
        }
    }
}
