//! The one way to run a statement.
//!
//! Three facts about Spin's SQLite shape this crate. A statement's error shows only when its rows have been collected; a result
//! that is read halfway holds its connection; and opening a connection re-reads the whole schema, which costs more than most
//! queries. So every statement is collected here, and one connection per instance is kept and shared by its concurrent
//! requests. That is safe because nobody ever runs `BEGIN`: each change that matters is one statement.
//!
//! What is too long to be collected is read by [`stream`], on a connection of its own.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use meter::Store;
use problem::{Code, Problem};
pub use spin_sdk::sqlite::Value;
use spin_sdk::{
    sqlite::{Connection, RowResult},
    wit_bindgen::{FutureReader, StreamReader, StreamResult},
};

thread_local! {
    static CONNECTION: RefCell<Option<Rc<Connection>>> = const { RefCell::new(None) };
}

/// Why a statement had no effect.
#[derive(Debug)]
pub enum Error {
    /// A rule of the schema said no: the stable token of its trigger or constraint.
    Refused(&'static str),
    /// A UNIQUE or PRIMARY KEY constraint: `table.column`, as SQLite names it.
    Taken(String),
    /// The database is busy or out of reach; the same statement may succeed later.
    Unavailable(String),
    /// Anything else is a fault of ours.
    Failed(String),
}

/// The refusals of the schema that callers tell apart. Everything else a trigger says is a fault of ours.
const REFUSALS: [&str; 9] = [
    "insufficient_credits",
    "illegal_task_transition",
    "illegal_order_transition",
    "balance_never_negative",
    "spend_limit_reached",
    "share_of_the_day_used",
    "account_is_erased",
    "plan_is_active",
    "log_moved_on",
];

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused("insufficient_credits") => {
                Self::new(Code::InsufficientCredits, "Your credits do not cover this. Buy more and try again.")
            }
            Error::Refused("spend_limit_reached") => {
                Self::new(Code::ServiceUnavailable, "No more pictures can be made today. Nothing was charged; come back tomorrow.")
                    .retry_after(3_600)
                    .because("the day's pictures are used up (variable daily_picture_limit)")
            }
            Error::Refused("share_of_the_day_used") => {
                Self::new(Code::RateLimited, "You have had your share of today's pictures. Nothing was charged; come back tomorrow.")
                    .retry_after(3_600)
                    .because("one person's share of the day's pictures is used up (variable daily_picture_limit)")
            }
            Error::Refused("account_is_erased") => Self::new(Code::Unauthenticated, "This account has been erased."),
            Error::Refused("plan_is_active") => {
                Self::new(Code::Conflict, "Your plan would go on charging you. Cancel it first: POST /api/subscription/cancel.")
            }
            Error::Refused(token) => Self::new(Code::Conflict, "The state of this has changed meanwhile.").because(token),
            Error::Taken(what) => Self::new(Code::Conflict, "This exists already.").because(what),
            Error::Unavailable(cause) => {
                Self::new(Code::ServiceUnavailable, "The database is busy. Try again in a moment.").retry_after(2).because(cause)
            }
            Error::Failed(cause) => Self::internal(cause),
        }
    }
}

/// One row of a result.
pub struct Row(RowResult);

impl Row {
    /// A text column; empty when NULL or of another type.
    #[must_use]
    pub fn text(&self, index: usize) -> String {
        self.0.get::<&str>(index).unwrap_or_default().to_owned()
    }

    /// A text column that may be NULL.
    #[must_use]
    pub fn optional_text(&self, index: usize) -> Option<String> {
        self.0.get::<&str>(index).map(str::to_owned)
    }

    /// An integer column; 0 when NULL.
    #[must_use]
    pub fn integer(&self, index: usize) -> i64 {
        self.0.get(index).unwrap_or_default()
    }

    /// An integer column that may be NULL.
    #[must_use]
    pub fn optional_integer(&self, index: usize) -> Option<i64> {
        self.0.get(index)
    }

    /// All columns as they are.
    #[must_use]
    pub fn values(self) -> Vec<Value> {
        self.0.values
    }
}

/// For how long a statement is waited for: longer than a local file or the embedded host makes us wait for a lock or a server. A host need
/// not have a limit of its own (Spin's libSQL has none).
const LIMIT: Duration = Duration::from_secs(15);
/// As good as none.
const FOREVER: Duration = Duration::from_secs(86_400);

/// Runs one statement to its end, which must come within [`LIMIT`], and answers its rows. One that does not end in time may have its effect
/// all the same.
///
/// # Errors
/// See [`Error`]; `?` turns it into the right problem.
pub async fn run(sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>, Error> {
    run_within(LIMIT, sql, parameters).await
}

/// As [`run`], for what reads whole tables and takes the time that takes.
///
/// # Errors
/// As [`run`].
pub async fn run_long(sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>, Error> {
    run_within(FOREVER, sql, parameters).await
}

async fn run_within(limit: Duration, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>, Error> {
    let _waiting = meter::waiting(Store::Database);
    let mut tries = 0;
    loop {
        let outcome = clock::within(limit, attempt(sql, parameters.clone())).await.unwrap_or_else(|| {
            CONNECTION.set(None);
            // Not in the words of a remote database: what may have had its effect is not sent again.
            Err(spin_sdk::sqlite::Error::Io("timed out: no answer in time".into()))
        });
        tries += 1;
        match &outcome {
            Err(spin_sdk::sqlite::Error::Io(text)) if tries < TRIES && text.starts_with(REMOTE) && had_no_effect(text) => {
                if is_busy(text) {
                    // A local file is waited for in the host, for seconds; a server waits for a moment only.
                    spin_sdk::time::sleep(wait(tries)).await;
                }
            }
            _ => return outcome.map_err(explain),
        }
    }
}

/// What the errors of a remote database begin with.
const REMOTE: &str = "Hrana: ";
/// How often a statement that had no effect is sent. All waits together are about two seconds.
const TRIES: u32 = 6;

/// Twice as long each time, from 40 ms, and up to twice that: those who were refused together must not come again together.
fn wait(tries: u32) -> Duration {
    let least = 20 << tries;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
    Duration::from_millis(u64::from(least + now % least))
}

async fn attempt(sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>, spin_sdk::sqlite::Error> {
    let connection = connection().await?;
    meter::called(Store::Database);
    let result = async { connection.execute(sql, parameters).await?.collect().await }.await;
    match result {
        Ok(rows) => Ok(rows.into_iter().map(Row).collect()),
        Err(error) => {
            // A connection that the host or its server no longer knows is not tried twice.
            let lost = match &error {
                spin_sdk::sqlite::Error::InvalidConnection => true,
                spin_sdk::sqlite::Error::Io(text) => text.starts_with(REMOTE) && is_out_of_reach(text),
                _ => false,
            };
            if lost {
                CONNECTION.set(None);
            }
            Err(error)
        }
    }
}

/// Runs a statement that answers at most one row.
///
/// # Errors
/// As [`run`].
pub async fn one(sql: &str, parameters: Vec<Value>) -> Result<Option<Row>, Error> {
    Ok(run(sql, parameters).await?.into_iter().next())
}

/// A long result, read a batch at a time.
pub struct Stream {
    rows: StreamReader<RowResult>,
    end: Option<FutureReader<Result<(), spin_sdk::sqlite::Error>>>,
    // Kept for as long as its result is read.
    _connection: Connection,
}

/// Rows that [`Stream::next`] asks for at once. Each reading of a stream is a call of the host.
const BATCH: usize = 100;

/// Starts a SELECT whose rows do not fit in memory.
///
/// It gets a connection of its own, because a result that is read halfway holds its connection: any other statement there would wait for ever. For
/// as long as it lasts it sees the database as it was when it began, and in WAL mode nobody waits for it. (In the other modes writers
/// fail after five seconds; `cargo xtask migrate` and the embedded host set WAL, which stays in the file.) The host reads only a little
/// ahead, so memory does not grow with the result.
///
/// # Errors
/// See [`Error`]. What is wrong with the statement itself shows at its end only.
pub async fn stream(sql: &str, parameters: Vec<Value>) -> Result<Stream, Error> {
    let connection = Connection::open_default().await.map_err(explain)?;
    let (_, rows, end) = connection.execute(sql, parameters).await.map_err(explain)?.into_inner();
    Ok(Stream { rows, end: Some(end), _connection: connection })
}

impl Stream {
    /// The next rows; none are left when it answers an empty list. Whoever stops before that knows nothing of how the statement ended.
    ///
    /// # Errors
    /// See [`Error`]: a statement that failed halfway says so after its last row.
    pub async fn next(&mut self) -> Result<Vec<Row>, Error> {
        while self.end.is_some() {
            let (state, rows) = self.rows.read(Vec::with_capacity(BATCH)).await;
            if !rows.is_empty() {
                return Ok(rows.into_iter().map(Row).collect());
            }
            if state == StreamResult::Dropped
                && let Some(end) = self.end.take()
            {
                end.await.map_err(explain)?;
            }
        }
        Ok(Vec::new())
    }
}

async fn connection() -> Result<Rc<Connection>, spin_sdk::sqlite::Error> {
    if let Some(connection) = CONNECTION.with_borrow(Clone::clone) {
        return Ok(connection);
    }
    let connection = Rc::new(Connection::open_default().await?);
    CONNECTION.set(Some(connection.clone()));
    Ok(connection)
}

fn explain(error: spin_sdk::sqlite::Error) -> Error {
    match error {
        spin_sdk::sqlite::Error::Io(text) => read(text),
        // A full database is none that will take the same statement later.
        spin_sdk::sqlite::Error::InvalidConnection => Error::Unavailable(error.to_string()),
        other => Error::Failed(other.to_string()),
    }
}

/// SQLite's text is exact on a local database and wrapped by a remote one, so tokens are searched, not compared.
fn read(text: String) -> Error {
    if let Some(token) = REFUSALS.iter().find(|token| text.contains(**token)) {
        return Error::Refused(token);
    }
    if let Some((_, what)) = text.split_once("UNIQUE constraint failed: ") {
        let what = what.split(['`', ',', '\n']).next().unwrap_or_default().trim();
        return Error::Taken(what.to_owned());
    }
    if is_out_of_reach(&text) {
        return Error::Unavailable(text);
    }
    Error::Failed(text)
}

/// Whether a text says that the database was busy, or a remote one out of reach: in SQLite's words, in those of a libSQL server, and in
/// those of the HTTP between.
fn is_out_of_reach(text: &str) -> bool {
    const SIGNS: [&str; 15] = [
        "database is busy",
        "unable to open",
        "http error: `",
        "Connection re",
        "connection closed",
        "connection error",
        "roken pipe",
        "timed out",
        "ended prematurely",
        "reading a body",
        "status=5",
        "status=429",
        "Bad Gateway",
        "Service Unavailable",
        "Gateway Time",
    ];
    had_no_effect(text) || SIGNS.iter().any(|sign| text.contains(sign))
}

/// Whether a statement was refused before it had any effect, and may be sent again.
fn had_no_effect(text: &str) -> bool {
    is_busy(text) || is_forgotten(text)
}

/// Whether somebody else was writing for too long.
fn is_busy(text: &str) -> bool {
    text.contains("database is locked") || text.contains("SQLITE_BUSY")
}

/// Whether a libSQL server no longer knows the stream that a connection is: it was idle for some seconds, or the server has started anew.
fn is_forgotten(text: &str) -> bool {
    text.contains("STREAM_EXPIRED") || text.contains(" baton")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_recognised_bare_and_wrapped() {
        assert!(matches!(read("insufficient_credits".into()), Error::Refused("insufficient_credits")));
        let wrapped = "Hrana: `cursor error: step error: SQLite error: insufficient_credits`";
        assert!(matches!(read(wrapped.into()), Error::Refused("insufficient_credits")));
    }

    #[test]
    fn a_taken_key_is_named() {
        let Error::Taken(what) = read("UNIQUE constraint failed: users.email".into()) else { panic!("not taken") };
        assert_eq!(what, "users.email");
        let Error::Taken(what) = read("Hrana: `UNIQUE constraint failed: users.email`".into()) else { panic!("not taken") };
        assert_eq!(what, "users.email");
    }

    #[test]
    fn a_libsql_servers_words_are_understood() {
        let step = |text: &str| format!("Hrana: `cursor error: `error at step 0: (error code: SQLITE_CONSTRAINT) `SQLite error: {text}```");
        assert!(matches!(read(step("insufficient_credits")), Error::Refused("insufficient_credits")));
        let Error::Taken(what) = read(step("UNIQUE constraint failed: users.email")) else { panic!("not taken") };
        assert_eq!(what, "users.email");
        assert!(matches!(read(step("CHECK constraint failed: credits >= 0")), Error::Failed(_)));
    }

    #[test]
    fn a_database_that_is_out_of_reach_is_a_matter_of_time() {
        for text in [
            "database is locked",
            "Hrana: `cursor error: `error at step 0: (error code: SQLITE_BUSY) `SQLite error: database is locked```",
            "Hrana: `http error: `error trying to connect: tcp connect error: Connection refused (os error 111)``",
            "Hrana: `http error: `error trying to connect: dns error: failed to lookup address information``",
            "Hrana: `http error: `connection error: Connection reset by peer (os error 104)``",
            "Hrana: `http error: `connection closed before message completed``",
            "Hrana: `http error: `operation timed out``",
            "Hrana: `cursor error: `error reading a body from connection``",
            "Hrana: `cursor error: `cursor stream ended prematurely``",
            "Hrana: `api error: `status=502 Bad Gateway, body=``",
            "Hrana: `api error: `<html><h1>503 Service Unavailable</h1></html>``",
            "Hrana: `api error: `{\"message\":\"The stream has expired due to inactivity\",\"code\":\"STREAM_EXPIRED\"}``",
            "Hrana: `api error: `Received an invalid baton``",
        ] {
            assert!(matches!(read(text.into()), Error::Unavailable(_)), "{text}");
        }
        for text in ["Hrana: `api error: `status=401 Unauthorized, body=``", "no such table: connections"] {
            assert!(matches!(read(text.into()), Error::Failed(_)), "{text}");
        }
    }

    #[test]
    fn only_a_statement_that_never_ran_is_sent_again() {
        assert!(is_forgotten("Hrana: `api error: `status=400 Bad Request, body=Received an invalid baton``"));
        assert!(is_forgotten("Hrana: `api error: `{\"code\":\"STREAM_EXPIRED\"}``"));
        assert!(is_busy("Hrana: `cursor error: `error at step 0: (error code: SQLITE_BUSY) `SQLite error: database is locked```"));
        for unsure in ["Hrana: `http error: `connection closed before message completed``", "Hrana: `http error: `operation timed out``"] {
            assert!(!is_forgotten(unsure) && !is_busy(unsure), "{unsure}");
        }
    }

    #[test]
    fn a_full_database_is_not_a_matter_of_time() {
        assert!(matches!(explain(spin_sdk::sqlite::Error::DatabaseFull), Error::Failed(_)));
        assert!(matches!(read("database or disk is full".into()), Error::Failed(_)));
    }

    #[test]
    fn an_sql_text_never_becomes_a_detail() {
        let problem = Problem::from(read("near \"X\": syntax error in SELECT secret FROM t at offset 3".into()));
        assert_eq!(problem.code, Code::Internal);
        assert!(!problem.detail.contains("secret"));
    }
}
