//! The payment provider: creem.io.
//!
//! Its webhooks are signed over the raw body with no timestamp, so a captured one verifies for ever; what makes a replay
//! harmless is that settling an order is idempotent. All amounts are in cents.

use std::time::Duration;

use config::Settings;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use problem::{Code, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

/// How long creem may take to answer.
const LIMIT: Duration = Duration::from_secs(15);

/// A checkout as far as we need it.
#[derive(Clone, Debug, Deserialize)]
pub struct Checkout {
    /// `ch_...`
    pub id: String,
    /// `pending`, `processing`, `completed`, `expired`; others may come.
    pub status: String,
    /// Our order's id, as we gave it.
    pub request_id: Option<String>,
    /// Where the buyer pays.
    pub checkout_url: Option<String>,
    pub order: Option<Value>,
    /// An id or a whole object.
    pub product: Option<Value>,
}

impl Checkout {
    /// creem's order (`ord_...`), once it is paid. `id` or object: only an object can say that it is paid.
    #[must_use]
    pub fn paid_order(&self) -> Option<&str> {
        let order = self.order.as_ref()?;
        (order["status"] == "paid").then(|| order["id"].as_str()).flatten()
    }

    /// creem's product id, in either form.
    #[must_use]
    pub fn product_id(&self) -> Option<&str> {
        let product = self.product.as_ref()?;
        product.as_str().or_else(|| product["id"].as_str())
    }
}

/// creem did not do what was asked. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("creem: {0}")]
    Failed(#[from] outbound::Failure),
    #[error("creem: status {status}: {message}")]
    Refused { status: StatusCode, message: String },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(Code::ProviderUnavailable, "The payment provider is out of reach. Nothing was charged; try again in a moment.")
            .retry_after(10)
            .because(error)
    }
}

/// What is to be paid.
pub struct Purchase<'a> {
    pub product_id: &'a str,
    pub order_id: &'a str,
    pub user_id: &'a str,
    pub email: &'a str,
    pub success_url: &'a str,
}

/// An account at creem.
pub struct Creem<'a> {
    base_url: &'a str,
    api_key: &'a str,
}

impl<'a> Creem<'a> {
    /// The account that the settings name.
    ///
    /// # Errors
    /// `internal` when the component does not hold them.
    pub fn from_settings(settings: &'a Settings) -> Result<Self, Problem> {
        Ok(Self { base_url: settings.text("creem_base_url")?.trim_end_matches('/'), api_key: settings.text("creem_api_key")? })
    }

    /// Opens a checkout.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_checkout(&self, purchase: &Purchase<'_>) -> Result<Checkout, Error> {
        let body = json!({
            "product_id": purchase.product_id,
            "request_id": purchase.order_id,
            "units": 1,
            "customer": {"email": purchase.email},
            // Without a query of its own: creem appends to it, and whether it would sign ours is not documented.
            "success_url": purchase.success_url,
            "metadata": {"order_id": purchase.order_id, "user_id": purchase.user_id},
        });
        let url = format!("{}/v1/checkouts", self.base_url);
        self.exchange(outbound::full(Method::POST, &url, "application/json", body.to_string())?).await
    }

    /// Asks how a checkout stands.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checkout(&self, id: &str) -> Result<Checkout, Error> {
        let url = format!("{}/v1/checkouts?{}", self.base_url, outbound::form(&[("checkout_id", id)]));
        self.exchange(outbound::empty(Method::GET, &url)?).await
    }

    async fn exchange(&self, mut request: outbound::Request) -> Result<Checkout, Error> {
        let mut key = HeaderValue::from_str(self.api_key).map_err(|error| outbound::Failure::NotSent(error.to_string()))?;
        key.set_sensitive(true);
        request.headers_mut().insert("x-api-key", key);
        let (status, answer) = outbound::json::<Value>("creem", request, LIMIT).await?;
        if !status.is_success() {
            // `message` is a list, sometimes a plain string, sometimes missing.
            let message = answer["message"][0].as_str().or_else(|| answer["message"].as_str()).unwrap_or("no message");
            return Err(Error::Refused { status, message: message.chars().take(200).collect() });
        }
        serde_json::from_value(answer).map_err(|error| outbound::Failure::Unexpected(error.to_string()).into())
    }
}

/// Whether a checkout page is creem's own (or, on this machine, the sandbox's): people are sent there.
#[must_use]
pub fn is_checkout_page(base_url: &str, page: &str) -> bool {
    let (Ok(base), Ok(page)) = (base_url.parse::<Uri>(), page.parse::<Uri>()) else { return false };
    let Some(authority) = page.authority().filter(|authority| !authority.as_str().contains('@')) else { return false };
    let host = authority.host().to_ascii_lowercase();
    let is_creem = page.scheme_str() == Some("https") && (host == "creem.io" || host.ends_with(".creem.io"));
    is_creem || (page.scheme() == base.scheme() && base.authority() == Some(authority))
}

/// A webhook that creem really sent.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// `evt_...`, the same for every delivery.
    pub id: String,
    #[serde(rename = "eventType")]
    pub kind: String,
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
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn people_are_sent_to_the_providers_own_pages_only() {
        let base = "https://api.creem.io";
        assert!(is_checkout_page(base, "https://checkout.creem.io/ch_1"));
        assert!(is_checkout_page("http://127.0.0.1:3103", "http://127.0.0.1:3103/checkout/ch_1"));
        for page in ["http://checkout.creem.io/ch_1", "https://creem.io.evil.test/", "javascript:alert(1)", "https://evilcreem.io/"] {
            assert!(!is_checkout_page(base, page), "{page}");
        }
    }

    #[test]
    fn ids_come_plain_or_inside_an_object() {
        let checkout = |product: Value, order: Value| -> Checkout {
            serde_json::from_value(json!({"id": "ch_1", "status": "completed", "product": product, "order": order})).expect("a checkout")
        };
        let plain = checkout(json!("prod_1"), json!("ord_1"));
        assert_eq!((plain.product_id(), plain.paid_order()), (Some("prod_1"), None));
        let whole = checkout(json!({"id": "prod_1"}), json!({"id": "ord_1", "status": "paid"}));
        assert_eq!((whole.product_id(), whole.paid_order()), (Some("prod_1"), Some("ord_1")));
    }
}
