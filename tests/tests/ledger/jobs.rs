//! The rules of migration 8: one run of a job at a time, by the database's clock; and what has had its time is found by an index.

use retention::{RULES, files, lots, sessions};
use rusqlite::params;

use crate::books::Books;

/// The statements of a run, as crates/job makes them.
#[path = "../../../crates/job/src/sql.rs"]
mod sql;

const LEASE: i64 = 120;

/// Where the run goes on, if it begins; `Ok(None)`: it is not due.
fn start(books: &Books, id: &str, job: &str, every: i64) -> Result<Option<Option<String>>, String> {
    let mut statement = books.db.prepare(sql::START).unwrap();
    let mut rows = statement.query(params![id, job, LEASE, every]).unwrap();
    match rows.next() {
        Ok(row) => Ok(row.map(|row| row.get(0).unwrap())),
        Err(rusqlite::Error::SqliteFailure(_, Some(text))) => Err(text),
        Err(other) => panic!("{other}"),
    }
}

fn begin(books: &Books, id: &str) -> Option<String> {
    start(books, id, "cleanup", 0).unwrap().unwrap()
}

/// Whether a run's word is heard.
fn says(books: &Books, sql: &str, parameters: impl rusqlite::Params) -> bool {
    books.db.prepare(sql).unwrap().exists(parameters).unwrap()
}

fn end(books: &Books, id: &str, outcome: &str) -> bool {
    says(books, sql::END, params![id, outcome, "{}"])
}

fn reached(books: &Books, id: &str, position: &str) -> bool {
    says(books, sql::REACHED, params![id, position, LEASE])
}

fn time_passes(books: &Books, seconds: i64) {
    books.run("UPDATE job_runs SET started_at = started_at - ?1", [seconds]).unwrap();
    books.run("UPDATE job_runs SET leased_until = leased_until - ?1 WHERE outcome = 'running'", [seconds]).unwrap();
}

#[test]
fn a_job_has_one_run_at_a_time() {
    let books = Books::new();
    begin(&books, "a");
    assert_eq!(start(&books, "b", "cleanup", 0).unwrap_err(), "UNIQUE constraint failed: job_runs.job");
    assert!(start(&books, "c", "tasks", 0).unwrap().is_some(), "another job is another matter");
    assert!(end(&books, "a", "done"));
    begin(&books, "d");
    let replaced =
        "INSERT OR REPLACE INTO job_runs (id, job, started_at, leased_until) VALUES ('e', 'cleanup', unixepoch(), unixepoch() + 9)";
    books.refuses("UNIQUE constraint failed: job_runs.job", replaced);
    books.refuses(
        "run_starts_running",
        "INSERT INTO job_runs (id, job, started_at, leased_until, ended_at, outcome) VALUES ('f', 'x', 1, 2, 3, 'done')",
    );
    books.refuses("run_starts_running", "INSERT INTO job_runs (id, job, started_at, leased_until) VALUES ('f', 'x', 2, 2)");
}

#[test]
fn a_run_that_is_silent_for_the_length_of_its_lease_is_taken_over_from() {
    let books = Books::new();
    begin(&books, "a");
    assert!(reached(&books, "a", "[1]"));
    time_passes(&books, LEASE - 1);
    assert!(start(&books, "b", "cleanup", 0).is_err(), "not before its time");
    // It was slow, and is still there.
    assert!(says(&books, sql::RENEW, params!["a", LEASE]));
    time_passes(&books, LEASE - 1);
    assert!(start(&books, "b", "cleanup", 0).is_err());
    time_passes(&books, 1);
    assert_eq!(begin(&books, "b").as_deref(), Some("[1]"), "the next one goes on where it stopped");
    let (outcome, ended) = books
        .db
        .query_row("SELECT outcome, ended_at = leased_until FROM job_runs WHERE id = 'a'", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
        })
        .unwrap();
    assert_eq!((outcome.as_str(), ended), ("cut_off", true));
    // What it says from now on is not heard.
    assert!(!says(&books, sql::RENEW, params!["a", LEASE]) && !reached(&books, "a", "[9]") && !end(&books, "a", "done"));
    books.refuses("run_has_ended", "UPDATE job_runs SET position = '[9]' WHERE id = 'a'");
    books.refuses("run_has_ended", "UPDATE job_runs SET outcome = 'running', ended_at = NULL WHERE id = 'a'");
    books.refuses("run_has_ended", "UPDATE job_runs SET job = 'tasks' WHERE id = 'b'");
    assert!(reached(&books, "b", "[2]") && end(&books, "b", "failed"));
    assert_eq!(begin(&books, "c").as_deref(), Some("[2]"), "also after one that failed, and within the same second");
}

#[test]
fn what_is_due_once_in_a_while_is_not_begun_before() {
    let books = Books::new();
    let due = |id: &str| start(&books, id, "backup", 3_600).unwrap().is_some();
    assert!(due("a"));
    assert!(end(&books, "a", "failed"));
    assert!(due("b"), "one that failed does not count");
    assert!(end(&books, "b", "done"));
    assert!(!due("c"));
    assert!(start(&books, "d", "backup", 0).unwrap().is_some(), "unless it is asked for");
    assert!(end(&books, "d", "failed"));
    time_passes(&books, 3_599);
    assert!(!due("e"));
    time_passes(&books, 2);
    assert!(due("e"));
    // One that was cut off keeps others away for its lease, and does not count.
    time_passes(&books, LEASE);
    assert!(due("f"));
    assert_eq!(books.ask::<String>("SELECT outcome FROM job_runs WHERE id = 'e'", []), "cut_off");
}

#[test]
fn old_runs_go_and_the_last_of_a_job_stays() {
    let books = Books::new();
    for id in ["a", "b", "c"] {
        begin(&books, id);
        assert!(reached(&books, id, &format!("[\"{id}\"]")) && end(&books, id, "done"));
        time_passes(&books, 10);
    }
    let rule = RULES.iter().find(|rule| rule.name == "old_runs").unwrap();
    let now: i64 = books.ask("SELECT unixepoch()", []);
    let mut statement = books.db.prepare(rule.sql).unwrap();
    assert_eq!(statement.query_map([now], |_| Ok(())).unwrap().count(), 2);
    assert_eq!(begin(&books, "d").as_deref(), Some("[\"c\"]"));
}

/// Every step of the plan of a statement.
fn plan(books: &Books, sql: &str) -> Vec<String> {
    let mut statement = books.db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let parameters = vec![rusqlite::types::Null; statement.parameter_count()];
    let steps = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3)).unwrap();
    steps.map(Result::unwrap).collect()
}

#[test]
fn no_statement_of_a_sweep_reads_a_whole_table() {
    let books = Books::new();
    let mut statements: Vec<(&str, &str)> = RULES.iter().map(|rule| (rule.name, rule.sql)).collect();
    statements.extend([
        ("sessions::ENDED", sessions::ENDED),
        ("sessions::OVER", sessions::OVER),
        ("sessions::UNUSED", sessions::UNUSED),
        ("lots::EXPIRED", lots::EXPIRED),
        ("lots::BALANCES", lots::BALANCES),
        ("files::DUE", files::DUE),
        ("files::GONE", files::GONE),
        ("files::STRAY_PHOTOS", files::STRAY_PHOTOS),
        ("files::STRAY_RESULTS", files::STRAY_RESULTS),
        ("files::STRAY_AVATARS", files::STRAY_AVATARS),
        ("files::LOST_PHOTOS", files::LOST_PHOTOS),
        ("files::LOST_RESULTS", files::LOST_RESULTS),
        ("START", sql::START),
        ("RENEW", sql::RENEW),
        ("REACHED", sql::REACHED),
        ("END", sql::END),
    ]);
    // What is read whole is what was asked about, or a part that was taken before.
    let small = ["json_each", "part", "promised", "url", "CONSTANT ROW", "(subquery"];
    for (name, sql) in statements {
        let plan = plan(&books, sql);
        assert!(!plan.is_empty(), "{name}");
        for step in &plan {
            let scans = step.strip_prefix("SCAN ").is_some_and(|what| !small.iter().any(|small| what.starts_with(small)));
            // The rules' batches are limited, and nothing of them is sorted.
            assert!(!scans && !step.contains("USE TEMP B-TREE FOR ORDER BY"), "{name}: {step}\n{plan:#?}");
        }
    }
}
