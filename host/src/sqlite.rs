//! `spin:sqlite@3.1.0`: which database a label stands for, and local files. Servers are in `libsql.rs`.
//!
//! A guest's connection is a connection of its own, opened lazily. Statements run on blocking threads: a writer may wait up to five
//! seconds for a lock. The writers of a file stand in a line ([`Line`]). Only a read that proves to be short is done on the async thread it comes from; one that does not is begun anew
//! on a blocking one. A result of usual size is read to its end there and then, so the connection is free at once; a longer one streams,
//! and the next statement waits for it without holding an async thread.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rusqlite::{
    Batch,
    fallible_iterator::FallibleIterator as _,
    hooks::{AuthAction, AuthContext, Authorization},
    types::ValueRef,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedMutexGuard, mpsc, oneshot},
    time::timeout,
};

use crate::Statements;

pub(crate) use crate::bindings::spin::sqlite::sqlite::{Error, RowResult, Value};
use crate::libsql;

/// Rows that are read before a result is handed over; more than that streams.
pub(crate) const BUFFERED_ROWS: usize = 1_000;
/// The same in bytes of text and blobs.
pub(crate) const BUFFERED_BYTES: usize = 4 << 20;
/// Rows per message of a streamed result.
pub(crate) const BATCH: usize = 100;
/// A read that takes more steps of SQLite's machine is not done on an async thread: some tenths of a millisecond.
const SHORT_STEPS: std::ffi::c_int = 10_000;

/// How long a statement waits until it may write, as in Spin.
const BUSY: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 128;

/// Where a database lies.
#[derive(Clone)]
pub enum SqliteLocation {
    /// A file here.
    File(PathBuf),
    /// A libSQL server.
    Libsql { url: String, token: String },
}

impl From<PathBuf> for SqliteLocation {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl std::fmt::Debug for SqliteLocation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(out, "File({})", path.display()),
            // Without the token.
            Self::Libsql { url, .. } => write!(out, "Libsql({url})"),
        }
    }
}

/// The line of this host's writers of a file.
///
/// A file has one writer at a time. SQLite lets the others knock again after pauses that grow to a tenth of a second, so the file lies idle while
/// all of them pause, and who came first is not served first. In a line the next one begins when the last has ended. Programs elsewhere
/// that write the same file still knock, and are knocked for.
type Line = Arc<tokio::sync::Mutex<()>>;

/// A database of a running application.
pub(crate) enum Database {
    File(PathBuf, Line),
    Libsql(Arc<libsql::Server>),
}

impl Database {
    /// Nothing is connected yet.
    pub(crate) fn open(location: SqliteLocation) -> anyhow::Result<Self> {
        Ok(match location {
            SqliteLocation::File(path) => Self::File(path, Line::default()),
            SqliteLocation::Libsql { url, token } => Self::Libsql(Arc::new(libsql::Server::new(&url, &token)?)),
        })
    }
}

/// A guest's connection.
pub struct Connection(pub(crate) Backend);

/// The two kinds of connection. Cheap to clone: what outlives a call.
#[derive(Clone)]
pub(crate) enum Backend {
    File(Arc<Shared>),
    Libsql(Arc<libsql::Remote>),
}

impl Backend {
    pub(crate) async fn execute(self, statement: String, parameters: Vec<Value>) -> Head {
        match self {
            Self::File(shared) => shared.execute(statement, parameters).await,
            Self::Libsql(remote) => remote.execute(statement, parameters).await,
        }
    }

    /// Runs one statement and waits for all of its rows.
    pub(crate) fn execute_blocking(&self, statement: &str, parameters: Vec<Value>) -> Result<(Vec<String>, Vec<RowResult>), Error> {
        match self {
            Self::File(shared) => shared.execute_blocking(statement, parameters),
            Self::Libsql(_) => Err(Error::Io("this host reaches a libSQL server only through execute-async".into())),
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        match self {
            Self::File(shared) => shared.changes(),
            Self::Libsql(_) => 0,
        }
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        match self {
            Self::File(shared) => shared.last_insert_rowid(),
            Self::Libsql(_) => 0,
        }
    }
}

/// A connection to a file: the connection itself and the two numbers one may ask of it.
pub(crate) struct Shared {
    path: PathBuf,
    writers: Line,
    database: Mutex<Option<rusqlite::Connection>>,
    changes: AtomicU64,
    last_insert_rowid: AtomicI64,
    statements: Option<Statements>,
    /// Statements that this connection has prepared and that only read.
    reads: Mutex<HashSet<String>>,
}

/// What a writer does about the line.
#[derive(Clone, Copy)]
enum Turn {
    /// It waits for its turn, on a thread that may wait.
    Wait,
    /// It knocks like a program elsewhere: where it runs, nothing may wait.
    Leave,
}

impl Connection {
    pub(crate) fn new(database: &Database, statements: Option<Statements>) -> Self {
        Self(match database {
            Database::File(path, writers) => Backend::File(Arc::new(Shared::new(path, writers.clone(), statements))),
            Database::Libsql(server) => Backend::Libsql(Arc::new(libsql::Remote::new(server.clone()))),
        })
    }
}

/// The beginning of a result.
pub(crate) struct Head {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<RowResult>,
    pub(crate) rest: Rest,
}

impl Head {
    /// A result that is nothing but an error.
    pub(crate) fn failed(error: Error) -> Self {
        Self { columns: Vec::new(), rows: Vec::new(), rest: Rest::Ended(Err(error)) }
    }
}

/// What follows the first rows.
pub(crate) enum Rest {
    /// Nothing: the statement has ended like this.
    Ended(Result<(), Error>),
    /// More rows, and then the end.
    Streamed(mpsc::Receiver<Vec<RowResult>>, oneshot::Receiver<Result<(), Error>>),
}

/// The sending ends of a streamed result: rows, and how it ended.
type Stream = (mpsc::Sender<Vec<RowResult>>, oneshot::Sender<Result<(), Error>>);

impl Shared {
    fn new(path: &Path, writers: Line, statements: Option<Statements>) -> Self {
        Self {
            path: path.to_owned(),
            writers,
            database: Mutex::default(),
            changes: AtomicU64::new(0),
            last_insert_rowid: AtomicI64::new(0),
            statements,
            reads: Mutex::default(),
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.last_insert_rowid.load(Relaxed)
    }

    /// Runs one statement. An SQL error is the end of the result, not an error of the call, as in Spin.
    pub(crate) async fn execute(self: Arc<Self>, statement: String, parameters: Vec<Value>) -> Head {
        if let Some(head) = self.short_read(&statement, &parameters) {
            return head;
        }
        let (head, first) = oneshot::channel();
        tokio::task::spawn_blocking(move || self.run(&statement, parameters, head));
        first.await.unwrap_or_else(|_| Head::failed(Error::Io("the statement's thread ended".into())))
    }

    /// Does a read that is short, and answers `None` for everything else, which has had no effect then: a statement that writes, one that
    /// is new to this connection (preparing it may read the schema), one that takes long or would have to wait for a lock.
    fn short_read(&self, statement: &str, parameters: &[Value]) -> Option<Head> {
        let mut database = self.database.try_lock().ok()?;
        let database = database.as_mut()?;
        if !self.reads.try_lock().ok()?.contains(statement) {
            return None;
        }
        let _ = database.busy_timeout(Duration::ZERO);
        database.progress_handler(SHORT_STEPS, Some(|| true));
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let outcome = self.step(database, statement, parameters.to_vec(), &mut columns, |row| {
            bytes += size(&row);
            rows.push(row);
            rows.len() < BUFFERED_ROWS && bytes < BUFFERED_BYTES
        });
        database.progress_handler(0, None::<fn() -> bool>);
        let _ = database.busy_timeout(BUSY);
        // A failure is found again, in its own words, by whoever does it anew; a result that was not read to its end is read anew too.
        (outcome.is_ok() && rows.len() < BUFFERED_ROWS && bytes < BUFFERED_BYTES).then_some(Head {
            columns,
            rows,
            rest: Rest::Ended(Ok(())),
        })
    }

    /// Runs one statement and waits for all of its rows.
    pub(crate) fn execute_blocking(&self, statement: &str, parameters: Vec<Value>) -> Result<(Vec<String>, Vec<RowResult>), Error> {
        let mut rows = Vec::new();
        let columns = self.with(|database| {
            let mut columns = Vec::new();
            self.step(database, statement, parameters, &mut columns, |row| {
                rows.push(row);
                true
            })?;
            Ok(columns)
        })?;
        Ok((columns, rows))
    }

    fn run(&self, statement: &str, parameters: Vec<Value>, head: oneshot::Sender<Head>) {
        let mut head = Some(head);
        let mut columns = Vec::new();
        let mut rows: Vec<RowResult> = Vec::new();
        let mut bytes = 0;
        let mut stream: Option<Stream> = None;
        let mut first_columns = Vec::new();
        let result = self.with(|database| {
            self.step_with(database, statement, parameters, &mut columns, Turn::Wait, |columns, row| {
                bytes += size(&row);
                rows.push(row);
                match &stream {
                    None if rows.len() < BUFFERED_ROWS && bytes < BUFFERED_BYTES => true,
                    None => {
                        let (rows_in, rows_out) = mpsc::channel(4);
                        let (end_in, end_out) = oneshot::channel();
                        stream = Some((rows_in, end_in));
                        first_columns.clone_from(columns);
                        let first =
                            Head { columns: columns.clone(), rows: std::mem::take(&mut rows), rest: Rest::Streamed(rows_out, end_out) };
                        head.take().is_some_and(|head| head.send(first).is_ok())
                    }
                    // A guest that no longer reads has closed the channel: the statement stops.
                    Some((rows_in, _)) if rows.len() >= BATCH => rows_in.blocking_send(std::mem::take(&mut rows)).is_ok(),
                    Some(_) => true,
                }
            })
        });
        match (stream, head) {
            (Some((rows_in, end_in)), _) => {
                if !rows.is_empty() {
                    let _ = rows_in.blocking_send(rows);
                }
                let _ = end_in.send(result);
            }
            (None, Some(head)) => drop(head.send(Head { columns, rows, rest: Rest::Ended(result) })),
            (None, None) => {}
        }
    }

    fn step(
        &self,
        database: &mut rusqlite::Connection,
        statement: &str,
        parameters: Vec<Value>,
        columns: &mut Vec<String>,
        mut take: impl FnMut(RowResult) -> bool,
    ) -> Result<(), Error> {
        self.step_with(database, statement, parameters, columns, Turn::Leave, |_, row| take(row))
    }

    fn step_with(
        &self,
        database: &mut rusqlite::Connection,
        statement: &str,
        parameters: Vec<Value>,
        columns: &mut Vec<String>,
        turn: Turn,
        mut take: impl FnMut(&Vec<String>, RowResult) -> bool,
    ) -> Result<(), Error> {
        // What follows the first statement of a text is left out, as in Spin. (A plain `prepare` would look at it and complain.)
        if has_more(statement) {
            match Batch::new(database, statement).next().map_err(explain)? {
                Some(mut prepared) => {
                    let _turn = self.stand_in_line(database, &prepared, turn)?;
                    read(&mut prepared, parameters, columns, &mut take)?;
                }
                None => return Ok(()),
            }
        } else {
            let mut prepared = database.prepare_cached(statement).map_err(explain)?;
            // (SQLite calls `COMMIT` read-only, too.)
            if prepared.readonly() && ["SELECT", "WITH"].iter().any(|word| statement.starts_with(word)) {
                let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
                if reads.len() < STATEMENTS && !reads.contains(statement) {
                    reads.insert(statement.to_owned());
                }
            }
            let turn = self.stand_in_line(database, &prepared, turn)?;
            let outcome = read(&mut prepared, parameters, columns, &mut take);
            drop(turn);
            if let Some(statements) = &self.statements {
                statements.note(statement, &prepared);
            }
            outcome?;
        }
        self.changes.store(database.changes(), Relaxed);
        self.last_insert_rowid.store(database.last_insert_rowid(), Relaxed);
        Ok(())
    }

    /// Waits until it is this statement's turn to write. Waiting in line and for a lock take [`BUSY`] together at most; whose time is up in the line
    /// hears from SQLite what is in the way. One that only reads need not wait, and one in a transaction must not: it may hold the lock that whoever
    /// is first in line waits for.
    fn stand_in_line(
        &self,
        database: &rusqlite::Connection,
        statement: &rusqlite::Statement<'_>,
        turn: Turn,
    ) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        let Turn::Wait = turn else { return Ok(None) };
        if statement.readonly() || !database.is_autocommit() {
            return Ok(None);
        }
        if let Ok(turn) = self.writers.clone().try_lock_owned() {
            return Ok(Some(turn));
        }
        let arrived = Instant::now();
        let turn = Handle::current().block_on(timeout(BUSY, self.writers.clone().lock_owned())).ok();
        database.busy_timeout(BUSY.saturating_sub(arrived.elapsed())).map_err(explain)?;
        Ok(turn)
    }

    fn with<T>(&self, work: impl FnOnce(&mut rusqlite::Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(open(&self.path)?);
        }
        let database = database.as_mut().expect("opened above");
        // Whoever stood in line before had less.
        database.busy_timeout(BUSY).map_err(explain)?;
        work(database)
    }
}

/// Whether a text may hold more than one statement: something follows a semicolon. (In a trigger's body it does too.)
fn has_more(statement: &str) -> bool {
    statement.split_once(';').is_some_and(|(_, rest)| !rest.trim().is_empty())
}

fn read(
    prepared: &mut rusqlite::Statement<'_>,
    parameters: Vec<Value>,
    columns: &mut Vec<String>,
    take: &mut impl FnMut(&Vec<String>, RowResult) -> bool,
) -> Result<(), Error> {
    *columns = prepared.column_names().into_iter().map(str::to_owned).collect();
    let count = columns.len();
    let mut rows = prepared.query(rusqlite::params_from_iter(parameters.into_iter().map(to_sql))).map_err(explain)?;
    while let Some(row) = rows.next().map_err(explain)? {
        let values = (0..count).map(|at| from_sql(row.get_ref(at).map_err(explain)?)).collect::<Result<_, _>>()?;
        if !take(columns, RowResult { values }) {
            break;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<rusqlite::Connection, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Error::Io(error.to_string()))?;
    }
    let database = rusqlite::Connection::open(path).map_err(explain)?;
    database.busy_timeout(BUSY).map_err(explain)?;
    // Stays in the file; without it an open reader makes writers fail.
    database.pragma_update(None, "journal_mode", "WAL").map_err(explain)?;
    database.pragma_update(None, "foreign_keys", true).map_err(explain)?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    // As in Spin: a component reaches the database that it was given and no other file.
    let guard = |context: AuthContext<'_>| match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Authorization::Deny,
        _ => Authorization::Allow,
    };
    database.authorizer(Some(guard));
    Ok(database)
}

pub(crate) fn size(row: &RowResult) -> usize {
    row.values
        .iter()
        .map(|value| match value {
            Value::Text(text) => text.len(),
            Value::Blob(blob) => blob.len(),
            _ => 8,
        })
        .sum()
}

fn to_sql(value: Value) -> rusqlite::types::Value {
    match value {
        Value::Integer(number) => rusqlite::types::Value::Integer(number),
        Value::Real(number) => rusqlite::types::Value::Real(number),
        Value::Text(text) => rusqlite::types::Value::Text(text),
        Value::Blob(blob) => rusqlite::types::Value::Blob(blob),
        Value::Null => rusqlite::types::Value::Null,
    }
}

fn from_sql(value: ValueRef<'_>) -> Result<Value, Error> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(std::str::from_utf8(bytes).map_err(|error| Error::Io(error.to_string()))?.to_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn explain(error: rusqlite::Error) -> Error {
    Error::Io(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(folder: &tempfile::TempDir) -> Arc<Shared> {
        another(folder, &Line::default())
    }

    fn another(folder: &tempfile::TempDir, writers: &Line) -> Arc<Shared> {
        Arc::new(Shared::new(&folder.path().join("a.db"), writers.clone(), None))
    }

    async fn text(shared: &Arc<Shared>, sql: &str) -> Result<String, String> {
        let head = shared.clone().execute(sql.into(), Vec::new()).await;
        match head.rest {
            Rest::Ended(Ok(())) => Ok(format!("{:?}", head.rows.first().map(|row| format!("{:?}", row.values)))),
            Rest::Ended(Err(Error::Io(text))) => Err(text),
            _ => Err("unexpected".into()),
        }
    }

    #[tokio::test]
    async fn only_the_first_statement_of_a_text_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = connection(&folder);
        text(&db, "CREATE TABLE t (x); INSERT INTO t VALUES (1)").await.expect("created");
        assert!(text(&db, "SELECT count(*) FROM t").await.expect("read").contains("Integer(0)"));
    }

    #[tokio::test]
    async fn reads_are_done_at_once_when_they_are_short_and_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = connection(&folder);
        text(&db, "CREATE TABLE t (x)").await.expect("created");
        let long = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT count(*) FROM n";
        for statement in ["SELECT count(*) FROM t", long, "INSERT INTO t VALUES (1) RETURNING x", "BEGIN"] {
            assert!(db.short_read(statement, &[]).is_none(), "nothing is known of it: {statement}");
            text(&db, statement).await.expect("runs");
        }
        assert!(db.short_read("SELECT count(*) FROM t", &[]).is_some_and(|head| head.rows.len() == 1));
        for statement in [long, "INSERT INTO t VALUES (1) RETURNING x", "BEGIN"] {
            assert!(db.short_read(statement, &[]).is_none(), "{statement}");
        }
        assert!(text(&db, long).await.expect("counted").contains("Integer(100000)"), "what takes long is done all the same");
        assert!(text(&db, "SELECT count(*) FROM t").await.expect("read").contains("Integer(1)"), "and nothing was done twice");
    }

    #[tokio::test]
    async fn writers_stand_in_a_line_and_readers_pass_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let line = Line::default();
        let (first, second) = (another(&folder, &line), another(&folder, &line));
        text(&first, "CREATE TABLE t (x)").await.expect("created");
        let turn = line.clone().lock_owned().await;
        let writer = tokio::spawn(async move { text(&second, "INSERT INTO t VALUES (1)").await });
        for _ in 0..20 {
            assert!(text(&first, "SELECT count(*) FROM t").await.expect("read").contains("Integer(0)"), "it is not its turn");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(turn);
        writer.await.expect("no panic").expect("written");
        assert!(text(&first, "SELECT count(*) FROM t").await.expect("read").contains("Integer(1)"));
    }

    #[tokio::test]
    async fn whoever_waits_in_line_and_for_a_lock_waits_no_longer_than_for_a_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let line = Line::default();
        let (holder, first, second) = (another(&folder, &line), another(&folder, &line), another(&folder, &line));
        text(&holder, "CREATE TABLE t (x)").await.expect("created");
        text(&holder, "BEGIN IMMEDIATE").await.expect("begun");
        let begun = Instant::now();
        let write = async |writer: &Arc<Shared>| text(writer, "INSERT INTO t VALUES (1)").await;
        let (one, other) = tokio::join!(write(&first), write(&second));
        for outcome in [one, other] {
            assert_eq!(outcome.expect_err("somebody else writes all the time"), "database is locked");
        }
        assert!(begun.elapsed() < BUSY * 2, "one after the other");
        text(&holder, "ROLLBACK").await.expect("ended");
        write(&second).await.expect("written, with all the time there is");
    }

    #[tokio::test]
    async fn a_transaction_does_not_wait_for_those_who_wait_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let line = Line::default();
        let (first, second) = (another(&folder, &line), another(&folder, &line));
        text(&first, "CREATE TABLE t (x)").await.expect("created");
        text(&first, "BEGIN IMMEDIATE").await.expect("begun");
        // Its turn comes at once, and then it waits for the lock.
        let writer = tokio::spawn(async move { text(&second, "INSERT INTO t VALUES (2)").await });
        while line.try_lock().is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        text(&first, "INSERT INTO t VALUES (1)").await.expect("written, with the lock it has");
        text(&first, "COMMIT").await.expect("done");
        writer.await.expect("no panic").expect("written when the lock was free");
    }

    #[tokio::test]
    async fn errors_end_the_result_in_sqlites_own_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = connection(&folder);
        text(&db, "CREATE TABLE t (x UNIQUE)").await.expect("created");
        text(&db, "INSERT INTO t VALUES (1)").await.expect("inserted");
        assert_eq!(text(&db, "INSERT INTO t VALUES (1)").await.expect_err("taken"), "UNIQUE constraint failed: t.x");
        assert_eq!(text(&db, "ATTACH 'other.db' AS o").await.expect_err("denied"), "not authorized");
        assert!(text(&db, "SELECT ?1").await.expect_err("no parameter").contains("Wrong number of parameters"));
    }

    #[tokio::test]
    async fn a_long_result_that_nobody_reads_does_not_hold_the_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = connection(&folder);
        let many = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT x FROM n";
        let head = db.clone().execute(many.into(), Vec::new()).await;
        let Rest::Streamed(rows, _) = head.rest else { panic!("long enough to stream") };
        drop(rows);
        assert!(text(&db, "SELECT 7").await.expect("free again").contains("Integer(7)"));
    }
}
