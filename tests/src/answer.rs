//! What the app answered.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    asked: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Calls a component made to its host for one request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    pub sqlite: u64,
    pub kv: u64,
    pub http: u64,
}

impl Answer {
    pub(crate) async fn read(asked: String, response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{asked}: {status}, but its body broke off: {error:?}"));
        Self { asked, status, headers, body }
    }

    /// An answer that nobody gave.
    #[cfg(test)]
    pub(crate) fn made(asked: String, status: u16, content_type: &str, body: String) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        Self { asked, status, headers, body: body.into() }
    }

    /// A header; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// The problem the app tells, which should have this code and the shape every problem has.
    #[allow(clippy::must_use_candidate, reason = "asserting is a use")]
    pub fn problem(&self, code: &str) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self}");
        assert_eq!(problem["status"], self.status, "{self}");
        assert_eq!(problem["type"], "about:blank", "{self}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{self}");
        for field in ["title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {self}");
        }
        problem
    }

    /// The fields a problem complains about.
    #[must_use]
    pub fn wrong_fields(&self) -> Vec<String> {
        let problem = self.problem("invalid_input");
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {self}"));
        errors.iter().map(|error| error["field"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the request cost, as the host counted it.
    #[must_use]
    pub fn calls(&self) -> Calls {
        let text = self.header("x-host-calls");
        assert!(!text.is_empty(), "the host did not count: {self}");
        let mut calls = Calls::default();
        for (name, number) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            let number = number.parse().unwrap_or_else(|_| panic!("no number in {text}"));
            match name {
                "sqlite" => calls.sqlite = number,
                "kv" => calls.kv = number,
                "http" => calls.http = number,
                _ => {}
            }
        }
        calls
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(2_000)]);
        write!(f, "{} was answered {} with {:?}: {body}", self.asked, self.status, self.headers)
    }
}
