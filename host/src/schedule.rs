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
}

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
                Ok(request) => {
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
