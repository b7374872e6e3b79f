//! Erasing a person.
//!
//! One INSERT takes everything out of the database that says who somebody was or what they did, and ends their sessions; what they paid
//! and spent stays under an id that leads nowhere (migrations/0007). Files and cache entries follow here, and then it is looked whether
//! anything is left. Backups still have the person until their time is over, so a note for whoever restores one comes first. Whoever is cut off is followed by the sweep, which also looks once more an hour later, for what was on its way.

use cache::entry;
use database::{Error, one, run};
use futures::future::try_join_all;
use problem::Problem;
use serde::Serialize;
use serde_json::json;
use storage::{Bucket, Description, PAGE, key};

/// Seconds until the sweep goes on with what was cut off.
const RETRY: i64 = 300;
/// Seconds until it is looked once more.
const AGAIN: i64 = 3_600;
/// Tasks whose results are looked for side by side.
const TASKS: usize = 20;
/// Erasures that one sweep goes on with.
const BATCH: i64 = 20;

/// What a look found. All zero: the person is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Rows that say something about the person.
    pub rows: i64,
    /// Files in the bucket.
    pub files: usize,
    /// Entries in key-value.
    pub cache_entries: usize,
}

/// Erases a person's rows, at once and for good. Doing it again changes nothing.
///
/// # Errors
/// Refused (`plan_is_active`): they would go on being charged.
pub async fn begin(user_id: &str, now: i64) -> Result<(), Error> {
    let sql = "INSERT INTO erasures (user_id, asked_at, next_look_at) VALUES (?1, ?2, ?2 + ?3) ON CONFLICT (user_id) DO NOTHING";
    run(sql, vec![user_id.into(), now.into(), RETRY.into()]).await.map(drop)
}

/// Removes files and cache entries of an erased person, and answers what is left.
///
/// # Errors
/// The stores'; the sweep goes on then.
pub async fn go_on(bucket: &Bucket, user_id: &str, now: i64) -> Result<Left, Problem> {
    note(bucket, user_id, now).await?;
    remove(bucket, user_id).await?;
    let left = look(bucket, user_id).await?;
    let sql = "UPDATE erasures SET done_at = iif(?3, coalesce(done_at, ?2), NULL), \
                   next_look_at = iif(?3, iif(done_at IS NULL, ?2 + ?5, NULL), ?2 + ?4) WHERE user_id = ?1";
    let done = i64::from(left == Left::default());
    run(sql, vec![user_id.into(), now.into(), done.into(), RETRY.into(), AGAIN.into()]).await?;
    meter::log(json!({"level": if done == 1 { "info" } else { "warn" }, "event": "erased", "user": user_id, "left": left}));
    Ok(left)
}

/// Goes on with the erasures whose time has come; answers (looked at, done).
///
/// # Errors
/// The database's. One person's trouble is logged and does not stop the others.
pub async fn sweep(bucket: &Bucket, now: i64) -> Result<(usize, usize), Problem> {
    let sql = "UPDATE erasures SET next_look_at = ?1 + ?2 WHERE user_id IN \
                   (SELECT user_id FROM erasures WHERE next_look_at <= ?1 ORDER BY next_look_at LIMIT ?3) RETURNING user_id";
    let due = run(sql, vec![now.into(), RETRY.into(), BATCH.into()]).await?;
    let mut done = 0;
    for row in &due {
        let user_id = row.text(0);
        match go_on(bucket, &user_id, now).await {
            Ok(left) => done += usize::from(left == Left::default()),
            Err(problem) => {
                meter::log(json!({"level": "error", "event": "erasure_cut_off", "user": user_id, "cause": problem.cause}));
            }
        }
    }
    Ok((due.len(), done))
}

/// Leaves a note beside the backups, which still have the person: whoever restores one erases them there too. Once: where a lock lies on the
/// backups, what is there cannot be written again.
async fn note(bucket: &Bucket, user_id: &str, now: i64) -> Result<(), Problem> {
    let key = key::erased(user_id);
    if !bucket.has(&key).await? {
        let text = json!({"erased_at": now}).to_string();
        bucket.put(&key, &Description::private("application/json"), text.into()).await?;
    }
    Ok(())
}

async fn remove(bucket: &Bucket, user_id: &str) -> Result<(), Problem> {
    for row in run("SELECT id_hash FROM sessions WHERE user_id = ?1", vec![user_id.into()]).await? {
        session::forget(&row.text(0)).await?;
    }
    run("DELETE FROM sessions WHERE user_id = ?1", vec![user_id.into()]).await?;
    // Requests that came through meanwhile were counted.
    run("DELETE FROM rate_counters WHERE subject = 'user:' || ?1", vec![user_id.into()]).await?;
    remove_under(bucket, &key::of_user(user_id)).await?;
    bucket.delete(&key::avatar(user_id)).await?;
    for tasks in tasks(user_id).await?.chunks(TASKS) {
        try_join_all(tasks.iter().map(|(id, _)| async move { remove_under(bucket, &key::of_task(id)).await })).await?;
        for (_, task_no) in tasks {
            cache::delete(&entry::task_result(task_no)).await.map_err(unforgotten)?;
        }
    }
    Ok(())
}

async fn remove_under(bucket: &Bucket, prefix: &str) -> Result<(), Problem> {
    loop {
        let (page, _) = bucket.list(prefix, None, PAGE).await?;
        let keys: Vec<String> = page.into_iter().map(|object| object.key).collect();
        // A store that removes nothing is not asked for ever: what stays is found by the look.
        if keys.is_empty() || bucket.delete_many(&keys).await?.len() == keys.len() {
            return Ok(());
        }
    }
}

async fn look(bucket: &Bucket, user_id: &str) -> Result<Left, Problem> {
    let sql = "SELECT (SELECT count(*) FROM users WHERE id = ?1 AND (erased_at IS NULL OR email NOT LIKE 'erased-%' OR picture IS NOT NULL)) \
             + (SELECT count(*) FROM user_auth WHERE user_id = ?1) + (SELECT count(*) FROM sessions WHERE user_id = ?1) \
             + (SELECT count(*) FROM signin_logs WHERE user_id = ?1) + (SELECT count(*) FROM uploads WHERE user_id = ?1) \
             + (SELECT count(*) FROM idempotency_keys WHERE user_id = ?1) + (SELECT count(*) FROM prompt_verdicts WHERE user_id = ?1) \
             + (SELECT count(*) FROM rate_counters WHERE subject = 'user:' || ?1) \
             + (SELECT count(*) FROM ai_tasks WHERE user_id = ?1 AND (input_params <> '{}' OR result_urls IS NOT NULL)) \
             + (SELECT count(*) FROM orders WHERE user_id = ?1 AND payment_url IS NOT NULL)";
    let rows = one(sql, vec![user_id.into()]).await?.map_or(0, |row| row.integer(0));
    let mut files = bucket.list(&key::of_user(user_id), None, PAGE).await?.0.len();
    let mut cache_entries = 0;
    for tasks in tasks(user_id).await?.chunks(TASKS) {
        let found = try_join_all(tasks.iter().map(|(id, _)| async move { bucket.list(&key::of_task(id), None, PAGE).await })).await?;
        files += found.iter().map(|(page, _)| page.len()).sum::<usize>();
        for (_, task_no) in tasks {
            let entry = cache::read::<serde_json::Value>(&entry::task_result(task_no)).await.map_err(unforgotten)?;
            cache_entries += usize::from(entry.is_some());
        }
    }
    Ok(Left { rows, files, cache_entries })
}

/// Id and number of a person's tasks.
async fn tasks(user_id: &str) -> Result<Vec<(String, String)>, Error> {
    let rows = run("SELECT id, task_no FROM ai_tasks WHERE user_id = ?1", vec![user_id.into()]).await?;
    Ok(rows.iter().map(|row| (row.text(0), row.text(1))).collect())
}

fn unforgotten(error: impl std::fmt::Display) -> Problem {
    Problem::new(problem::Code::ServiceUnavailable, "The cache is out of order.").because(error)
}
