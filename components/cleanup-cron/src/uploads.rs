//! Old uploads. Rows lead to their objects; a walk over the bucket finds the objects that have no row.

use database::run;
use problem::Problem;
use serde::Serialize;
use serde_json::json;
use storage::{Bucket, PAGE, key};

/// Pages of a thousand objects looked at in one sweep.
const MOST_PAGES: usize = 20;
/// An upload that is still pending after this many seconds was cut off.
const CUT_OFF: i64 = 3_600;

/// What a sweep did with uploads.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows whose time was over.
    pub expired: usize,
    /// Objects looked at in the bucket.
    pub listed: usize,
    /// Objects removed.
    pub deleted: usize,
}

/// Removes uploads older than 7 days: those the rows know, then those only the bucket knows.
///
/// # Errors
/// The database's or the store's; what was removed until then stays removed.
pub async fn sweep(bucket: &Bucket, now: i64) -> Result<Report, Problem> {
    let mut report = Report::default();
    by_row(bucket, now, &mut report).await?;
    by_object(bucket, now, &mut report).await?;
    Ok(report)
}

async fn by_row(bucket: &Bucket, now: i64, report: &mut Report) -> Result<(), Problem> {
    for _ in 0..MOST_PAGES {
        let sql = "SELECT key FROM uploads WHERE expires_at <= ?1 \
                   UNION SELECT key FROM uploads WHERE status = 'pending' AND created_at <= ?2 LIMIT 1000";
        let keys: Vec<String> = run(sql, vec![now.into(), (now - CUT_OFF).into()]).await?.iter().map(|row| row.text(0)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        // What was put there directly and never completed.
        let raw: Vec<String> = keys.iter().map(|key| key::raw(key)).collect();
        bucket.delete_many(&raw).await?;
        // Objects first: a row without its object is swept again, an object without its row is harder to find.
        report.deleted += bucket.delete_many(&keys).await?;
        report.expired += keys.len();
        run("DELETE FROM uploads WHERE key IN (SELECT value FROM json_each(?1))", vec![json!(keys).to_string().into()]).await?;
    }
    Ok(())
}

async fn by_object(bucket: &Bucket, now: i64, report: &mut Report) -> Result<(), Problem> {
    let mut continuation = None;
    for _ in 0..MOST_PAGES {
        let (page, next) = bucket.list(key::UPLOADS, continuation, PAGE).await?;
        report.listed += page.len();
        let old: Vec<String> = page.into_iter().filter(|object| is_old(object, now)).map(|object| object.key).collect();
        report.deleted += bucket.delete_many(&old).await?;
        if next.is_none() {
            return Ok(());
        }
        continuation = next;
    }
    Ok(())
}

/// By the time in the key, which is ours, and by the store's own where the key has none.
fn is_old(object: &storage::Listed, now: i64) -> bool {
    let name = object.key.rsplit('/').next().unwrap_or_default();
    let in_key = name.split_once('_').and_then(|(millis, _)| millis.parse::<i64>().ok()).map(|millis| millis / 1_000);
    let written = object.written_at();
    // The later of the two would keep a photo longer than promised, the earlier deletes nothing before its time: a key is made at
    // the moment of the upload.
    in_key.or(written).is_some_and(|time| time <= now - key::UPLOADS_KEPT) || written.is_some_and(|time| time <= now - key::UPLOADS_KEPT)
}
