//! Answers, each with its `content-length`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use problem::Problem;
use serde::Serialize;
use spin_sdk::http::{EmptyBody, FullBody, box_body};

use crate::Reply;

/// A JSON answer.
///
/// # Errors
/// `internal` when the value cannot be written as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Reply, Problem> {
    let written = serde_json::to_vec(value).map_err(Problem::internal)?;
    Ok(bytes(status, "application/json", written.into()))
}

/// 200 with JSON.
///
/// # Errors
/// As [`json`].
pub fn ok<T: Serialize>(value: &T) -> Result<Reply, Problem> {
    json(StatusCode::OK, value)
}

/// 200 with JSON that was written before.
#[must_use]
pub fn prepared(json: Bytes) -> Reply {
    bytes(StatusCode::OK, "application/json", json)
}

/// 204.
#[must_use]
pub fn no_content() -> Reply {
    status(StatusCode::NO_CONTENT)
}

/// A status without a body.
#[must_use]
pub fn status(status: StatusCode) -> Reply {
    let mut response = Response::new(box_body(EmptyBody::new()));
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// 302 to `location`.
///
/// # Errors
/// `internal` for a location that cannot be a header.
pub fn redirect(location: &str) -> Result<Reply, Problem> {
    let mut response = status(StatusCode::FOUND);
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(location).map_err(Problem::internal)?);
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// The answer to a problem.
#[must_use]
pub fn problem(problem: &Problem, request_id: &str) -> Reply {
    let mut response = bytes(problem.status(), "application/problem+json", problem.body(request_id).into());
    let headers = response.headers_mut();
    if let Some(allow) = problem.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.code == problem::Code::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Whether a client's `If-None-Match` holds this tag: a list, `*`, and tags that a compressing proxy made weak (RFC 9110, 13.1.2).
#[must_use]
pub fn matches(known: &str, etag: &str) -> bool {
    known.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Adds a header to an answer.
///
/// # Errors
/// `internal` for a value that cannot be a header.
pub fn with_header(mut response: Reply, name: header::HeaderName, value: &str) -> Result<Reply, Problem> {
    response.headers_mut().append(name, HeaderValue::from_str(value).map_err(Problem::internal)?);
    Ok(response)
}

/// An answer with a body of any type.
#[must_use]
pub fn bytes(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Reply {
    let length = bytes.len();
    let mut response = Response::new(box_body(FullBody::new(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}
