//! Watching a task for a while, with few looks at the database.

use std::{pin::pin, time::Duration};

use config::Settings;
use futures::future::{Either, select};
use problem::{Code, Problem};
use seal::Keys;

use crate::{Glimpse, View, find, progress, remember};

/// How long one watch lasts. Whoever still waits begins another one.
pub const LASTS: Duration = Duration::from_secs(120);
/// Most looks in one watch, the first included.
pub const MOST_LOOKS: u32 = 28;
/// How long one look may take; a database that has gone may never answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may be told before a comment shows that both sides are still there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two looks at the clock, also while a look is under way: progress moves on without anybody being asked.
const TICK: Duration = Duration::from_secs(1);
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

/// What a watch is surrounded by: time, its task, and whoever listens.
pub trait Line {
    /// How long the watch has lasted.
    fn elapsed(&self) -> Duration;
    /// Lets so much time pass.
    fn sleep(&self, length: Duration) -> impl Future<Output = ()>;
    /// Looks at the task again.
    fn look(&self) -> impl Future<Output = Result<Glance, Problem>>;
    /// Tells how the task stands, unless that is known; answers whether anything was said.
    ///
    /// # Errors
    /// Nobody listens.
    fn show(&self, view: &View) -> Result<bool, Gone>;
    /// Sends a keep-alive comment.
    ///
    /// # Errors
    /// Nobody listens.
    fn comment(&self) -> Result<(), Gone>;
}

/// Nobody listens any more, or so slowly that it comes to the same.
#[derive(Debug)]
pub struct Gone;

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The task is final.
    Final,
    /// It has lasted long enough; a browser comes back by itself.
    Time,
    /// The callback is overdue: whoever asks for the task itself brings it home.
    Overdue,
    /// The next look was refused, failed, or took too long.
    Refused(Code),
}

/// Tells of a task, from this glance at it to one of the ends above. Each look is counted in `looks`.
///
/// # Errors
/// Nobody listens.
pub async fn watch(line: &impl Line, mut glance: Glance, looks: &mut u32) -> Result<End, Gone> {
    let (mut pace, mut told) = (Pace::default(), line.elapsed());
    loop {
        tell(line, &glance.view, &mut told)?;
        if glance.view.is_final() {
            return Ok(End::Final);
        }
        if glance.is_overdue {
            return Ok(End::Overdue);
        }
        let Some(due) = pace.next(line.elapsed()) else { return Ok(End::Time) };
        while line.elapsed() < due {
            line.sleep(TICK.min(due.saturating_sub(line.elapsed()))).await;
            glance.view.go_on(clock::now());
            tell(line, &glance.view, &mut told)?;
        }
        *looks += 1;
        let patience = line.elapsed() + PATIENCE;
        let mut look = pin!(line.look());
        glance = loop {
            // What has ended is not waited for: the last tick of a watch is as long as it has left.
            let tick = TICK.min(LASTS.saturating_sub(line.elapsed()));
            match select(look.as_mut(), pin!(line.sleep(tick))).await {
                Either::Left((Ok(next), _)) => break next,
                Either::Left((Err(problem), _)) => return Ok(End::Refused(problem.code)),
                Either::Right(_) if line.elapsed() >= LASTS => return Ok(End::Time),
                Either::Right(_) if line.elapsed() >= patience => return Ok(End::Refused(Code::ServiceUnavailable)),
                Either::Right(_) => {}
            }
            glance.view.go_on(clock::now());
            tell(line, &glance.view, &mut told)?;
        };
    }
}

/// Tells how the task stands if that is new, and after a long silence at least that somebody is there. `told`: when anything was said last.
fn tell(line: &impl Line, view: &View, told: &mut Duration) -> Result<(), Gone> {
    if !line.show(view)? {
        if line.elapsed().saturating_sub(*told) < HEARTBEAT {
            return Ok(());
        }
        line.comment()?;
    }
    *told = line.elapsed();
    Ok(())
}

/// The pauses between looks: short at first, when most happens, then longer.
#[derive(Debug, Default)]
struct Pace(u64);

impl Pace {
    /// When the next look of a watch is due that has lasted for `elapsed`; `None`: it has lasted long enough.
    fn next(&mut self, elapsed: Duration) -> Option<Duration> {
        self.0 = (self.0 + 1).min(LONGEST);
        let due = elapsed + Duration::from_secs(self.0);
        (due <= LASTS).then_some(due)
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
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// A line whose time passes only while everybody sleeps.
    #[derive(Default)]
    struct Fake {
        now: Cell<Duration>,
        /// When somebody wants to be woken.
        alarms: RefCell<Vec<Duration>>,
        /// How long a look takes.
        look: Duration,
        /// After so many looks the task is completed.
        completed_after: Option<u32>,
        looks: Cell<u32>,
        /// When the client goes.
        goes: Option<Duration>,
        seen: RefCell<Option<String>>,
        events: RefCell<Vec<u64>>,
        comments: RefCell<Vec<u64>>,
    }

    impl Fake {
        fn run<T>(&self, work: impl Future<Output = T>) -> T {
            let mut work = pin!(work);
            loop {
                if let Poll::Ready(outcome) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    return outcome;
                }
                let next = self.alarms.take().into_iter().min().expect("somebody sleeps");
                self.now.set(next.max(self.now.get()));
            }
        }

        async fn until(&self, then: Duration) {
            poll_fn(|_| {
                if self.now.get() >= then {
                    return Poll::Ready(());
                }
                self.alarms.borrow_mut().push(then);
                Poll::Pending
            })
            .await;
        }

        fn say(&self, what: &RefCell<Vec<u64>>) -> Result<(), Gone> {
            if self.goes.is_some_and(|then| self.now.get() >= then) {
                return Err(Gone);
            }
            what.borrow_mut().push(self.now.get().as_secs());
            Ok(())
        }

        fn glance(&self) -> Glance {
            let status = if self.completed_after.is_some_and(|looks| self.looks.get() >= looks) { "completed" } else { "pending" };
            let view = serde_json::json!({
                "task_no": "TASK_1", "status": status, "progress": 0.0, "hairstyle": "bob-cut", "hair_color": null, "detail": null, "model": "4o",
                "upload_id": "u", "source_url": null, "price": 1, "result_urls": [], "failure_reason": null, "created_at": 0, "updated_at": 0,
                "completed_at": null,
            });
            Glance { view: serde_json::from_value(view).expect("a view"), is_overdue: false }
        }

        /// How a whole watch ends, after how many looks and when.
        fn watch(&self) -> (Result<End, Gone>, u32, Duration) {
            let mut looks = 1;
            let end = self.run(watch(self, self.glance(), &mut looks));
            (end, looks, self.now.get())
        }
    }

    impl Line for Fake {
        fn elapsed(&self) -> Duration {
            self.now.get()
        }

        async fn sleep(&self, length: Duration) {
            self.until(self.now.get() + length).await;
        }

        async fn look(&self) -> Result<Glance, Problem> {
            self.until(self.now.get().saturating_add(self.look)).await;
            self.looks.set(self.looks.get() + 1);
            Ok(self.glance())
        }

        fn show(&self, view: &View) -> Result<bool, Gone> {
            let etag = view.etag();
            if self.seen.borrow().as_ref() == Some(&etag) {
                return Ok(false);
            }
            self.say(&self.events)?;
            self.seen.replace(Some(etag));
            Ok(true)
        }

        fn comment(&self) -> Result<(), Gone> {
            self.say(&self.comments)
        }
    }

    #[test]
    fn a_watch_looks_often_at_first_and_ends_within_its_bounds() {
        let (mut pace, mut elapsed, mut pauses) = (Pace::default(), Duration::ZERO, Vec::new());
        while let Some(due) = pace.next(elapsed) {
            pauses.push((due - elapsed).as_secs());
            elapsed = due;
        }
        assert_eq!(pauses[..6], [1, 2, 3, 4, 5, 5]);
        // Looks that take time themselves make a watch no longer, only fewer.
        for millis in [0, 1, 300, 999, 1_000, 2_000, 4_700, 9_900] {
            let line = Fake { look: Duration::from_millis(millis), ..Fake::default() };
            let (end, looks, ended) = line.watch();
            assert!(matches!(end, Ok(End::Time)), "{millis}: {end:?}");
            assert!(ended <= LASTS && LASTS - ended < Duration::from_secs(LONGEST), "{millis}: {ended:?}");
            assert!(looks <= MOST_LOOKS && (millis > 0 || looks >= MOST_LOOKS - 1), "{millis}: {looks}");
        }
    }

    #[test]
    fn silence_is_broken_after_fifteen_seconds_however_long_looks_take() {
        for millis in [0, 300, 2_000, 4_700, 9_900] {
            let line = Fake { look: Duration::from_millis(millis), ..Fake::default() };
            assert!(matches!(line.watch().0, Ok(End::Time)));
            let comments = line.comments.take();
            let mut before = 0;
            for at in &comments {
                assert!((15..=16).contains(&(at - before)), "{millis}: {comments:?}");
                before = *at;
            }
            assert!(comments.len() >= 7, "{millis}: {comments:?}");
            assert_eq!(line.events.take(), [0]);
        }
    }

    #[test]
    fn a_look_that_never_ends_is_given_up_and_ends_the_watch() {
        let line = Fake { look: Duration::MAX, ..Fake::default() };
        let (end, looks, ended) = line.watch();
        assert!(matches!(end, Ok(End::Refused(Code::ServiceUnavailable))), "{end:?}");
        assert_eq!((looks, ended), (2, Duration::from_secs(1) + PATIENCE));
    }

    #[test]
    fn a_client_that_goes_while_a_look_is_under_way_is_noticed_before_that_ends() {
        // The looks last from 1 to 10 and from 12 to 21 seconds; the comment is due after 15.
        let line = Fake { look: Duration::from_secs(9), goes: Some(Duration::from_secs(13)), ..Fake::default() };
        let (end, looks, ended) = line.watch();
        assert!(matches!(end, Err(Gone)), "{end:?}");
        assert_eq!((looks, ended), (3, Duration::from_secs(15)));
    }

    #[test]
    fn what_is_final_is_told_and_ends_the_watch() {
        let line = Fake { completed_after: Some(2), ..Fake::default() };
        let (end, looks, ended) = line.watch();
        assert!(matches!(end, Ok(End::Final)), "{end:?}");
        assert_eq!((looks, ended, line.events.take()), (3, Duration::from_secs(3), vec![0, 3]));
    }
}
