//! Who is calling: sessions behind a signed token.
//!
//! The token is `<id>.<signature>`: 256 random bits and their HMAC, both base64url. It travels as the cookie `__session` or as
//! `Authorization: Bearer`. Only the SHA-256 of the id is stored: in key-value, where every request looks, and in the
//! `sessions` table, which is the truth when the cache is empty or out of order. The signature lets a forged token be refused
//! without asking either. What is stored with a session (whose it is in key-value, the client's address and browser in the table) is
//! sealed.
//!
//! A session ends after 30 days, after 7 days in which nobody used it, and when it is ended: then its row says so first, and its entry
//! in key-value goes next, so whoever was cut off in between can finish by doing it again.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use cache::entry;
use database::{Value, one, run};
use hmac::{Hmac, KeyInit, Mac};
use problem::{Code, Problem};
use retention::sessions;
use seal::Keys;
use serde::{Deserialize, Serialize};
use service::Call;
use sha2::Sha256;

mod origin;

pub use origin::refuse_other_sites;

/// The cookie's name, given by the system this one replaces.
pub const COOKIE: &str = "__session";
/// A session ends after so many seconds whatever happens.
const ABSOLUTE: u64 = 30 * 86_400;
/// It ends after so many seconds without use, give or take the day that key-value answers for the table.
const IDLE: i64 = 7 * 86_400;
/// Its row notes its use once in so many seconds.
const NOTED: i64 = 3_600;

/// Proof that the caller is signed in. Functions that act for a person take it, so the check cannot be forgotten.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user_id: String,
    /// Hex SHA-256 of the session id: names the session without opening it.
    pub session: String,
    /// Unix seconds until which this session has read enough (crates/limit); 0: it may go on.
    pub resting_until: i64,
}

/// What key-value holds for a session.
#[derive(Serialize, Deserialize)]
struct Stored {
    user_id: String,
    /// Unix seconds; see [`SignedIn::resting_until`].
    #[serde(default)]
    resting_until: i64,
}

/// What the table says about a session.
struct Known {
    user_id: String,
    /// Unix seconds.
    expires_at: i64,
}

/// A session as its owner sees it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Session))]
pub struct Listed {
    pub id: String,
    pub current: bool,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds, to about a day.
    pub last_seen_at: i64,
}

/// The caller, who must be signed in.
///
/// # Errors
/// `unauthenticated`.
pub async fn require(call: &Call) -> Result<SignedIn, Problem> {
    find(call).await?.ok_or_else(|| Problem::new(Code::Unauthenticated, "Sign in at /auth/login/google or /auth/login/github."))
}

/// The caller, if signed in. Writes nothing for a stranger.
///
/// # Errors
/// `service_unavailable` when neither store can say; `forbidden` when another site's page makes a browser send the cookie.
pub async fn find(call: &Call) -> Result<Option<SignedIn>, Problem> {
    let token = match call.bearer() {
        Some(token) => token.to_owned(),
        None => {
            let Some(token) = cookie_of(call, COOKIE) else { return Ok(None) };
            refuse_other_sites(call)?;
            token
        }
    };
    let Some(session) = verify(call.settings.list("session_secret")?, &token) else { return Ok(None) };
    let keys = Keys::from_settings(&call.settings)?;
    let entry = entry::session(&session);
    let looked = cache::look::<String>(&entry).await;
    let there_is_a_cache = looked.is_some();
    let stored = match looked.flatten().and_then(|sealed| keys.open_json::<Stored>(&entry, &sealed)) {
        Some(stored) => stored,
        None => {
            let Some(known) = from_table(&session).await? else { return Ok(None) };
            let stored = Stored { user_id: known.user_id, resting_until: 0 };
            if there_is_a_cache && !remember(&keys, &session, &stored, known.expires_at).await? {
                return Ok(None);
            }
            stored
        }
    };
    call.note_user(&stored.user_id);
    Ok(Some(SignedIn { user_id: stored.user_id, session, resting_until: stored.resting_until }))
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
    let keys = Keys::from_settings(&call.settings)?;
    let created_at = clock::now();
    let expires_at = created_at + ABSOLUTE as i64;
    let address = call.client()?.map(|client| keys.seal(&address_of(user_id), &client.ip.to_string())).transpose()?;
    let browser = call.header("user-agent").map(|text| text.chars().take(300).collect::<String>());
    let browser = browser.map(|browser| keys.seal(&browser_of(user_id), &browser)).transpose()?;
    run(
        "INSERT INTO sessions (id_hash, user_id, ip_address, user_agent, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        vec![session.as_str().into(), user_id.into(), address.into(), browser.into(), created_at.into(), expires_at.into()],
    )
    .await?;
    if !remember(&keys, &session, &Stored { user_id: user_id.to_owned(), resting_until: 0 }, expires_at).await? {
        return Err(Problem::new(Code::Unauthenticated, "This sign-in was ended from elsewhere. Sign in again."));
    }
    call.note_user(user_id);
    let secret = call.settings.list("session_secret")?.next().unwrap_or_default().to_owned();
    Ok(format!("{id}.{}", sign(&secret, &id)))
}

/// Where the address of a sign-in is sealed for; its log line carries the same text.
fn address_of(user_id: &str) -> String {
    format!("address of {user_id}")
}

fn browser_of(user_id: &str) -> String {
    format!("browser of {user_id}")
}

/// The `Set-Cookie` value that hands a token to a browser.
///
/// # Errors
/// `internal` without `public_url`.
pub fn cookie(call: &Call, token: &str) -> Result<String, Problem> {
    set_cookie(call, COOKIE, token, ABSOLUTE)
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
/// Over https the names of the others than [`COOKIE`] begin with `__Host-`: a browser takes such a cookie from this very host only, so that a
/// neighbour under our domain cannot plant one. [`cookie_of`] knows.
///
/// # Errors
/// `internal` without `public_url`.
pub fn set_cookie(call: &Call, name: &str, value: &str, seconds: u64) -> Result<String, Problem> {
    let public_url = call.settings.public_url()?;
    let secure = if is_https(public_url) { "; Secure" } else { "" };
    let name = full_name(public_url, name);
    Ok(format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"))
}

/// The value of a cookie the caller sent. `None` as well where it sent two: one was planted, perhaps by a neighbour under our domain with a longer
/// `Path`, and nothing says which.
#[must_use]
pub fn cookie_of(call: &Call, name: &str) -> Option<String> {
    cookie_in(&call.headers, &full_name(call.settings.public_url().ok()?, name))
}

fn is_https(public_url: &str) -> bool {
    public_url.starts_with("https://")
}

/// A cookie's name where the app is reached.
fn full_name(public_url: &str, name: &str) -> String {
    if name != COOKIE && is_https(public_url) { format!("__Host-{name}") } else { name.to_owned() }
}

fn cookie_in(headers: &http::HeaderMap, name: &str) -> Option<String> {
    let mut found = None;
    for header in headers.get_all("cookie") {
        for pair in header.to_str().unwrap_or_default().split(';') {
            let Some((_, value)) = pair.trim().split_once('=').filter(|(given, _)| *given == name) else { continue };
            let value = value.trim_matches('"');
            if found.is_some_and(|other| other != value) {
                return None;
            }
            found = Some(value);
        }
    }
    found.map(str::to_owned)
}

/// Ends one session of a user, at once.
///
/// # Errors
/// `not_found` when it is not theirs or over; `service_unavailable` when it could not be taken out of the cache: then it is not dead.
pub async fn end(user_id: &str, session: &str) -> Result<(), Problem> {
    let sql = "UPDATE sessions SET expires_at = 0 WHERE id_hash = ?1 AND user_id = ?2 AND expires_at > 0 RETURNING id_hash";
    if one(sql, vec![session.into(), user_id.into()]).await?.is_some() {
        return forget(session).await;
    }
    // Perhaps somebody was cut off between the two steps.
    if one("SELECT 1 FROM sessions WHERE id_hash = ?1 AND user_id = ?2", vec![session.into(), user_id.into()]).await?.is_some() {
        forget(session).await?;
    }
    Err(Problem::not_found("session"))
}

/// Ends every session of a user but the one that asks for it: with that one they can ask again if this is cut off, and then those whose rows were
/// ended before are taken out of the cache as well.
///
/// # Errors
/// `service_unavailable` when one could not be taken out of the cache: then it is not dead.
pub async fn end_others(caller: &SignedIn) -> Result<(), Problem> {
    let sql = "UPDATE sessions SET expires_at = 0 WHERE user_id = ?1 AND id_hash <> ?2 RETURNING id_hash";
    for row in run(sql, vec![caller.user_id.as_str().into(), caller.session.as_str().into()]).await? {
        forget(&row.text(0)).await?;
    }
    Ok(())
}

/// Removes the rows of sessions that are over, a batch of each kind, and answers how many: the ended ones once they are surely out of the cache.
///
/// # Errors
/// The stores'.
pub async fn sweep(now: i64) -> Result<usize, Problem> {
    let ended: Vec<String> = run(sessions::ENDED, Vec::new()).await?.iter().map(|row| row.text(0)).collect();
    if !ended.is_empty() {
        for session in &ended {
            forget(session).await?;
        }
        let sql = "DELETE FROM sessions WHERE id_hash IN (SELECT value FROM json_each(?1))";
        run(sql, vec![serde_json::json!(ended).to_string().into()]).await?;
    }
    let over = run(sessions::OVER, vec![now.into()]).await?.len();
    // What nobody uses may be in the cache for another day.
    let unused = run(sessions::UNUSED, vec![(now - IDLE - 86_400).into()]).await?.len();
    Ok(ended.len() + over + unused)
}

/// Whether the caller's session began at most so many seconds ago.
///
/// # Errors
/// The database's.
pub async fn is_recent(caller: &SignedIn, seconds: i64) -> Result<bool, Problem> {
    let sql = "SELECT 1 FROM sessions WHERE id_hash = ?1 AND created_at > ?2 AND expires_at > 0";
    Ok(one(sql, vec![caller.session.as_str().into(), (clock::now() - seconds).into()]).await?.is_some())
}

/// A user's sessions, newest first.
///
/// # Errors
/// The database's.
pub async fn list(call: &Call, caller: &SignedIn) -> Result<Vec<Listed>, Problem> {
    let keys = Keys::from_settings(&call.settings)?;
    let sql = "SELECT id_hash, ip_address, user_agent, created_at, expires_at, coalesce(last_seen_at, created_at) FROM sessions \
               WHERE user_id = ?1 AND expires_at > ?2 AND coalesce(last_seen_at, created_at) > ?2 - ?3 ORDER BY created_at DESC LIMIT 100";
    let rows = run(sql, vec![Value::from(caller.user_id.as_str()), clock::now().into(), IDLE.into()]).await?;
    let opened = |place: String, sealed: Option<String>| sealed.and_then(|sealed| keys.open(&place, &sealed));
    let listed = rows.iter().map(|row| Listed {
        id: row.text(0),
        current: row.text(0) == caller.session,
        ip_address: opened(address_of(&caller.user_id), row.optional_text(1)),
        user_agent: opened(browser_of(&caller.user_id), row.optional_text(2)),
        created_at: row.integer(3),
        expires_at: row.integer(4),
        last_seen_at: row.integer(5),
    });
    Ok(listed.collect())
}

/// One sign-in, as the log has it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SignIn))]
pub struct SignedInAt {
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
}

/// When and from where a user signed in, newest first: the last thousand times.
///
/// # Errors
/// The database's.
pub async fn log(call: &Call, user_id: &str) -> Result<Vec<SignedInAt>, Problem> {
    let keys = Keys::from_settings(&call.settings)?;
    let sql = "SELECT ip_address, user_agent, created_at FROM signin_logs WHERE user_id = ?1 ORDER BY created_at DESC LIMIT 1000";
    let rows = run(sql, vec![user_id.into()]).await?;
    let opened = |place: String, sealed: Option<String>| sealed.and_then(|sealed| keys.open(&place, &sealed));
    let lines = rows.iter().map(|row| SignedInAt {
        ip_address: opened(address_of(user_id), row.optional_text(0)),
        user_agent: opened(browser_of(user_id), row.optional_text(1)),
        created_at: row.integer(2),
    });
    Ok(lines.collect())
}

/// Takes an ended session out of the cache.
///
/// # Errors
/// `service_unavailable`: then it is not dead.
pub async fn forget(session: &str) -> Result<(), Problem> {
    cache::delete(&entry::session(session))
        .await
        .map_err(|error| Problem::new(Code::ServiceUnavailable, "The session could not be ended. Try again.").retry_after(2).because(error))
}

/// Notes in the cache that a session has read enough until then. Without a cache nothing is noted, and reading goes on.
///
/// # Errors
/// The database's.
pub async fn rest(call: &Call, caller: &SignedIn, until: i64) -> Result<(), Problem> {
    let Some(known) = from_table(&caller.session).await? else { return Ok(()) };
    let stored = Stored { user_id: known.user_id, resting_until: until };
    remember(&Keys::from_settings(&call.settings)?, &caller.session, &stored, known.expires_at).await.map(drop)
}

async fn from_table(session: &str) -> Result<Option<Known>, Problem> {
    let now = clock::now();
    let sql = "SELECT user_id, coalesce(last_seen_at, created_at), expires_at FROM sessions \
               WHERE id_hash = ?1 AND expires_at > ?2 AND coalesce(last_seen_at, created_at) > ?2 - ?3";
    let Some(row) = one(sql, vec![session.into(), now.into(), IDLE.into()]).await? else { return Ok(None) };
    if row.integer(1) <= now - NOTED {
        // Missing it once is no harm: the next day's first request notes it again.
        let noted = run("UPDATE sessions SET last_seen_at = ?2 WHERE id_hash = ?1", vec![session.into(), now.into()]).await;
        if let Err(error) = noted {
            meter::log(serde_json::json!({"level": "warn", "event": "session_use_not_noted", "cause": format!("{error:?}")}));
        }
    }
    Ok(Some(Known { user_id: row.text(0), expires_at: row.integer(2) }))
}

/// Puts a session that the table knows into the cache, for no longer than it lives. Answers whether it is still alive: somebody may have ended it between our look at
/// the table and our writing, and must not find it risen.
async fn remember(keys: &Keys, session: &str, stored: &Stored, expires_at: i64) -> Result<bool, Problem> {
    let entry = entry::session(session);
    let left = u64::try_from(expires_at - clock::now()).unwrap_or_default();
    cache::set(&entry, &keys.seal_json(&entry, stored)?, left.min(entry::SESSION_SECONDS)).await;
    if one("SELECT 1 FROM sessions WHERE id_hash = ?1 AND expires_at > 0", vec![session.into()]).await?.is_some() {
        return Ok(true);
    }
    forget(session).await?;
    Ok(false)
}

/// The hash of the session id, if the token is one of ours: signed with any of our secrets.
fn verify<'s>(mut secrets: impl Iterator<Item = &'s str>, token: &str) -> Option<String> {
    let (id, signature) = token.split_once('.')?;
    let signature = BASE64.decode(signature).ok()?;
    secrets.any(|secret| mac(secret, id).verify_slice(&signature).is_ok()).then(|| fingerprint::of(id))
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
        let verify = |secrets: &'static [&str], token: &str| verify(secrets.iter().copied(), token);
        assert_eq!(verify(&["secret"], &token), Some(fingerprint::of("abc")));
        assert_eq!(verify(&["newer", "secret"], &token), Some(fingerprint::of("abc")), "while secrets are exchanged both are good");
        assert_eq!(verify(&["other"], &token), None);
        assert_eq!(verify(&[], &token), None);
        for forged in ["abc", "abc.", "abd.AAAA", "", ".", &format!("abd.{}", sign("secret", "abc"))] {
            assert_eq!(verify(&["secret"], forged), None, "{forged}");
        }
    }

    #[test]
    fn of_two_cookies_of_one_name_none_counts() {
        let cookie = |lines: &[&'static str]| {
            let mut headers = http::HeaderMap::new();
            for line in lines {
                headers.append("cookie", http::HeaderValue::from_static(line));
            }
            cookie_in(&headers, COOKIE)
        };
        assert_eq!(cookie(&["a=b; __session=mine; c=d"]).as_deref(), Some("mine"));
        assert_eq!(cookie(&["__session=mine; __session=\"mine\""]).as_deref(), Some("mine"), "twice the same is one");
        for lines in [&["__session=planted; __session=mine"][..], &["__session=mine", "__session=planted"], &["__session=mine; __session="]]
        {
            assert_eq!(cookie(lines), None, "{lines:?}");
        }
        assert_eq!(cookie(&["__session2=planted; __session=mine"]).as_deref(), Some("mine"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_as_a_cookie_or_a_token_is_no_session(header in "[ -~]{0,200}", token in ".{0,120}") {
            let mut headers = http::HeaderMap::new();
            headers.insert("cookie", http::HeaderValue::from_str(&header).expect("printable"));
            let value = cookie_in(&headers, COOKIE);
            proptest::prop_assert!(value.is_none() || header.contains(COOKIE));
            proptest::prop_assert_eq!(verify(["secret"].into_iter(), &token), None);
            proptest::prop_assert_eq!(verify(["secret"].into_iter(), &value.unwrap_or_default()), None);
        }
    }
}
