//! Id tokens: signed statements about a person (OpenID Connect Core, RFC 7515, RFC 7519), as Google issues them.
//!
//! Google signs with RS256 only, so that is all that is understood: a token that names any other algorithm is refused before a
//! key is looked for, which leaves no room for the classic confusions (`none`, HS256 with the public key as its secret). A
//! general JOSE crate links every algorithm it knows and would more than double the component.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey, traits::SignatureScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Both are genuine (OpenID Connect discovery of Google).
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// How far the two clocks may differ, in seconds.
const SKEW: i64 = 60;
/// Longest token that is looked at, in bytes. Google's are under 2 KiB.
const LONGEST: usize = 16 * 1024;
/// The DER that names SHA-256 in a PKCS #1 v1.5 signature (RFC 8017, 9.2).
const SHA256_PREFIX: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// Why a token counts for nothing. For the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("id token: not a token")]
    Malformed,
    #[error("id token: signed with an algorithm other than RS256")]
    Algorithm,
    #[error("id token: wrong signature")]
    Signature,
    #[error("id token: from another issuer")]
    Issuer,
    #[error("id token: for another audience")]
    Audience,
    #[error("id token: expired")]
    Expired,
    #[error("id token: not valid yet")]
    Early,
    #[error("id token: answers another sign-in")]
    Nonce,
}

/// What Google says of a person.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    iss: String,
    aud: String,
    azp: Option<String>,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    nonce: Option<String>,
    pub(crate) email: Option<String>,
    #[serde(default)]
    pub(crate) email_verified: bool,
    /// The Workspace domain that the account belongs to.
    pub(crate) hd: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) picture: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// A public key as it is published (RFC 7517).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    #[serde(default)]
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

/// Published keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    pub(crate) fn find(self, id: &str) -> Option<Key> {
        self.keys.into_iter().find(|key| key.kid == id && key.kty == "RSA")
    }
}

/// A token that has been taken apart and not believed yet.
pub(crate) struct IdToken<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
    key_id: String,
}

impl<'a> IdToken<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Error> {
        if token.len() > LONGEST {
            return Err(Error::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Error::Malformed)?;
        if header.alg != "RS256" {
            return Err(Error::Algorithm);
        }
        Ok(Self { signed, payload, signature: decode(signature)?, key_id: header.kid })
    }

    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The claims, if Google signed them for `client_id`, they hold at `now` (Unix seconds), and they carry `nonce` where one was
    /// asked for.
    pub(crate) fn verify(&self, key: &Key, client_id: &str, nonce: Option<&str>, now: i64) -> Result<Claims, Error> {
        let number = |text: &str| decode(text).map(|bytes| BigUint::from_bytes_be(&bytes));
        let key = RsaPublicKey::new(number(&key.n)?, number(&key.e)?).map_err(|_| Error::Signature)?;
        let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: Box::new(SHA256_PREFIX) };
        scheme.verify(&key, &Sha256::digest(self.signed.as_bytes()), &self.signature).map_err(|_| Error::Signature)?;

        // Only now is what it says looked at.
        let claims: Claims = serde_json::from_slice(&decode(self.payload)?).map_err(|_| Error::Malformed)?;
        if !ISSUERS.contains(&claims.iss.as_str()) {
            return Err(Error::Issuer);
        }
        if claims.aud != client_id || claims.azp.as_deref().is_some_and(|party| party != client_id) {
            return Err(Error::Audience);
        }
        if claims.exp <= now - SKEW {
            return Err(Error::Expired);
        }
        if claims.iat > now + SKEW || claims.nbf.is_some_and(|from| from > now + SKEW) {
            return Err(Error::Early);
        }
        if nonce.is_some_and(|nonce| claims.nonce.as_deref() != Some(nonce)) {
            return Err(Error::Nonce);
        }
        Ok(claims)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Error> {
    BASE64.decode(text).map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use rsa::{RsaPrivateKey, pkcs1::DecodeRsaPrivateKey, traits::PublicKeyParts};
    use serde_json::{Value, json};

    use super::*;

    const CLIENT: &str = "123-abc.apps.googleusercontent.com";
    const NOW: i64 = 1_776_000_100;

    fn private() -> RsaPrivateKey {
        RsaPrivateKey::from_pkcs1_pem(include_str!("../testdata/test-key.pem")).expect("a test key")
    }

    fn public() -> Key {
        let key = private();
        let text = |number: &BigUint| BASE64.encode(number.to_bytes_be());
        Key { kty: "RSA".into(), kid: "k1".into(), n: text(key.n()), e: text(key.e()) }
    }

    fn sign(header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: Box::new(SHA256_PREFIX) };
        let signature = private().sign(scheme, &Sha256::digest(signed.as_bytes())).expect("signs");
        format!("{signed}.{}", BASE64.encode(signature))
    }

    fn claims() -> Value {
        json!({"iss": "https://accounts.google.com", "azp": CLIENT, "aud": CLIENT, "sub": "110169484474386276334", "email": "a@example.com",
               "email_verified": true, "nonce": "n", "iat": NOW - 100, "exp": NOW + 3_500})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn outcome(token: &str) -> Result<String, Error> {
        IdToken::parse(token)?.verify(&public(), CLIENT, Some("n"), NOW).map(|claims| claims.sub)
    }

    fn outcome_of(claims: &Value) -> Result<String, Error> {
        outcome(&sign(&json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}), claims))
    }

    #[test]
    fn a_genuine_token_is_believed_under_both_issuers() {
        assert_eq!(outcome_of(&claims()).as_deref(), Ok("110169484474386276334"));
        assert!(outcome_of(&with("iss", json!("accounts.google.com"))).is_ok());
        assert!(outcome_of(&with("exp", json!(NOW - 59))).is_ok(), "clocks may differ by a minute");
    }

    #[test]
    fn a_token_for_others_or_another_time_is_refused() {
        for (name, value, error) in [
            ("iss", json!("https://accounts.google.com.evil.test"), Error::Issuer),
            ("aud", json!("other"), Error::Audience),
            ("aud", json!([CLIENT]), Error::Malformed),
            ("azp", json!("other"), Error::Audience),
            ("exp", json!(NOW - 60), Error::Expired),
            ("iat", json!(NOW + 61), Error::Early),
            ("nbf", json!(NOW + 61), Error::Early),
            ("nonce", json!("other"), Error::Nonce),
            ("nonce", Value::Null, Error::Nonce),
            ("exp", Value::Null, Error::Malformed),
        ] {
            assert_eq!(outcome_of(&with(name, value.clone())), Err(error), "{name} = {value}");
        }
    }

    #[test]
    fn only_rs256_by_the_right_key_counts() {
        for algorithm in ["none", "HS256", "RS512", "rs256", ""] {
            assert_eq!(outcome(&sign(&json!({"alg": algorithm, "kid": "k1"}), &claims())), Err(Error::Algorithm), "{algorithm}");
        }
        let token = sign(&json!({"alg": "RS256", "kid": "k1"}), &claims());
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let (header, _) = signed.split_once('.').expect("three parts");
        let changed = BASE64.encode(with("sub", json!("1")).to_string());
        assert_eq!(outcome(&format!("{header}.{changed}.{signature}")), Err(Error::Signature));
        assert_eq!(outcome(&format!("{signed}.")), Err(Error::Signature));
        let mut other = public();
        other.n = BASE64.encode(private().n().to_bytes_be().iter().map(|byte| byte ^ 1).collect::<Vec<_>>());
        let token = IdToken::parse(&token).expect("well-formed");
        assert!(token.verify(&other, CLIENT, Some("n"), NOW).is_err());
    }

    #[test]
    fn what_is_no_token_is_refused_without_a_panic() {
        for text in ["", ".", "..", "a.b", "a.b.c", "....", "é.é.é", &"a".repeat(20_000)] {
            assert!(outcome(text).is_err(), "{text}");
        }
        let keys: KeySet = serde_json::from_value(json!({"keys": [{"kty": "EC", "kid": "k1"}, {"kid": "k2"}]})).expect("a key set");
        assert!(keys.find("k1").is_none());
    }
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_comes_as_a_token_is_refused_without_a_panic(text in "[A-Za-z0-9_.=-]{0,300}", any in ".{0,100}") {
            proptest::prop_assert!(outcome(&text).is_err());
            proptest::prop_assert!(outcome(&any).is_err());
        }

        #[test]
        fn a_genuine_token_that_is_changed_anywhere_is_refused(at in proptest::prelude::any::<proptest::sample::Index>(), byte in b'0'..=b'9') {
            let token = sign(&json!({"alg": "RS256", "kid": "k1"}), &claims());
            // The last character of a part may carry bits that are no part of it.
            let mut changed = token.clone().into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let changed = String::from_utf8(changed).expect("ascii");
            proptest::prop_assert!(changed == token || outcome(&changed).is_err());
        }

        #[test]
        fn published_keys_of_any_shape_open_nothing(n in "[A-Za-z0-9_-]{0,60}", e in "[A-Za-z0-9_-]{0,20}") {
            let token = sign(&json!({"alg": "RS256", "kid": "k1"}), &claims());
            let key = Key { kty: "RSA".into(), kid: "k1".into(), n, e };
            proptest::prop_assert!(IdToken::parse(&token).expect("well-formed").verify(&key, CLIENT, Some("n"), NOW).is_err());
        }
    }
}
