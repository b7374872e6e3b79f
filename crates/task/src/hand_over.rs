//! Giving tasks to the provider.
//!
//! The provider has no idempotency key. So a task is handed over by whoever claimed it, once; an answer that is lost leaves the
//! task alone until a callback tells or the deadline pays back. Only a clear "not now" is tried again.

use std::time::Duration;

use config::Settings;
use futures::future::join_all;
use problem::Problem;
use provider::{CreateError, Kie, Picture};
use seal::Keys;
use serde_json::{Value, json};
use storage::Bucket;

use crate::{BALANCE, BESIDE, COLUMNS, DEADLINE, Task, read};

/// How long the provider can fetch the photo: its queue may be long.
const PHOTO_LINK: Duration = Duration::from_secs(3_600);
/// Seconds after which an accepted task is asked about, if no callback came.
pub(crate) const FIRST_LOOK: i64 = 30;

/// Hands over claimed tasks, side by side, and notes all outcomes in one statement.
///
/// Answers the tasks as they stand now and their owner's balance, if that statement could tell: when one of them failed, its credits come
/// back after the rows were answered, and when somebody else was faster, there are rows missing.
///
/// # Errors
/// The database's. The tasks themselves cannot be lost by that: their deadline pays them back.
pub async fn hand_over(settings: &Settings, tasks: &[Task], now: i64) -> Result<Option<(Vec<Task>, i64)>, Problem> {
    let kie = Kie::from_settings(settings)?;
    let bucket = Bucket::from_settings(settings)?;
    let public_url = settings.public_url()?;
    let keys = Keys::from_settings(settings)?;
    let outcomes = join_all(tasks.iter().map(|task| one(&kie, &bucket, &keys, public_url, task, now))).await;
    // The plus keeps SQLite from going through all that is pending: these few are found by their ids.
    let sql = format!(
        "UPDATE ai_tasks SET status = given.status, external_task_id = given.external_id, failure_reason = given.reason, \
                   next_attempt_at = given.next, attempts = attempts + 1, claimed_until = 0, updated_at = ?2, \
                   completed_at = iif(given.status = 'failed', ?2, NULL) \
               FROM (SELECT value ->> 'id' AS id, value ->> 'status' AS status, value ->> 'external_id' AS external_id, \
                            value ->> 'reason' AS reason, value ->> 'next' AS next FROM json_each(?1)) AS given \
         WHERE ai_tasks.id = given.id AND +ai_tasks.status = 'pending' RETURNING {COLUMNS}, {BALANCE}"
    );
    let rows = database::run(&sql, vec![Value::from(outcomes).to_string().into(), clock::now().into()]).await?;
    let noted: Vec<Task> = tasks.iter().filter_map(|task| rows.iter().find(|row| row.text(0) == task.id)).map(read).collect();
    if noted.len() < tasks.len() || noted.iter().any(Task::is_final) {
        return Ok(None);
    }
    Ok(rows.first().map(|row| (noted, row.integer(BESIDE))))
}

async fn one(kie: &Kie<'_>, bucket: &Bucket, keys: &Keys, public_url: &str, task: &Task, now: i64) -> Value {
    let created = async {
        let api = provider::api(&task.provider).ok_or_else(|| CreateError::Refused(format!("no adapter {}", task.provider)))?;
        let photo_url = bucket.link(&task.params.upload_key, PHOTO_LINK).map_err(|error| CreateError::Refused(error.to_string()))?;
        // A key that is missing today may be put back.
        let prompt =
            task.prompt(keys).ok_or_else(|| CreateError::Later("no key opens the prompt (variable data_encryption_key)".into()))?;
        let picture = Picture {
            prompt: &prompt,
            photo_url: &photo_url,
            callback_url: &format!("{public_url}/webhooks/kie/{}", task.id),
            width: task.params.width,
            height: task.params.height,
        };
        kie.create(api, &picture).await
    }
    .await;
    let (outcome, cause) = match created {
        Ok(external_id) => (json!({"id": task.id, "status": "processing", "external_id": external_id, "next": now + FIRST_LOOK}), None),
        Err(CreateError::Refused(cause)) => {
            (json!({"id": task.id, "status": "failed", "reason": "The AI provider refused this picture.", "next": 0}), Some(cause))
        }
        Err(CreateError::Later(cause)) => (json!({"id": task.id, "status": "pending", "next": now + delay(task.attempts)}), Some(cause)),
        Err(CreateError::Unknown(cause)) => (json!({"id": task.id, "status": "pending", "next": task.created_at + DEADLINE}), Some(cause)),
    };
    meter::log(json!({"level": if cause.is_some() { "warn" } else { "info" }, "event": "task_handed_over", "task": task.task_no,
               "provider": task.provider, "status": outcome["status"], "cause": cause}));
    outcome
}

/// Seconds to wait after the n-th attempt: 10, 20, 40, ... at most 160.
pub(crate) fn delay(attempts: i64) -> i64 {
    10 << attempts.clamp(0, 4)
}

#[cfg(test)]
mod tests {
    #[test]
    fn waits_grow_and_stay_bounded() {
        let waits: Vec<_> = (0..7).map(super::delay).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 160, 160]);
    }
}
