//! Calls to the world outside, each bounded in time and size.
//!
//! Spin follows no redirects and would wait 600 seconds for each phase of a call; every call here names its own limit.
//! A call is logged as one line (service, method, host, status, attempt, duration, sizes), never with its path, query or body: those may
//! carry signatures and people's data. It carries on the trace of the request it is made for (`traceparent`).

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use meter::{Store, millis};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use spin_sdk::{
    http::{BoxBody, EmptyBody, FullBody, box_body},
    wasip3::{
        http::types::{ErrorCode, RequestOptions},
        http_compat::RequestOptionsExtension,
    },
};

pub use spin_sdk::http::Response;

mod breaker;

pub use breaker::{Breaker, Pass};

/// A request on its way out.
pub type Request = http::Request<BoxBody>;

/// Why there is no usable answer. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The call never reached the other side: it had no effect there.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Sent, perhaps received, no answer: the effect is unknown.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke on the way: the effect is unknown.
    #[error("connection lost: {0}")]
    Broken(String),
    /// The answer is longer than we are willing to read.
    #[error("the answer exceeds {0} bytes")]
    TooLarge(usize),
    /// It has failed so often lately that it is left alone for a while. Nothing was sent.
    #[error("left alone after {0} failures in a row")]
    LeftAlone(u32),
    /// The answer is not what the protocol says.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl Failure {
    /// Whether the other side surely did nothing, so that the call may be repeated.
    #[must_use]
    pub fn had_no_effect(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::LeftAlone(_))
    }
}

/// A request without a body. `content-length: 0` keeps it from being sent in chunks, which some stores refuse.
///
/// # Errors
/// [`Failure::NotSent`] for a URL that is none.
pub fn empty(method: Method, url: &str) -> Result<Request, Failure> {
    build(method, url, box_body(EmptyBody::new()), 0)
}

/// A request with a whole body.
///
/// # Errors
/// As [`empty`].
pub fn full(method: Method, url: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Request, Failure> {
    let body = body.into();
    let length = body.len() as u64;
    let mut request = build(method, url, box_body(FullBody::new(body)), length)?;
    let content_type = HeaderValue::from_str(content_type).map_err(|error| Failure::NotSent(error.to_string()))?;
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(request)
}

fn build(method: Method, url: &str, body: BoxBody, length: u64) -> Result<Request, Failure> {
    http::Request::builder()
        .method(method)
        .uri(url)
        .header(header::CONTENT_LENGTH, length)
        .body(body)
        .map_err(|error| Failure::NotSent(error.to_string()))
}

/// Name and value pairs as a query or form body (`application/x-www-form-urlencoded`), with everything but unreserved characters
/// percent-encoded.
#[must_use]
pub fn form(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{}={}", segment(name), segment(value))).collect::<Vec<_>>().join("&")
}

/// A text as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Sends a request to `service` and waits for the head of the answer, at most `limit` in all.
///
/// # Errors
/// See [`Failure`]. A status of 400 and above is an answer, not a failure.
pub async fn send(service: &'static str, request: Request, limit: Duration) -> Result<Response, Failure> {
    try_to_send(service, request, limit, 1).await
}

/// As [`send`]; `attempt` is the number of this try of the same call, from 1.
///
/// # Errors
/// As [`send`].
pub async fn try_to_send(service: &'static str, mut request: Request, limit: Duration, attempt: u32) -> Result<Response, Failure> {
    let started = Instant::now();
    let method = request.method().clone();
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let sent = stated_length(request.headers());
    request.extensions_mut().insert(RequestOptionsExtension(options(limit)));
    name_the_trace(request.headers_mut());
    let answer = {
        let _waiting = meter::waiting(Store::Outbound(service));
        meter::called(Store::Outbound(service));
        within(limit, async { spin_sdk::http::send(request).await.map_err(explain) }).await
    };
    let (status, received, cause) = match &answer {
        Ok(response) => (response.status().as_u16(), stated_length(response.headers()), None),
        Err(failure) => (0, None, Some(failure.to_string())),
    };
    meter::log(serde_json::json!({
        "level": if cause.is_some() { "warn" } else { "info" }, "event": "outbound_call", "service": service,
        "method": method.as_str(), "host": host, "status": status, "attempt": attempt, "ms": millis(started.elapsed()),
        "bytes_sent": sent, "bytes_received": received, "cause": cause,
    }));
    answer
}

/// The length of a body, where its sender states it.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Tells the other side which trace the call belongs to. Of a signed URL only the named headers are signed, and these are none of them.
fn name_the_trace(headers: &mut HeaderMap) {
    let Some(meter) = meter::current() else { return };
    if let Ok(value) = HeaderValue::from_str(&meter.trace.traceparent()) {
        headers.insert("traceparent", value);
    }
    if let Some(value) = meter.trace.tracestate().and_then(|state| HeaderValue::from_str(state).ok()) {
        headers.insert("tracestate", value);
    }
}

/// Reads the whole body of an answer of `service`, at most `cap` bytes and within `limit`.
///
/// # Errors
/// See [`Failure`].
pub async fn read(service: &'static str, response: Response, cap: usize, limit: Duration) -> Result<Bytes, Failure> {
    let _waiting = meter::waiting(Store::Outbound(service));
    within(limit, async {
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > cap {
                return Err(Failure::TooLarge(cap));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    })
    .await
}

/// Longest JSON answer of a provider that is read, in bytes.
const JSON_CAP: usize = 1 << 20;

/// Sends a request and parses the JSON answer, whatever its status.
///
/// # Errors
/// See [`Failure`]; an answer that is not JSON of the expected shape is [`Failure::Unexpected`].
pub async fn json<T: DeserializeOwned>(service: &'static str, request: Request, limit: Duration) -> Result<(StatusCode, T), Failure> {
    let response = send(service, request, limit).await?;
    let status = response.status();
    let bytes = read(service, response, JSON_CAP, limit).await?;
    let value = serde_json::from_slice(&bytes).map_err(|error| Failure::Unexpected(format!("status {status}, {}", place_in(&error))))?;
    Ok((status, value))
}

/// As [`json`] for requests that may be repeated: after a passing fault (no connection, a broken one, 429, 5xx) it is sent again, twice at
/// most, as long as the first `limit` has not passed.
///
/// # Errors
/// See [`Failure`]: of the last time.
pub async fn json_again<T: DeserializeOwned>(
    service: &'static str,
    request: impl Fn() -> Result<Request, Failure>,
    limit: Duration,
) -> Result<(StatusCode, T), Failure> {
    let started = Instant::now();
    for attempt in 1.. {
        let answer = async {
            let response = try_to_send(service, request()?, limit, attempt).await?;
            let status = response.status();
            Ok((status, read(service, response, JSON_CAP, limit).await?))
        }
        .await;
        let passing = match &answer {
            Ok((status, _)) => is_passing(*status),
            Err(failure) => matches!(failure, Failure::NotSent(_) | Failure::Broken(_)),
        };
        if passing && attempt < 3 && started.elapsed() < limit {
            pause(attempt).await;
            continue;
        }
        let (status, bytes) = answer?;
        let value =
            serde_json::from_slice(&bytes).map_err(|error| Failure::Unexpected(format!("status {status}, {}", place_in(&error))))?;
        return Ok((status, value));
    }
    Err(Failure::TimedOut(limit))
}

/// What was wrong with somebody's JSON and where, for the log. The parser's own text may quote what it read, which can be anything.
#[must_use]
pub fn place_in(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}

/// A provider's code (a number, or a word such as `invalid_grant`), for the log. What is neither may be text about a person, and is not
/// repeated.
#[must_use]
pub fn code_in(value: &serde_json::Value) -> String {
    let is_code = |text: &str| {
        (1..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    match value {
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::String(text) if is_code(text) => text.clone(),
        serde_json::Value::Null => "none".to_owned(),
        _ => "other".to_owned(),
    }
}

/// Whether the same request may be answered otherwise in a moment.
#[must_use]
pub fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// Waits before a repetition: about 0.2 s, 0.4 s, 0.8 s, ..., each up to half shorter or longer, so that those who failed together do not come
/// back together.
pub async fn pause(attempt: u32) {
    let mut draw = [0_u8];
    let _ = getrandom::fill(&mut draw);
    let base = Duration::from_millis(100 << attempt.min(6));
    spin_sdk::time::sleep(base.mul_f64(0.5 + f64::from(draw[0]) / 255.0)).await;
}

/// Runs `work` for at most `limit`.
///
/// # Errors
/// [`Failure::TimedOut`], or the error of the work.
pub async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    clock::within(limit, work).await.unwrap_or(Err(Failure::TimedOut(limit)))
}

fn options(limit: Duration) -> RequestOptions {
    let options = RequestOptions::new();
    let nanoseconds = u64::try_from(limit.as_nanos()).ok();
    // A host that doesn't support one of these keeps its default; `within` bounds the call all the same.
    let _ = options.set_connect_timeout(nanoseconds);
    let _ = options.set_first_byte_timeout(nanoseconds);
    let _ = options.set_between_bytes_timeout(nanoseconds);
    options
}

fn explain(error: ErrorCode) -> Failure {
    match error {
        ErrorCode::HttpRequestDenied
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::DnsTimeout
        | ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpProhibited
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_) => Failure::NotSent(error.to_string()),
        other => Failure::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn of_a_providers_words_only_codes_get_into_the_log() {
        for (value, told) in [
            (json!("invalid_grant"), "invalid_grant"),
            (json!(501), "501"),
            (json!(null), "none"),
            (json!("ada@example.com"), "other"),
            (json!("Your prompt was: shorter"), "other"),
            (json!({"code": "x"}), "other"),
        ] {
            assert_eq!(super::code_in(&value), told);
        }
        let error = serde_json::from_str::<i64>("\"ada@example.com\"").expect_err("no number");
        assert!(error.to_string().contains("ada@"), "which is why");
        assert_eq!(super::place_in(&error), "Data error at line 1 column 17");
    }

    #[test]
    fn a_form_keeps_what_it_is_given() {
        assert_eq!(super::form(&[("code", "4/0A+b c"), ("é", "~-._")]), "code=4%2F0A%2Bb%20c&%C3%A9=~-._");
    }
}
