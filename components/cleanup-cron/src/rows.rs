//! Rows whose time is over, and balances whose lots have expired since they were last written.

use std::collections::BTreeSet;

use database::run;
use problem::Problem;
use retention::{BATCH, RULES, Rule, lots};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Sweep, told};

/// Seconds for which a lot that has expired is looked at again, in case it was written by a slower clock or came late.
const AGAIN: i64 = 3_600;

/// Removes what is old enough, kind by kind; answers how many of each, and whether a kind failed.
pub async fn sweep(sweep: &Sweep) -> (Map<String, Value>, bool) {
    let (mut report, mut failed) = (Map::new(), false);
    for rule in &RULES {
        let removed = remove(sweep, rule).await;
        failed |= removed.is_err();
        report.insert(rule.name.to_owned(), told(rule.name, removed));
    }
    let sessions = session::sweep(sweep.now).await;
    failed |= sessions.is_err();
    report.insert("expired_sessions".to_owned(), told("expired_sessions", sessions));
    (report, failed)
}

async fn remove(sweep: &Sweep, rule: &Rule) -> Result<usize, Problem> {
    let mut removed = 0;
    loop {
        let batch = run(rule.sql, vec![(sweep.now - rule.kept).into()]).await?.len();
        removed += batch;
        if batch < BATCH || !sweep.goes_on() {
            return Ok(removed);
        }
    }
}

/// Up to where the lots have been looked at: when it expired, and its row.
#[derive(Default, Serialize, Deserialize)]
pub struct Lots {
    at: i64,
    row: i64,
}

/// Writes the balances of those whose lots have expired since the last look, and answers how many changed.
///
/// # Errors
/// The database's; what was looked at until then stays so.
pub async fn balances(sweep: &Sweep, seen: &mut Lots) -> Result<usize, Problem> {
    let mut changed = 0;
    loop {
        let expired = run(lots::EXPIRED, vec![sweep.now.into(), seen.at.into(), seen.row.into()]).await?;
        let owners: BTreeSet<String> = expired.iter().map(|lot| lot.text(0)).collect();
        if !owners.is_empty() {
            changed += run(lots::BALANCES, vec![sweep.now.into(), json!(owners).to_string().into()]).await?.len();
        }
        let Some(last) = expired.last().filter(|_| expired.len() == lots::BATCH) else {
            *seen = Lots { at: sweep.now - AGAIN, row: 0 };
            return Ok(changed);
        };
        *seen = Lots { at: last.integer(1), row: last.integer(2) };
        if !sweep.goes_on() {
            return Ok(changed);
        }
    }
}
