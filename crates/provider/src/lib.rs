//! The AI provider: kie.ai, behind a trait, because it is about to retire two of its three APIs.
//!
//! An [`Api`] is pure protocol (what to send, how to read the answer) and is tested without a network; [`Kie`] does the talking.
//! Facts that shape this crate: the HTTP status is 200 even for failures, the body's `code` is the truth; there is no
//! idempotency key, so a creation whose answer was lost is never repeated; a callback's signature does not cover its body, so
//! what a callback says is only a hint to go and ask.

use std::time::Duration;

use config::Settings;
use http::{HeaderValue, Method, StatusCode, header};
use outbound::{Breaker, Failure};
use problem::Problem;
use serde_json::Value;

pub mod callback;
mod four_o;
mod kontext;
mod market;
pub mod results;

/// How long the provider may take to accept a task or tell about one.
const LIMIT: Duration = Duration::from_secs(20);

/// A picture to be made.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    pub prompt: &'a str,
    /// A link the provider can fetch the photo from.
    pub photo_url: &'a str,
    /// Where it tells that the picture is done.
    pub callback_url: &'a str,
    /// Of the photo, in pixels.
    pub width: i64,
    pub height: i64,
}

/// What the provider knows about a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// At work, or in a state we have never heard of: unknown is running, never failed.
    Running,
    /// Done; the pictures can be fetched here.
    Succeeded(Vec<String>),
    /// Given up.
    Failed(Reason),
    /// It has no such task (or not yet).
    Missing,
}

/// Why the provider gave up. Its own words are not kept: they can hold anything, also what a person wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The provider's code, if there was one.
    pub code: Option<i64>,
}

impl Reason {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self.code {
            Some(400 | 422) => "The AI provider refused this picture.",
            Some(451) => "The AI provider could not read the photo.",
            _ => "The AI provider could not make this picture.",
        }
    }

    /// From the field that holds the code: a number, in some of the APIs as a text.
    fn read(value: &Value) -> Self {
        Self { code: value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())) }
    }
}

/// Why a task was not accepted. `Display` is for the log, and holds none of the provider's words.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The provider says no and will say so again.
    #[error("refused: {0}")]
    Refused(String),
    /// Surely not created: it may be tried again later.
    #[error("not now: {0}")]
    Later(String),
    /// Perhaps created. Must not be repeated; a callback may still tell.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// The provider could not say. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
#[error("provider query: {0}")]
pub struct QueryError(pub String);

/// One of the provider's APIs.
pub trait Api: Sync {
    /// As in `ai_tasks.external_provider`.
    fn name(&self) -> &'static str;
    /// Path and body of the request that creates a task.
    fn create(&self, picture: &Picture<'_>) -> (&'static str, Value);
    /// Path and query of the request that tells about a task.
    fn record_path(&self, external_id: &str) -> String;
    /// Reads the `data` of such an answer.
    fn read(&self, data: &Value) -> Record;
}

/// The API with this name.
#[must_use]
pub fn api(name: &str) -> Option<&'static dyn Api> {
    const APIS: [&dyn Api; 3] = [&market::Market, &four_o::FourO, &kontext::Kontext];
    APIS.into_iter().find(|api| api.name() == name)
}

/// An account at kie.ai.
pub struct Kie<'a> {
    base_url: &'a str,
    api_key: &'a str,
    breaker: Breaker,
}

impl<'a> Kie<'a> {
    /// The account that the settings name.
    ///
    /// # Errors
    /// `internal` when the component does not hold them.
    pub fn from_settings(settings: &'a Settings) -> Result<Self, Problem> {
        Ok(Self {
            base_url: settings.text("kie_base_url")?.trim_end_matches('/'),
            api_key: settings.text("kie_api_key")?,
            breaker: Breaker::of("kie"),
        })
    }

    /// Asks for a picture and answers the provider's task id.
    ///
    /// # Errors
    /// See [`CreateError`]: the three kinds call for three different things.
    pub async fn create(&self, api: &dyn Api, picture: &Picture<'_>) -> Result<String, CreateError> {
        let (path, body) = api.create(picture);
        let url = format!("{}{path}", self.base_url);
        // Sent once: the provider would make two pictures of two.
        let exchange = self.exchange(async || outbound::json("kie", self.request(Method::POST, &url, Some(&body))?, LIMIT).await);
        let (status, answer) = exchange.await.map_err(|failure| {
            if failure.had_no_effect() { CreateError::Later(failure.to_string()) } else { CreateError::Unknown(failure.to_string()) }
        })?;
        if is_out_of_credits(&answer) {
            signal::seen(signal::OUT_OF_CREDITS, "kie", clock::now()).await;
        }
        read_created(status, &answer)
    }

    /// Asks about a task.
    ///
    /// # Errors
    /// [`QueryError`] when there is no clear answer: ask again later.
    pub async fn record(&self, api: &dyn Api, external_id: &str) -> Result<Record, QueryError> {
        let url = format!("{}{}", self.base_url, api.record_path(external_id));
        let exchange = self.exchange(async || outbound::json_again("kie", || self.request(Method::GET, &url, None), LIMIT).await);
        let (_, answer) = exchange.await.map_err(|failure| QueryError(failure.to_string()))?;
        read_record(api, &answer)
    }

    fn request(&self, method: Method, url: &str, body: Option<&Value>) -> Result<outbound::Request, Failure> {
        let mut request = match body {
            Some(body) => outbound::full(method, url, "application/json", body.to_string())?,
            None => outbound::empty(method, url)?,
        };
        let mut key = HeaderValue::from_str(&format!("Bearer {}", self.api_key)).map_err(|error| Failure::NotSent(error.to_string()))?;
        key.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, key);
        Ok(request)
    }

    async fn exchange(&self, call: impl AsyncFnOnce() -> Result<(StatusCode, Value), Failure>) -> Result<(StatusCode, Value), Failure> {
        let pass = self.breaker.pass().await?;
        let answer = call().await;
        // Refusals are answers; 500, maintenance (455) and a feature that is off (505) are not.
        pass.told(answer.as_ref().is_ok_and(|(status, answer)| !status.is_server_error() && ![455, 500, 505].contains(&code_of(answer))))
            .await;
        if answer.as_ref().is_ok_and(|(_, answer)| code_of(answer) == 401) {
            signal::seen(signal::KEY_REFUSED, "kie", clock::now()).await;
        }
        answer
    }
}

/// The code in the body; a missing one counts as a server error.
fn code_of(answer: &Value) -> i64 {
    answer["code"].as_i64().unwrap_or(500)
}

/// Whether our own account there is empty. Seen with code 500 as well, so the words count too.
fn is_out_of_credits(answer: &Value) -> bool {
    let says = |name: &str| answer[name].as_str().is_some_and(|said| said.starts_with("Credits insufficient"));
    code_of(answer) == 402 || says("msg") || says("message")
}

fn read_created(status: StatusCode, answer: &Value) -> Result<String, CreateError> {
    let code = match answer["code"].as_i64() {
        Some(code) => code,
        None if status.is_client_error() => i64::from(status.as_u16()),
        // Not the provider's own words but those of something before it, which may have passed the order on before it lost patience.
        None => return Err(CreateError::Unknown(format!("status {status} without a code"))),
    };
    match code {
        200 => match answer["data"]["taskId"].as_str() {
            Some(id) if !id.is_empty() => Ok(id.to_owned()),
            _ => Err(CreateError::Unknown("accepted without a task id".into())),
        },
        // Out of credits, key limit, queue full, too many calls, maintenance: nothing was made, and it passes.
        401 | 402 | 408 | 429 | 433 | 455 | 500 | 505 | 550 => Err(CreateError::Later(format!("code {code}"))),
        _ if is_out_of_credits(answer) => Err(CreateError::Later(format!("code {code}, credits insufficient"))),
        _ => Err(CreateError::Refused(format!("code {code}"))),
    }
}

fn read_record(api: &dyn Api, answer: &Value) -> Result<Record, QueryError> {
    match code_of(answer) {
        200 if answer["data"].is_object() => Ok(api.read(&answer["data"])),
        200 => Ok(Record::Missing),
        422 | 404 => Ok(Record::Missing),
        code => Err(QueryError(format!("code {code}"))),
    }
}

/// A list of URLs wherever the provider put it: a list, or JSON inside a string, under either spelling.
fn urls_in(value: &Value) -> Vec<String> {
    let parsed;
    let value = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).unwrap_or(Value::Null);
            &parsed
        }
        other => other,
    };
    let list = ["resultUrls", "result_urls"].iter().find_map(|name| value[*name].as_array());
    list.into_iter().flatten().filter_map(Value::as_str).filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PICTURE: Picture<'_> =
        Picture { prompt: "p", photo_url: "http://s/photo", callback_url: "http://a/cb", width: 800, height: 1200 };

    #[test]
    fn every_api_sends_the_photo_and_the_callback() {
        for name in ["kie_4o", "kie_kontext", "kie_market"] {
            let (path, body) = api(name).expect(name).create(&PICTURE);
            assert!(path.starts_with("/api/v1/"), "{path}");
            assert_eq!(body["callBackUrl"], "http://a/cb");
            assert!(body.to_string().contains("http://s/photo"), "{body}");
        }
        assert!(api("other").is_none());
    }

    #[test]
    fn an_answer_without_certainty_is_not_a_refusal() {
        let of = |status: u16, answer: Value| match read_created(StatusCode::from_u16(status).expect("a status"), &answer) {
            Ok(id) => id,
            Err(CreateError::Refused(_)) => "refused".into(),
            Err(CreateError::Later(_)) => "later".into(),
            Err(CreateError::Unknown(_)) => "unknown".into(),
        };
        let kind = |answer: Value| of(200, answer);
        assert_eq!(kind(json!({"code": 200, "msg": "success", "data": {"taskId": "t1"}})), "t1");
        assert_eq!(kind(json!({"code": 200, "msg": "success", "data": null})), "unknown");
        assert_eq!(kind(json!({"code": 422, "msg": "validation", "data": null})), "refused");
        assert_eq!(kind(json!({"code": 429, "msg": "too high", "data": null})), "later");
        assert_eq!(kind(json!({"code": 500, "msg": "Credits insufficient: top up", "data": null})), "later");
        // Whatever stands before the provider speaks another language: it may have passed the order on before it lost patience.
        assert_eq!(of(504, json!({"error": "Gateway Timeout"})), "unknown");
        assert_eq!(of(200, json!({"error": "oops"})), "unknown");
        assert_eq!(of(429, json!({"error": "Too Many Requests"})), "later");
        assert_eq!(of(500, json!({"code": 500, "msg": "Server exception", "data": null})), "later");
    }

    #[test]
    fn an_empty_account_is_known_by_its_code_and_by_its_words() {
        assert!(is_out_of_credits(&json!({"code": 402, "msg": "whatever"})));
        assert!(is_out_of_credits(&json!({"code": 500, "msg": "Credits insufficient : The current credits isn't enough"})));
        assert!(!is_out_of_credits(&json!({"code": 500, "msg": "Server exception"})));
        assert!(!is_out_of_credits(&json!({"code": 200, "msg": "success"})));
    }

    #[test]
    fn records_are_read_as_the_provider_really_writes_them() {
        let read = |name: &str, data: Value| read_record(api(name).expect(name), &json!({"code": 200, "data": data})).expect("an answer");
        let done = Record::Succeeded(vec!["https://f/1.png".into()]);
        let four_o = json!({"status": "SUCCESS", "successFlag": 1, "response": {"resultUrls": ["https://f/1.png"]}});
        assert_eq!(read("kie_4o", four_o), done);
        let as_text = json!({"status": "SUCCESS", "successFlag": 1, "response": "{\"result_urls\":[\"https://f/1.png\"]}"});
        assert_eq!(read("kie_4o", as_text), done);
        assert_eq!(read("kie_4o", json!({"status": "GENERATING", "successFlag": 0, "response": null})), Record::Running);
        let failed = |code| Record::Failed(Reason { code });
        let four_o = json!({"status": "GENERATE_FAILED", "successFlag": 3, "errorCode": 400, "errorMessage": "no"});
        assert_eq!(read("kie_4o", four_o), failed(Some(400)));
        assert_eq!(read("kie_kontext", json!({"successFlag": 1, "response": {"resultImageUrl": "https://f/1.png"}})), done);
        assert_eq!(read("kie_kontext", json!({"successFlag": 2, "errorMessage": "no"})), failed(None));
        assert_eq!(read("kie_market", json!({"state": "success", "resultJson": "{\"resultUrls\":[\"https://f/1.png\"]}"})), done);
        assert_eq!(read("kie_market", json!({"state": "fail", "failCode": "451", "failMsg": "no", "resultJson": ""})), failed(Some(451)));
        assert_eq!(read("kie_market", json!({"state": "fail", "failCode": "ada@example.com"})), failed(None));
    }

    #[test]
    fn none_of_the_providers_words_are_repeated() {
        let answer =
            |code: i64| json!({"code": code, "msg": "ada@example.com: shorter please", "message": "ada@example.com", "data": null});
        for code in [200, 400, 401, 422, 429, 500, 501] {
            let told = [
                read_created(StatusCode::OK, &answer(code)).map_err(|error| error.to_string()),
                read_record(&market::Market, &answer(code)).map(|record| format!("{record:?}")).map_err(|error| error.to_string()),
            ];
            assert!(!format!("{told:?}").contains("ada@"), "{told:?}");
        }
        for code in [None, Some(400), Some(451), Some(500)] {
            assert!(Reason { code }.words().starts_with("The AI provider "));
        }
    }

    #[test]
    fn a_state_we_have_never_heard_of_is_running() {
        let read = |name: &str, data: Value| read_record(api(name).expect(name), &json!({"code": 200, "data": data})).expect("an answer");
        assert_eq!(read("kie_4o", json!({"status": "POLISHING", "successFlag": 0})), Record::Running);
        assert_eq!(read("kie_market", json!({"state": "polishing", "resultJson": ""})), Record::Running);
        assert_eq!(read("kie_kontext", json!({})), Record::Running);
    }

    #[test]
    fn a_record_that_is_not_there_yet_is_missing_not_failed() {
        let market = api("kie_market").expect("an api");
        assert_eq!(
            read_record(market, &json!({"code": 422, "msg": "recordInfo is null", "data": null})).expect("an answer"),
            Record::Missing
        );
        assert_eq!(read_record(market, &json!({"code": 200, "data": null})).expect("an answer"), Record::Missing);
        assert!(read_record(market, &json!({"code": 500, "msg": "Server Error"})).is_err());
    }
}
