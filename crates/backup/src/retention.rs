//! How long backups are kept: all of the last seven days, then one a week for five weeks. The newest complete one always.

use std::collections::BTreeSet;

/// A backup in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: String,
    /// Unix seconds, as its id says.
    pub made_at: i64,
    /// Whether it has its manifest.
    pub complete: bool,
}

/// Seconds.
pub const DAY: i64 = 86_400;
/// All backups that are younger than this are kept, in seconds.
pub const ALL: i64 = 7 * DAY;
/// One a week of those that are younger than this, in seconds: what is in no backup any more after this time is nowhere.
pub const WEEKLY: i64 = ALL + 5 * 7 * DAY;
/// What has no manifest after this many seconds was cut off.
const UNFINISHED: i64 = DAY;

/// The newest complete one that was made after `after` and not later than `now`: what says it was made in the future says nothing of its age.
#[must_use]
pub fn newest(found: &[Found], after: i64, now: i64) -> Option<String> {
    let recent = found.iter().filter(|backup| backup.complete && backup.made_at > after && backup.made_at <= now);
    recent.max_by_key(|backup| backup.made_at).map(|backup| backup.id.clone())
}

/// The ids of those whose time is over.
#[must_use]
pub fn expired(found: &[Found], now: i64) -> Vec<&str> {
    let mut complete: Vec<_> = found.iter().filter(|backup| backup.complete).collect();
    complete.sort_by_key(|backup| (backup.made_at, &backup.id));
    let newest = complete.last().map(|backup| backup.id.as_str());
    // The first of each week of the calendar: so it is the same one tomorrow, which "the oldest that is still younger than" would not be.
    let mut weeks = BTreeSet::new();
    let mut kept: BTreeSet<&str> = newest.into_iter().collect();
    for backup in complete {
        let age = now - backup.made_at;
        let first_of_its_week = weeks.insert(backup.made_at.div_euclid(7 * DAY));
        if age < ALL || (age < WEEKLY && first_of_its_week) {
            kept.insert(&backup.id);
        }
    }
    let is_over = |backup: &&Found| {
        if backup.complete { !kept.contains(backup.id.as_str()) } else { now - backup.made_at >= UNFINISHED }
    };
    found.iter().filter(is_over).map(|backup| backup.id.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn made(at: i64, complete: bool) -> Found {
        Found { id: format!("{}_{at:08x}", clock::stamp(at)), made_at: at, complete }
    }

    #[test]
    fn a_year_of_nights_leaves_a_week_of_days_and_five_weeks() {
        let mut kept: Vec<Found> = Vec::new();
        for night in 0..365 {
            let now = NOW + night * DAY;
            kept.push(made(now, true));
            let over: Vec<String> = expired(&kept, now).into_iter().map(str::to_owned).collect();
            kept.retain(|backup| !over.contains(&backup.id));
            let ages: Vec<i64> = kept.iter().map(|backup| (now - backup.made_at) / DAY).collect();
            for age in 0..7.min(night + 1) {
                assert!(ages.contains(&age), "night {night}: {ages:?}");
            }
            for week in 1..=5 {
                let there = ages.iter().any(|age| (week * 7..week * 7 + 7).contains(age));
                assert!(there || night < week * 7 + 6, "night {night}, week {week}: {ages:?}");
            }
            assert!(ages.iter().all(|age| *age < 42) && ages.len() <= 13, "night {night}: {ages:?}");
        }
    }

    #[test]
    fn a_backup_is_recent_that_is_complete_and_of_neither_yesterday_nor_tomorrow() {
        let found = [made(NOW - 100, true), made(NOW - 10, true), made(NOW - 5, false), made(NOW + 60 * DAY, true)];
        assert_eq!(newest(&found, NOW - 50, NOW).as_deref(), Some(found[1].id.as_str()));
        assert_eq!(newest(&found, NOW - 10, NOW), None);
    }

    #[test]
    fn what_was_cut_off_goes_after_a_day_and_the_last_complete_one_stays() {
        let found = [made(NOW - 100 * DAY, true), made(NOW - DAY, false), made(NOW - DAY + 1, false), made(NOW - 101 * DAY, true)];
        assert_eq!(expired(&found, NOW), [found[1].id.as_str(), found[3].id.as_str()]);
    }

    proptest! {
        #[test]
        fn the_newest_stays_the_young_stay_and_a_second_look_changes_nothing(
            ages in prop::collection::vec((-DAY..100 * DAY, any::<bool>()), 0..40),
        ) {
            let found: Vec<Found> = ages.iter().map(|(age, complete)| made(NOW - age, *complete)).collect();
            let over = expired(&found, NOW);
            let left: Vec<Found> = found.iter().filter(|backup| !over.contains(&backup.id.as_str())).cloned().collect();
            if let Some(newest) = found.iter().filter(|backup| backup.complete).map(|backup| backup.made_at).max() {
                prop_assert!(left.iter().any(|backup| backup.complete && backup.made_at == newest));
            }
            for backup in found.iter().filter(|backup| backup.complete) {
                let age = NOW - backup.made_at;
                prop_assert!(age >= ALL || left.contains(backup), "{} days", age / DAY);
            }
            let old = left.iter().filter(|backup| backup.complete && NOW - backup.made_at >= WEEKLY).count();
            prop_assert!(old <= 1, "only the newest may be older");
            prop_assert_eq!(expired(&left, NOW), Vec::<&str>::new());
        }
    }
}
