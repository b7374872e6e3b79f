//! The payment provider: creem.io.
//!
//! Its webhooks are signed over the raw body with no timestamp, so a captured one verifies for ever; what makes a replay
//! harmless is that whatever it tells is applied idempotently. All amounts are in cents.

use std::time::Duration;

use config::Settings;
use http::{HeaderValue, Method, StatusCode, Uri};
use problem::{Code, Problem};
use serde_json::{Value, json};

mod entities;
mod event;

pub use entities::{Checkout, Dispute, Refund, Subscription, Transaction};
pub use event::Event;

/// How long creem may take to answer.
const LIMIT: Duration = Duration::from_secs(15);
/// How long its moderation may: somebody waits to order, and without a verdict nothing is made.
const MODERATION_LIMIT: Duration = Duration::from_secs(5);

/// creem did not do what was asked. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("creem: {0}")]
    Failed(#[from] outbound::Failure),
    /// Without its message, which may repeat what we sent: an address, a person's words.
    #[error("creem: status {status}")]
    Refused { status: StatusCode },
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

/// Whose payments.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    Order(&'a str),
    Customer(&'a str),
}

/// Pages of a hundred payments that are read of one customer.
const MOST_PAGES: usize = 10;

/// An account at creem.
pub struct Creem<'a> {
    base_url: &'a str,
    api_key: &'a str,
    breaker: outbound::Breaker,
    /// Its moderation is marked experimental: when it fails, paying goes on.
    moderation: outbound::Breaker,
}

/// What creem's moderation says of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `mod_...`, if it has one.
    pub id: Option<String>,
    /// `allow`, `flag` or `deny`; `none` where there is none, `other` for anything else. Only the first allows.
    pub decision: &'static str,
}

impl Verdict {
    fn read(answer: &Value) -> Self {
        let decision = match answer["decision"].as_str() {
            Some("allow") => "allow",
            Some("flag") => "flag",
            Some("deny") => "deny",
            Some(_) => "other",
            None => "none",
        };
        let is_id = |id: &&str| id.len() <= 100 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        Self { id: answer["id"].as_str().filter(is_id).map(str::to_owned), decision }
    }
}

impl<'a> Creem<'a> {
    /// The account that the settings name.
    ///
    /// # Errors
    /// `internal` when the component does not hold them.
    pub fn from_settings(settings: &'a Settings) -> Result<Self, Problem> {
        Ok(Self {
            base_url: settings.text("creem_base_url")?.trim_end_matches('/'),
            api_key: settings.text("creem_api_key")?,
            breaker: outbound::Breaker::of("creem"),
            moderation: outbound::Breaker::of("creem_moderation"),
        })
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
        read(self.post(&url, &body).await?, Checkout::read)
    }

    /// Asks how a checkout stands.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checkout(&self, id: &str) -> Result<Checkout, Error> {
        let url = format!("{}/v1/checkouts?{}", self.base_url, outbound::form(&[("checkout_id", id)]));
        read(self.get(&url).await?, Checkout::read)
    }

    /// Asks how a subscription stands.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn subscription(&self, id: &str) -> Result<Subscription, Error> {
        let url = format!("{}/v1/subscriptions?{}", self.base_url, outbound::form(&[("subscription_id", id)]));
        read(self.get(&url).await?, Subscription::read)
    }

    /// Lets a subscription end with the period that is paid.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel_subscription(&self, id: &str) -> Result<Subscription, Error> {
        let url = format!("{}/v1/subscriptions/{}/cancel", self.base_url, outbound::segment(id));
        let body = json!({"mode": "scheduled", "onExecute": "cancel"});
        read(self.post(&url, &body).await?, Subscription::read)
    }

    /// All payments of an order (`ord_...`), or of a customer (`cust_...`) whatever for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transactions(&self, of: Of<'_>) -> Result<Vec<Transaction>, Error> {
        let (name, id) = match of {
            Of::Order(id) => ("order_id", id),
            Of::Customer(id) => ("customer_id", id),
        };
        let mut transactions = Vec::new();
        for page in 1..=MOST_PAGES {
            let query = outbound::form(&[(name, id), ("page_number", &page.to_string()), ("page_size", "100")]);
            let answer = self.get(&format!("{}/v1/transactions/search?{query}", self.base_url)).await?;
            transactions.extend(answer["items"].as_array().into_iter().flatten().filter_map(Transaction::read));
            if answer["pagination"]["next_page"].is_null() {
                break;
            }
        }
        Ok(transactions)
    }

    /// Asks whether a person's own words may go into a prompt. creem demands it of every prompt for pictures, before they are made.
    ///
    /// # Errors
    /// See [`Error`]; then nothing may be made.
    pub async fn moderate(&self, text: &str, external_id: &str) -> Result<Verdict, Error> {
        let url = format!("{}/v1/moderation/prompt", self.base_url);
        let body = json!({"prompt": text, "external_id": external_id});
        let answer = self.exchange(&self.moderation, async || {
            outbound::json("creem_moderation", self.request(Method::POST, &url, Some(&body))?, MODERATION_LIMIT).await
        });
        let answer = answer.await?;
        Ok(Verdict::read(&answer))
    }

    /// Sent once.
    async fn post(&self, url: &str, body: &Value) -> Result<Value, Error> {
        self.exchange(&self.breaker, async || outbound::json("creem", self.request(Method::POST, url, Some(body))?, LIMIT).await).await
    }

    /// Sent again after a passing fault.
    async fn get(&self, url: &str) -> Result<Value, Error> {
        self.exchange(&self.breaker, async || outbound::json_again("creem", || self.request(Method::GET, url, None), LIMIT).await).await
    }

    fn request(&self, method: Method, url: &str, body: Option<&Value>) -> Result<outbound::Request, outbound::Failure> {
        let mut request = match body {
            Some(body) => outbound::full(method, url, "application/json", body.to_string())?,
            None => outbound::empty(method, url)?,
        };
        let mut key = HeaderValue::from_str(self.api_key).map_err(|error| outbound::Failure::NotSent(error.to_string()))?;
        key.set_sensitive(true);
        request.headers_mut().insert("x-api-key", key);
        Ok(request)
    }

    async fn exchange(
        &self,
        breaker: &outbound::Breaker,
        call: impl AsyncFnOnce() -> Result<(StatusCode, Value), outbound::Failure>,
    ) -> Result<Value, Error> {
        let pass = breaker.pass().await?;
        let answer = call().await;
        pass.told(answer.as_ref().is_ok_and(|(status, _)| !status.is_server_error())).await;
        let (status, answer) = answer?;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            signal::seen(signal::KEY_REFUSED, "creem", clock::now()).await;
        }
        if !status.is_success() {
            return Err(Error::Refused { status });
        }
        Ok(answer)
    }
}

fn read<T>(answer: Value, reader: impl FnOnce(&Value) -> Option<T>) -> Result<T, Error> {
    reader(&answer).ok_or_else(|| outbound::Failure::Unexpected("an entity without its id".into()).into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_of_a_few_words_whatever_the_moderation_writes() {
        let read = |answer: Value| Verdict::read(&answer);
        assert_eq!(read(json!({"id": "mod_1", "decision": "allow"})), Verdict { id: Some("mod_1".into()), decision: "allow" });
        for (answer, decision) in [
            (json!({}), "none"),
            (json!({"decision": null}), "none"),
            (json!({"decision": true}), "none"),
            (json!({"decision": "ALLOW"}), "other"),
            (json!({"decision": "allow "}), "other"),
            (json!({"decision": "shorter over the left ear", "id": "of ada@example.com"}), "other"),
            (json!(["allow"]), "none"),
            (json!("allow"), "none"),
        ] {
            assert_eq!(read(answer.clone()), Verdict { id: None, decision }, "{answer}");
        }
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
}
