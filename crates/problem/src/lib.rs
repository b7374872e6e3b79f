//! What can go wrong, in the words a client sees: problem details for HTTP APIs (RFC 9457).
//!
//! A [`Problem`] has two faces. `code`, `detail` and `errors` are for the client. `cause` is for the operator: it goes to
//! the request's log line and never into the answer.

use http::StatusCode;
use serde::Serialize;

/// The stable codes of the HTTP contract. A client may branch on them; they never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Code {
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    IdempotencyKeyReused,
    PayloadTooLarge,
    UnsupportedMediaType,
    InvalidInput,
    InsufficientCredits,
    RateLimited,
    InvalidSignature,
    ProviderUnavailable,
    StorageUnavailable,
    ServiceUnavailable,
    Internal,
}

impl Code {
    /// Every code, for tests and documentation.
    pub const ALL: [Self; 16] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::IdempotencyKeyReused,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidInput,
        Self::InsufficientCredits,
        Self::RateLimited,
        Self::InvalidSignature,
        Self::ProviderUnavailable,
        Self::StorageUnavailable,
        Self::ServiceUnavailable,
        Self::Internal,
    ];

    /// Status and constant title. The status says what the caller should do next.
    #[must_use]
    pub fn meaning(self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "Sign in first"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "Not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::Conflict => (StatusCode::CONFLICT, "Conflict"),
            Self::IdempotencyKeyReused => (StatusCode::CONFLICT, "Idempotency key reused with another request"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Payload too large"),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type"),
            Self::InvalidInput => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid input"),
            Self::InsufficientCredits => (StatusCode::PAYMENT_REQUIRED, "Not enough credits"),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::InvalidSignature => (StatusCode::UNAUTHORIZED, "Invalid signature"),
            Self::ProviderUnavailable => (StatusCode::BAD_GATEWAY, "Provider unavailable"),
            Self::StorageUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "Storage unavailable"),
            Self::ServiceUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }
}

/// One field of the input that is wrong.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Where: a JSON field (`hairstyles[1]`), a form part (`file`) or a header name.
    pub field: String,
    /// What is wrong with it, for people.
    pub message: String,
}

/// A refused or failed request.
#[derive(Clone, Debug)]
pub struct Problem {
    pub code: Code,
    /// For people: what happened and what to do about it. Never holds internals.
    pub detail: String,
    pub errors: Vec<FieldError>,
    /// Seconds until a retry may help (`Retry-After`).
    pub retry_after: Option<u32>,
    /// Methods that would have been allowed (`Allow`).
    pub allow: Option<&'static str>,
    /// For the operator's log only.
    pub cause: Option<String>,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None, allow: None, cause: None }
    }

    /// Our own fault. The client learns nothing but the request id; `cause` goes to the log.
    #[must_use]
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, "Something went wrong on our side. Quote the request id when you report it.").because(cause)
    }

    /// 404, also for things that exist but belong to somebody else.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// 422 about one field.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut problem = Self::new(Code::InvalidInput, message.clone());
        problem.errors.push(FieldError { field: field.into(), message });
        problem
    }

    /// 405. `allow` is the value of the `Allow` header.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut problem = Self::new(Code::MethodNotAllowed, format!("This address answers to {allow}."));
        problem.allow = Some(allow);
        problem
    }

    /// Adds what the operator should know.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.code.meaning().0
    }

    /// The body of the answer, `application/problem+json`.
    #[must_use]
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: Code,
            request_id: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }
        let (status, title) = self.code.meaning();
        serde_json::to_vec(&Body {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
            errors: &self.errors,
        })
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_name_and_status() {
        let table: Vec<String> = Code::ALL
            .iter()
            .map(|code| format!("{} {}", serde_json::to_string(code).expect("plain enum"), code.meaning().0.as_u16()))
            .collect();
        assert_eq!(
            table.join("\n").replace('"', ""),
            "unauthenticated 401\nforbidden 403\nnot_found 404\nmethod_not_allowed 405\nconflict 409\nidempotency_key_reused 409\n\
             payload_too_large 413\nunsupported_media_type 415\ninvalid_input 422\ninsufficient_credits 402\nrate_limited 429\n\
             invalid_signature 401\nprovider_unavailable 502\nstorage_unavailable 503\nservice_unavailable 503\ninternal 500"
        );
    }

    #[test]
    fn the_cause_never_reaches_the_client() {
        let problem = Problem::internal("no such table: users");
        let body = String::from_utf8(problem.body("r1")).expect("utf-8");
        assert!(!body.contains("users"), "{body}");
        assert!(body.contains(r#""request_id":"r1""#), "{body}");
    }
}
