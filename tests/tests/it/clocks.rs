//! A clock that was a month ahead for a while: what it left in the future switches nothing off.

use e2e::World;
use serde_json::{Value, json};

const MONTH: i64 = 30 * 86_400;

/// A run as it is recorded while the clock is a month ahead; without an outcome it is killed.
fn run_of_next_month(world: &World, job: &str, outcome: Option<&str>, position: &Value) {
    let sql = "INSERT INTO job_runs (id, job, started_at, leased_until, position) \
               VALUES ('next month', ?1, unixepoch() + ?2, unixepoch() + ?2 + 120, ?3)";
    world.db_write(sql, (job, MONTH, position.to_string()));
    if let Some(outcome) = outcome {
        world.db_write("UPDATE job_runs SET outcome = ?1, ended_at = started_at WHERE id = 'next month'", [outcome]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_next_month_is_none() {
    let world = World::new().await;
    run_of_next_month(&world, "backup", Some("done"), &json!({}));
    assert_eq!(world.scheduled(200, "/internal/backup").await["outcome"], "done");
    assert_eq!(world.scheduled(200, "/internal/backup").await["outcome"], "not_due");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_after_the_one_before_it_whatever_time_that_carries() {
    let world = World::new().await;
    run_of_next_month(&world, "cleanup", Some("done"), &json!({"cache": {"turn": 7, "shares": 1}}));
    for turn in [8, 9, 10] {
        world.scheduled(200, "/internal/cleanup").await;
        assert_eq!(world.sql_number("SELECT position ->> '$.cache.turn' FROM job_runs ORDER BY rowid DESC LIMIT 1"), turn);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_next_month_keeps_nobody_away() {
    let world = World::new().await;
    run_of_next_month(&world, "cleanup", None, &json!({}));
    assert_eq!(world.scheduled(200, "/internal/cleanup").await["outcome"], "done");
    let cut_off = "SELECT outcome = 'cut_off' AND ended_at <= unixepoch() FROM job_runs WHERE id = 'next month'";
    assert_eq!(world.sql_number(cut_off), 1);
    // One that may be true does.
    let elsewhere =
        "INSERT INTO job_runs (id, job, started_at, leased_until) VALUES ('elsewhere', 'tasks', unixepoch() + 5, unixepoch() + 125)";
    world.db_write(elsewhere, []);
    assert_eq!(world.scheduled(200, "/internal/tasks").await["outcome"], "already_running");
}
