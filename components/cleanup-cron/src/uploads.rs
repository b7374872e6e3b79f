//! Uploads whose week is over, and those that were cut off. Their rows lead to their objects.

use database::run;
use problem::Problem;
use retention::files;
use serde::Serialize;
use serde_json::json;
use storage::key;

use crate::Sweep;

/// An upload that is still pending after this many seconds was cut off.
const CUT_OFF: i64 = 3_600;

/// What a sweep did with uploads.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows whose time was over.
    pub expired: usize,
    /// Objects removed.
    pub deleted: usize,
}

/// Removes uploads, with their objects.
///
/// # Errors
/// The database's or the store's; what was removed until then stays removed.
pub async fn sweep(sweep: &Sweep) -> Result<Report, Problem> {
    let mut report = Report::default();
    loop {
        let due = run(files::DUE, vec![sweep.now.into(), (sweep.now - CUT_OFF).into()]).await?;
        let keys: Vec<String> = due.iter().map(|row| row.text(0)).collect();
        if keys.is_empty() {
            return Ok(report);
        }
        // What was put there directly and never completed.
        let raw: Vec<String> = keys.iter().map(|key| key::raw(key)).collect();
        sweep.bucket.delete_many(&raw).await?;
        // Objects first: a row without its object is swept again, an object without its row is harder to find.
        report.deleted += sweep.bucket.delete_many(&keys).await?;
        report.expired += keys.len();
        run(files::GONE, vec![json!(keys).to_string().into()]).await?;
        if !sweep.goes_on() {
            return Ok(report);
        }
    }
}
