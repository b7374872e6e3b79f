//! Where lines go: the host's own and the components'.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Where the access log and the components' output go.
#[derive(Clone, Debug, Default)]
pub enum LogSink {
    #[default]
    Stderr,
    None,
    /// Collected, for tests.
    Capture(Arc<Mutex<Vec<String>>>),
}

impl LogSink {
    /// Writes one line.
    pub fn line(&self, mut line: String) {
        match self {
            Self::Stderr => {
                // In one piece: nothing buffers stderr.
                line.push('\n');
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
            Self::None => {}
            Self::Capture(lines) => lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line),
        }
    }

    /// Writes an event of the host.
    pub fn event(&self, event: serde_json::Value) {
        if !matches!(self, Self::None) {
            self.line(event.to_string());
        }
    }
}

/// A component's stdout or stderr. A line that is JSON passes as it is; any other is told by its component's name.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    sink: LogSink,
    component: Arc<str>,
    pending: Arc<Mutex<Vec<u8>>>,
}

impl GuestOutput {
    pub(crate) fn new(sink: LogSink, component: Arc<str>) -> Self {
        Self { sink, component, pending: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        if matches!(self.sink, LogSink::None) {
            return;
        }
        let mut pending = self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pending.extend_from_slice(bytes);
        while let Some(at) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line[..at]);
            self.sink.line(if line.starts_with('{') { line.into_owned() } else { format!("[{}] {line}", self.component) });
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    // Rust's std prints through WASI 0.2; answered at once, without a task in between.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

#[async_trait::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl tokio::io::AsyncWrite for GuestOutput {
    fn poll_write(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>, bytes: &[u8]) -> std::task::Poll<std::io::Result<usize>> {
        self.take(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
