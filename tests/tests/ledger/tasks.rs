//! Charging: all of it or nothing, and never twice.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::books::{Books, START};

const SEVERAL: &str = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, price, created_at, updated_at) \
    SELECT value, 'TASK_' || value, 'ada', '{}', 1, ?2, ?2 FROM json_each(?1)";

#[test]
fn several_tasks_are_charged_together() {
    let books = Books::of_ada(3);
    assert_eq!(books.run(SEVERAL, (r#"["a","b","c"]"#, START)), Ok(3));
    assert_eq!((books.balance(), books.mirror()), (0, 0));
    books.assert_invariants();
}

#[test]
fn several_tasks_are_refused_together() {
    let books = Books::of_ada(2);
    let before = books.everything();
    assert_eq!(books.run(SEVERAL, (r#"["a","b","c"]"#, START)), Err("insufficient_credits".into()));
    assert_eq!(books.everything(), before);
    books.assert_invariants();
}

#[test]
fn a_price_above_the_balance_is_refused_whole() {
    let books = Books::of_ada(2);
    let before = books.everything();
    assert_eq!(books.task("t", 3), Err("insufficient_credits".into()));
    assert_eq!(books.everything(), before);
}

#[test]
fn somebody_elses_credits_pay_nothing() {
    let books = Books::of_ada(0);
    books.sign_up("bob", 5).unwrap();
    assert_eq!(books.task("t", 1), Err("insufficient_credits".into()));
}

#[test]
fn of_fifty_who_spend_the_last_credit_at_once_one_succeeds() {
    const THREADS: usize = 50;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    migrations::apply(&path, &e2e::root().join("migrations")).unwrap();
    let open = || {
        let connection = Connection::open(&path).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        connection
    };
    open().execute("INSERT INTO users (id, email, name, credits) VALUES ('ada', 'ada@example.com', 'Ada', 1)", []).unwrap();

    let start = Barrier::new(THREADS);
    let outcomes: Vec<String> = thread::scope(|scope| {
        let spend = |number: usize| {
            let (start, open) = (&start, &open);
            scope.spawn(move || {
                let connection = open();
                start.wait();
                let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params) VALUES (?1, ?1, 'ada', '{}')";
                connection.execute(sql, [format!("t{number}")]).map_or_else(|error| error.to_string(), |_| "charged".to_owned())
            })
        };
        let threads: Vec<_> = (0..THREADS).map(spend).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |what: &str| outcomes.iter().filter(|outcome| *outcome == what).count();
    assert_eq!((count("charged"), count("insufficient_credits")), (1, THREADS - 1), "{outcomes:?}");
    let (tasks, credits): (i64, i64) =
        open().query_row("SELECT (SELECT count(*) FROM ai_tasks), credits FROM users", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!((tasks, credits), (1, 0));
}

#[test]
fn what_was_paid_for_stays_what_it_was() {
    let books = Books::of_ada(3);
    books.sign_up("bob", 3).unwrap();
    books.task("t", 1).unwrap();
    for change in ["price = 2", "user_id = 'bob'", "task_no = 'TASK_other'", "id = 'other'"] {
        books.refuses("task_terms_are_fixed", &format!("UPDATE ai_tasks SET {change} WHERE id = 't'"));
    }
}

#[test]
fn a_task_costs_something_and_starts_pending() {
    let books = Books::of_ada(3);
    for price in [0, -1] {
        assert!(books.task("t", price).unwrap_err().contains("CHECK constraint failed"), "price {price}");
    }
    for status in ["processing", "completed", "failed"] {
        let sql = format!("INSERT INTO ai_tasks (id, task_no, user_id, input_params, status) VALUES ('t', 't', 'ada', '{{}}', '{status}')");
        books.refuses("task_starts_pending", &sql);
    }
}

#[test]
fn a_task_that_fails_twice_pays_back_once() {
    let books = Books::of_ada(3);
    books.task("t", 2).unwrap();
    assert_eq!(books.set_task("t", "failed"), Ok(1));
    assert_eq!(books.set_task("t", "failed"), Ok(1), "saying the same again is no transition");
    assert_eq!(books.balance(), 3);
    books.assert_invariants();
}
