//! Webhooks: signed events.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use problem::{Code, Problem};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

use crate::entities::SUBSCRIPTION_EVENTS;

/// A webhook that creem really sent.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// `evt_...`, the same for every delivery.
    pub id: String,
    #[serde(rename = "eventType")]
    pub kind: String,
    /// Unix milliseconds.
    #[serde(default)]
    pub created_at: Option<i64>,
    pub object: Value,
}

impl Event {
    /// Verifies and reads a webhook.
    ///
    /// # Errors
    /// `invalid_signature` unless `creem-signature` is the hex HMAC-SHA256 of the raw body (an empty `secret` accepts nothing);
    /// `invalid_input` for a signed body that is no event.
    pub fn verify(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let refuse = |why: &str| Problem::new(Code::InvalidSignature, "The signature does not fit this webhook.").because(why);
        if secret.is_empty() {
            return Err(refuse("variable creem_webhook_secret is empty"));
        }
        let given = headers.get("creem-signature").and_then(|value| value.to_str().ok()).ok_or_else(|| refuse("no signature"))?;
        let given = given.trim().strip_prefix("sha256=").unwrap_or(given.trim());
        let given = from_hex(given).ok_or_else(|| refuse("the signature is no hex"))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(body);
        mac.verify_slice(&given).map_err(|_| refuse("wrong signature"))?;
        serde_json::from_slice(body).map_err(|error| Problem::invalid("body", "The event cannot be read.").because(error))
    }

    /// Whether this tells about a subscription, in a way we know.
    #[must_use]
    pub fn is_about_a_subscription(&self) -> bool {
        SUBSCRIPTION_EVENTS.contains(&self.kind.as_str())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn signed(signature: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("creem-signature", HeaderValue::from_static(signature));
        headers
    }

    #[test]
    fn the_published_vector_passes_and_nothing_near_it() {
        const BODY: &[u8] = br#"{"id":"evt_1"}"#;
        const SIGNATURE: &str = "89e206126a114e8f1fceb7a8183a9e23ed01aac274e207680ea65a015e8f120f";
        let code = |secret: &str, headers: &HeaderMap, body: &[u8]| Event::verify(secret, headers, body).expect_err("no event").code;
        // Genuine, but no event: the signature was accepted.
        assert_eq!(code("whsec-test", &signed(SIGNATURE), BODY), Code::InvalidInput);
        assert_eq!(code("whsec-test", &signed(SIGNATURE), br#"{"id":"evt_2"}"#), Code::InvalidSignature);
        assert_eq!(code("whsec-other", &signed(SIGNATURE), BODY), Code::InvalidSignature);
        assert_eq!(code("", &signed(SIGNATURE), BODY), Code::InvalidSignature);
        assert_eq!(code("whsec-test", &signed("89e2"), BODY), Code::InvalidSignature);
        assert_eq!(code("whsec-test", &signed("zz"), BODY), Code::InvalidSignature);
        assert_eq!(code("whsec-test", &HeaderMap::new(), BODY), Code::InvalidSignature);
    }
}
