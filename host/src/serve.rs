//! The door: HTTP/1.1 on a socket.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use wasmtime_wasi_http::Error;

use crate::App;

/// How long requests in flight may go on when the door closes.
const GRACE: Duration = Duration::from_secs(5);

/// An open door. Dropping it closes it at once.
pub struct Server {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) async fn open(app: App, address: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}: is something else running there?"))?;
        Self::open_on(app, listener)
    }

    pub(crate) fn open_on(app: App, listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr()?;
        let (closing, closed) = watch::channel(false);
        let task = tokio::spawn(accept(app, listener, closed));
        Ok(Self { address, closing, task: Some(task) })
    }

    /// Where the door is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and lets requests in flight finish, for at most five seconds.
    pub async fn shutdown(mut self) {
        let _ = self.closing.send(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn accept(app: App, listener: TcpListener, mut closed: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, usually: it passes when connections end.
                app.log().event(serde_json::json!({"level": "error", "event": "accept_failed", "cause": error.to_string()}));
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Head and body leave in separate writes; without this the second waits for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        let mut closing = closed.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let app = app.clone();
                async move {
                    Ok::<_, std::convert::Infallible>(
                        app.answer(request.map(|body| body.map_err(Error::from).boxed_unsync()), Some(peer)).await,
                    )
                }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                // A client that hangs up is no event of ours.
                _ = connection.as_mut() => {}
                _ = closing.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}
