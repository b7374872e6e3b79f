//! How the product does, in figures. Each is read from an index and bounded by what happened lately or is open now; only the credits that
//! people hold are added up over all lots that are not empty. The whole is kept for a minute. A `+` keeps SQLite from choosing an index that
//! would lead it through everything that ever was.

use cache::entry;
use database::{one, run};
use futures::try_join;
use page::Page;
use problem::Problem;
use serde_json::{Value, json};

/// Seconds for which the figures are kept.
const KEPT: u64 = 60;

/// The figures of this minute.
///
/// # Errors
/// The database's.
pub async fn figures(day_limit: i64, now: i64) -> Result<Value, Problem> {
    let key = entry::config("admin:overview");
    if let Some(kept) = cache::get::<Value>(&key).await {
        return Ok(kept);
    }
    let (people, tasks, money, operation) = try_join!(read(PEOPLE, now), read(TASKS, now), read(MONEY, now), read(OPERATION, now))?;
    let mut figures = json!({"at": now, "people": people, "tasks": tasks, "money": money, "operation": operation});
    figures["tasks"]["spend_today"]["limit"] = if day_limit > 0 { json!(day_limit) } else { Value::Null };
    figures["tasks"]["success_rate_24h"] = success_rate(&figures["tasks"]["last_24h"]);
    cache::set(&key, &figures, KEPT).await;
    Ok(figures)
}

/// Of the tasks that came to an end: the share that did so with pictures. `null`: none did.
fn success_rate(by_status: &Value) -> Value {
    let number = |status: &str| by_status[status].as_f64().unwrap_or_default();
    let ended = number("completed") + number("failed");
    if ended > 0.0 { json!((number("completed") / ended * 1_000.0).round() / 1_000.0) } else { Value::Null }
}

/// A statement whose one column is a JSON object; `?1` is the time.
async fn read(sql: &str, now: i64) -> Result<Value, Problem> {
    let row = one(sql, vec![now.into()]).await?.ok_or_else(|| Problem::internal("figures without a row"))?;
    serde_json::from_str(&row.text(0)).map_err(Problem::internal)
}

// What stands under `by_day` is of today and the thirteen days before it: a day is a number, as in `provider_spend`, and one on which nothing
// happened is not there. Each is counted within an index that holds all that is asked for, but for the payments, which are read anyway.

/// A user is never removed, erased ones neither, so the greatest rowid is how many there are.
const PEOPLE: &str = "SELECT json_object(\
    'users', coalesce((SELECT max(rowid) FROM users), 0), \
    'by_day', json((SELECT json_group_array(json_object('day', day, 'new_users', number)) FROM \
        (SELECT created_at / 86400 AS day, count(*) AS number FROM users WHERE created_at >= (?1 / 86400 - 13) * 86400 GROUP BY 1))), \
    'new_users_24h', (SELECT count(*) FROM users WHERE created_at > ?1 - 86400), \
    'credits_granted_24h', (SELECT coalesce(sum(amount), 0) FROM credit_records WHERE created_at > ?1 - 86400 AND +lot_id IS NULL AND entity_type <> 'task'), \
    'credits_spent_24h', (SELECT -coalesce(sum(amount), 0) FROM credit_records WHERE created_at > ?1 - 86400 AND +entity_type = 'task'), \
    'credits_outstanding', (SELECT coalesce(sum(remaining), 0) FROM credit_lots WHERE remaining > 0 AND (expires_at IS NULL OR expires_at > ?1)))";

const TASKS: &str = "SELECT json_object(\
    'last_24h', json((SELECT coalesce(json_group_object(status, number), '{}') FROM \
        (SELECT status, count(*) AS number FROM ai_tasks WHERE created_at > ?1 - 86400 GROUP BY +status))), \
    'by_day', json((SELECT json_group_array(json_object('day', day, 'status', status, 'number', number)) FROM \
        (SELECT created_at / 86400 AS day, status, count(*) AS number FROM ai_tasks WHERE status IN ('pending', 'processing', 'completed', 'failed') \
             AND created_at >= (?1 / 86400 - 13) * 86400 GROUP BY 1, 2))), \
    'running', (SELECT count(*) FROM ai_tasks WHERE status IN ('pending', 'processing')), \
    'spend_today', json_object('pictures', coalesce((SELECT pictures FROM provider_spend WHERE day = ?1 / 86400), 0)))";

/// Sums are in the currency's smallest unit. A plan's payments are its periods; its order is only how it began.
const MONEY: &str = "WITH payments AS (\
        SELECT o.currency, coalesce(amount_paid, o.amount) AS paid, refunded_amount AS refunded, paid_at AS at \
        FROM orders o JOIN products p ON p.id = product_id \
        WHERE o.created_at > ?1 - 33 * 86400 AND paid_at > ?1 - 30 * 86400 AND kind = 'pack' \
        UNION ALL \
        SELECT p.currency, amount_paid, refunded_amount, s.created_at \
        FROM subscription_periods s JOIN products p ON p.id = product_id WHERE s.created_at > ?1 - 30 * 86400) \
    SELECT json_object(\
    'revenue', json((SELECT coalesce(json_group_object(currency, json_object('payments_24h', payments_24h, 'paid_24h', paid_24h, \
        'payments_30d', payments_30d, 'paid_30d', paid_30d, 'refunded_30d', refunded_30d)), '{}') FROM \
        (SELECT currency, sum(at > ?1 - 86400) AS payments_24h, sum(iif(at > ?1 - 86400, paid, 0)) AS paid_24h, count(*) AS payments_30d, \
                sum(paid) AS paid_30d, sum(refunded) AS refunded_30d FROM payments GROUP BY currency))), \
    'by_day', json((SELECT json_group_array(json_object('day', day, 'currency', currency, 'payments', number, 'paid', paid)) FROM \
        (SELECT at / 86400 AS day, currency, count(*) AS number, sum(paid) AS paid FROM payments WHERE at >= (?1 / 86400 - 13) * 86400 GROUP BY 1, 2))), \
    'orders_24h', json((SELECT coalesce(json_group_object(status, number), '{}') FROM \
        (SELECT status, count(*) AS number FROM orders WHERE created_at > ?1 - 86400 GROUP BY +status))), \
    'subscriptions', json((SELECT coalesce(json_group_object(status, number), '{}') FROM \
        (SELECT status, count(*) AS number FROM subscriptions GROUP BY status))), \
    'open_events', (SELECT count(*) FROM payment_events WHERE status = 'received'))";

const OPERATION: &str = "SELECT json_object(\
    'open_alarms', (SELECT count(*) FROM alarms WHERE closed_at IS NULL), \
    'errors_last_hour', json((SELECT coalesce(json_group_object(component, number), '{}') FROM \
        (SELECT component, sum(errors) AS number FROM request_errors WHERE minute > ?1 / 60 - 60 GROUP BY component))), \
    'jobs', json((SELECT coalesce(json_group_array(json_object('job', job, 'started_at', started_at, 'ended_at', ended_at, 'outcome', outcome)), '[]') FROM \
        (SELECT r.job, r.started_at, r.ended_at, r.outcome FROM \
            (SELECT value AS job FROM json_each('[\"alarms\",\"backup\",\"cleanup\",\"reconcile\",\"tasks\"]')) AS names \
         JOIN job_runs r ON r.id = (SELECT id FROM job_runs WHERE job = names.job ORDER BY rowid DESC LIMIT 1)))))";

/// Alarms, newest first.
///
/// # Errors
/// The database's.
pub async fn alarms(open: Option<bool>, page: &Page) -> Result<(Vec<Value>, Option<String>), Problem> {
    let sql = "SELECT opened_at, id, json_object('id', id, 'kind', kind, 'subject', subject, 'message', message, 'opened_at', opened_at, \
                   'seen_at', seen_at, 'closed_at', closed_at, 'told', told, 'told_at', told_at) \
               FROM alarms WHERE (?5 IS NULL OR (closed_at IS NULL) = ?5) AND (opened_at, id) < (?3, ?4) \
               ORDER BY opened_at DESC, id DESC LIMIT ?1 OFFSET ?2";
    list(sql, open.map(i64::from).into(), page).await
}

/// Runs of the scheduled jobs, newest first.
///
/// # Errors
/// The database's.
pub async fn jobs(job: Option<&str>, page: &Page) -> Result<(Vec<Value>, Option<String>), Problem> {
    // Two statements, so that each has its index.
    let of_one = if job.is_some() { "job = ?5" } else { "?5 IS NULL" };
    let sql = format!(
        "SELECT started_at, id, json_object('id', id, 'job', job, 'started_at', started_at, 'ended_at', ended_at, 'outcome', outcome, \
             'report', json(report)) \
         FROM job_runs WHERE {of_one} AND (started_at, id) < (?3, ?4) ORDER BY started_at DESC, id DESC LIMIT ?1 OFFSET ?2"
    );
    list(&sql, job.map(str::to_owned).into(), page).await
}

/// A page of (time, id, JSON).
async fn list(sql: &str, filter: database::Value, page: &Page) -> Result<(Vec<Value>, Option<String>), Problem> {
    let (at, id) = page.before();
    let rows = run(sql, vec![page.limit.into(), page.offset.into(), at.into(), id.into(), filter]).await?;
    let last = rows.last().map(|row| (row.integer(0), row.text(1)));
    let next = page.next(rows.len(), last.as_ref().map(|(at, id)| (*at, id.as_str())));
    let entries = rows.iter().map(|row| serde_json::from_str(&row.text(2)).map_err(Problem::internal));
    Ok((entries.collect::<Result<_, _>>()?, next))
}
