//! How the outside world signs: pure functions, each with the provider's rule and a test vector.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// kie.ai's callback signature: base64 of HMAC-SHA256 over `taskId.timestamp`. The body is *not* covered.
#[must_use]
pub fn kie_callback(key: &str, task_id: &str, timestamp: i64) -> String {
    STANDARD.encode(hmac_sha256(key.as_bytes(), format!("{task_id}.{timestamp}").as_bytes()))
}

/// creem's `creem-signature` header: lowercase hex of HMAC-SHA256 over the raw body.
#[must_use]
pub fn creem_webhook(secret: &str, body: &[u8]) -> String {
    hex(&hmac_sha256(secret.as_bytes(), body))
}

/// creem's return URL: plain SHA-256 over the non-empty parameters in URL order, joined by `|`, then the API key as salt.
#[must_use]
pub fn creem_return(parameters: &[(&str, &str)], api_key: &str) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if !value.is_empty() && *value != "null" {
            text.push_str(name);
            text.push('=');
            text.push_str(value);
            text.push('|');
        }
    }
    text.push_str("salt=");
    text.push_str(api_key);
    hex(&Sha256::digest(text.as_bytes()))
}

/// RFC 7636: the S256 challenge of a verifier.
#[must_use]
pub fn pkce_challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// RFC 2104 HMAC with SHA-256.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// A stable number from a text: who a test person is must not change between runs.
pub(crate) fn stable_number(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}
