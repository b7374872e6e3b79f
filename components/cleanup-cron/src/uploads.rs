//! Uploads whose week is over, and those that were cut off. Their rows lead to their objects.

use std::collections::HashSet;

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
    /// Objects that the store would not remove. Their rows stay, and lead the next run to them.
    pub refused: usize,
}

/// Removes uploads, with their objects.
///
/// # Errors
/// The database's or the store's; what was removed until then stays removed.
pub async fn sweep(sweep: &Sweep) -> Result<Report, Problem> {
    let mut report = Report::default();
    loop {
        let due = run(files::DUE, vec![sweep.now.into(), (sweep.now - CUT_OFF).into()]).await?;
        let mut keys: Vec<String> = due.iter().map(|row| row.text(0)).collect();
        if keys.is_empty() {
            return Ok(report);
        }
        // What was put there directly and never completed.
        let raw: Vec<String> = keys.iter().map(|key| key::raw(key)).collect();
        let mut left = sweep.bucket.delete_many(&raw).await?;
        // Objects first: a row without its object is swept again, an object without its row is harder to find.
        let refused = sweep.bucket.delete_many(&keys).await?;
        report.deleted += keys.len() - refused.len();
        left.extend(refused);
        report.refused += crate::refused("uploads", &left);
        let left: HashSet<&str> = left.iter().map(|object| key::upload_of_raw(&object.key).unwrap_or(&object.key)).collect();
        keys.retain(|key| !left.contains(key.as_str()));
        report.expired += keys.len();
        run(files::GONE, vec![json!(keys).to_string().into()]).await?;
        // What was refused would be due again at once.
        if !left.is_empty() || !sweep.goes_on() {
            return Ok(report);
        }
    }
}
