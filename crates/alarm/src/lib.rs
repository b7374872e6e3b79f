//! Alarms: what an operator has to know, told once when it begins, once a day while it lasts, and once when it is over.
//!
//! Checks ([`check`]) say of each thing they look at whether something is wrong. One statement opens an alarm for what is, another closes
//! those of which nothing was found for a while; a third one decides who tells (rows of `alarms`, migrations/0011), so two machines or two
//! runs never tell the same twice. What could not be told is told by the next run. All that is due goes out as one message.

use std::time::Duration;

use cache::entry;
use config::Settings;
use database::{Error, Row, run};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use outbound::Failure;
use problem::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

pub mod check;

pub use check::Finding;

/// Seconds for which nothing must be found before an alarm is over, so that what comes and goes is one alarm and not many: two looks of those
/// who look every five minutes.
const QUIET: i64 = 600;
/// Seconds after which an alarm that is still open is told again.
const REMIND: i64 = 86_400;
/// Seconds that whoever tells has for it; longer than [`LIMIT`].
const TELLING: i64 = 60;
/// Alarms in one message; the rest follows with the next run.
const MOST: i64 = 30;
/// How long the receiver may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest text, in characters: what Discord takes.
const TEXT: usize = 1_900;
/// Seconds for which alarms that are over are kept, and counts of errors.
const KEPT: i64 = 90 * 86_400;
const ERRORS_KEPT: i64 = 7 * 86_400;
/// Rows that are removed by one run.
const BATCH: i64 = 1_000;

/// What a run did, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Things that were looked at, and those of them with which something is wrong.
    pub checks: usize,
    pub wrong: usize,
    pub opened: usize,
    pub closed: usize,
    /// Alarms that were told, and those that could not be.
    pub told: usize,
    pub untold: usize,
}

/// How an alarm is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Opened,
    StillOpen,
    Resolved,
}

/// An alarm as it is told.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    pub state: State,
    pub kind: String,
    pub subject: String,
    pub message: String,
    /// Unix seconds, as the others.
    pub opened_at: i64,
    pub closed_at: Option<i64>,
}

/// Takes in what the checks found, and tells what is due.
///
/// # Errors
/// The database's. A receiver that does not answer is no error: it is told by the next run.
pub async fn take_in(settings: &Settings, findings: &[Finding], now: i64) -> Result<Report, Problem> {
    let mut report = Report { checks: findings.len(), wrong: findings.iter().filter(|finding| finding.wrong).count(), ..Report::default() };
    if report.wrong > 0 {
        report.opened = open(findings, now).await?;
    }
    // What was not looked at this time stays as it is.
    let close = "UPDATE alarms SET closed_at = ?2, tell_at = ?2, teller = NULL \
                 WHERE closed_at IS NULL AND seen_at <= ?2 - ?3 AND EXISTS (SELECT 1 FROM json_each(?1) \
                     WHERE value ->> 'kind' = kind AND value ->> 'subject' = subject AND NOT value ->> 'wrong') RETURNING 1";
    report.closed = run(close, vec![json!(findings).to_string().into(), now.into(), QUIET.into()]).await?.len();
    (report.told, report.untold) = tell_due(settings, now).await?;
    Ok(report)
}

/// Writes down what is wrong, to be told; answers how many alarms are new.
async fn open(findings: &[Finding], now: i64) -> Result<usize, Error> {
    // One that is open already is only seen again: when it is told next does not change by that.
    let sql = "INSERT INTO alarms (id, kind, subject, message, opened_at, seen_at, tell_at) \
               SELECT lower(hex(randomblob(16))), value ->> 'kind', value ->> 'subject', value ->> 'message', ?2, ?2, ?2 \
               FROM json_each(?1) WHERE value ->> 'wrong' \
               ON CONFLICT (kind, subject) WHERE closed_at IS NULL DO UPDATE SET seen_at = excluded.seen_at, message = excluded.message \
               RETURNING opened_at = ?2 AND told = 0";
    Ok(run(sql, vec![json!(findings).to_string().into(), now.into()]).await?.iter().filter(|row| row.integer(0) == 1).count())
}

/// Removes what is long over.
///
/// # Errors
/// The database's.
pub async fn clean(now: i64) -> Result<(), Error> {
    let errors = "DELETE FROM request_errors WHERE (minute, component) IN \
                  (SELECT minute, component FROM request_errors WHERE minute < (?1 - ?2) / 60 LIMIT ?3)";
    run(errors, vec![now.into(), ERRORS_KEPT.into(), BATCH.into()]).await?;
    let alarms = "DELETE FROM alarms WHERE id IN (SELECT id FROM alarms WHERE opened_at < ?1 - ?2 ORDER BY opened_at LIMIT ?3) \
                  AND closed_at IS NOT NULL AND tell_at IS NULL";
    run(alarms, vec![now.into(), KEPT.into(), BATCH.into()]).await.map(drop)
}

/// Tells what is due; answers how many were told and how many not.
async fn tell_due(settings: &Settings, now: i64) -> Result<(usize, usize), Problem> {
    let teller = uuid::Uuid::now_v7().to_string();
    // This decides who tells: a row that somebody else has just moved forward does not match any more.
    let claim = "UPDATE alarms SET tell_at = ?1 + ?2, teller = ?3 \
                 WHERE tell_at <= ?1 AND id IN (SELECT id FROM alarms WHERE tell_at <= ?1 ORDER BY tell_at LIMIT ?4) \
                 RETURNING kind, subject, message, opened_at, closed_at, told";
    let due: Vec<Told> =
        run(claim, vec![now.into(), TELLING.into(), teller.as_str().into(), MOST.into()]).await?.iter().map(read).collect();
    if due.is_empty() {
        return Ok((0, 0));
    }
    if let Err(cause) = tell(settings, &due, now).await {
        not_told(due.len(), &cause);
        // Due again at once: the next run tries.
        run("UPDATE alarms SET tell_at = ?2, teller = NULL WHERE teller = ?1", vec![teller.into(), now.into()]).await?;
        return Ok((0, due.len()));
    }
    // An alarm that has ended in between has no teller any more, and its end is still to be told.
    let done =
        "UPDATE alarms SET told = told + 1, told_at = ?2, teller = NULL, tell_at = iif(closed_at IS NULL, ?2 + ?3, NULL) WHERE teller = ?1";
    run(done, vec![teller.into(), now.into(), REMIND.into()]).await?;
    Ok((due.len(), 0))
}

fn read(row: &Row) -> Told {
    let closed_at = row.optional_integer(4);
    let state = match (closed_at, row.integer(5)) {
        (Some(_), _) => State::Resolved,
        (None, 0) => State::Opened,
        (None, _) => State::StillOpen,
    };
    Told { state, kind: row.text(0), subject: row.text(1), message: row.text(2), opened_at: row.integer(3), closed_at }
}

/// Writes alarms to the log and posts them, if there is a place to post them to.
async fn tell(settings: &Settings, alarms: &[Told], now: i64) -> Result<(), String> {
    for alarm in alarms {
        let level = if alarm.state == State::Resolved { "info" } else { "error" };
        meter::log(json!({
            "level": level, "event": "alarm", "state": alarm.state, "kind": alarm.kind, "subject": alarm.subject, "message": alarm.message,
            "opened_at": alarm.opened_at, "closed_at": alarm.closed_at,
        }));
    }
    let said = |problem: Problem| problem.cause.unwrap_or(problem.detail);
    let url = settings.text("alarm_webhook_url").map_err(said)?.trim();
    if url.is_empty() {
        return Ok(());
    }
    let host = settings.text("alarm_webhook_host").map_err(said)?.trim_end_matches('/');
    if !lies_at(url, host) {
        return Err("alarm_webhook_url does not lie at alarm_webhook_host, which is the only place that may be posted to".to_owned());
    }
    let secret = settings.text("alarm_webhook_secret").map_err(said)?;
    let body = message(settings.public_url().map_err(said)?, alarms, now).to_string();
    let request = request(url, secret, body).map_err(|failure| failure.to_string())?;
    let response = outbound::send("alarm_webhook", request, LIMIT).await.map_err(|failure| failure.to_string())?;
    if response.status().is_success() { Ok(()) } else { Err(format!("the receiver answered {}", response.status())) }
}

/// Whether a URL's scheme, host and port are these.
fn lies_at(url: &str, place: &str) -> bool {
    url.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

fn request(url: &str, secret: &str, body: String) -> Result<outbound::Request, Failure> {
    let signature = (!secret.is_empty()).then(|| signature(secret, &body));
    let mut request = outbound::full(http::Method::POST, url, "application/json", body)?;
    if let Some(signature) = signature {
        let value = HeaderValue::from_str(&format!("sha256={signature}")).map_err(|error| Failure::NotSent(error.to_string()))?;
        request.headers_mut().insert(HeaderName::from_static("x-alarm-signature"), value);
    }
    Ok(request)
}

/// HMAC-SHA256 of the body, in hexadecimal digits.
fn signature(secret: &str, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The message: `text` is what Slack shows and `content` what Discord does; `alarms` is for programs.
fn message(app: &str, alarms: &[Told], now: i64) -> Value {
    let mut text = format!("ai-hairstyle ({app}):");
    for (number, alarm) in alarms.iter().enumerate() {
        let state = match alarm.state {
            State::Opened => "ALARM",
            State::StillOpen => "still open",
            State::Resolved => "resolved",
        };
        let line = format!("\n{state}: {} ({}): {}", alarm.kind, alarm.subject, alarm.message);
        if text.chars().count() + line.chars().count() > TEXT {
            text.push_str(&format!("\nand {} more", alarms.len() - number));
            break;
        }
        text.push_str(&line);
    }
    json!({"text": text, "content": text, "source": "ai-hairstyle", "app": app, "at": now, "alarms": alarms})
}

/// Tells one thing without the database: that there is none to write to, or, if it comes twice in a row, that the look at everything failed.
/// That it was told is kept in key-value; where that is gone too, the log is all there is, and whoever watches `/health` from outside.
pub async fn tell_without_rows(settings: &Settings, finding: &Finding, now: i64) -> Report {
    let mut report = Report { checks: 1, wrong: 1, ..Report::default() };
    let Some(kept) = cache::look::<Vec<Outage>>(entry::OUTAGE).await else {
        report.untold = 1;
        return report;
    };
    let mut outages = kept.unwrap_or_default();
    let known = outages.iter().position(|outage| outage.kind == finding.kind && outage.subject == finding.subject);
    let at = known.unwrap_or(outages.len());
    if known.is_none() {
        outages.push(Outage::begins(finding, now));
    }
    let outage = &mut outages[at];
    (outage.seen_at, outage.times) = (now, outage.times.saturating_add(1));
    outage.message.clone_from(&finding.message);
    if outage.is_due(now) {
        let state = if outage.told_at.is_none() { State::Opened } else { State::StillOpen };
        let (kind, subject, message) = (outage.kind.clone(), outage.subject.clone(), outage.message.clone());
        match tell(settings, &[Told { state, kind, subject, message, opened_at: outage.since, closed_at: None }], now).await {
            Ok(()) => (report.told, outage.told_at) = (1, Some(now)),
            Err(cause) => {
                report.untold = 1;
                not_told(1, &cause);
            }
        }
    }
    cache::set(entry::OUTAGE, &outages, entry::OUTAGE_SECONDS).await;
    report
}

fn not_told(alarms: usize, cause: &str) {
    meter::log(json!({"level": "error", "event": "alarms_not_told", "alarms": alarms, "cause": cause}));
}

/// What is kept outside of the database of an alarm that could not be written down. One of each kind and subject: a second trouble is told as
/// the first one was.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outage {
    since: i64,
    seen_at: i64,
    told_at: Option<i64>,
    /// How often it was seen.
    times: u32,
    kind: String,
    subject: String,
    message: String,
}

impl Outage {
    fn begins(finding: &Finding, since: i64) -> Self {
        let (kind, subject, message) = (finding.kind.to_owned(), finding.subject.clone(), finding.message.clone());
        Self { since, seen_at: since, told_at: None, times: 0, kind, subject, message }
    }

    /// Whether it may have been a moment's: a look fails once because the database is busy, and nobody has to get up for that.
    fn may_pass(&self) -> bool {
        self.kind == check::LOOK_FAILS && self.times < 2
    }

    /// Whether it is to be told now.
    fn is_due(&self, now: i64) -> bool {
        !self.may_pass() && self.told_at.is_none_or(|told_at| told_at <= now - REMIND)
    }

    fn is_over(&self, now: i64) -> bool {
        !self.may_pass() && self.seen_at <= now - QUIET
    }
}

/// Writes down what was told without the database and has not come again for a while, so that its end is told like any other. For a look that
/// came to its end.
///
/// # Errors
/// The database's.
pub async fn outages_are_over(now: i64) -> Result<(), Error> {
    let Some(mut outages) = cache::get::<Vec<Outage>>(entry::OUTAGE).await else { return Ok(()) };
    let sql = "INSERT INTO alarms (id, kind, subject, message, opened_at, seen_at, closed_at, told, told_at, tell_at) \
               VALUES ('outage:' || ?2 || ':' || ?1, ?2, ?3, ?4, ?1, ?5, ?6, ?7 IS NOT NULL, ?7, ?6) ON CONFLICT (id) DO NOTHING";
    for outage in outages.iter().filter(|outage| outage.is_over(now)) {
        let parameters = vec![
            outage.since.into(),
            outage.kind.as_str().into(),
            outage.subject.as_str().into(),
            outage.message.as_str().into(),
            outage.seen_at.into(),
            now.max(outage.since).into(),
            outage.told_at.into(),
        ];
        run(sql, parameters).await?;
    }
    let before = outages.len();
    outages.retain(|outage| !outage.may_pass() && !outage.is_over(now));
    // If it stays as it was, the rows are there already the next time.
    if outages.is_empty() {
        let _ = cache::delete(entry::OUTAGE).await;
    } else if outages.len() < before {
        cache::set(entry::OUTAGE, &outages, entry::OUTAGE_SECONDS).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(state: State, message: &str) -> Told {
        Told { state, kind: "store_down".into(), subject: "cache".into(), message: message.into(), opened_at: 5, closed_at: None }
    }

    #[test]
    fn a_message_is_read_by_people_and_by_programs() {
        let message = message("https://app.example", &[told(State::Opened, "It is down."), told(State::Resolved, "It was down.")], 7);
        assert_eq!(
            message["text"],
            "ai-hairstyle (https://app.example):\nALARM: store_down (cache): It is down.\nresolved: store_down (cache): It was down."
        );
        assert_eq!(message["content"], message["text"]);
        assert_eq!((&message["alarms"][0]["state"], &message["at"]), (&json!("opened"), &json!(7)));
    }

    #[test]
    fn a_long_message_is_cut_between_alarms_and_says_so() {
        let alarms = vec![told(State::Opened, &"x".repeat(500)); 10];
        let message = message("https://app.example", &alarms, 7);
        let text = message["text"].as_str().expect("text");
        assert!(text.chars().count() <= 2_000 && text.ends_with("\nand 7 more"), "{text}");
        assert_eq!(message["alarms"].as_array().expect("all of them").len(), 10);
    }

    #[test]
    fn a_signature_is_the_standard_one() {
        // RFC 4231, test case 2.
        assert_eq!(signature("Jefe", "what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn only_the_named_place_is_posted_to() {
        for url in ["https://hooks.example/services/T1/B2/x", "https://hooks.example", "https://hooks.example?wait=true"] {
            assert!(lies_at(url, "https://hooks.example"), "{url}");
        }
        for url in
            ["https://hooks.example.evil/x", "http://hooks.example/x", "https://hooks.example@evil/x", "https://hooks.example:8443/x"]
        {
            assert!(!lies_at(url, "https://hooks.example"), "{url}");
        }
    }
}
