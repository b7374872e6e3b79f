//! One request from the door to the log line: what every component does the same way.
//!
//! A component is a [`Service`] (its name and the settings it holds) and a handler from [`Call`] to [`Reply`] or
//! [`Problem`]. Here the request gets its id, a problem becomes its answer, a buffered answer states its length (without it a
//! keep-alive client of Spin waits 44 ms), and one JSON line tells an operator what happened.

use std::{
    collections::BTreeMap,
    io::Write as _,
    rc::Rc,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use config::Settings;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
pub use page::Page;
use percent_encoding::percent_decode_str;
use problem::{Code, Problem};
use serde::de::DeserializeOwned;
use spin_sdk::http::{BoxBody, IntoResponse};

mod client;
pub mod reply;

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

/// Longest JSON body of a request, in bytes.
const JSON_CAP: usize = 64 * 1024;

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

    /// Takes the body, to be read as a stream.
    ///
    /// # Errors
    /// `internal` the second time.
    pub fn take_body(&mut self) -> Result<RequestBody, Problem> {
        self.body.take().ok_or_else(|| Problem::internal("the body was taken twice"))
    }

    /// The whole body, at most `cap` bytes.
    ///
    /// # Errors
    /// `payload_too_large`; `invalid_input` for a body that breaks off.
    pub async fn bytes(&mut self, cap: usize) -> Result<Bytes, Problem> {
        let too_large = || Problem::new(Code::PayloadTooLarge, format!("The body may have at most {cap} bytes."));
        if self.stated_length().is_some_and(|length| length > cap as u64) {
            return Err(too_large());
        }
        let mut body = self.take_body()?;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::invalid("body", "The body broke off.").because(error))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > cap {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
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
        Ok(Client::of(&self.headers, self.settings.text("trusted_proxy")?))
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

/// Serves one request of a component.
pub async fn serve<F, Fut>(service: &'static Service, request: Request, handler: F) -> impl IntoResponse + use<F, Fut>
where
    F: FnOnce(Call) -> Fut,
    Fut: Future<Output = Result<Reply, Problem>>,
{
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    let noted = Arc::new(Noted::default());
    let path = parts.uri.path().to_owned();
    let method = parts.method.clone();

    let result = async {
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
    }
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
    if let Ok(value) = HeaderValue::from_str(&format!("total;dur={:.1}", elapsed.as_secs_f64() * 1e3)) {
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
    log(&serde_json::json!({
        "level": if response.status().is_server_error() { "error" } else { "info" },
        "event": "request", "request_id": request_id, "component": service.name, "method": method.as_str(),
        "path": path, "status": response.status().as_u16(), "code": code, "user": noted.user.get(),
        "ms": elapsed.as_millis() as u64, "cause": cause,
    }));
    response
}

/// Writes a line in one piece. Nothing buffers stderr here: written as it is formatted, each quote and comma would be a call of the host.
fn log(line: &serde_json::Value) {
    let line = format!("{line}\n");
    // A log that cannot be written is no reason to fail a request.
    let _ = std::io::stderr().write_all(line.as_bytes());
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
    proptest::proptest! {
        #[test]
        fn any_query_is_read(query in ".{0,200}") {
            let (map, repeated) = parse_query(&query);
            proptest::prop_assert!(map.len() <= query.split('&').count());
            proptest::prop_assert!(!repeated || query.contains('&'));
        }
    }
}
