//! What time it is, what time others say it is, and when one has waited long enough.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Unix seconds, the unit of every time in the database and in answers.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// Unix milliseconds, for names that should sort by time.
#[must_use]
pub fn now_millis() -> i64 {
    i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Does `work` for at most `limit`; `None` if it has not come to its end by then. What was asked of the host is given up.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // What is ready at once needs no timer: each is a call of the host.
    let mut timer: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.get_or_insert_with(|| Box::pin(spin_sdk::time::sleep(limit))).as_mut().poll(context).map(|()| None),
    })
    .await
}

/// The Unix milliseconds of an ISO 8601 time in UTC, `2026-04-12T10:00:05.000Z`; the fraction may be missing.
#[must_use]
pub fn parse_millis(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?.strip_suffix('Z')?;
    let millis = match rest.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        None if rest.is_empty() => 0,
        _ => return None,
    };
    // Days since 1970 in the Gregorian calendar (Howard Hinnant's `days_from_civil`).
    let year = year - i64::from(month <= 2);
    let shifted = (month + 9) % 12;
    let of_era = year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4 - year.rem_euclid(400) / 100 + (153 * shifted + 2) / 5 + day - 1;
    let days = year.div_euclid(400) * 146_097 + of_era - 719_468;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000 + millis)
}

/// A time (Unix seconds, UTC) as `20260412T100005Z`: as S3 signs it, and for names that sort by time.
#[must_use]
pub fn stamp(unix: i64) -> String {
    let (year, month, day) = civil(unix.div_euclid(86_400));
    let second = unix.rem_euclid(86_400);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// The Unix seconds of such a stamp.
#[must_use]
pub fn parse_stamp(text: &str) -> Option<i64> {
    let part = |range: std::ops::Range<usize>| text.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if text.len() != 16 || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    parse_millis(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).map(|millis| millis / 1_000)
}

/// The date of a day since 1970 in the Gregorian calendar (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::{parse_millis, parse_stamp, stamp};

    #[test]
    fn times_in_utc_are_read_with_and_without_a_fraction() {
        assert_eq!(parse_millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_millis("2026-04-12T10:00:05.000Z"), Some(1_775_988_005_000));
        assert_eq!(parse_millis("2026-04-12T10:00:05.12Z"), Some(1_775_988_005_120));
        assert_eq!(parse_millis("2028-02-29T23:59:59.123456Z"), Some(1_835_481_599_123));
    }

    #[test]
    fn anything_else_is_no_time() {
        for text in ["", "2026-04-12", "2026-13-12T10:00:05Z", "2026-04-12T10:00:05+02:00", "2026-04-12T10:00:05.Z", "soon"] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (unix, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!((stamp(unix).as_str(), parse_stamp(text)), (text, Some(unix)));
        }
    }

    #[test]
    fn what_is_no_stamp_has_no_time() {
        for text in ["", "erasures", "20261301T000000Z", "20260412T100005", "20260412 100005Z", "2026-412T100005Z", "20260412T100005Z_a"] {
            assert_eq!(parse_stamp(text), None, "{text}");
        }
    }
}
