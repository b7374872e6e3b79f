//! Watching a task for a while, with few looks at the database.

use config::Settings;
use problem::Problem;
use seal::Keys;

use crate::{Glimpse, View, find, progress, remember};

/// How long one watch lasts, in seconds. Whoever still waits begins another one.
pub const LASTS: u64 = 120;
/// Most looks in one watch, the first included.
pub const MOST_LOOKS: usize = 28;
/// For how many seconds a callback may be overdue before somebody who only watches is told to ask for the task itself. Pictures that take a little
/// longer than usual should not be asked about.
const LATE: i64 = 30;
/// The longest pause between two looks, in seconds.
const LONGEST: u64 = 5;

/// A task at one look.
pub struct Glance {
    pub view: View,
    /// Whether the provider's callback is so late that somebody should ask for the task (see [`crate::by_no`]).
    pub is_overdue: bool,
}

/// A task of this user by its number, as it stands: of one whose callback got lost nobody is asked on the way.
///
/// # Errors
/// `not_found`, also for another user's task; the database's.
pub async fn glance(settings: &Settings, user_id: &str, task_no: &str, glimpse: Glimpse, now: i64) -> Result<Glance, Problem> {
    if let Some(view) = glimpse.of(user_id)? {
        return Ok(Glance { view, is_overdue: false });
    }
    let public_url = settings.public_url()?;
    let keys = Keys::from_settings(settings)?;
    let (task, is_overdue) = find(user_id, task_no, now, LATE).await?;
    remember(&task, &keys, public_url, now).await;
    Ok(Glance { view: task.view(&keys, public_url, now), is_overdue })
}

/// The pauses between looks: short at first, when most happens, then longer.
#[derive(Debug, Default)]
pub struct Pace(u64);

impl Pace {
    /// Seconds until the next look of a watch that has lasted for `elapsed` seconds; `None`: it has lasted long enough.
    pub fn next(&mut self, elapsed: u64) -> Option<u64> {
        self.0 = (self.0 + 1).min(LONGEST);
        (elapsed + self.0 <= LASTS).then_some(self.0)
    }
}

impl View {
    /// Lets the estimate of its progress go on to `now`: what a look at this moment would show if nothing else has changed.
    pub fn go_on(&mut self, now: i64) {
        self.progress = progress(&self.status, self.created_at, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_looks_often_at_first_and_ends_within_its_bounds() {
        let (mut pace, mut elapsed, mut pauses) = (Pace::default(), 0, Vec::new());
        while let Some(pause) = pace.next(elapsed) {
            pauses.push(pause);
            elapsed += pause;
        }
        assert_eq!(pauses[..6], [1, 2, 3, 4, 5, 5]);
        assert!(elapsed <= LASTS && LASTS - elapsed < LONGEST, "{elapsed}");
        assert!(pauses.len() < MOST_LOOKS, "{}", pauses.len());
        // Looks that take time themselves make a watch no longer, only fewer.
        assert_eq!(Pace::default().next(LASTS), None);
    }
}
