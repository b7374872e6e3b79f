//! Callbacks of the provider: who sent them, and about which task.
//!
//! The signature is `base64(HMAC-SHA256(key, taskId + "." + timestamp))`. It does not cover the body: a captured pair of
//! headers fits any body about the same task. So nothing but the task id is taken from a callback.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use problem::{Code, Problem};
use serde_json::Value;
use sha2::Sha256;

/// How far a callback's timestamp may lie from our clock, in seconds.
const TOLERANCE: u64 = 300;

/// The provider's task id, if the provider sent this.
///
/// # Errors
/// `invalid_signature` for everything else. Any of the `keys` will do; with none, nothing is accepted.
pub fn verify<'k>(keys: impl Iterator<Item = &'k str>, headers: &HeaderMap, body: &[u8], now: i64) -> Result<String, Problem> {
    let refuse = |why: &str| Problem::new(Code::InvalidSignature, "The signature does not fit this callback.").because(why);
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let timestamp = header("x-webhook-timestamp").ok_or_else(|| refuse("no timestamp"))?;
    let signature = header("x-webhook-signature").ok_or_else(|| refuse("no signature"))?;
    let sent_at: i64 = timestamp.parse().map_err(|_| refuse("the timestamp is no number"))?;
    if now.abs_diff(sent_at) > TOLERANCE {
        return Err(refuse("the timestamp is too old or too new"));
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| refuse("the body is no JSON"))?;
    let task_id = task_id(&body).ok_or_else(|| refuse("no single task id in the body"))?;
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| refuse("the signature is no base64"))?;
    let mut tried = 0;
    let fits = |key: &str| {
        tried += 1;
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(format!("{task_id}.{timestamp}").as_bytes());
        // In constant time.
        mac.verify_slice(&signature).is_ok()
    };
    if keys.filter(|key| !key.is_empty()).any(fits) {
        return Ok(task_id);
    }
    Err(refuse(if tried == 0 { "variable kie_webhook_hmac_key is empty" } else { "wrong signature" }))
}

/// The id stands in one of three places; if in several, they must agree.
fn task_id(body: &Value) -> Option<String> {
    let places = [&body["data"]["taskId"], &body["data"]["task_id"], &body["taskId"]];
    let mut ids = places.into_iter().filter_map(Value::as_str).filter(|id| !id.is_empty() && id.len() <= 200);
    let first = ids.next()?;
    ids.all(|id| id == first).then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const SIGNATURE: &str = "SpRsoRxVRKOH0lAMiEiyv3kDxM1OhxT1tbfPWB/6vPw=";

    fn headers(timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-webhook-timestamp", HeaderValue::from_str(timestamp).expect("ascii"));
        headers.insert("x-webhook-signature", HeaderValue::from_str(signature).expect("ascii"));
        headers
    }

    #[test]
    fn the_published_vector_is_accepted_in_both_spellings() {
        let headers = headers("1760000000", SIGNATURE);
        for body in [format!(r#"{{"data":{{"taskId":"{ID}"}}}}"#), format!(r#"{{"taskId":"{ID}","data":{{"task_id":"{ID}"}}}}"#)] {
            assert_eq!(verify(["new-key", "test-hmac-key"].into_iter(), &headers, body.as_bytes(), 1_760_000_010).expect("genuine"), ID);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let body = format!(r#"{{"data":{{"taskId":"{ID}"}}}}"#);
        let good = headers("1760000000", SIGNATURE);
        let refused =
            |key: &str, headers: &HeaderMap, body: &str, now: i64| verify([key].into_iter(), headers, body.as_bytes(), now).is_err();
        assert!(refused("other-key", &good, &body, 1_760_000_000));
        assert!(refused("", &good, &body, 1_760_000_000));
        assert!(refused("test-hmac-key", &good, &body, 1_760_000_301));
        assert!(refused("test-hmac-key", &good, &body, 1_759_999_699));
        assert!(refused("test-hmac-key", &headers("1760000001", SIGNATURE), &body, 1_760_000_000));
        assert!(refused("test-hmac-key", &headers("1760000000", "short"), &body, 1_760_000_000));
        assert!(refused("test-hmac-key", &HeaderMap::new(), &body, 1_760_000_000));
        assert!(refused("test-hmac-key", &good, &format!(r#"{{"taskId":"other","data":{{"taskId":"{ID}"}}}}"#), 1_760_000_000));
        assert!(refused("test-hmac-key", &good, "not json", 1_760_000_000));
        for extreme in [i64::MIN, i64::MAX] {
            assert!(refused("test-hmac-key", &headers(&extreme.to_string(), SIGNATURE), &body, 1_760_000_000));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_unsigned_is_refused_and_nothing_panics(
            timestamp in "-?[0-9]{0,20}", signature in "[ -~]{0,80}", body in ".{0,200}", now in proptest::prelude::any::<i64>()
        ) {
            proptest::prop_assert!(verify(["k"].into_iter(), &headers(&timestamp, &signature), body.as_bytes(), now).is_err());
            let body = format!(r#"{{"data":{{"taskId":{body:?}}}}}"#);
            proptest::prop_assert!(verify(["k"].into_iter(), &headers(&timestamp, &signature), body.as_bytes(), now).is_err());
        }
    }
}
