//! `Idempotency-Key`: a request that is repeated does its work once and gets the same answer.
//!
//! Only answers of success are kept, sealed: they hold what was answered to one person. A refusal did nothing, so it frees its key: after buying credits the same order may be sent
//! again. A fault of ours or of somebody outside may have come after a part of the work: the key stays with that work, and whoever
//! sends the request again goes on with it. Whoever comes while the work is under way waits for its answer.

use std::time::Duration;

use database::{Error, Row, one, run};
use http::{HeaderName, StatusCode};
use problem::{Code, Problem};
use seal::Keys;
use serde_json::Value;
use service::{Call, Reply, reply};

/// The header a client sends.
pub const HEADER: &str = "Idempotency-Key";
/// Says that an answer is one that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer is kept, in seconds.
const KEPT: i64 = 86_400;
/// How long a claim lasts, in seconds: longer than any of the requests can take.
const CLAIM: i64 = 120;
/// How long a second request with the same key waits for the answer of the first before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits before its second look; then longer each time.
const PAUSE: Duration = Duration::from_millis(100);

/// What a key stands for.
pub enum Begun {
    /// Work to do, by whoever holds this.
    Work(Work),
    /// Work that was done.
    Done(Done),
}

/// A claimed key.
pub struct Work {
    keys: Keys,
    /// Rows that the work makes take their ids from this: it is the same when a request that was cut off is sent again.
    pub id: String,
    /// Whether somebody began it before: what they have made comes first, whatever has changed since.
    pub resumed: bool,
    owner: [String; 3],
    claim: String,
}

/// A kept answer.
pub struct Done {
    fingerprint: String,
    status: u16,
    body: String,
}

/// Does `work` once for the key of this request, if it has one; a repetition gets the kept answer. `work` is given what it is
/// done under, if there is a key, and answers status and JSON.
///
/// # Errors
/// `invalid_input` for a key that is none, `idempotency_key_reused`, `conflict` while another request with the same key takes too long; those of `work`.
pub async fn once(
    call: &Call,
    user_id: &str,
    endpoint: &'static str,
    body: &[u8],
    work: impl AsyncFnOnce(Option<&Work>) -> Result<(StatusCode, Value), Problem>,
) -> Result<Reply, Problem> {
    let fingerprint = fingerprint::of_bytes(body);
    match begin(call, user_id, endpoint, Some(&fingerprint)).await? {
        None => {
            let (status, answer) = work(None).await?;
            reply::json(status, &answer)
        }
        Some(Begun::Done(done)) => done.replay(&fingerprint),
        Some(Begun::Work(claimed)) => {
            let result = work(Some(&claimed)).await;
            claimed.end(&fingerprint, result).await
        }
    }
}

/// Claims the key of a request. `None`: it has none. A body that is streamed has no fingerprint yet.
///
/// # Errors
/// As [`once`].
pub async fn begin(call: &Call, user_id: &str, endpoint: &'static str, fingerprint: Option<&str>) -> Result<Option<Begun>, Problem> {
    let Some(given) = call.headers.get(HEADER) else { return Ok(None) };
    let key = given.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    let key = key.ok_or_else(|| Problem::invalid(HEADER, "The key should be 1 to 255 visible ASCII characters."))?;
    let owner = [user_id.to_owned(), endpoint.to_owned(), key.to_owned()];
    let keys = Keys::from_settings(&call.settings)?;
    let claim = uuid::Uuid::new_v4().to_string();
    let (mut waited, mut pause) = (Duration::ZERO, PAUSE);
    loop {
        let row = look(&owner, &claim, fingerprint, clock::now()).await?;
        if row.integer(0) != 0 {
            return Ok(Some(Begun::Work(Work { keys, id: row.text(1), resumed: row.integer(5) != 0, owner, claim })));
        }
        let (known, status) = (row.optional_text(2), row.optional_integer(3));
        if let (Some(known), Some(given)) = (&known, fingerprint)
            && known != given
        {
            return Err(reused());
        }
        if let Some(status) = status {
            let body = keys.open(&place_of(&owner), &row.text(4));
            let body = body.ok_or_else(|| Problem::internal("no key opens the kept answer (variable data_encryption_key)"))?;
            let done = Done { fingerprint: known.unwrap_or_default(), status: u16::try_from(status).unwrap_or_default(), body };
            return Ok(Some(Begun::Done(done)));
        }
        if waited >= PATIENCE {
            return Err(Problem::new(Code::Conflict, "A request with this Idempotency-Key is still being worked on.").retry_after(5));
        }
        spin_sdk::time::sleep(pause).await;
        waited += pause;
        pause = pause.mul_f64(1.5);
    }
}

/// Takes the key if it is free, forgotten or given up; answers how it stands.
async fn look(owner: &[String; 3], claim: &str, fingerprint: Option<&str>, now: i64) -> Result<Row, Problem> {
    // Forgotten: everything begins anew. Given up: the claim alone changes hands, what the work has made so far is still its.
    const FORGOTTEN: &str = "expires_at <= excluded.created_at";
    const FREE: &str = "(expires_at <= excluded.created_at OR status IS NULL AND claimed_until <= excluded.created_at \
                         AND fingerprint IS excluded.fingerprint)";
    let sql = format!(
        "INSERT INTO idempotency_keys (user_id, endpoint, key, fingerprint, work_id, claim, claimed_until, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7 + {CLAIM}, ?7, ?7 + {KEPT}) \
         ON CONFLICT (user_id, endpoint, key) DO UPDATE SET \
             claim = iif({FREE}, excluded.claim, claim), \
             claimed_until = iif({FREE}, excluded.claimed_until, claimed_until), \
             fingerprint = iif({FORGOTTEN}, excluded.fingerprint, fingerprint), \
             work_id = iif({FORGOTTEN}, excluded.work_id, work_id), \
             status = iif({FORGOTTEN}, NULL, status), \
             body = iif({FORGOTTEN}, NULL, body), \
             created_at = iif({FORGOTTEN}, excluded.created_at, created_at), \
             expires_at = iif({FORGOTTEN}, excluded.expires_at, expires_at) \
         RETURNING claim = ?6, work_id, fingerprint, status, body, work_id <> ?5"
    );
    let [user_id, endpoint, key] = owner;
    let parameters = vec![
        user_id.as_str().into(),
        endpoint.as_str().into(),
        key.as_str().into(),
        fingerprint.map(str::to_owned).into(),
        uuid::Uuid::now_v7().to_string().into(),
        claim.into(),
        now.into(),
    ];
    one(&sql, parameters).await?.ok_or_else(|| Problem::internal("an upsert that answers no row"))
}

impl Work {
    /// Keeps the answer of success, frees the key of a refusal, gives up the claim of a failure; and answers.
    ///
    /// # Errors
    /// The one given.
    pub async fn end(self, fingerprint: &str, result: Result<(StatusCode, Value), Problem>) -> Result<Reply, Problem> {
        let [user_id, endpoint, key] = &self.owner;
        let mut parameters: Vec<database::Value> =
            vec![user_id.as_str().into(), endpoint.as_str().into(), key.as_str().into(), self.claim.as_str().into()];
        let kept = match &result {
            Ok((status, answer)) => {
                let body = self.keys.seal(&place_of(&self.owner), &answer.to_string())?;
                parameters.extend([i64::from(status.as_u16()).into(), body.into(), fingerprint.into()]);
                let sql = "UPDATE idempotency_keys SET status = ?5, body = ?6, fingerprint = ?7 \
                           WHERE user_id = ?1 AND endpoint = ?2 AND key = ?3 AND claim = ?4";
                run(sql, parameters).await
            }
            Err(problem) if problem.status().is_server_error() => {
                let sql = "UPDATE idempotency_keys SET claimed_until = 0 WHERE user_id = ?1 AND endpoint = ?2 AND key = ?3 AND claim = ?4";
                run(sql, parameters).await
            }
            Err(_) => {
                let sql = "DELETE FROM idempotency_keys WHERE user_id = ?1 AND endpoint = ?2 AND key = ?3 AND claim = ?4";
                run(sql, parameters).await
            }
        };
        if let Err(error) = kept {
            // The claim passes by itself; the work is found by its id then.
            log(&error);
        }
        let (status, answer) = result?;
        reply::json(status, &answer)
    }
}

impl Done {
    /// The kept answer, for whoever sends the same again.
    ///
    /// # Errors
    /// `idempotency_key_reused` for anything else.
    pub fn replay(self, fingerprint: &str) -> Result<Reply, Problem> {
        if self.fingerprint != fingerprint {
            return Err(reused());
        }
        let status = StatusCode::from_u16(self.status).map_err(Problem::internal)?;
        let answer: Value = serde_json::from_str(&self.body).map_err(Problem::internal)?;
        reply::with_header(reply::json(status, &answer)?, REPLAYED, "true")
    }
}

/// Associated data (AEAD) under which an answer is sealed.
fn place_of(owner: &[String; 3]) -> String {
    format!("answer to {}", owner.join(" "))
}

fn reused() -> Problem {
    Problem::new(Code::IdempotencyKeyReused, "This Idempotency-Key was used for another request. Take a new one.")
}

fn log(error: &Error) {
    meter::log(serde_json::json!({"level": "warn", "event": "idempotency_key_not_kept", "cause": format!("{error:?}")}));
}
