//! What time it is, and what time others say it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

#[cfg(test)]
mod tests {
    use super::parse_millis;

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
}
