//! Who is calling: sessions behind a signed token.
//!
//! The token is `<id>.<signature>`: 256 random bits and their HMAC, both base64url. It travels as the cookie `__session` or as
//! `Authorization: Bearer`. Only the SHA-256 of the id is stored: in key-value, where every request looks, and in the
//! `sessions` table, which is the truth when the cache is empty or out of order. The signature lets a forged token be refused
//! without asking either.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use cache::entry;
use database::{Value, run};
use hmac::{Hmac, KeyInit, Mac};
use problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use service::Call;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The cookie's name, given by the system this one replaces.
pub const COOKIE: &str = "__session";

/// Proof that the caller is signed in. Functions that act for a person take it, so the check cannot be forgotten.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user_id: String,
    /// Hex SHA-256 of the session id: names the session without opening it.
    pub session: String,
}

/// What key-value holds for a session.
#[derive(Serialize, Deserialize)]
struct Stored {
    user_id: String,
}

/// A session as its owner sees it.
#[derive(Serialize)]
pub struct Listed {
    pub id: String,
    pub current: bool,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub expires_at: i64,
}

/// The caller, who must be signed in.
///
/// # Errors
/// `unauthenticated`.
pub async fn require(call: &Call) -> Result<SignedIn, Problem> {
    find(call).await?.ok_or_else(|| Problem::new(Code::Unauthenticated, "Sign in at /auth/login/google or /auth/login/github."))
}

/// Lets nobody through but a scheduler: whoever holds the cron secret.
///
/// # Errors
/// `unauthenticated`; also for everybody while the secret is empty.
pub fn require_scheduler(call: &Call) -> Result<(), Problem> {
    let secret = call.settings.text("cron_secret")?;
    // Compared by their fingerprints: of one length, whatever was given, and in constant time.
    let (expected, given) = (fingerprint::of(secret), fingerprint::of(call.bearer().unwrap_or_default()));
    if !secret.is_empty() && bool::from(expected.as_bytes().ct_eq(given.as_bytes())) {
        return Ok(());
    }
    Err(Problem::new(Code::Unauthenticated, "This is called by a scheduler, with the cron secret."))
}

/// The caller, if signed in. Writes nothing, whoever asks.
///
/// # Errors
/// `service_unavailable` when neither store can say.
pub async fn find(call: &Call) -> Result<Option<SignedIn>, Problem> {
    let Some(token) = token_of(call) else { return Ok(None) };
    let Some(session) = verify(call.settings.text("session_secret")?, &token) else { return Ok(None) };
    let user_id = match cache::get::<Stored>(&entry::session(&session)).await {
        Some(stored) => stored.user_id,
        None => match from_table(&session).await? {
            Some(user_id) => user_id,
            None => return Ok(None),
        },
    };
    call.note_user(&user_id);
    Ok(Some(SignedIn { user_id, session }))
}

/// Starts a session and answers its token. The id is new, whatever the caller brought.
///
/// # Errors
/// The database's.
pub async fn start(call: &Call, user_id: &str) -> Result<String, Problem> {
    let mut id = [0_u8; 32];
    getrandom::fill(&mut id).map_err(Problem::internal)?;
    let id = BASE64.encode(id);
    let session = fingerprint::of(&id);
    let created_at = clock::now();
    run(
        "INSERT INTO sessions (id_hash, user_id, ip_address, user_agent, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        vec![
            session.as_str().into(),
            user_id.into(),
            client_address(call).into(),
            call.header("user-agent").map(|text| text.chars().take(300).collect::<String>()).into(),
            created_at.into(),
            (created_at + entry::SESSION_SECONDS as i64).into(),
        ],
    )
    .await?;
    cache::set(&entry::session(&session), &Stored { user_id: user_id.to_owned() }, entry::SESSION_SECONDS).await;
    call.note_user(user_id);
    Ok(format!("{id}.{}", sign(call.settings.text("session_secret")?, &id)))
}

/// The `Set-Cookie` value that hands a token to a browser.
///
/// # Errors
/// `internal` without `public_url`.
pub fn cookie(call: &Call, token: &str) -> Result<String, Problem> {
    set_cookie(call, COOKIE, token, entry::SESSION_SECONDS)
}

/// The `Set-Cookie` value that makes a browser forget its session.
///
/// # Errors
/// `internal` without `public_url`.
pub fn forget_cookie(call: &Call) -> Result<String, Problem> {
    set_cookie(call, COOKIE, "", 0)
}

/// The `Set-Cookie` value of a cookie of ours: HttpOnly, Lax (so that it comes along when a person returns from sign-in or
/// payment), whole site, and `Secure` wherever the app is served over https. `value` is base64url, which needs no quoting.
///
/// # Errors
/// `internal` without `public_url`.
pub fn set_cookie(call: &Call, name: &str, value: &str, seconds: u64) -> Result<String, Problem> {
    let secure = if call.settings.public_url()?.starts_with("https://") { "; Secure" } else { "" };
    Ok(format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"))
}

/// The value of a cookie the caller sent.
#[must_use]
pub fn cookie_of(call: &Call, name: &str) -> Option<String> {
    let headers = call.headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = headers.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value.trim_matches('"').to_owned())
}

/// Ends one session of a user, at once.
///
/// # Errors
/// `not_found` when it is not theirs; `service_unavailable` when it could not be taken out of the cache: then it is not dead.
pub async fn end(user_id: &str, session: &str) -> Result<(), Problem> {
    let rows =
        run("DELETE FROM sessions WHERE id_hash = ?1 AND user_id = ?2 RETURNING id_hash", vec![session.into(), user_id.into()]).await?;
    if rows.is_empty() {
        return Err(Problem::not_found("session"));
    }
    forget(session).await
}

/// Ends every session of a user.
///
/// # Errors
/// As [`end`].
pub async fn end_all(user_id: &str) -> Result<(), Problem> {
    for row in run("DELETE FROM sessions WHERE user_id = ?1 RETURNING id_hash", vec![user_id.into()]).await? {
        forget(&row.text(0)).await?;
    }
    Ok(())
}

/// A user's sessions, newest first.
///
/// # Errors
/// The database's.
pub async fn list(caller: &SignedIn) -> Result<Vec<Listed>, Problem> {
    let sql = "SELECT id_hash, ip_address, user_agent, created_at, expires_at FROM sessions \
               WHERE user_id = ?1 AND expires_at > ?2 ORDER BY created_at DESC LIMIT 100";
    let rows = run(sql, vec![Value::from(caller.user_id.as_str()), clock::now().into()]).await?;
    let listed = rows.iter().map(|row| Listed {
        id: row.text(0),
        current: row.text(0) == caller.session,
        ip_address: row.optional_text(1),
        user_agent: row.optional_text(2),
        created_at: row.integer(3),
        expires_at: row.integer(4),
    });
    Ok(listed.collect())
}

async fn forget(session: &str) -> Result<(), Problem> {
    cache::delete(&entry::session(session))
        .await
        .map_err(|error| Problem::new(Code::ServiceUnavailable, "The session could not be ended. Try again.").retry_after(2).because(error))
}

async fn from_table(session: &str) -> Result<Option<String>, Problem> {
    let sql = "SELECT user_id FROM sessions WHERE id_hash = ?1 AND expires_at > ?2";
    Ok(database::one(sql, vec![session.into(), clock::now().into()]).await?.map(|row| row.text(0)))
}

fn token_of(call: &Call) -> Option<String> {
    call.bearer().map(str::to_owned).or_else(|| cookie_of(call, COOKIE))
}

/// The address of the peer. Spin appends its own header after any forged one of that name, so the last value counts.
fn client_address(call: &Call) -> Option<String> {
    let value = call.headers.get_all("spin-client-addr").iter().next_back()?.to_str().ok()?;
    Some(value.parse::<std::net::SocketAddr>().map_or_else(|_| value.to_owned(), |address| address.ip().to_string()))
}

/// The hash of the session id, if the token is one of ours.
fn verify(secret: &str, token: &str) -> Option<String> {
    let (id, signature) = token.split_once('.')?;
    mac(secret, id).verify_slice(&BASE64.decode(signature).ok()?).ok()?;
    Some(fingerprint::of(id))
}

fn sign(secret: &str, id: &str) -> String {
    BASE64.encode(mac(secret, id).finalize().into_bytes())
}

fn mac(secret: &str, id: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(b"session\0");
    mac.update(id.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_we_signed_opens_a_session() {
        let token = format!("abc.{}", sign("secret", "abc"));
        assert_eq!(verify("secret", &token), Some(fingerprint::of("abc")));
        assert_eq!(verify("other", &token), None);
        for forged in ["abc", "abc.", "abd.AAAA", "", ".", &format!("abd.{}", sign("secret", "abc"))] {
            assert_eq!(verify("secret", forged), None, "{forged}");
        }
    }
}
