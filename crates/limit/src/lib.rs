//! How often somebody may do something: fixed windows, counted in one statement.
//!
//! Each class of endpoints counts the user and, where clients can be told apart, the client's address. What costs money or makes
//! accounts is counted exactly and refused when it cannot be counted. Reads are far more, so one in sixty-four is counted, for sixty-four;
//! who reads too much finds out a little late and then may read no more until the window ends (that is noted beside the session, where each
//! request looks anyway), and when counting fails, reading goes on.

use database::run;
use problem::{Code, Problem};
use serde_json::json;
use service::{Budget, Call};
use session::SignedIn;

/// The window, in seconds.
const WINDOW: i64 = 3_600;
/// One read in so many is counted.
const SAMPLE: i64 = 64;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Beginning and ending a sign-in.
    SignIn,
    /// Taking photos in.
    Uploads,
    /// Ordering pictures.
    Tasks,
    /// Buying.
    Orders,
    /// Coming back from paying: the payment provider is asked for whoever comes.
    Returns,
    /// What makes much work for one request: export and erasure.
    Heavy,
    /// What admins change.
    Admin,
    /// Everything that only reads.
    Reads,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Uploads => "uploads",
            Self::Tasks => "tasks",
            Self::Orders => "orders",
            Self::Returns => "returns",
            Self::Heavy => "heavy",
            Self::Admin => "admin",
            Self::Reads => "reads",
        }
    }

    /// Requests an hour, of (a user, an address). `base` is the variable `rate_limit_per_hour`.
    fn limits(self, base: i64) -> (i64, i64) {
        match self {
            // An office or a campus has one address.
            Self::SignIn | Self::Returns => (base, base),
            Self::Uploads | Self::Tasks | Self::Orders => (base, base * 5),
            Self::Heavy => ((base / 10).max(1), base),
            Self::Admin => (base * 10, base * 50),
            // A page that watches a task asks every other second.
            Self::Reads => (base * 60, base * 300),
        }
    }
}

/// The caller, who must be signed in and changes something.
///
/// # Errors
/// `unauthenticated`; `rate_limited`; the database's, for then it is not known.
pub async fn writer(call: &Call, class: Class) -> Result<SignedIn, Problem> {
    let caller = session::require(call).await?;
    count(call, class, Some(&caller.user_id), 1).await?;
    Ok(caller)
}

/// Counts a request of whoever it is, by the client's address.
///
/// # Errors
/// `rate_limited`; the database's.
pub async fn client(call: &Call, class: Class) -> Result<(), Problem> {
    count(call, class, None, 1).await
}

/// The caller, who must be signed in and only reads.
///
/// # Errors
/// `unauthenticated`; `rate_limited` for those who surely have read too much.
pub async fn reader(call: &Call) -> Result<SignedIn, Problem> {
    let caller = session::require(call).await?;
    read(call, &caller).await?;
    Ok(caller)
}

/// Counts a read of somebody who is signed in.
///
/// # Errors
/// `rate_limited` for those who surely have read too much.
pub async fn read(call: &Call, caller: &SignedIn) -> Result<(), Problem> {
    let now = clock::now();
    if caller.resting_until > now {
        return Err(too_often(caller.resting_until - now));
    }
    let mut draw = [0_u8];
    // Without randomness all are counted.
    let _ = getrandom::fill(&mut draw);
    if i64::from(draw[0]) % SAMPLE != 0 {
        return Ok(());
    }
    let told = |event: &str, problem: &Problem| {
        meter::log(json!({"level": "warn", "event": event, "cause": problem.cause}));
    };
    match count(call, Class::Reads, Some(&caller.user_id), SAMPLE).await {
        Err(problem) if problem.code == Code::RateLimited => {
            let until = now + i64::from(problem.retry_after.unwrap_or(60));
            if let Err(problem) = session::rest(call, caller, until).await {
                told("read_limit_not_noted", &problem);
            }
            Err(problem)
        }
        Err(problem) => {
            told("read_not_counted", &problem);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn too_often(seconds: i64) -> Problem {
    Problem::new(Code::RateLimited, "That was too often. Wait a while and try again.").retry_after(u32::try_from(seconds).unwrap_or(60))
}

async fn count(call: &Call, class: Class, user: Option<&str>, cost: i64) -> Result<(), Problem> {
    let base = call.settings.integer("rate_limit_per_hour")?;
    if base <= 0 {
        return Ok(());
    }
    let (of_user, of_address) = class.limits(base);
    let mut subjects = Vec::new();
    if let Some(user) = user {
        subjects.push((format!("user:{user}"), of_user));
    }
    if let Some(client) = call.client()?.filter(|client| client.distinct) {
        subjects.push((format!("address:{}", fingerprint(call, &client.network())?), of_address));
    }
    if subjects.is_empty() {
        return Ok(());
    }
    let now = clock::now();
    let ends = now - now.rem_euclid(WINDOW) + WINDOW;
    let names: Vec<_> = subjects.iter().map(|(subject, _)| subject).collect();
    let sql = "INSERT INTO rate_counters (class, subject, used, window_ends) SELECT ?1, value, ?3, ?4 FROM json_each(?2) WHERE true \
               ON CONFLICT (class, subject) DO UPDATE SET \
                   used = iif(window_ends = excluded.window_ends, used + excluded.used, excluded.used), window_ends = excluded.window_ends \
               RETURNING subject, used";
    let rows = run(sql, vec![class.name().into(), json!(names).to_string().into(), cost.into(), ends.into()]).await?;
    let mut budget: Option<Budget> = None;
    for row in &rows {
        let Some((_, limit)) = subjects.iter().find(|(subject, _)| *subject == row.text(0)) else { continue };
        let left = limit - row.integer(1);
        // The tightest of them is what the client has to know.
        if budget.as_ref().is_none_or(|known| left < known.left) {
            budget = Some(Budget { class: class.name(), limit: *limit, window: WINDOW, left, resets_in: ends - now });
        }
    }
    let Some(budget) = budget else { return Err(Problem::internal("a count that answers no row")) };
    let exceeded = budget.left < 0;
    call.note_budget(budget);
    if exceeded {
        return Err(too_often(ends - now));
    }
    Ok(())
}

/// Addresses are counted by a keyed fingerprint: a table of them would say who was here.
///
/// # Errors
/// `internal` without the secret.
pub fn fingerprint(call: &Call, network: &str) -> Result<String, Problem> {
    let secret = call.settings.list("session_secret")?.next().unwrap_or_default().to_owned();
    let mut name = fingerprint::of(&format!("client address\0{secret}\0{network}"));
    name.truncate(32);
    Ok(name)
}
