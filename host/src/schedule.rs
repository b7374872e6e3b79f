//! Requests that the host sends to its own application on a schedule: the sweep.

use std::time::Duration;

use bytes::Bytes;

use crate::{App, LogSink};

/// A request that is sent again and again, never twice at once.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub every: Duration,
    pub method: http::Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// How long the answer is waited for. Longer than a client would: nobody sits in front of it, and a backup takes as long as it takes.
    pub timeout: Duration,
}

/// How long the answer to a request is waited for, if not as long as usual: an extension of the request.
#[derive(Clone, Copy)]
pub(crate) struct Patience(pub(crate) Duration);

impl Schedule {
    /// Runs until the task is dropped. The first request goes out after one period.
    pub(crate) async fn run(self, app: App, log: LogSink) {
        loop {
            tokio::time::sleep(self.every).await;
            let mut request = http::Request::builder().method(self.method.clone()).uri(&self.path).header("content-length", "0");
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            match request.body(Bytes::new()) {
                Ok(mut request) => {
                    request.extensions_mut().insert(Patience(self.timeout));
                    let status = app.handle(request).await.status().as_u16();
                    log.event(serde_json::json!({"level": if status < 400 { "info" } else { "error" }, "event": "scheduled", "path": self.path, "status": status}));
                }
                Err(error) => {
                    log.event(serde_json::json!({"level": "error", "event": "scheduled", "path": self.path, "cause": error.to_string()}))
                }
            }
        }
    }
}
