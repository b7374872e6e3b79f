//! The request at work: what it is called, and what it has cost so far.
//!
//! An instance serves several requests at once on its one thread, so a plain static would mix them up. A request's whole work is one
//! future, and [`scope`] makes its [`Meter`] the current one each time that future is polled, and the one before it current again when the
//! poll ends. What runs side by side inside (`join!`) is polled from there and so belongs to it. A task that is spawned does not:
//! whoever spawns one gives it a scope of its own.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::Write,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

mod trace;

pub use trace::Trace;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Meter>>> = const { RefCell::new(None) };
}

/// Whom a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Database,
    Cache,
    /// A service outside, by the name we have for it.
    Outbound(&'static str),
}

/// What one store has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Calls made.
    pub calls: u32,
    /// How long at least one call was under way: calls side by side count once, so this is never more than the request took.
    pub waited: Duration,
}

/// What a request is called, and what it has cost so far.
#[derive(Debug)]
pub struct Meter {
    pub request_id: String,
    pub trace: Trace,
    costs: RefCell<Costs>,
}

#[derive(Debug, Default)]
struct Costs {
    database: Watch,
    cache: Watch,
    outbound: Watch,
    /// In the order of their first call. A few at most, so a list does.
    services: Vec<(&'static str, Watch)>,
}

/// A stopwatch that runs while somebody is waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    cost: Cost,
    under_way: u32,
    since: Option<Instant>,
}

impl Watch {
    fn start(&mut self, now: Instant) {
        self.under_way += 1;
        self.since.get_or_insert(now);
    }

    fn stop(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0
            && let Some(since) = self.since.take()
        {
            self.cost.waited += now.saturating_duration_since(since);
        }
    }
}

impl Costs {
    fn each(&mut self, store: Store, change: &mut dyn FnMut(&mut Watch)) {
        match store {
            Store::Database => change(&mut self.database),
            Store::Cache => change(&mut self.cache),
            Store::Outbound(service) => {
                change(&mut self.outbound);
                let known = self.services.iter().position(|(name, _)| *name == service);
                let at = known.unwrap_or_else(|| {
                    self.services.push((service, Watch::default()));
                    self.services.len() - 1
                });
                change(&mut self.services[at].1);
            }
        }
    }
}

impl Meter {
    #[must_use]
    pub fn new(request_id: String, trace: Trace) -> Self {
        Self { request_id, trace, costs: RefCell::default() }
    }

    /// What the database has cost.
    #[must_use]
    pub fn database(&self) -> Cost {
        self.costs.borrow().database.cost
    }

    /// What key-value has cost.
    #[must_use]
    pub fn cache(&self) -> Cost {
        self.costs.borrow().cache.cost
    }

    /// What all calls outside have cost together.
    #[must_use]
    pub fn outbound(&self) -> Cost {
        self.costs.borrow().outbound.cost
    }

    /// The same for each service that was called.
    #[must_use]
    pub fn services(&self) -> Vec<(&'static str, Cost)> {
        self.costs.borrow().services.iter().map(|(service, watch)| (*service, watch.cost)).collect()
    }

    /// The value of the header `server-timing`: how long in all, and for how many calls to whom. It names kinds of stores, no services.
    #[must_use]
    pub fn server_timing(&self, total: Duration) -> String {
        let mut value = format!("total;dur={}", tenths(total));
        for (name, cost) in [("db", self.database()), ("kv", self.cache()), ("out", self.outbound())] {
            if cost.calls > 0 {
                value.push_str(&format!(", {name};dur={};desc=\"{}\"", tenths(cost.waited), cost.calls));
            }
        }
        value
    }
}

/// A wait that is measured until this is dropped.
#[must_use = "the wait ends when this is dropped"]
pub struct Waiting(Option<(Rc<Meter>, Store)>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((meter, store)) = &self.0 {
            let now = Instant::now();
            meter.costs.borrow_mut().each(*store, &mut |watch| watch.stop(now));
        }
    }
}

/// Runs the work of a request with its meter at hand for all that belongs to it.
pub async fn scope<F: Future>(meter: Rc<Meter>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| {
        let _before = Before(CURRENT.replace(Some(meter.clone())));
        work.as_mut().poll(context)
    })
    .await
}

/// Puts the meter back that was current before a poll, however the poll ends.
struct Before(Option<Rc<Meter>>);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// The meter of the request at work; `None` outside of any.
#[must_use]
pub fn current() -> Option<Rc<Meter>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Begins to wait for a store. Outside of a request nothing is measured.
pub fn waiting(store: Store) -> Waiting {
    let meter = current();
    if let Some(meter) = &meter {
        let now = Instant::now();
        meter.costs.borrow_mut().each(store, &mut |watch| watch.start(now));
    }
    Waiting(meter.map(|meter| (meter, store)))
}

/// Counts a call.
pub fn called(store: Store) {
    if let Some(meter) = current() {
        meter.costs.borrow_mut().each(store, &mut |watch| watch.cost.calls += 1);
    }
}

/// Milliseconds to a tenth, as log lines tell them.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

/// The same as text. Written without a float: what formats those would be a tenth of a small component.
fn tenths(duration: Duration) -> String {
    let tenths = u64::try_from((duration.as_micros() + 50) / 100).unwrap_or(u64::MAX);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Writes one line to the log: the given fields, when it was (`at`, Unix milliseconds), and which request it belongs to, if to any.
pub fn log(line: Value) {
    // In one piece: stderr is not buffered, and each piece that a formatter writes would be a call of the host.
    let line = format!("{}\n", complete(line, clock::now_millis()));
    // Nobody is left to tell that the log is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn complete(mut line: Value, at: i64) -> Value {
    if let Some(fields) = line.as_object_mut() {
        fields.insert("at".to_owned(), json!(at));
        if let Some(meter) = current() {
            fields.insert("request_id".to_owned(), json!(meter.request_id));
            fields.insert("trace_id".to_owned(), json!(meter.trace.id()));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::{executor::block_on, future::join_all, join};

    use super::*;

    fn meter(name: &str) -> Rc<Meter> {
        Rc::new(Meter::new(name.to_owned(), Trace::begin(&[], &[])))
    }

    fn name() -> Option<String> {
        current().map(|meter| meter.request_id.clone())
    }

    /// Lets everybody else go first, so many times.
    async fn step_aside(times: usize) {
        let mut left = times;
        poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// A request that calls each store a few times, now and then letting others go first.
    async fn work(name_of_it: &str, calls: usize) {
        for _ in 0..calls {
            let waiting = waiting(Store::Database);
            called(Store::Database);
            step_aside(calls).await;
            drop(waiting);
            assert_eq!(name().as_deref(), Some(name_of_it));
            let beside = async |service: &'static str| {
                called(Store::Outbound(service));
                step_aside(2).await;
                assert_eq!(name().as_deref(), Some(name_of_it));
            };
            join!(beside("kie"), beside("storage"));
        }
    }

    #[test]
    fn requests_that_take_turns_are_told_apart() {
        let requests: Vec<_> = (1..=9).map(|number| (meter(&format!("request-{number}")), number)).collect();
        block_on(join_all(requests.iter().map(|(meter, number)| scope(meter.clone(), work(&meter.request_id, *number)))));
        for (meter, number) in requests {
            let number = u32::try_from(number).expect("small");
            assert_eq!((meter.database().calls, meter.cache().calls, meter.outbound().calls), (number, 0, 2 * number));
            let services: Vec<_> = meter.services().iter().map(|(service, cost)| (*service, cost.calls)).collect();
            assert_eq!(services, [("kie", number), ("storage", number)]);
        }
        assert_eq!(name(), None, "the last one has left");
    }

    #[test]
    fn a_request_within_a_request_gives_back_what_was_there() {
        block_on(scope(meter("outer"), async {
            scope(meter("inner"), async { assert_eq!(name().as_deref(), Some("inner")) }).await;
            assert_eq!(name().as_deref(), Some("outer"));
        }));
        assert_eq!(name(), None);
    }

    #[test]
    fn a_request_that_is_dropped_halfway_leaves_nothing_behind() {
        let meter = meter("dropped");
        {
            let mut work = Box::pin(scope(meter.clone(), async {
                let _waiting = waiting(Store::Cache);
                called(Store::Cache);
                std::future::pending::<()>().await;
            }));
            let waker = std::task::Waker::noop();
            assert!(work.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
            assert_eq!(name(), None);
        }
        assert_eq!(meter.cache().calls, 1);
        assert_eq!(meter.costs.borrow().cache.under_way, 0, "whoever goes waits no more");
    }

    #[test]
    fn waits_side_by_side_count_once() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        watch.start(start);
        watch.start(after(10));
        watch.stop(after(30));
        watch.stop(after(40));
        watch.start(after(100));
        watch.stop(after(105));
        assert_eq!(watch.cost.waited, Duration::from_millis(45));
    }

    #[test]
    fn outside_of_a_request_nothing_is_measured_and_nothing_breaks() {
        called(Store::Database);
        drop(waiting(Store::Cache));
        assert_eq!(complete(json!({"event": "x"}), 7), json!({"event": "x", "at": 7}));
    }

    #[test]
    fn a_line_says_whose_it_is() {
        let meter = meter("request-1");
        let line = block_on(scope(meter.clone(), async { complete(json!({"event": "x"}), 7) }));
        assert_eq!(line, json!({"event": "x", "at": 7, "request_id": "request-1", "trace_id": meter.trace.id()}));
    }

    #[test]
    fn server_timing_tells_kinds_and_numbers_and_no_names() {
        let meter = meter("r");
        block_on(scope(meter.clone(), async {
            called(Store::Database);
            called(Store::Outbound("kie"));
        }));
        let value = meter.server_timing(Duration::from_micros(1_250));
        assert!(value.starts_with("total;dur=1.3, db;dur=0.0;desc=\"1\", out;dur=0.0;desc=\"1\"") && !value.contains("kie"), "{value}");
    }
}
