//! One request from the door to the log line: what every component does the same way.
//!
//! A component is a [`Service`] (its name and the settings it holds) and a handler from [`Call`] to [`Reply`] or
//! [`Problem`]. Here the request gets its id and its place in a trace, a problem becomes its answer, a buffered answer states its length
//! (without it a keep-alive client of Spin waits 44 ms), and one JSON line tells an operator what happened and what it cost.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use config::Settings;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyDataStream;
use meter::{Cost, Meter, Trace, millis};
pub use page::Page;
use percent_encoding::percent_decode_str;
use problem::{Code, Problem};
use serde::de::DeserializeOwned;
use serde_json::json;
use spin_sdk::http::{BoxBody, IntoResponse};

pub mod body;
mod client;
pub mod reply;

pub use body::Body;
pub use client::Client;

/// A request as Spin hands it over.
pub type Request = spin_sdk::http::Request;
/// The unread body of a request.
pub type RequestBody = spin_sdk::wasip3::http_compat::IncomingRequestBody;
/// An answer.
pub type Reply = http::Response<BoxBody>;

/// What a component says about itself.
pub struct Service {
    /// As in spin.toml.
    pub name: &'static str,
    /// The variables that spin.toml maps for it.
    pub settings: &'static [&'static str],
}

/// One request.
pub struct Call {
    pub method: Method,
    pub headers: HeaderMap,
    pub settings: Rc<Settings>,
    /// Taken from `x-request-id` if well-formed, made here otherwise.
    pub request_id: String,
    path: String,
    query: BTreeMap<String, String>,
    repeated: bool,
    body: Option<RequestBody>,
    noted: Arc<Noted>,
}

/// What is learned of a request on the way, for its answer's headers and its log line.
#[derive(Default)]
struct Noted {
    user: OnceLock<String>,
    budget: Mutex<Option<Budget>>,
}

/// How much of a rate limit is left (`RateLimit` headers, draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What is counted together.
    pub class: &'static str,
    /// Requests a window.
    pub limit: i64,
    /// Seconds.
    pub window: i64,
    /// Requests; below zero: one too many.
    pub left: i64,
    /// Seconds.
    pub resets_in: i64,
}

/// Whether this instance has said that it cannot tell clients apart.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Longest JSON body of a request, in bytes.
const JSON_CAP: usize = 64 * 1024;

/// How much of a body that is refused for its length is still read and thrown away, in bytes. A client that is still sending when the
/// connection closes may never see the answer; one that sends more than this has to live with that.
pub const REST: u64 = 4 << 20;

/// Reads what is left of a refused body, at most [`REST`].
pub async fn drain<E>(mut body: impl futures::Stream<Item = Result<Bytes, E>> + Unpin) {
    let mut read = 0;
    while let Some(Ok(data)) = body.next().await {
        read += data.len() as u64;
        if read >= REST {
            return;
        }
    }
}

impl Call {
    /// The path's segments, percent-decoded, without empty ones at the ends: `/api/tasks/` is `["api", "tasks"]`.
    ///
    /// # Errors
    /// `not_found` for a path that is not UTF-8 once decoded: nothing of ours lives there.
    pub fn segments(&self) -> Result<Vec<String>, Problem> {
        self.path
            .trim_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8().map(|text| text.into_owned()))
            .collect::<Result<_, _>>()
            .map_err(|_| Problem::not_found("address"))
    }

    /// A query parameter, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Whether a query parameter came more than once; sign-in refuses that.
    #[must_use]
    pub fn has_repeated_query(&self) -> bool {
        self.repeated
    }

    /// A whole-number query parameter within bounds.
    ///
    /// # Errors
    /// `invalid_input` naming the parameter.
    pub fn number(&self, name: &str, default: i64, bounds: std::ops::RangeInclusive<i64>) -> Result<i64, Problem> {
        let Some(text) = self.query(name) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|value| bounds.contains(value))
            .ok_or_else(|| Problem::invalid(name, format!("{name} should be a whole number from {} to {}.", bounds.start(), bounds.end())))
    }

    /// The part of a list that is asked for.
    ///
    /// # Errors
    /// `invalid_input` naming the parameter.
    pub fn page(&self) -> Result<Page, Problem> {
        Page::parse(self.number("limit", 20, 1..=100)?, self.number("offset", 0, 0..=1_000_000)?, self.query("cursor"))
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether a browser goes here, which would show its reader a page: `Accept` names `text/html`, with a weight above zero.
    #[must_use]
    pub fn takes_html(&self) -> bool {
        accepts(self.header("accept").unwrap_or_default(), "text/html").unwrap_or_default()
    }

    /// The token of `Authorization: Bearer`; the scheme's name may be written in any case (RFC 9110, 11.1).
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The media type of the body, lower-case, without parameters.
    #[must_use]
    pub fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The body's length as the client states it.
    #[must_use]
    pub fn stated_length(&self) -> Option<u64> {
        self.header("content-length").and_then(|text| text.parse().ok())
    }

    /// Takes the body, to be read as a stream that is waited for so long in all.
    ///
    /// # Errors
    /// `internal` the second time.
    pub fn take_body(&mut self, limit: Duration) -> Result<Body, Problem> {
        let body = self.body.take().ok_or_else(|| Problem::internal("the body was taken twice"))?;
        Ok(Body::new(BodyDataStream::new(body), limit))
    }

    /// The whole body, at most `cap` bytes, waited for [`body::FOR_WORDS`] at most.
    ///
    /// # Errors
    /// `payload_too_large`; `invalid_input` for a body that breaks off or does not come.
    pub async fn bytes(&mut self, cap: usize) -> Result<Bytes, Problem> {
        let mut too_large = self.stated_length().is_some_and(|length| length > cap as u64);
        let mut body = self.take_body(body::FOR_WORDS)?;
        let (mut bytes, mut read) = (BytesMut::new(), 0);
        while let Some(data) = body.next().await {
            match data {
                Ok(data) => {
                    read += data.len();
                    too_large |= read > cap;
                    if !too_large {
                        bytes.extend_from_slice(&data);
                    } else if read as u64 >= REST {
                        break;
                    }
                }
                Err(_) if too_large => break,
                Err(fault) => return Err(fault.into()),
            }
        }
        if too_large {
            return Err(Problem::new(Code::PayloadTooLarge, format!("The body may have at most {cap} bytes.")));
        }
        Ok(bytes.freeze())
    }

    /// The body as JSON of the expected shape.
    ///
    /// # Errors
    /// `unsupported_media_type`, `payload_too_large`, `invalid_input`.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        Ok(self.json_and_bytes().await?.0)
    }

    /// As [`Call::json`], with the body as it came.
    ///
    /// # Errors
    /// As [`Call::json`].
    pub async fn json_and_bytes<T: DeserializeOwned>(&mut self) -> Result<(T, Bytes), Problem> {
        if self.media_type() != "application/json" {
            return Err(Problem::new(Code::UnsupportedMediaType, "Send JSON, with content-type: application/json."));
        }
        let bytes = self.bytes(JSON_CAP).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| Problem::invalid("body", format!("The JSON does not fit: {error}.")))?;
        Ok((value, bytes))
    }

    /// Where the request comes from; `None` when nothing says so. For components that hold the variable `trusted_proxy`.
    ///
    /// # Errors
    /// `internal` for the others.
    pub fn client(&self) -> Result<Option<Client>, Problem> {
        let trusted = self.settings.text("trusted_proxy")?;
        let client = Client::of(&self.headers, trusted);
        // On this machine that is as it should be. Where strangers come it means that no limit counts addresses, and somebody should know.
        if client.is_none_or(|client| !client.distinct) && !self.settings.is_loopback()? && !TOLD.swap(true, Ordering::Relaxed) {
            meter::log(serde_json::json!({"level": "warn", "event": "clients_not_told_apart"}));
        }
        Ok(client)
    }

    /// Notes who is calling, for the log line.
    pub fn note_user(&self, user_id: &str) {
        let _ = self.noted.user.set(user_id.to_owned());
    }

    /// Notes what is left of a rate limit, for the answer's headers.
    pub fn note_budget(&self, budget: Budget) {
        *self.noted.budget.lock().unwrap_or_else(PoisonError::into_inner) = Some(budget);
    }
}

/// Whether a list such as `Accept` or `Accept-Encoding` takes something: `None` where it does not name it, no where its weight is zero
/// (RFC 9110, 12.4.2).
#[must_use]
pub fn accepts(list: &str, name: &str) -> Option<bool> {
    // Reading a number would bring 15 KiB along.
    let is_zero = |weight: &str| weight.trim().bytes().all(|digit| b"0.".contains(&digit));
    let named = list.split(',').filter_map(|entry| {
        let (entry, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
        entry.trim().eq_ignore_ascii_case(name).then(|| !weight.is_some_and(is_zero))
    });
    named.reduce(|one, other| one || other)
}

/// Serves one request of a component.
pub async fn serve<F, Fut>(service: &'static Service, request: Request, handler: F) -> impl IntoResponse + use<F, Fut>
where
    F: FnOnce(Call) -> Fut,
    Fut: Future<Output = Result<Reply, Problem>>,
{
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    let meter = Rc::new(Meter::new(request_id.clone(), trace(&parts.headers)));
    let noted = Arc::new(Noted::default());
    let path = parts.uri.path().to_owned();
    let method = parts.method.clone();
    let route = route(&parts.headers);

    let work = async {
        let settings = Settings::load(service.settings).await?;
        let (query, repeated) = parse_query(parts.uri.query().unwrap_or_default());
        handler(Call {
            method: parts.method,
            headers: parts.headers,
            settings,
            request_id: request_id.clone(),
            path: path.clone(),
            query,
            repeated,
            body: Some(body),
            noted: noted.clone(),
        })
        .await
    };
    let result = meter::scope(meter.clone(), async {
        let result = work.await;
        if let Err(problem) = &result {
            count_fault(service, problem).await;
        }
        result
    })
    .await;

    let (mut response, code, cause) = match result {
        Ok(response) => (response, None, None),
        Err(problem) => (reply::problem(&problem, &request_id), Some(problem.code), problem.cause),
    };
    let elapsed = started.elapsed();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert("x-request-id", value);
    }
    if let Ok(value) = HeaderValue::from_str(&meter.server_timing(elapsed)) {
        headers.insert("server-timing", value);
    }
    if let Some(budget) = *noted.budget.lock().unwrap_or_else(PoisonError::into_inner) {
        let Budget { class, limit, window, left, resets_in } = budget;
        for (name, value) in [
            ("ratelimit-policy", format!("\"{class}\";q={limit};w={window}")),
            ("ratelimit", format!("\"{class}\";r={};t={resets_in}", left.max(0))),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let (database, cache, outbound) = (meter.database(), meter.cache(), meter.outbound());
    // Put in one by one: to collect them would bring a sorting algorithm along, of several KiB.
    let mut services = serde_json::Map::new();
    for (service, cost) in meter.services() {
        services.insert(service.to_owned(), told(cost));
    }
    // Outside of the scope: the line names the request itself, with its span.
    meter::log(json!({
        "level": if response.status().is_server_error() { "error" } else { "info" },
        "event": "request", "request_id": request_id, "trace_id": meter.trace.id(), "span_id": meter.trace.span_id(),
        "parent_id": meter.trace.parent_id(), "component": service.name, "route": route, "path": without_ids(&path),
        "method": method.as_str(), "status": response.status().as_u16(), "code": code, "user": noted.user.get(),
        "ms": millis(elapsed), "sqlite": database.calls, "sqlite_ms": millis(database.waited), "kv": cache.calls,
        "kv_ms": millis(cache.waited), "http": outbound.calls, "http_ms": millis(outbound.waited), "services": services, "cause": cause,
    }));
    response
}

/// Counts a problem for the alarms if it is a fault. Who leads a browser on instead of answering the problem counts it all the same.
pub async fn count_fault(service: &Service, problem: &Problem) {
    if is_fault(problem) {
        signal::request_failed(service.name, clock::now()).await;
    }
}

fn told(cost: Cost) -> serde_json::Value {
    json!({"calls": cost.calls, "ms": millis(cost.waited)})
}

/// Whether a problem is one that an operator should be woken for when there are many. A database that is busy is not counted: writing that
/// down would have to wait for it as well. It shows in the probes of the stores.
fn is_fault(problem: &Problem) -> bool {
    problem.status().is_server_error() && problem.code != Code::ServiceUnavailable
}

/// The trace that the request belongs to.
fn trace(headers: &HeaderMap) -> Trace {
    let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect::<Vec<_>>();
    Trace::begin(&all("traceparent"), &all("tracestate"))
}

/// The route of spin.toml that led here. Spin writes it after any forged one of that name, so the last counts.
fn route(headers: &HeaderMap) -> Option<String> {
    let route = headers.get_all("spin-matched-route").iter().next_back()?;
    route.to_str().ok().map(str::to_owned)
}

/// A path for the log: whatever may be an id, or made up by a stranger, is a star.
fn without_ids(path: &str) -> String {
    let is_word = |segment: &str| segment.len() <= 16 && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let mut shown = String::new();
    for segment in path.split('/').skip(1).take(7) {
        shown.push('/');
        shown.push_str(if is_word(segment) { segment } else { "*" });
    }
    shown
}

/// A client may bring its own id if it is one: 8 to 64 of `[A-Za-z0-9._-]`.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let well_formed = |id: &&str| (8..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    given.filter(well_formed).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

fn parse_query(query: &str) -> (BTreeMap<String, String>, bool) {
    let mut map = BTreeMap::new();
    let mut repeated = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        repeated |= map.insert(decode(name), decode(value)).is_some();
    }
    (map, repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once_and_repetition_is_noticed() {
        let (map, repeated) = parse_query("code=4%2F0A%2Bb&state=a+b&empty");
        assert_eq!((map["code"].as_str(), map["state"].as_str(), map["empty"].as_str()), ("4/0A+b", "a b", ""));
        assert!(!repeated);
        assert!(parse_query("a=1&a=2").1);
    }

    #[test]
    fn a_strange_request_id_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("order-12345"));
        assert_eq!(request_id(&headers), "order-12345");
        for strange in ["short", "has space in it", "quote\"inside-it"] {
            headers.insert("x-request-id", HeaderValue::from_static(strange));
            assert_ne!(request_id(&headers), strange);
        }
    }

    #[test]
    fn the_log_shows_where_without_showing_whose() {
        for (path, shown) in [
            ("/api/tasks/TASK_1a/cancel", "/api/tasks/*/cancel"),
            ("/api/uploads/0198c0de-0000-7000-8000-000000000000", "/api/uploads/*"),
            ("/files/cache/0198c0de/1_a.jpg", "/files/cache/*/*"),
            ("/webhooks/kie/ada@example.com", "/webhooks/kie/*"),
            ("/api/admin/events/evt_1/replay", "/api/admin/events/*/replay"),
            ("/health/", "/health/"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g"),
        ] {
            assert_eq!(without_ids(path), shown);
        }
    }

    #[test]
    fn the_route_is_the_one_that_spin_wrote() {
        let mut headers = HeaderMap::new();
        assert_eq!(route(&headers), None);
        headers.append("spin-matched-route", HeaderValue::from_static("/forged"));
        headers.append("spin-matched-route", HeaderValue::from_static("/api/tasks/..."));
        assert_eq!(route(&headers).as_deref(), Some("/api/tasks/..."));
    }

    #[test]
    fn faults_of_ours_are_counted_and_refusals_are_not() {
        let counted: Vec<_> = Code::ALL.into_iter().filter(|code| is_fault(&Problem::new(*code, ""))).collect();
        assert_eq!(counted, [Code::ProviderUnavailable, Code::StorageUnavailable, Code::Internal]);
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read(query in ".{0,200}") {
            let (map, repeated) = parse_query(&query);
            proptest::prop_assert!(map.len() <= query.split('&').count());
            proptest::prop_assert!(!repeated || query.contains('&'));
        }
    }
}
