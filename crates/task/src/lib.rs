//! Tasks: one picture each, from the order to the file in our bucket.
//!
//! The life of a task is in three places that mirror its three moments: [`create`] charges and stores it, [`hand_over`] gives it
//! to the provider, [`finish`] brings the picture home. Each step is claimed by one conditional UPDATE (`claimed_until`), so a
//! callback, a poll and the sweep can meet without doing anything twice, and whoever dies in the middle is followed by the next.

use std::time::Duration;

use cache::entry;
use config::Settings;
use database::{Error, Row, one, run};
use page::Page;
use problem::{Code, Problem};
use seal::Keys;
use serde::{Deserialize, Serialize};

pub mod create;
pub mod finish;
pub mod follow;
pub mod hand_over;
pub mod sweep;

/// After this many seconds a task that is not done fails and pays back.
pub const DEADLINE: i64 = 900;
/// For how long a step of a task is claimed, in seconds: longer than the step can take.
pub const CLAIM: i64 = 120;

/// A row of `ai_tasks`.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: String,
    pub task_no: String,
    pub user_id: String,
    pub status: String,
    pub params: Params,
    pub result_urls: Vec<String>,
    pub failure_reason: Option<String>,
    pub provider: String,
    pub external_id: Option<String>,
    pub price: i64,
    pub attempts: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub completed_at: Option<i64>,
    /// Where the owner sees the photo, a path of ours; `None` once it is gone.
    pub source: Option<String>,
}

/// What was asked for (`ai_tasks.input_params`). The person's own words, and the prompt that holds them, are sealed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Params {
    pub hairstyle: String,
    pub hair_color: Option<String>,
    pub detail: Option<String>,
    pub model: String,
    pub prompt: String,
    /// The moderation's name of its verdict on the words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moderation: Option<String>,
    pub upload_id: String,
    pub upload_key: String,
    /// Where the owner sees the photo: a path of ours.
    pub upload_url: String,
    pub width: i64,
    pub height: i64,
}

/// A task as its owner sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Task))]
pub struct View {
    pub task_no: String,
    pub status: String,
    /// 0 to 1. While the provider works it is an estimate from the usual duration.
    pub progress: f64,
    pub hairstyle: String,
    pub hair_color: Option<String>,
    pub detail: Option<String>,
    pub model: String,
    pub upload_id: String,
    /// The photo it is made from; `None` once that is gone. A final task that comes from the cache may be up to two hours late to say so.
    pub source_url: Option<String>,
    /// Credits it costs.
    pub price: i64,
    pub result_urls: Vec<String>,
    pub failure_reason: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
    /// Unix seconds; when it became final.
    pub completed_at: Option<i64>,
}

/// A final task in the cache, with the owner it may be shown to.
#[derive(Serialize, Deserialize)]
struct Cached {
    user_id: String,
    view: View,
}

/// What the cache has of a task, whosever it is.
pub struct Glimpse(Option<Cached>);

impl Glimpse {
    /// What was found, for its owner.
    ///
    /// # Errors
    /// `not_found` for everybody else.
    fn of(self, user_id: &str) -> Result<Option<View>, Problem> {
        match self.0 {
            Some(cached) if cached.user_id != user_id => Err(Problem::not_found("task")),
            cached => Ok(cached.map(|cached| cached.view)),
        }
    }
}

pub(crate) const COLUMNS: &str = "id, task_no, user_id, status, input_params, result_urls, failure_reason, external_provider, \
    external_task_id, price, attempts, created_at, updated_at, completed_at, \
    (SELECT '/files/' || u.key FROM uploads u WHERE u.id = ai_tasks.input_params ->> 'upload_id' AND u.status = 'stored' \
     AND u.expires_at > unixepoch())";
/// How many columns these are: where what a statement answers beside them begins.
pub(crate) const BESIDE: usize = 15;

/// What the owner of a task can spend at the time `?2`.
pub(crate) const BALANCE: &str = "(SELECT coalesce(sum(remaining), 0) FROM credit_lots l WHERE l.user_id = ai_tasks.user_id \
    AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?2))";

pub(crate) fn read(row: &Row) -> Task {
    Task {
        id: row.text(0),
        task_no: row.text(1),
        user_id: row.text(2),
        status: row.text(3),
        params: serde_json::from_str(&row.text(4)).unwrap_or_default(),
        result_urls: row.optional_text(5).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        failure_reason: row.optional_text(6),
        provider: row.text(7),
        external_id: row.optional_text(8),
        price: row.integer(9),
        attempts: row.integer(10),
        created_at: row.integer(11),
        updated_at: row.integer(12),
        completed_at: row.optional_integer(13),
        source: row.optional_text(14),
    }
}

impl Task {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        is_final(&self.status)
    }

    /// What the provider is told. `None`: none of our keys opens it.
    #[must_use]
    pub fn prompt(&self, keys: &Keys) -> Option<String> {
        keys.open(&prompt_of(&self.id), &self.params.prompt)
    }

    /// The task as its owner sees it, with addresses that begin with `public_url`.
    #[must_use]
    pub fn view(&self, keys: &Keys, public_url: &str, now: i64) -> View {
        View {
            task_no: self.task_no.clone(),
            status: self.status.clone(),
            progress: progress(&self.status, self.created_at, now),
            hairstyle: self.params.hairstyle.clone(),
            hair_color: self.params.hair_color.clone(),
            detail: self.params.detail.as_ref().and_then(|sealed| keys.open(&wish_of(&self.id), sealed)),
            model: self.params.model.clone(),
            upload_id: self.params.upload_id.clone(),
            source_url: self.source.as_ref().map(|path| format!("{public_url}{path}")),
            price: self.price,
            result_urls: self.result_urls.iter().map(|path| format!("{public_url}{path}")).collect(),
            failure_reason: self.failure_reason.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            completed_at: self.completed_at,
        }
    }
}

impl View {
    #[must_use]
    pub fn is_final(&self) -> bool {
        is_final(&self.status)
    }

    /// Changes whenever the answer does.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}-{}-{}-{}\"", self.status, self.updated_at, (self.progress * 100.0) as i64, u8::from(self.source_url.is_some()))
    }
}

/// How far a task is, from 0 to 1, in hundredths. While the provider works nobody knows: it is an estimate from the usual duration.
fn progress(status: &str, created_at: i64, now: i64) -> f64 {
    /// Seconds a picture usually takes.
    const USUAL: f64 = 40.0;
    let progress = match status {
        "completed" | "failed" => 1.0,
        "processing" => ((now - created_at).max(0) as f64 / USUAL).clamp(0.05, 0.95),
        _ => 0.0,
    };
    (progress * 100.0_f64).round() / 100.0
}

/// Associated data (AEAD) under which a person's own words are sealed.
fn wish_of(task_id: &str) -> String {
    format!("wish of {task_id}")
}

fn prompt_of(task_id: &str) -> String {
    format!("prompt of {task_id}")
}

fn is_final(status: &str) -> bool {
    matches!(status, "completed" | "failed")
}

/// Looks for a task in the cache, where it is once it is final. This can be done while it is still being found out who is asking: what is
/// found is shown by [`by_no`] only.
///
/// # Errors
/// `internal` without a key.
pub async fn glimpse(settings: &Settings, task_no: &str) -> Result<Glimpse, Problem> {
    let keys = Keys::from_settings(settings)?;
    let entry = entry::task_result(task_no);
    Ok(Glimpse(cache::get::<String>(&entry).await.and_then(|sealed| keys.open_json::<Cached>(&entry, &sealed))))
}

/// A task of this user by its number: what the cache has of it, else from the database. A task whose callback is overdue is
/// asked about on the way: whoever waits for it need not wait for the sweep.
///
/// # Errors
/// `not_found`, also for another user's task.
pub async fn by_no(settings: &Settings, user_id: &str, task_no: &str, glimpse: Glimpse, now: i64) -> Result<View, Problem> {
    let public_url = settings.public_url()?;
    let keys = Keys::from_settings(settings)?;
    if let Some(view) = glimpse.of(user_id)? {
        return Ok(view);
    }
    let (task, due) = find(user_id, task_no, now, 0).await?;
    if due && look(settings, &task, now).await {
        return Ok(find(user_id, task_no, now, 0).await?.0.view(&keys, public_url, now));
    }
    remember(&task, &keys, public_url, now).await;
    Ok(task.view(&keys, public_url, now))
}

/// A task, and whether it has been time to ask the provider about it for `late` seconds.
async fn find(user_id: &str, task_no: &str, now: i64, late: i64) -> Result<(Task, bool), Problem> {
    let sql = format!(
        "SELECT {COLUMNS}, status = 'processing' AND next_attempt_at <= ?3 - ?4 AND claimed_until <= ?3 FROM ai_tasks \
         WHERE task_no = ?1 AND user_id = ?2"
    );
    let row = one(&sql, vec![task_no.into(), user_id.into(), now.into(), late.into()]).await?.ok_or_else(|| Problem::not_found("task"))?;
    Ok((read(&row), row.integer(BESIDE) != 0))
}

/// Longest that somebody who reads is made to wait for the provider. What is cut off goes on when its claim has passed.
const LOOK: Duration = Duration::from_secs(10);

/// Asks the provider about a task that nobody else is asking about. Its trouble is not the reader's. Answers whether it was asked.
async fn look(settings: &Settings, task: &Task, now: i64) -> bool {
    let looked = outbound::within(LOOK, async {
        let claimed = finish::claim_due(&task.id, now).await;
        match claimed {
            Ok(Some(task)) => Ok(Some(finish::finish(settings, &task, now).await.err())),
            Ok(None) => Ok(None),
            Err(problem) => Ok(Some(Some(problem))),
        }
    });
    let trouble = match looked.await {
        Ok(None) => return false,
        Ok(Some(None)) => return true,
        Ok(Some(Some(problem))) => problem.cause,
        Err(failure) => Some(failure.to_string()),
    };
    meter::log(serde_json::json!({"level": "warn", "event": "task_look_failed", "task": task.task_no, "cause": trouble}));
    true
}

/// A user's tasks, newest first. Read from the database each time: a list that is minutes old would hide the task just made.
///
/// # Errors
/// The database's.
pub async fn list(user_id: &str, page: &Page) -> Result<Vec<Task>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM ai_tasks WHERE user_id = ?1 AND (created_at, id) < (?4, ?5) \
         ORDER BY created_at DESC, id DESC LIMIT ?2 OFFSET ?3"
    );
    let (created_at, id) = page.before();
    let parameters = vec![user_id.into(), page.limit.into(), page.offset.into(), created_at.into(), id.into()];
    Ok(run(&sql, parameters).await?.iter().map(read).collect())
}

/// Cancels a task that the provider has not got; its credit returns.
///
/// # Errors
/// `not_found`; `conflict` once it is under way or over.
pub async fn cancel(user_id: &str, task_no: &str, now: i64) -> Result<Task, Problem> {
    let sql = format!(
        "UPDATE ai_tasks SET status = 'failed', failure_reason = 'cancelled', updated_at = ?3, completed_at = ?3 \
         WHERE task_no = ?1 AND user_id = ?2 AND status = 'pending' AND claimed_until <= ?3 RETURNING {COLUMNS}"
    );
    if let Some(row) = one(&sql, vec![task_no.into(), user_id.into(), now.into()]).await? {
        return Ok(read(&row));
    }
    let sql = "SELECT status FROM ai_tasks WHERE task_no = ?1 AND user_id = ?2";
    let row = one(sql, vec![task_no.into(), user_id.into()]).await?.ok_or_else(|| Problem::not_found("task"))?;
    Err(Problem::new(Code::Conflict, format!("This task cannot be cancelled any more: it is {}.", row.text(0))))
}

/// Keeps a final task in the cache.
pub(crate) async fn remember(task: &Task, keys: &Keys, public_url: &str, now: i64) {
    if task.is_final() {
        let cached = Cached { user_id: task.user_id.clone(), view: task.view(keys, public_url, now) };
        let entry = entry::task_result(&task.task_no);
        if let Ok(sealed) = keys.seal_json(&entry, &cached) {
            cache::set(&entry, &sealed, entry::TASK_FINAL_SECONDS).await;
        }
    }
}
