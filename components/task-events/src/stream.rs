//! One stream from its first event to its end.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::channel::mpsc::Sender;
use meter::millis;
use problem::Problem;
use serde_json::json;
use service::Call;
use spin_sdk::time::sleep;
use task::{
    View,
    follow::{self, End, Glance, Gone, Line},
};

use crate::look;

/// Events that may wait for a slow client: about as many as a stream can have. Who lets more pile up is taken for gone, so nothing waits for anybody.
pub const AHEAD: usize = 64;
/// After how long a browser comes back when a stream has ended, in milliseconds.
const RETRY: u32 = 2_000;

/// An open stream.
struct Stream {
    call: Call,
    task_no: String,
    started: Instant,
    told: RefCell<Told>,
}

/// What has been told so far.
struct Told {
    out: Sender<Bytes>,
    /// The `id` of the last event that the client has.
    seen: Option<String>,
    events: u32,
}

/// Tells a client of a task until that ends in one way or another, and writes the line about it.
pub async fn tell(call: Call, task_no: String, glance: Glance, seen: Option<String>, out: Sender<Bytes>) {
    let stream = Stream { call, task_no, started: Instant::now(), told: RefCell::new(Told { out, seen, events: 0 }) };
    let mut looks = 1_u32;
    let end = match stream.send(format!("retry: {RETRY}\n\n")) {
        Ok(()) => follow::watch(&stream, glance, &mut looks).await,
        Err(gone) => Err(gone),
    };
    let ended = match end {
        Ok(End::Final) => json!("final"),
        Ok(End::Time) => json!("time"),
        Ok(End::Overdue) => json!("overdue"),
        Ok(End::Refused(code)) => json!(code),
        Err(Gone) => json!("gone"),
    };
    let (database, cache) = meter::current().map(|meter| (meter.database(), meter.cache())).unwrap_or_default();
    meter::log(json!({
        "level": "info", "event": "stream_ended", "component": crate::SERVICE.name, "ended": ended, "events": stream.told.borrow().events,
        "looks": looks, "ms": millis(stream.elapsed()), "sqlite": database.calls, "sqlite_ms": millis(database.waited), "kv": cache.calls,
        "kv_ms": millis(cache.waited),
    }));
}

impl Stream {
    fn send(&self, text: String) -> Result<(), Gone> {
        self.told.borrow_mut().out.try_send(text.into()).map_err(|_| Gone)
    }
}

impl Line for Stream {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, length: Duration) {
        sleep(length).await;
    }

    async fn look(&self) -> Result<Glance, Problem> {
        look(&self.call, &self.task_no).await
    }

    fn show(&self, view: &View) -> Result<bool, Gone> {
        let etag = view.etag();
        if self.told.borrow().seen.as_deref() == Some(etag.as_str()) {
            return Ok(false);
        }
        // In one line: JSON escapes line ends. A view can always be written.
        let Ok(task) = serde_json::to_string(view) else { return Ok(false) };
        self.send(format!("event: task\nid: {etag}\ndata: {{\"task\":{task}}}\n\n"))?;
        let mut told = self.told.borrow_mut();
        told.seen = Some(etag);
        told.events += 1;
        Ok(true)
    }

    fn comment(&self) -> Result<(), Gone> {
        self.send(":\n\n".to_owned())
    }
}
