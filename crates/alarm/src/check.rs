//! What is looked at.
//!
//! Everything but the books is read by one statement, each part of it from an index and with an end. The books (`audit::INVARIANTS`) are
//! audited rule by rule, each at most once an hour, and the rarer the longer it takes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use config::Settings;
use database::{Row, run};
use job::Run;
use outbound::Breaker;
use problem::Problem;
use pulse::Pulse;
use serde::Serialize;

/// What a check says of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    pub subject: String,
    pub wrong: bool,
    /// For the operator: what is wrong. Without internals and without anything about persons.
    pub message: String,
}

impl Finding {
    fn new(kind: &'static str, subject: impl Into<String>, wrong: bool, message: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), wrong, message: message.into() }
    }
}

/// The scheduled jobs, and the seconds after which one is missed. Nightly ones are given two hours more than a day.
pub const JOBS: [(&str, i64); 4] = [("tasks", 3_600), ("reconcile", 26 * 3_600), ("cleanup", 26 * 3_600), ("backup", 26 * 3_600)];
/// Runs in a row that have to fail before a job is said to be failing: one may meet a passing fault.
const FAILURES: i64 = 3;
/// Providers that are left alone when they fail, as `outbound::Breaker` knows them.
const PROVIDERS: [&str; 5] = ["kie", "creem", "creem_moderation", "google", "github"];
/// Seconds after which nobody has heard that a provider's account is empty any more.
const HEARD: i64 = 1_800;
/// Seconds after which an erasure that was due is said to be cut off.
const CUT_OFF: i64 = 3_600;
/// Offenders that are counted of a rule; one is enough to be wrong.
const COUNTED: i64 = 100;
/// Seconds between two audits of the same rule, at least.
const AUDIT: i64 = 3_600;
/// How long one run goes on auditing.
const AUDIT_LIMIT: Duration = Duration::from_secs(3);

/// The three stores.
#[must_use]
pub fn stores(pulse: &Pulse) -> Vec<Finding> {
    let say =
        |(store, beat): (&str, &pulse::Beat)| Finding::new("store_down", store, !beat.is_well(), format!("The {store} {}.", beat.words()));
    pulse.stores().into_iter().map(say).collect()
}

/// What is to be told when a run could not look, or not write down what it found.
#[must_use]
pub fn outage(takes_writing: bool) -> Finding {
    if takes_writing {
        Finding::new("alarms_failing", "alarms", true, "The look at everything failed; why is in the log line of its request.")
    } else {
        Finding::new("store_down", "database", true, "The database takes no writing.")
    }
}

/// Providers that fail again and again.
pub async fn providers() -> Vec<Finding> {
    let looks = PROVIDERS.map(|provider| async move {
        let failures = Breaker::is_shut(provider).await;
        let message = format!("{provider} has failed {} times in a row and is being left alone.", failures.unwrap_or_default());
        Finding::new("provider_left_alone", provider, failures.is_some(), message)
    });
    futures::future::join_all(looks).await
}

/// Everything that one statement tells: errors, what is overdue, erasures, empty accounts, the day's limit, and the jobs.
///
/// # Errors
/// The database's, and `internal` for settings that are no numbers.
pub async fn rows(settings: &Settings, now: i64) -> Result<Vec<Finding>, Problem> {
    let most_errors = settings.integer("alarm_errors_per_5_minutes")?;
    let day_limit = settings.integer("daily_picture_limit")?;
    let rows = run(&statement(), vec![now.into()]).await?;
    Ok(rows.iter().flat_map(|row| read(row, now, most_errors, day_limit)).collect())
}

/// Rows of (kind, subject, number, number, number); `?1` is the time.
fn statement() -> String {
    let mut parts = vec![
        "SELECT 'errors', 'requests', coalesce(sum(errors), 0), 0, 0 FROM request_errors WHERE minute > ?1 / 60 - 5".to_owned(),
        format!(
            "SELECT 'erasures', 'erasures', (SELECT count(*) FROM (SELECT 1 FROM erasures WHERE next_look_at < ?1 - {CUT_OFF} LIMIT {COUNTED})), 0, 0"
        ),
        format!(
            "SELECT 'credits', 'kie', (SELECT count(*) FROM signals WHERE kind = 'out_of_credits' AND subject = 'kie' AND seen_at > ?1 - {HEARD}), 0, 0"
        ),
        "SELECT 'day', 'pictures', coalesce((SELECT pictures FROM provider_spend WHERE day = ?1 / 86400), 0), 0, 0".to_owned(),
    ];
    for rule in audit::OVERDUE {
        parts.push(format!(
            "SELECT 'overdue', '{}', (SELECT count(*) FROM (SELECT 1 FROM ({}) LIMIT {COUNTED})), 0, 0",
            rule.id, rule.offenders
        ));
    }
    for (job, _) in JOBS {
        // When it last succeeded, how many of its last runs did not, and since when there has been anybody to watch it.
        parts.push(format!(
            "SELECT 'job', '{job}', \
                 coalesce((SELECT started_at FROM job_runs WHERE job = '{job}' AND outcome = 'done' ORDER BY started_at DESC LIMIT 1), 0), \
                 (SELECT count(*) FROM (SELECT outcome FROM job_runs WHERE job = '{job}' AND outcome <> 'running' \
                     ORDER BY started_at DESC LIMIT {FAILURES}) WHERE outcome <> 'done'), \
                 coalesce((SELECT min(started_at) FROM job_runs WHERE job = 'alarms'), ?1)"
        ));
    }
    parts.join(" UNION ALL ")
}

fn read(row: &Row, now: i64, most_errors: i64, day_limit: i64) -> Vec<Finding> {
    let (kind, subject, number) = (row.text(0), row.text(1), row.integer(2));
    match kind.as_str() {
        "errors" => {
            let message = format!("{number} requests failed in the last five minutes; up to {most_errors} are borne.");
            vec![Finding::new("error_rate", subject, number > most_errors, message)]
        }
        "erasures" => vec![Finding::new(
            "erasure_cut_off",
            subject,
            number > 0,
            format!("{} erased people still have files or cache entries.", at_least(number)),
        )],
        "credits" => vec![Finding::new(
            "provider_out_of_credits",
            subject,
            number > 0,
            "kie.ai says that our account there is empty: no picture is made until it is filled.",
        )],
        "day" => {
            let message = format!("{number} pictures were ordered today, which is the limit (daily_picture_limit): no more are taken.");
            vec![Finding::new("daily_limit_reached", subject, day_limit > 0 && number >= day_limit, message)]
        }
        "overdue" => {
            let rule = audit::OVERDUE.iter().find(|rule| rule.id == subject).map_or("", |rule| rule.rule);
            let message = format!("{} break the rule that {rule}.", at_least(number));
            vec![Finding::new("overdue", subject, number > 0, message)]
        }
        "job" => job(&subject, number, row.integer(3), row.integer(4), now),
        _ => Vec::new(),
    }
}

/// A job that never ran is missed once somebody has watched for long enough.
fn job(name: &str, last_done: i64, failures: i64, watched_since: i64, now: i64) -> Vec<Finding> {
    let limit = JOBS.iter().find(|(job, _)| *job == name).map_or(i64::MAX, |(_, limit)| *limit);
    let late = last_done.max(watched_since) < now - limit;
    let said =
        if last_done == 0 { "has never succeeded".to_owned() } else { format!("last succeeded {} hours ago", (now - last_done) / 3_600) };
    vec![
        Finding::new("job_late", name, late, format!("The job {name} {said}.")),
        Finding::new(
            "job_failing",
            name,
            failures >= FAILURES,
            format!("The last {FAILURES} runs of the job {name} failed or were cut off."),
        ),
    ]
}

fn at_least(number: i64) -> String {
    if number >= COUNTED { format!("{COUNTED} or more") } else { number.to_string() }
}

/// When each rule of the books is audited next: the position of the job.
pub type Due = BTreeMap<String, i64>;

/// Audits the rules whose time has come, as far as there is time for it. A rule that takes `t` is left alone for 3,600 times as long, an hour
/// at least: auditing never takes more than a small part of what the database can do.
///
/// # Errors
/// The database's, and `conflict` when another run has taken over.
pub async fn books(run_of_job: &Run, now: i64) -> Result<Vec<Finding>, Problem> {
    let mut due: Due = run_of_job.position();
    let started = Instant::now();
    let mut findings = Vec::new();
    for rule in audit::INVARIANTS {
        if due.get(rule.id).is_some_and(|at| *at > now) {
            continue;
        }
        if started.elapsed() > AUDIT_LIMIT {
            break;
        }
        // Noted before: a rule that takes too long for any run would otherwise cut off each of them.
        due.insert(rule.id.to_owned(), now + 86_400);
        run_of_job.reached(&due).await?;
        let began = Instant::now();
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM ({}) LIMIT {COUNTED})", rule.offenders);
        let offenders = run(&sql, Vec::new()).await?.first().map_or(0, |row| row.integer(0));
        due.insert(rule.id.to_owned(), now + pause(began.elapsed()));
        let message = format!("{} rows break the rule that {}. See GET /api/admin/audit.", at_least(offenders), rule.rule);
        findings.push(Finding::new("audit_violated", rule.id, offenders > 0, message));
    }
    if !findings.is_empty() {
        run_of_job.reached(&due).await?;
    }
    Ok(findings)
}

/// Seconds until a rule is audited again that took so long.
fn pause(took: Duration) -> i64 {
    i64::try_from(took.as_millis()).unwrap_or(i64::MAX).saturating_mul(3_600).saturating_div(1_000).max(AUDIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(findings: Vec<Finding>) -> Vec<&'static str> {
        findings.into_iter().filter(|finding| finding.wrong).map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_job_is_missed_when_it_should_have_run_long_ago() {
        let now = 1_000_000;
        assert!(wrong(job("tasks", now - 3_599, 0, 0, now)).is_empty());
        assert_eq!(wrong(job("tasks", now - 3_601, 0, 0, now)), ["job_late"]);
        assert!(wrong(job("cleanup", now - 25 * 3_600, 2, 0, now)).is_empty());
        assert_eq!(wrong(job("cleanup", now - 60, 3, 0, now)), ["job_failing"]);
        // A new machine has run none of them yet.
        assert!(wrong(job("backup", 0, 0, now - 60, now)).is_empty());
        assert_eq!(wrong(job("backup", 0, 0, now - 27 * 3_600, now)), ["job_late"]);
    }

    #[test]
    fn the_longer_an_audit_takes_the_rarer_it_is() {
        assert_eq!(pause(Duration::from_millis(1)), 3_600);
        assert_eq!(pause(Duration::from_secs(1)), 3_600);
        assert_eq!(pause(Duration::from_secs(10)), 36_000);
    }
}
