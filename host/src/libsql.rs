//! `spin:sqlite@3.1.0` on a libSQL server, over HTTP (Hrana 3).
//!
//! Spin uses the `libsql` crate; this imitates what a guest sees of it, faults and words included, so that the components meet here what
//! they meet there (decision 14). A guest's connection is a stream of the server's, tied together by batons; a stream serves one
//! statement at a time, in the order they come. A stream that the server has forgotten stays forgotten: only a new connection
//! helps. `changes` and `last_insert_rowid` are always 0, because every statement goes through a cursor. What is not Spin's: time
//! limits, so that a server that is out of reach costs seconds and not minutes.

use std::{
    error::Error as _,
    fmt::Write as _,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value as Json, json};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::sqlite::{BATCH, BUFFERED_BYTES, BUFFERED_ROWS, Error, Head, Rest, RowResult, Value, size};

/// How long to wait for a connection to the server.
const CONNECT: Duration = Duration::from_secs(2);
/// How long to wait for the beginning of an answer: longer than a statement waits for another one to write.
const FIRST: Duration = Duration::from_secs(10);
/// How long to wait for the next piece of an answer.
const BETWEEN: Duration = Duration::from_secs(30);
/// Largest row, in bytes, as in Spin.
const LINE: usize = 128 << 20;

/// A server, and the connections to it that all guests share.
pub(crate) struct Server {
    base: String,
    /// Never shown.
    authorization: HeaderValue,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Server {
    /// # Errors
    /// For an address that is none. The token is not told.
    pub(crate) fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().context("its url is no address")?;
        ensure!(matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some(), "its url must begin with http:// or https://");
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}")).ok().context("its token holds what no header can")?;
        authorization.set_sensitive(true);
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        http.enforce_http(false);
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(http);
        // Shorter than what servers keep: a connection that the other side is just closing would lose a statement.
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(4)).build(https);
        Ok(Self { base, authorization, client })
    }

    async fn post(&self, base: &str, path: &str, body: &Json) -> Result<Incoming, String> {
        let request = Request::post(format!("{base}{path}"))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| format!("http error: `{error}`"))?;
        let sent = tokio::time::timeout(FIRST, self.client.request(request)).await;
        let answer = sent.map_err(|_| "http error: `operation timed out`".to_owned())?.map_err(|error| http_error(&error))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let status = answer.status();
        let body = tokio::time::timeout(BETWEEN, http_body_util::Limited::new(answer.into_body(), 64 << 10).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
        Err(format!("api error: `status={status}, body={}`", body.unwrap_or_default()))
    }
}

/// A guest's connection.
pub(crate) struct Remote {
    server: Arc<Server>,
    stream: Mutex<Stream>,
    /// Where it was opened: dropped elsewhere, it still says goodbye.
    runtime: OnceLock<tokio::runtime::Handle>,
}

/// What ties the statements of a connection together.
#[derive(Default)]
struct Stream {
    baton: Option<String>,
    /// Where the server wants to be asked from now on.
    base: Option<String>,
}

impl Remote {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server, stream: Mutex::default(), runtime: OnceLock::new() }
    }

    /// Runs one statement. An error is the end of the result, not an error of the call, as in Spin.
    pub(crate) async fn execute(self: Arc<Self>, statement: String, parameters: Vec<Value>) -> Head {
        let (head, first) = oneshot::channel();
        // A task of its own: a guest that no longer waits must not cut a statement off half way and leave its stream undefined.
        tokio::spawn(async move { self.run(&statement, &parameters, head).await });
        first.await.unwrap_or_else(|_| Head::failed(Error::Io("the statement's task ended".into())))
    }

    async fn run(&self, statement: &str, parameters: &[Value], head: oneshot::Sender<Head>) {
        let mut cursor = match self.open(statement, parameters).await {
            Ok(cursor) => cursor,
            Err(text) => return drop(head.send(Head::failed(Error::Io(text)))),
        };
        let columns = std::mem::take(&mut cursor.columns);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let end = loop {
            match cursor.row().await {
                Ok(Some(row)) => {
                    bytes += size(&row);
                    rows.push(row);
                    if rows.len() >= BUFFERED_ROWS || bytes >= BUFFERED_BYTES {
                        break None;
                    }
                }
                Ok(None) => break Some(Ok(())),
                Err(text) => break Some(Err(Error::Io(text))),
            }
        };
        if let Some(end) = end {
            return drop(head.send(Head { columns, rows, rest: Rest::Ended(end) }));
        }
        let (rows_in, rows_out) = mpsc::channel(4);
        let (end_in, end_out) = oneshot::channel();
        if head.send(Head { columns, rows, rest: Rest::Streamed(rows_out, end_out) }).is_err() {
            return;
        }
        let _ = end_in.send(cursor.stream_into(&rows_in).await);
    }

    /// Sends a statement and reads until its columns are known. Errors are in the words of Spin's client.
    async fn open(&self, statement: &str, parameters: &[Value]) -> Result<Cursor, String> {
        let _ = self.runtime.set(tokio::runtime::Handle::current());
        let first = hrana::first_statement(statement);
        if first.trim_matches(|character: char| character == ';' || character.is_whitespace()).is_empty() {
            return Err("API misuse: `no SQL statement provided`".into());
        }
        let arguments: Vec<hrana::Value> = parameters.iter().map(to_hrana).collect();
        let steps = json!({"steps": [{"stmt": hrana::statement(first, &arguments)}]});
        let wrap = |text: String| format!("Hrana: `{text}`");
        let mut stream = self.stream.lock().await;
        let base = stream.base.clone().unwrap_or_else(|| self.server.base.clone());
        let body = self.server.post(&base, "/v3/cursor", &json!({"baton": stream.baton, "batch": steps})).await.map_err(wrap)?;
        let mut lines = Lines { body, buffer: BytesMut::new(), seen: 0, ended: false };
        let first = lines.next().await.map_err(wrap)?.ok_or_else(|| wrap(CLOSED.into()))?;
        stream.baton = first["baton"].as_str().map(str::to_owned);
        if let Some(base) = first["base_url"].as_str() {
            stream.base = Some(base.trim_end_matches('/').to_owned());
        }
        drop(stream);
        loop {
            let Some(line) = lines.next().await.map_err(wrap)? else { return Err(wrap(CLOSED.into())) };
            match line["type"].as_str() {
                Some("step_begin") => {
                    let columns = line["cols"].as_array().into_iter().flatten();
                    let columns = columns.map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect();
                    return Ok(Cursor { columns, lines });
                }
                Some("step_error" | "error") => {
                    lines.finish().await;
                    return Err(wrap(refusal(&line)));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let Stream { baton: Some(baton), base } = std::mem::take(self.stream.get_mut()) else { return };
        let (server, Some(runtime)) = (self.server.clone(), self.runtime.get()) else { return };
        runtime.spawn(async move {
            let base = base.unwrap_or_else(|| server.base.clone());
            if let Ok(body) = server.post(&base, "/v3/pipeline", &json!({"baton": baton, "requests": [{"type": "close"}]})).await {
                let _ = body.collect().await;
            }
        });
    }
}

/// What an answer that ends too soon is called.
const CLOSED: &str = "cursor error: `cursor stream ended prematurely`";

/// A result that is being read.
struct Cursor {
    columns: Vec<String>,
    lines: Lines,
}

impl Cursor {
    async fn row(&mut self) -> Result<Option<RowResult>, String> {
        let wrap = |text: String| format!("Hrana: `{text}`");
        loop {
            let Some(line) = self.lines.next().await.map_err(wrap)? else { return Err(wrap(CLOSED.into())) };
            match line["type"].as_str() {
                Some("row") => {
                    let values = line["row"].as_array().into_iter().flatten().map(|value| hrana::Value::from_json(value).map(from_hrana));
                    let values: Option<_> = values.collect();
                    return values
                        .map(|values| Some(RowResult { values }))
                        .ok_or_else(|| wrap("json error: `a value of no known kind`".into()));
                }
                Some("step_end") => {
                    self.lines.finish().await;
                    return Ok(None);
                }
                Some("step_error" | "error") => {
                    self.lines.finish().await;
                    return Err(wrap(refusal(&line)));
                }
                _ => {}
            }
        }
    }

    /// The rest of a long result. A guest that no longer reads ends it.
    async fn stream_into(&mut self, rows_in: &mpsc::Sender<Vec<RowResult>>) -> Result<(), Error> {
        let mut rows = Vec::new();
        loop {
            let row = self.row().await.map_err(Error::Io)?;
            let ended = row.is_none();
            rows.extend(row);
            if (ended && !rows.is_empty()) || rows.len() >= BATCH {
                let sent = rows_in.send(std::mem::take(&mut rows)).await;
                sent.map_err(|_| Error::Io("column send error".into()))?;
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// What the database said no with, in the words of Spin's client.
fn refusal(line: &Json) -> String {
    let error = &line["error"];
    let Some(message) = error["message"].as_str() else {
        return format!("cursor error: `{}`", error.as_str().unwrap_or("no reason given"));
    };
    let code = error["code"].as_str().unwrap_or_default();
    format!("cursor error: `error at step {}: (error code: {code}) `{message}``", line["step"])
}

/// A body of one JSON value per line.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// So much of the buffer holds no end of a line.
    seen: usize,
    ended: bool,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Json>, String> {
        loop {
            if let Some(at) = self.buffer[self.seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.seen + at);
                self.buffer.advance(1);
                self.seen = 0;
                return read(&line).map(Some);
            }
            self.seen = self.buffer.len();
            if self.ended {
                let line = self.buffer.split();
                self.seen = 0;
                return if line.is_empty() { Ok(None) } else { read(&line).map(Some) };
            }
            if self.seen > LINE {
                return Err(format!("query result exceeds limit of {LINE} bytes"));
            }
            let frame = tokio::time::timeout(BETWEEN, self.body.frame()).await;
            match frame.map_err(|_| "cursor error: `operation timed out`".to_owned())? {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(format!("cursor error: `{}`", causes("", &error))),
                None => self.ended = true,
            }
        }
    }

    /// Reads what little follows a result, so that the connection can be used again.
    async fn finish(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}

fn read(line: &[u8]) -> Result<Json, String> {
    serde_json::from_slice(line).map_err(|error| format!("json error: `{error}`"))
}

fn http_error(error: &hyper_util::client::legacy::Error) -> String {
    if error.is_connect() {
        return format!(
            "http error: `{}`",
            error.source().map_or_else(|| error.to_string(), |source| causes("error trying to connect", source))
        );
    }
    let source = error.source().map_or_else(|| error.to_string(), |source| causes("", source));
    format!("http error: `{source}`")
}

/// An error with everything behind it.
fn causes(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(error) = next {
        let words = error.to_string();
        // Some repeat what is behind them.
        if !text.contains(&words) {
            let _ = write!(text, "{}{words}", if text.is_empty() { "" } else { ": " });
        }
        next = error.source();
    }
    text
}

fn to_hrana(value: &Value) -> hrana::Value {
    match value {
        Value::Integer(number) => hrana::Value::Integer(*number),
        Value::Real(number) => hrana::Value::Real(*number),
        Value::Text(text) => hrana::Value::Text(text.clone()),
        Value::Blob(blob) => hrana::Value::Blob(blob.clone()),
        Value::Null => hrana::Value::Null,
    }
}

fn from_hrana(value: hrana::Value) -> Value {
    match value {
        hrana::Value::Integer(number) => Value::Integer(number),
        hrana::Value::Real(number) => Value::Real(number),
        hrana::Value::Text(text) => Value::Text(text),
        hrana::Value::Blob(blob) => Value::Blob(blob),
        hrana::Value::Null => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_wrapped_as_spins_client_wraps_them() {
        let line = json!({"type": "step_error", "step": 0, "error": {"message": "SQLite error: insufficient_credits", "code": "SQLITE_CONSTRAINT"}});
        let text = "cursor error: `error at step 0: (error code: SQLITE_CONSTRAINT) `SQLite error: insufficient_credits``";
        assert_eq!(refusal(&line), text);
        assert_eq!(refusal(&json!({"type": "error", "error": "it broke"})), "cursor error: `it broke`");
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_token() {
        for url in ["ftp://a.test", "a.test", "http://"] {
            let error = format!("{:#}", Server::new(url, "geheim").err().expect("refused"));
            assert!(!error.contains("geheim"), "{error}");
        }
        let error = format!("{:#}", Server::new("https://a.test", "ge\nheim").err().expect("refused"));
        assert!(error.contains("token") && !error.contains("heim"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_error_at_once() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let remote = Arc::new(Remote::new(Arc::new(Server::new(&format!("http://127.0.0.1:{port}"), "").expect("an address"))));
        let head = remote.execute("SELECT 1".into(), Vec::new()).await;
        let Rest::Ended(Err(Error::Io(text))) = head.rest else { panic!("it was answered") };
        assert!(text.starts_with("Hrana: `http error: `error trying to connect: tcp connect error"), "{text}");
        assert!(text.contains("Connection refused"), "{text}");
    }
}
