//! What is looked at.
//!
//! Everything but the books is read by one statement, each part of it from an index and with an end. The books (`audit::INVARIANTS`, and the
//! admins' log) are audited rule by rule, each at most once an hour, and the rarer the longer it takes.
//!
//! Times are compared with the database's, and those that have not come yet were written by a clock that was wrong: they count for nothing.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use audit::{
    Invariant,
    log::{Act, COLUMNS},
};
use config::Settings;
use database::{Row, run};
use job::Run;
use outbound::Breaker;
use problem::Problem;
use pulse::Pulse;
use serde::{Deserialize, Serialize};

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
/// Seconds after which an erasure that has not come to its end, or that nobody went on with, is said to be cut off.
const CUT_OFF: i64 = 3_600;
/// Seconds before a look from which failed requests are counted, at most: since the look before.
const LOOKS_BACK: i64 = 3_540;
/// Runs of the cleanup whose reports are read: a day of them. A walk over the bucket that takes longer is known as far as that.
const WALKS: i64 = 300;
/// Offenders that are counted of a rule; one is enough to be wrong.
const COUNTED: i64 = 100;
/// Seconds between two audits of the same rule, at least and at most.
const AUDIT: i64 = 3_600;
const LONGEST: i64 = 86_400;
/// How often in a row the audit of a rule may be cut off before it is left alone for the longest time.
const TRIES: i64 = 3;
/// The rule about the admins' log, as everybody calls it, and how many acts are read at a time.
const LOG: &str = "L1";
const ACTS: usize = 500;
/// How long one run goes on auditing.
const AUDIT_LIMIT: Duration = Duration::from_secs(3);

/// The three stores.
#[must_use]
pub fn stores(pulse: &Pulse) -> Vec<Finding> {
    let say =
        |(store, beat): (&str, &pulse::Beat)| Finding::new("store_down", store, !beat.is_well(), format!("The {store} {}.", beat.words()));
    pulse.stores().into_iter().map(say).collect()
}

/// The kind of alarm that the look itself fails.
pub const LOOK_FAILS: &str = "alarms_failing";

/// What is to be told when a run could not look, or not write down what it found.
#[must_use]
pub fn outage(takes_writing: bool) -> Finding {
    if takes_writing {
        Finding::new(LOOK_FAILS, "alarms", true, "The look at everything failed; why is in the log line of its request.")
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

/// Everything that one statement tells: errors, what is overdue, erasures, empty accounts, refused keys, the day's limit, and the jobs.
///
/// # Errors
/// The database's, and `internal` for settings that are no numbers.
pub async fn rows(settings: &Settings, now: i64) -> Result<Vec<Finding>, Problem> {
    let most_errors = settings.integer("alarm_errors_per_five_minutes")?;
    let day_limit = settings.integer("daily_picture_limit")?;
    let rows = run(&statement(), vec![now.into()]).await?;
    Ok(rows.iter().flat_map(|row| read(row, now, most_errors, day_limit)).collect())
}

/// Rows of (kind, subject, number, number, number); `?1` is the time.
fn statement() -> String {
    let mut parts = vec![
        // The worst five minutes of those that have ended since the last look that came to something: however seldom or late that is, none
        // goes uncounted, and none is counted for more than it is.
        format!(
            "SELECT 'errors', 'requests', coalesce(max((SELECT sum(errors) FROM request_errors AS five \
                 WHERE five.minute BETWEEN ended.minute - 4 AND ended.minute)), 0), 0, 0 \
             FROM (SELECT DISTINCT minute FROM request_errors WHERE minute <= ?1 / 60 + 1 AND minute >= coalesce( \
                 (SELECT max(started_at) FROM job_runs WHERE job = 'alarms' AND started_at BETWEEN ?1 - {LOOKS_BACK} AND ?1 \
                     AND report ->> 'checks' > 0), ?1 - {LOOKS_BACK}) / 60) AS ended"
        ),
        // The time of the next look says nothing while somebody looks again and again, and nothing goes.
        format!(
            "SELECT 'erasures', 'erasures', (SELECT count(*) FROM ( \
                 SELECT user_id FROM (SELECT user_id FROM erasures WHERE done_at IS NULL AND asked_at < ?1 - {CUT_OFF} LIMIT {COUNTED}) \
                 UNION SELECT user_id FROM (SELECT user_id FROM erasures WHERE next_look_at < ?1 - {CUT_OFF} LIMIT {COUNTED}))), 0, 0"
        ),
        // Of the last whole walk over the bucket and what has been walked since, the run that found most.
        format!(
            "SELECT * FROM (WITH walks AS (SELECT rowid AS run, report -> 'walk' AS walk FROM job_runs \
                 WHERE job = 'cleanup' AND report IS NOT NULL ORDER BY rowid DESC LIMIT {WALKS}) \
             SELECT 'walk', 'cleanup', coalesce(max(walk ->> 'doubted'), 0), coalesce(max(walk ->> 'lost_results'), 0), 0 FROM walks \
             WHERE run > coalesce((SELECT run FROM walks WHERE walk ->> 'round_ended' ORDER BY run DESC LIMIT 1 OFFSET 1), 0))"
        ),
        format!(
            "SELECT 'credits', 'kie', (SELECT count(*) FROM signals WHERE kind = 'out_of_credits' AND subject = 'kie' AND seen_at > ?1 - {HEARD}), 0, 0"
        ),
        "SELECT 'day', 'pictures', coalesce((SELECT pictures FROM provider_spend WHERE day = ?1 / 86400), 0), 0, 0".to_owned(),
    ];
    for provider in ["kie", "creem"] {
        parts.push(format!(
            "SELECT 'key', '{provider}', (SELECT count(*) FROM signals WHERE kind = 'key_refused' AND subject = '{provider}' AND seen_at > ?1 - {HEARD}), 0, 0"
        ));
    }
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
                 coalesce((SELECT started_at FROM job_runs WHERE job = '{job}' AND outcome = 'done' AND started_at <= unixepoch() \
                     ORDER BY started_at DESC LIMIT 1), 0), \
                 (SELECT count(*) FROM (SELECT outcome FROM job_runs WHERE job = '{job}' AND outcome <> 'running' \
                     ORDER BY rowid DESC LIMIT {FAILURES}) WHERE outcome <> 'done'), \
                 coalesce((SELECT min(started_at) FROM job_runs WHERE job = 'alarms'), ?1)"
        ));
    }
    parts.join(" UNION ALL ")
}

fn read(row: &Row, now: i64, most_errors: i64, day_limit: i64) -> Vec<Finding> {
    let (kind, subject, number) = (row.text(0), row.text(1), row.integer(2));
    match kind.as_str() {
        "errors" => {
            let message = format!("{number} requests failed within five minutes; up to {most_errors} are borne.");
            vec![Finding::new("error_rate", subject, number > most_errors, message)]
        }
        "erasures" => vec![Finding::new(
            "erasure_cut_off",
            subject,
            number > 0,
            format!("{} erased people still have files or cache entries.", at_least(number)),
        )],
        "walk" => {
            let (doubted, lost) = (number, row.integer(3));
            let doubts = format!(
                "The cleanup leaves {doubted} files or uploads alone that should go: so many are more likely the wrong bucket or database."
            );
            let gone = format!("{lost} pictures that were paid for have lost their files. Which ones is in the log (results_lost).");
            vec![Finding::new("cleanup_doubts", "bucket", doubted > 0, doubts), Finding::new("results_lost", "pictures", lost > 0, gone)]
        }
        "credits" => vec![Finding::new(
            "provider_out_of_credits",
            subject,
            number > 0,
            "kie.ai says that our account there is empty: no picture is made until it is filled.",
        )],
        "key" => {
            let message = format!("{subject} refuses our key: it is wrong, was exchanged, or is of another environment.");
            vec![Finding::new("provider_refuses_key", subject, number > 0, message)]
        }
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

/// Where the next look goes on: the position of the job.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    /// When each rule is audited next. Below zero: how often in a row that was begun and did not come to its end.
    due: BTreeMap<String, i64>,
    log: Walk,
}

/// How far the admins' log has been read.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Walk {
    /// The last act that was read; the next walk begins at the first.
    at: Place,
    /// The last act of all at the end of the last walk. A log that was cut is a chain as well, and does not hold it.
    head: Place,
}

/// An act: its number and its hash. Before the first one: 0 and nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    seq: i64,
    hash: String,
}

impl Position {
    /// Whether a rule's time has come. One that lies further ahead than any pause was noted by a clock that was wrong.
    fn is_due(&self, rule: &str, now: i64) -> bool {
        self.due.get(rule).is_none_or(|at| *at <= now || *at > now + LONGEST)
    }

    /// Notes that an audit begins: one that takes too long for any run would otherwise cut off each of them.
    fn begins(&mut self, rule: &str, now: i64) {
        let tries = self.due.get(rule).map_or(0, |at| (-at).max(0)) + 1;
        self.due.insert(rule.to_owned(), if tries < TRIES { -tries } else { now + LONGEST });
    }
}

/// Audits the rules whose time has come, as far as there is time for it. A rule that takes `t` is left alone for 3,600 times as long, an hour
/// at least and a day at most: auditing takes only a small part of what the database can do.
///
/// # Errors
/// The database's, and `conflict` when another run has taken over. What was found wrong until then is an alarm already.
pub async fn books(run_of_job: &Run, now: i64) -> Result<Vec<Finding>, Problem> {
    let mut position: Position = run_of_job.position();
    let started = Instant::now();
    let mut findings = Vec::new();
    let mut noted = true;
    for rule in audit::INVARIANTS.iter().map(Some).chain([None]) {
        let id = rule.map_or(LOG, |rule| rule.id);
        if !position.is_due(id, now) {
            continue;
        }
        if started.elapsed() > AUDIT_LIMIT {
            break;
        }
        position.begins(id, now);
        run_of_job.reached(&position).await?;
        let began = Instant::now();
        let (finding, pause) = match rule {
            Some(rule) => (Some(broken(rule).await?), pause(began.elapsed())),
            None => admins_log(&mut position.log).await?.map_or((None, 0), |finding| (Some(finding), pause(began.elapsed()))),
        };
        // First the alarm, then the note that the rule was audited: whoever is cut off in between audits it again.
        if let Some(finding) = finding.as_ref().filter(|finding| finding.wrong) {
            crate::open(std::slice::from_ref(finding), now).await?;
        }
        position.due.insert(id.to_owned(), now + pause);
        noted = false;
        findings.extend(finding);
    }
    if !noted {
        run_of_job.reached(&position).await?;
    }
    Ok(findings)
}

/// How many rows break a rule.
async fn broken(rule: &Invariant) -> Result<Finding, Problem> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM ({}) LIMIT {COUNTED})", rule.offenders);
    let offenders = run(&sql, Vec::new()).await?.first().map_or(0, |row| row.integer(0));
    let message = format!("{} rows break the rule that {}. See GET /api/admin/audit.", at_least(offenders), rule.rule);
    Ok(Finding::new("audit_violated", rule.id, offenders > 0, message))
}

/// Reads on in the admins' log and holds each act to the one before, and its end to the last act there was before. `None`: there was not time
/// enough to come to its end; the next run goes on.
async fn admins_log(walk: &mut Walk) -> Result<Option<Finding>, Problem> {
    let started = Instant::now();
    let sql = format!("SELECT {COLUMNS} FROM admin_log WHERE seq > ?1 ORDER BY seq LIMIT {ACTS}");
    let fits = loop {
        let acts: Vec<Act> =
            run(&sql, vec![walk.at.seq.into()]).await?.iter().map(|row| Act::of_columns(|at| row.integer(at), |at| row.text(at))).collect();
        if !acts.iter().all(|act| walk.takes(act)) {
            break false;
        }
        if acts.len() < ACTS {
            break walk.head.seq <= walk.at.seq;
        }
        if started.elapsed() > AUDIT_LIMIT {
            return Ok(None);
        }
    };
    let end = mem::take(&mut walk.at);
    let message = format!("The act {} of the admins' log is gone or not as it was written. See GET /api/admin/audit.", end.seq + 1);
    if fits {
        walk.head = end;
    }
    Ok(Some(Finding::new("audit_violated", LOG, !fits, message)))
}

impl Walk {
    /// Goes on to an act if it fits.
    fn takes(&mut self, act: &Act) -> bool {
        let fits = act.follows(self.at.seq, &self.at.hash) && (act.seq != self.head.seq || act.hash == self.head.hash);
        if fits {
            self.at = Place { seq: act.seq, hash: act.hash.clone() };
        }
        fits
    }
}

/// Seconds until a rule is audited again that took so long.
fn pause(took: Duration) -> i64 {
    i64::try_from(took.as_millis()).unwrap_or(i64::MAX).saturating_mul(3_600).saturating_div(1_000).clamp(AUDIT, LONGEST)
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
        assert_eq!(pause(Duration::from_secs(100)), 86_400);
    }

    #[test]
    fn an_audit_that_is_cut_off_again_and_again_is_left_alone_for_a_day() {
        let (mut position, now) = (Position::default(), 1_000_000);
        for noted in [-1, -2, now + 86_400] {
            assert!(position.is_due("I1a", now));
            position.begins("I1a", now);
            assert_eq!(position.due["I1a"], noted);
        }
        assert!(!position.is_due("I1a", now + 86_399) && position.is_due("I1a", now + 86_400));
    }

    #[test]
    fn a_time_further_ahead_than_any_pause_is_no_time() {
        let position = Position { due: [("I1a".to_owned(), 1_000_000 + 30 * 86_400)].into(), ..Position::default() };
        assert!(position.is_due("I1a", 1_000_000));
    }
}
