//! Bringing results home. A task is completed only when its pictures lie in our bucket.

use std::time::Duration;

use config::Settings;
use database::one;
use futures::future::try_join_all;
use http::{Method, StatusCode};
use problem::{Code, Problem};
use provider::{Kie, Record};
use seal::Keys;
use serde_json::json;
use storage::{Bucket, Description, Writer, key};

use crate::{CLAIM, COLUMNS, DEADLINE, Task, hand_over, read};

/// After so many looks a task is left to the sweep.
const READERS: i64 = 8;
/// Largest picture that is brought home, in bytes.
const MOST_BYTES: usize = 40 << 20;
/// How long bringing one picture home may take in all, from the first byte asked for to the last one stored. 40 MiB in this time are a
/// megabyte and a half a second; and with the question before it a step stays within its claim.
const LIMIT: Duration = Duration::from_secs(30);

/// What a look at a task came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Failed,
    /// The provider is still at work.
    Running,
    /// Somebody else is at it, or it was final before.
    Nothing,
}

/// Claims a task that the provider says it is done with. `None`: there is nothing to do (final, claimed by another, or the
/// provider's id is not this task's).
///
/// A task whose hand-over was cut off has no provider's id yet; it takes the one of the callback, whose signature the provider
/// made for it.
///
/// # Errors
/// The database's.
pub async fn claim(task_id: &str, external_id: &str, now: i64) -> Result<Option<Task>, Problem> {
    let sql = format!(
        "UPDATE ai_tasks SET status = 'processing', external_task_id = ?2, claimed_until = ?3 + {CLAIM}, updated_at = ?3 \
         WHERE id = ?1 AND ((status = 'processing' AND external_task_id = ?2 AND claimed_until <= ?3) \
                         OR (status = 'pending' AND external_task_id IS NULL)) \
         RETURNING {COLUMNS}"
    );
    let row = one(&sql, vec![task_id.into(), external_id.into(), now.into()]).await?;
    Ok(row.as_ref().map(read))
}

/// Claims a task whose callback is overdue, for somebody who waits for it. `None`: it is final, not due, claimed by another, or a case for
/// the sweep, which has more time: past its deadline, or looked at by readers several times in vain.
///
/// # Errors
/// The database's.
pub async fn claim_due(task_id: &str, now: i64) -> Result<Option<Task>, Problem> {
    let sql = format!(
        "UPDATE ai_tasks SET claimed_until = ?2 + {CLAIM}, attempts = attempts + 1 \
         WHERE id = ?1 AND status = 'processing' AND next_attempt_at <= ?2 AND claimed_until <= ?2 \
           AND created_at > ?2 - {DEADLINE} AND attempts < {READERS} RETURNING {COLUMNS}"
    );
    let row = one(&sql, vec![task_id.into(), now.into()]).await?;
    Ok(row.as_ref().map(read))
}

/// How a task stands that could not be claimed: its status, and whether the provider's id is its own.
///
/// # Errors
/// The database's.
pub async fn standing(task_id: &str, external_id: &str) -> Result<Option<(String, bool)>, Problem> {
    let row = one("SELECT status, external_task_id IS ?2 FROM ai_tasks WHERE id = ?1", vec![task_id.into(), external_id.into()]).await?;
    Ok(row.map(|row| (row.text(0), row.integer(1) != 0)))
}

/// Asks the provider about a claimed task and does what follows. Nothing is taken from a callback's body.
///
/// # Errors
/// `provider_unavailable` or `storage_unavailable` after a passing fault: the claim is released and the next look tries again.
pub async fn finish(settings: &Settings, task: &Task, now: i64) -> Result<Outcome, Problem> {
    let overdue = now >= task.created_at + DEADLINE;
    let (Some(api), Some(external_id)) = (provider::api(&task.provider), task.external_id.as_deref()) else {
        return fail(settings, task, "The picture could not be ordered.", now).await;
    };
    match Kie::from_settings(settings)?.record(api, external_id).await {
        Ok(Record::Succeeded(urls)) if urls.is_empty() => fail(settings, task, "The AI provider returned no picture.", now).await,
        Ok(Record::Succeeded(urls)) => match bring_home(settings, task, &urls).await {
            Ok(paths) => complete(settings, task, &paths, now).await,
            Err(Fault::Unusable(cause)) => {
                note(task, "result_unusable", &cause);
                fail(settings, task, "The AI provider's picture could not be used.", now).await
            }
            Err(Fault::Passing(cause)) if overdue => {
                note(task, "result_out_of_reach", &cause);
                fail(settings, task, "The AI provider's picture could not be fetched in time.", now).await
            }
            Err(Fault::Passing(cause)) => {
                release(task, now).await?;
                Err(Problem::new(Code::StorageUnavailable, "The picture could not be brought home yet.").retry_after(10).because(cause))
            }
        },
        Ok(Record::Failed(reason)) => {
            note(task, "provider_failed", &reason.code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}")));
            fail(settings, task, reason.words(), now).await
        }
        Ok(Record::Running | Record::Missing) if overdue => fail(settings, task, "The AI provider did not finish in time.", now).await,
        Ok(Record::Running | Record::Missing) => {
            release(task, now).await?;
            Ok(Outcome::Running)
        }
        Err(error) if overdue => {
            note(task, "provider_out_of_reach", &error.to_string());
            fail(settings, task, "The AI provider did not answer in time.", now).await
        }
        Err(error) => {
            release(task, now).await?;
            Err(Problem::new(Code::ProviderUnavailable, "The AI provider could not be asked.").retry_after(10).because(error))
        }
    }
}

async fn complete(settings: &Settings, task: &Task, paths: &[String], now: i64) -> Result<Outcome, Problem> {
    let sql = format!(
        "UPDATE ai_tasks SET status = 'completed', result_urls = ?2, updated_at = ?3, completed_at = ?3, claimed_until = 0 \
         WHERE id = ?1 AND status = 'processing' RETURNING {COLUMNS}"
    );
    let row = one(&sql, vec![task.id.as_str().into(), json!(paths).to_string().into(), now.into()]).await?;
    if row.is_none() {
        throw_away(settings, task, paths).await?;
    }
    settle(settings, row, now, Outcome::Completed).await
}

/// A task that failed while its pictures were on their way (its time was over, its owner has gone) must not leave them behind.
async fn throw_away(settings: &Settings, task: &Task, paths: &[String]) -> Result<(), Problem> {
    let failed = one("SELECT 1 FROM ai_tasks WHERE id = ?1 AND status = 'failed'", vec![task.id.as_str().into()]).await?.is_some();
    if failed {
        let keys: Vec<String> = paths.iter().map(|path| path.trim_start_matches("/files/").to_owned()).collect();
        Bucket::from_settings(settings)?.delete_many(&keys).await?;
    }
    Ok(())
}

/// Fails a task; the schema pays it back in the same step.
pub(crate) async fn fail(settings: &Settings, task: &Task, reason: &str, now: i64) -> Result<Outcome, Problem> {
    let sql = format!(
        "UPDATE ai_tasks SET status = 'failed', failure_reason = ?2, updated_at = ?3, completed_at = ?3, claimed_until = 0 \
         WHERE id = ?1 AND status IN ('pending', 'processing') RETURNING {COLUMNS}"
    );
    settle(settings, one(&sql, vec![task.id.as_str().into(), reason.into(), now.into()]).await?, now, Outcome::Failed).await
}

async fn settle(settings: &Settings, row: Option<database::Row>, now: i64, outcome: Outcome) -> Result<Outcome, Problem> {
    let Some(task) = row.as_ref().map(read) else { return Ok(Outcome::Nothing) };
    crate::remember(&task, &Keys::from_settings(settings)?, settings.public_url()?, now).await;
    meter::log(json!({"level": "info", "event": "task_final", "task": task.task_no, "user": task.user_id, "status": task.status,
               "reason": task.failure_reason, "seconds": now - task.created_at}));
    Ok(outcome)
}

/// Gives the claim back; the next look comes later each time, but not later than the deadline.
async fn release(task: &Task, now: i64) -> Result<(), Problem> {
    let next = (now + hand_over::delay(task.attempts)).min((task.created_at + DEADLINE).max(now + 1));
    let sql =
        "UPDATE ai_tasks SET claimed_until = 0, attempts = attempts + 1, next_attempt_at = ?2 WHERE id = ?1 AND status = 'processing'";
    database::run(sql, vec![task.id.as_str().into(), next.into()]).await?;
    Ok(())
}

/// Why a picture is not in our bucket.
enum Fault {
    /// It may be there the next time.
    Passing(String),
    /// It never will.
    Unusable(String),
}

/// Copies all pictures, side by side, and answers their addresses in our app. A repetition overwrites the same keys.
async fn bring_home(settings: &Settings, task: &Task, urls: &[String]) -> Result<Vec<String>, Fault> {
    let bucket = Bucket::from_settings(settings).map_err(|problem| Fault::Passing(problem.cause.unwrap_or_default()))?;
    let place = settings.text("kie_result_host").map_err(|problem| Fault::Passing(problem.cause.unwrap_or_default()))?;
    try_join_all(urls.iter().enumerate().map(|(at, url)| copy(&bucket, place, &task.id, at + 1, url))).await
}

/// Copies one picture. A server that sends a byte now and then must not hold a sweep, so the whole of it has one limit.
async fn copy(bucket: &Bucket, place: &str, task_id: &str, number: usize, url: &str) -> Result<String, Fault> {
    if !provider::results::is_from(place, url) {
        return Err(Fault::Unusable("the result lies outside kie_result_host".into()));
    }
    let mut writer = None;
    let copied = outbound::within(LIMIT, async { Ok(pour(bucket, &mut writer, task_id, number, url).await) }).await;
    let copied = copied.unwrap_or_else(|failure| Err(Fault::Passing(failure.to_string())));
    if let Some(writer) = writer.filter(|_| copied.is_err()) {
        writer.abort().await;
    }
    copied
}

/// Fetches one picture and writes it; the writer is the caller's, who may have to give it up.
async fn pour<'b>(bucket: &'b Bucket, writer: &mut Option<Writer<'b>>, task_id: &str, number: usize, url: &str) -> Result<String, Fault> {
    let passing = |error: &dyn std::fmt::Display| Fault::Passing(error.to_string());
    let request = outbound::empty(Method::GET, url).map_err(|error| Fault::Unusable(error.to_string()))?;
    let response = outbound::send("kie_result", request, LIMIT).await.map_err(|error| passing(&error))?;
    match response.status() {
        StatusCode::OK => {}
        // A result may take a moment to appear where it is announced.
        status if status == StatusCode::NOT_FOUND || status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            return Err(Fault::Passing(format!("result: status {status}")));
        }
        // Redirects included: where they lead is not the configured place.
        status => return Err(Fault::Unusable(format!("result: status {status}"))),
    }
    let stated = response.headers().get("content-length").and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if stated.is_some_and(|length| length > MOST_BYTES) {
        return Err(Fault::Unusable(format!("result: {stated:?} bytes")));
    }

    let mut body = response.into_body();
    let mut head = Vec::new();
    // Enough to tell what the file is; the type it claims counts for nothing.
    while head.len() < 64 {
        match next(&mut body).await? {
            Some(data) => head.extend_from_slice(&data),
            None => break,
        }
    }
    let kind = photo::sniff(&head).ok_or_else(|| Fault::Unusable("result: not a picture".into()))?;
    let key = key::result(task_id, number, kind.extension());
    let description = Description::of(kind.content_type())
        // Without its query: that may be a signature.
        .with("x-amz-meta-source-url", url.split('?').next().unwrap_or_default())
        .with("x-amz-meta-downloaded-at", &clock::now().to_string())
        .with("x-amz-meta-task-id", task_id);
    let target = writer.insert(bucket.writer(&key, description).map_err(|error| passing(&error))?);
    let mut length = head.len();
    target.push(&head).await.map_err(|error| passing(&error))?;
    while let Some(data) = next(&mut body).await? {
        length += data.len();
        if length > MOST_BYTES {
            return Err(Fault::Unusable(format!("result: more than {MOST_BYTES} bytes")));
        }
        target.push(&data).await.map_err(|error| passing(&error))?;
    }
    if stated.is_some_and(|stated| stated != length) {
        return Err(Fault::Passing("result: cut short".into()));
    }
    if let Some(writer) = writer.take() {
        writer.finish().await.map_err(|error| passing(&error))?;
    }
    Ok(format!("/files/{key}"))
}

async fn next(
    body: &mut (impl http_body_util::BodyExt<Data = bytes::Bytes, Error: std::fmt::Display> + Unpin),
) -> Result<Option<bytes::Bytes>, Fault> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::Passing(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn note(task: &Task, event: &str, cause: &str) {
    meter::log(json!({"level": "warn", "event": event, "task": task.task_no, "cause": cause}));
}
