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
    /// `invalid_signature` unless `creem-signature` is the hex HMAC-SHA256 of the raw body under one of the secrets (with none, nothing
    /// is accepted); `invalid_input` for a signed body that is no event.
    pub fn verify<'s>(secrets: impl Iterator<Item = &'s str>, headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let refuse = |why: &str| Problem::new(Code::InvalidSignature, "The signature does not fit this webhook.").because(why);
        let given = headers.get("creem-signature").and_then(|value| value.to_str().ok()).ok_or_else(|| refuse("no signature"))?;
        let given = given.trim().strip_prefix("sha256=").unwrap_or(given.trim());
        let given = from_hex(given).ok_or_else(|| refuse("the signature is no hex"))?;
        let mut tried = 0;
        let fits = |secret: &str| {
            tried += 1;
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
            mac.update(body);
            // In constant time.
            mac.verify_slice(&given).is_ok()
        };
        if !secrets.filter(|secret| !secret.is_empty()).any(fits) {
            return Err(refuse(if tried == 0 { "variable creem_webhook_secret is empty" } else { "wrong signature" }));
        }
        serde_json::from_slice(body).map_err(|error| Problem::invalid("body", "The event cannot be read.").because(error))
    }

    /// The event as it is kept: without the buyer's name and address, which nothing of ours needs.
    ///
    /// # Errors
    /// `invalid_input` for a body that is no JSON; a verified one is.
    pub fn kept(body: &[u8]) -> Result<String, Problem> {
        let mut value: Value =
            serde_json::from_slice(body).map_err(|error| Problem::invalid("body", "The event cannot be read.").because(error))?;
        forget_people(&mut value);
        Ok(value.to_string())
    }

    /// Whether this tells about a subscription, in a way we know.
    #[must_use]
    pub fn is_about_a_subscription(&self) -> bool {
        SUBSCRIPTION_EVENTS.contains(&self.kind.as_str())
    }
}

/// Of a customer only what names them to creem stays, and no address anywhere.
fn forget_people(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.to_ascii_lowercase().contains("email"));
            if let Some(Value::Object(customer)) = fields.get_mut("customer") {
                customer.retain(|name, _| ["id", "object", "mode", "country", "created_at", "updated_at"].contains(&name.as_str()));
            }
            fields.values_mut().for_each(forget_people);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_people),
        _ => {}
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
        let code =
            |secret: &str, headers: &HeaderMap, body: &[u8]| Event::verify(secret.split(','), headers, body).expect_err("no event").code;
        // Genuine, but no event: the signature was accepted.
        assert_eq!(code("whsec-test", &signed(SIGNATURE), BODY), Code::InvalidInput);
        assert_eq!(code("whsec-test", &signed(SIGNATURE), br#"{"id":"evt_2"}"#), Code::InvalidSignature);
        assert_eq!(code("whsec-new,whsec-test", &signed(SIGNATURE), BODY), Code::InvalidInput, "while secrets are exchanged both are good");
        assert_eq!(code("whsec-other", &signed(SIGNATURE), BODY), Code::InvalidSignature);
        assert_eq!(code("", &signed(SIGNATURE), BODY), Code::InvalidSignature);
        assert_eq!(code("whsec-test", &signed("89e2"), BODY), Code::InvalidSignature);
        assert_eq!(code("whsec-test", &signed("zz"), BODY), Code::InvalidSignature);
        assert_eq!(code("whsec-test", &HeaderMap::new(), BODY), Code::InvalidSignature);
    }
    #[test]
    fn what_is_kept_of_an_event_names_nobody() {
        let body = br#"{"id":"evt_1","object":{"customer":{"id":"cust_1","email":"ada@example.com","name":"Ada","country":"GB"},
            "customer_email":"ada@example.com","product":{"name":"Pack"},"items":[{"customer":{"id":"cust_1","name":"Ada"}}]}}"#;
        let kept = Event::kept(body).expect("json");
        assert!(!kept.contains("ada@") && !kept.contains("Ada"), "{kept}");
        assert!(kept.contains("cust_1") && kept.contains("Pack") && kept.contains("GB"), "{kept}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_unsigned_is_refused_and_nothing_panics(signature in "[ -~]{0,80}", body in ".{0,200}") {
            let mut headers = HeaderMap::new();
            headers.insert("creem-signature", HeaderValue::from_str(&signature).expect("printable"));
            proptest::prop_assert_eq!(Event::verify(["s"].into_iter(), &headers, body.as_bytes()).expect_err("unsigned").code, Code::InvalidSignature);
        }

        #[test]
        fn a_signed_body_of_any_kind_is_an_event_or_a_clear_refusal(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"s").expect("any key");
            mac.update(&body);
            let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let mut headers = HeaderMap::new();
            headers.insert("creem-signature", HeaderValue::from_str(&hex).expect("hex"));
            if let Err(problem) = Event::verify(["s"].into_iter(), &headers, &body) {
                proptest::prop_assert_eq!(problem.code, Code::InvalidInput);
            }
        }
    }
}
