//! Crash points: an instance can be ended at its n-th host call, as a power cut would end it, or that call be left without an answer. For
//! tests.
//!
//! A statement, a key-value call or an outbound request is cut off before it takes effect, or after it has and before the component
//! hears of it. Everything the instance was doing ends there; what its calls did until then stays done.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use futures::task::AtomicWaker;

use crate::calls::Kind;

/// On which side of the call the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It never happens.
    Before,
    /// It has happened, and nobody knows.
    After,
    /// It is never answered, and the instance goes on.
    Never,
}

/// Where to crash.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Only calls of this component count; those of any if there is none.
    pub component: Option<String>,
    /// Which of the calls from now on: 1 is the next.
    pub call: u64,
    pub moment: Moment,
}

/// The crash that an application waits for.
#[derive(Default)]
pub(crate) struct CrashPoint(Mutex<(Option<Crash>, bool)>);

impl CrashPoint {
    pub(crate) fn arm(&self, crash: Crash) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Some(crash), false);
    }

    /// Ends the waiting; answers whether the crash happened.
    pub(crate) fn disarm(&self) -> bool {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).1
    }

    /// What is to become of a call that is about to be made.
    pub(crate) fn fate(&self, component: &str, kind: Kind, doom: &Arc<Doom>) -> Fate {
        let moment = matches!(kind, Kind::Sqlite | Kind::KeyValue | Kind::Http).then(|| self.strike(component)).flatten();
        Fate(moment.map(|moment| (moment, doom.clone())))
    }

    fn strike(&self, component: &str) -> Option<Moment> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let crash = waiting.0.as_mut().filter(|crash| crash.component.as_deref().is_none_or(|wanted| wanted == component))?;
        crash.call = crash.call.saturating_sub(1);
        if crash.call > 0 {
            return None;
        }
        let moment = crash.moment;
        *waiting = (None, true);
        Some(moment)
    }
}

/// Whether an instance is to end now.
#[derive(Default)]
pub(crate) struct Doom {
    struck: AtomicBool,
    waker: AtomicWaker,
}

impl Doom {
    /// Ends the instance; never goes on.
    async fn strike(&self) {
        self.struck.store(true, SeqCst);
        self.waker.wake();
        std::future::pending::<()>().await;
    }

    pub(crate) fn poll(&self, context: &std::task::Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.struck.load(SeqCst)
    }
}

/// What is to become of one call.
pub(crate) struct Fate(Option<(Moment, Arc<Doom>)>);

impl Fate {
    /// Makes the call, unless the power goes first.
    pub(crate) async fn around<T>(self, call: impl Future<Output = T>) -> T {
        if let Some((Moment::Before, doom)) = &self.0 {
            doom.strike().await;
        }
        if let Some((Moment::Never, _)) = &self.0 {
            std::future::pending::<()>().await;
        }
        let answer = call.await;
        if let Some((Moment::After, doom)) = &self.0 {
            doom.strike().await;
        }
        answer
    }
}
