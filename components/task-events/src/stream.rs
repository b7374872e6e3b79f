//! One stream from its first event to its end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::mpsc::Sender;
use meter::millis;
use problem::Code;
use serde_json::{Value, json};
use service::Call;
use spin_sdk::time::sleep;
use task::{
    View,
    follow::{Glance, Pace},
};

use crate::look;

/// Events that may wait for a slow client: about as many as a stream can have. Who lets more pile up is taken for gone, so nothing waits for anybody.
pub const AHEAD: usize = 64;
/// After how long a browser comes back when a stream has ended, in milliseconds.
const RETRY: u32 = 2_000;
/// Seconds without an event after which a comment shows that both sides are still there.
const HEARTBEAT: u64 = 15;
/// Seconds between two looks at the clock: progress moves on without anybody being asked.
const TICK: u64 = 1;

/// Why a stream ended, for the log.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The task is final.
    Final,
    /// It has lasted long enough; a browser comes back by itself.
    Time,
    /// The callback is overdue: whoever asks for the task itself brings it home.
    Overdue,
    /// Nobody listens any more, or so slowly that it comes to the same.
    Gone,
    /// The next look was refused, or failed.
    Refused(Code),
}

impl End {
    fn told(self) -> Value {
        match self {
            Self::Final => "final".into(),
            Self::Time => "time".into(),
            Self::Overdue => "overdue".into(),
            Self::Gone => "gone".into(),
            Self::Refused(code) => json!(code),
        }
    }
}

/// What has been told so far.
struct Told {
    out: Sender<Bytes>,
    /// The `id` of the last event that the client has.
    seen: Option<String>,
    events: u32,
    /// Seconds since anything was sent.
    quiet: u64,
}

/// Tells a client of a task until one of the ends above, and writes the line about it.
pub async fn tell(call: Call, task_no: String, glance: Glance, seen: Option<String>, out: Sender<Bytes>) {
    let started = Instant::now();
    let mut told = Told { out, seen, events: 0, quiet: 0 };
    let mut looks = 1_u32;
    let end = run(&call, &task_no, glance, &mut told, &mut looks).await;
    let (database, cache) = meter::current().map(|meter| (meter.database(), meter.cache())).unwrap_or_default();
    meter::log(json!({
        "level": "info", "event": "stream_ended", "component": crate::SERVICE.name, "ended": end.told(), "events": told.events, "looks": looks,
        "ms": millis(started.elapsed()), "sqlite": database.calls, "sqlite_ms": millis(database.waited), "kv": cache.calls,
        "kv_ms": millis(cache.waited),
    }));
}

async fn run(call: &Call, task_no: &str, mut glance: Glance, told: &mut Told, looks: &mut u32) -> End {
    let (started, mut pace) = (Instant::now(), Pace::default());
    if told.send(format!("retry: {RETRY}\n\n")).is_err() {
        return End::Gone;
    }
    loop {
        if told.show(&glance.view).is_err() {
            return End::Gone;
        }
        if glance.view.is_final() {
            return End::Final;
        }
        if glance.is_overdue {
            return End::Overdue;
        }
        let Some(pause) = pace.next(started.elapsed().as_secs()) else { return End::Time };
        for _ in 0..pause / TICK {
            sleep(Duration::from_secs(TICK)).await;
            glance.view.go_on(clock::now());
            told.quiet += TICK;
            if told.show(&glance.view).is_err() || told.keep_alive().is_err() {
                return End::Gone;
            }
        }
        *looks += 1;
        glance = match look(call, task_no).await {
            Ok(glance) => glance,
            Err(problem) => return End::Refused(problem.code),
        };
    }
}

/// The client has gone.
struct Gone;

impl Told {
    /// Tells how the task stands, unless the client knows.
    fn show(&mut self, view: &View) -> Result<(), Gone> {
        let etag = view.etag();
        if self.seen.as_deref() == Some(etag.as_str()) {
            return Ok(());
        }
        // In one line: JSON escapes line ends. A view can always be written.
        let Ok(task) = serde_json::to_string(view) else { return Ok(()) };
        self.send(format!("event: task\nid: {etag}\ndata: {{\"task\":{task}}}\n\n"))?;
        self.seen = Some(etag);
        self.events += 1;
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), Gone> {
        if self.quiet >= HEARTBEAT { self.send(":\n\n".to_owned()) } else { Ok(()) }
    }

    fn send(&mut self, text: String) -> Result<(), Gone> {
        self.quiet = 0;
        self.out.try_send(text.into()).map_err(|_| Gone)
    }
}
