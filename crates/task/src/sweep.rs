//! Finishing what was cut off: tasks whose callback never came, that the provider could not take, or that ran out of time.

use std::time::{Duration, Instant};

use config::Settings;
use futures::future::join_all;
use problem::Problem;
use serde::Serialize;

use crate::{CLAIM, COLUMNS, DEADLINE, Task, finish, finish::Outcome, hand_over, read};

/// Tasks looked at side by side.
const BATCH: usize = 20;
/// For how long a sweep takes batch after batch; the rest is for the next one.
const TIME: Duration = Duration::from_secs(20);

/// What a sweep did with tasks.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub looked_at: usize,
    pub completed: usize,
    pub failed: usize,
    pub handed_over: usize,
}

/// Looks at the tasks whose time has come.
///
/// # Errors
/// The database's. A single task's trouble is logged and does not stop the others.
pub async fn sweep(settings: &Settings, now: i64) -> Result<Report, Problem> {
    let (started, mut report) = (Instant::now(), Report::default());
    loop {
        let looked_at = batch(settings, now, &mut report).await?;
        report.looked_at += looked_at;
        if looked_at < BATCH || started.elapsed() > TIME {
            return Ok(report);
        }
    }
}

/// Looks at the next tasks, side by side; answers how many.
async fn batch(settings: &Settings, now: i64, report: &mut Report) -> Result<usize, Problem> {
    // A task that is about to be handed over is next looked at when its deadline has come: if this is cut off, the provider may have
    // got it, and it must not get it twice. Handing over puts the time back when the provider surely has not.
    let sql = format!(
        "UPDATE ai_tasks SET claimed_until = ?1 + {CLAIM}, \
             next_attempt_at = iif(external_task_id IS NULL, max(next_attempt_at, created_at + {DEADLINE}), next_attempt_at) WHERE id IN (\
             SELECT id FROM ai_tasks INDEXED BY ai_tasks_running WHERE status IN ('pending', 'processing') AND next_attempt_at <= ?1 AND claimed_until <= ?1 \
             ORDER BY next_attempt_at LIMIT {BATCH}) \
         AND claimed_until <= ?1 RETURNING {COLUMNS}"
    );
    let tasks: Vec<Task> = database::run(&sql, vec![now.into()]).await?.iter().map(read).collect();
    let looked_at = tasks.len();
    let (waiting, others): (Vec<_>, Vec<_>) =
        tasks.into_iter().partition(|task| task.status == "pending" && task.external_id.is_none() && now < task.created_at + DEADLINE);
    if !waiting.is_empty() {
        hand_over::hand_over(settings, &waiting, now).await?;
        report.handed_over += waiting.len();
    }
    for outcome in join_all(others.iter().map(|task| look(settings, task, now))).await {
        match outcome {
            Ok(Outcome::Completed) => report.completed += 1,
            Ok(Outcome::Failed) => report.failed += 1,
            Ok(Outcome::Running | Outcome::Nothing) => {}
            Err(problem) => meter::log(serde_json::json!({"level": "warn", "event": "task_look_failed", "cause": problem.cause})),
        }
    }
    Ok(looked_at)
}

async fn look(settings: &Settings, task: &Task, now: i64) -> Result<Outcome, Problem> {
    if task.external_id.is_none() {
        // Past its deadline, and whether the provider ever got it is not known: pay back.
        return finish::fail(settings, task, "The AI provider could not take the picture in time.", now).await;
    }
    finish::finish(settings, task, now).await
}
