//! Leaving a provider alone that does not work.
//!
//! After five failures in a row nobody calls it for half a minute; then one request tries, and either closes the breaker or leaves
//! it open for the next half minute. The state is an entry in key-value: not exact under concurrency, and it need not be. Where the store does not
//! answer, calls go through.

use cache::entry;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Failures in a row that open the breaker.
const PATIENCE: u32 = 5;
/// For how long, in seconds.
const REST: i64 = 30;
/// How long whoever tries first has for it, in seconds; meanwhile the others wait.
const TRIAL: i64 = 10;
/// How long failures are remembered, in seconds: what failed an hour ago says nothing.
const MEMORY: u64 = 600;

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct State {
    failures: u32,
    /// Unix seconds until which nobody calls; 0: everybody may.
    closed_until: i64,
}

/// The breaker of one provider, for the calls of one request.
pub struct Breaker {
    provider: &'static str,
    pass: futures::lock::Mutex<Option<Pass>>,
}

/// Permission to call a provider.
#[derive(Clone, Copy)]
pub struct Pass {
    provider: &'static str,
    /// Whether there is something to forget when the call works.
    failed_before: bool,
    /// Whether the breaker was open until now.
    shut_before: bool,
}

impl Breaker {
    /// The breaker of this provider; its state is looked up at the first call.
    #[must_use]
    pub fn of(provider: &'static str) -> Self {
        Self { provider, pass: futures::lock::Mutex::new(None) }
    }

    /// Permission to call; looked up once.
    ///
    /// # Errors
    /// [`Failure::LeftAlone`].
    pub async fn pass(&self) -> Result<Pass, Failure> {
        let mut pass = self.pass.lock().await;
        if let Some(pass) = *pass {
            return Ok(pass);
        }
        let entry = entry::breaker(self.provider);
        let state = cache::get::<State>(&entry).await;
        if let Some(state) = state.filter(|state| state.closed_until != 0) {
            let now = clock::now();
            if state.closed_until > now {
                return Err(Failure::LeftAlone(state.failures));
            }
            cache::set(&entry, &State { closed_until: now + TRIAL, ..state }, MEMORY).await;
            log_change("info", "provider_tried_again", self.provider, state.failures);
        }
        let (failed_before, shut_before) = (state.is_some(), state.is_some_and(|state| state.closed_until != 0));
        Ok(*pass.insert(Pass { provider: self.provider, failed_before, shut_before }))
    }

    /// Consecutive failures of a provider whose breaker is open or half-open; `None`: it is closed.
    pub async fn is_shut(provider: &str) -> Option<u32> {
        let state = cache::get::<State>(&entry::breaker(provider)).await?;
        (state.closed_until != 0).then_some(state.failures)
    }
}

/// Writes a change of a breaker's state to the log.
fn log_change(level: &str, event: &str, provider: &str, failures: u32) {
    meter::log(serde_json::json!({"level": level, "event": event, "provider": provider, "failures": failures, "seconds": REST}));
}

impl Pass {
    /// Notes how the call went.
    pub async fn told(self, worked: bool) {
        let entry = entry::breaker(self.provider);
        if worked {
            if self.failed_before {
                // If it stays, it is forgotten by its expiry.
                let _ = cache::delete(&entry).await;
            }
            if self.shut_before {
                log_change("info", "provider_works_again", self.provider, 0);
            }
            return;
        }
        let before = cache::get::<State>(&entry).await.unwrap_or_default();
        let failures = before.failures.saturating_add(1);
        let closed_until = if failures >= PATIENCE { clock::now() + REST } else { 0 };
        if closed_until != 0 {
            log_change("error", "provider_left_alone", self.provider, failures);
        }
        cache::set(&entry, &State { failures, closed_until }, MEMORY).await;
    }
}
