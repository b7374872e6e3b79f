//! The numbers of a run, for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{HELLO, TWIN};

/// What one turn of a target gave.
pub struct Round {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub host_calls: Option<String>,
}

impl Round {
    pub fn of(mut times: Vec<Duration>, time: Duration, host_calls: Option<String>) -> Self {
        times.sort_unstable();
        Self { per_second: times.len() as f64 / time.as_secs_f64(), p50: percentile(&times, 50), p99: percentile(&times, 99), host_calls }
    }
}

/// A target's rounds in one line: their medians.
pub struct Line {
    pub name: String,
    pub per_second: f64,
    /// Of the slowest and of the fastest round.
    pub range: (f64, f64),
    pub p50: Duration,
    pub p99: Duration,
    pub host_calls: String,
}

impl Line {
    pub fn of(name: &str, rounds: &[Round]) -> Self {
        let figures: Vec<f64> = rounds.iter().map(|round| round.per_second).collect();
        Self {
            name: name.to_owned(),
            per_second: median(figures.clone()),
            range: (figures.iter().copied().fold(f64::INFINITY, f64::min), figures.iter().copied().fold(0.0, f64::max)),
            p50: median_time(rounds, |round| round.p50),
            p99: median_time(rounds, |round| round.p99),
            host_calls: rounds
                .iter()
                .filter_map(|round| round.host_calls.as_deref())
                .min_by_key(|calls| setting_up(calls))
                .unwrap_or("-")
                .to_owned(),
        }
    }
}

/// What an instance does once: of two requests the one without it is the usual one.
fn setting_up(calls: &str) -> usize {
    usize::from(!calls.contains("variables=0")) + usize::from(!calls.contains("sqlite_opens=0"))
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn median_time(rounds: &[Round], of: impl Fn(&Round) -> Duration) -> Duration {
    Duration::from_secs_f64(median(rounds.iter().map(|round| of(round).as_secs_f64()).collect()))
}

/// Of sorted times.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// How long a first answer took.
pub struct Start {
    pub what: &'static str,
    pub took: Duration,
}

/// All of it.
pub struct Report {
    pub connections: usize,
    pub rounds: usize,
    pub turn_ms: u64,
    pub lines: Vec<Line>,
    /// Resident memory by program, in KiB, before and after the rounds.
    pub before: Vec<(&'static str, Option<u64>)>,
    pub after: Vec<(&'static str, Option<u64>)>,
    pub starts: Vec<Start>,
}

impl Report {
    fn ratio(&self, line: &Line, of: &str) -> Option<f64> {
        self.lines.iter().find(|other| other.name == of).map(|other| line.per_second / other.per_second)
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{} connections, medians of {} rounds of {} ms, all on this one machine\n{:<38} {:>10} {:>17} {:>8} {:>8} {:>9} {:>8}  host calls\n",
            self.connections, self.rounds, self.turn_ms, "", "requests/s", "slowest-fastest", "p50 ms", "p99 ms", "of hello", "of twin"
        );
        let percent = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{:.0} %", ratio * 100.0));
        for line in &self.lines {
            let range = format!("{:.0}-{:.0}", line.range.0, line.range.1);
            let (hello, twin) = (percent(self.ratio(line, HELLO)), percent(self.ratio(line, TWIN)));
            let _ = writeln!(
                text,
                "{:<38} {:>10.0} {range:>17} {:>8.2} {:>8.2} {hello:>9} {twin:>8}  {}",
                line.name,
                line.per_second,
                ms(line.p50),
                ms(line.p99),
                line.host_calls
            );
        }
        text.push_str("\nresident memory, MiB, before and after\n");
        let mib = |kib: &Option<u64>| kib.map_or_else(|| "-".into(), |kib| format!("{:.0}", kib as f64 / 1024.0));
        for ((name, before), (_, after)) in self.before.iter().zip(&self.after) {
            let _ = writeln!(text, "{name:<38} {:>10} {:>17}", mib(before), mib(after));
        }
        if !self.starts.is_empty() {
            text.push_str("\nfirst answers, ms\n");
        }
        for start in &self.starts {
            let _ = writeln!(text, "{:<47} {:>10.1}", start.what, ms(start.took));
        }
        text
    }

    pub fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            json!({
                "name": line.name, "requests_per_second": line.per_second, "slowest_round": line.range.0, "fastest_round": line.range.1,
                "p50_ms": ms(line.p50), "p99_ms": ms(line.p99), "host_calls": line.host_calls,
                "of_hello": self.ratio(line, HELLO), "of_twin": self.ratio(line, TWIN),
            })
        });
        let memory = self
            .before
            .iter()
            .zip(&self.after)
            .map(|((name, before), (_, after))| json!({"program": name, "before_kib": before, "after_kib": after}));
        json!({
            "connections": self.connections, "rounds": self.rounds, "turn_ms": self.turn_ms, "targets": lines.collect::<Vec<_>>(),
            "memory": memory.collect::<Vec<_>>(),
            "starts": self.starts.iter().map(|start| json!({"what": start.what, "ms": ms(start.took)})).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
    }

    #[test]
    fn one_slow_round_does_not_count() {
        let round = |per_second| Round { per_second, p50: Duration::from_millis(1), p99: Duration::from_millis(2), host_calls: None };
        let line = Line::of("x", &[round(100.0), round(3.0), round(110.0)]);
        assert_eq!((line.per_second, line.range), (100.0, (3.0, 110.0)));
    }
}
