//! What must not be read by whoever reads the database or the cache: texts sealed with XChaCha20-Poly1305.
//!
//! A sealed text is `sealed:<key>:<base64url(nonce | ciphertext | tag)>`. It is bound to its place (`sessions.ip_address`, `ai_tasks.detail`
//! of one row, ...), so that it cannot be moved to another. `<key>` names the key it was sealed with: the variable
//! `data_encryption_key` may hold several, separated by commas. The first seals, all of them open; so a new key goes in front,
//! and the old one stays for as long as something sealed with it is kept. A column's text that is not sealed was stored before sealing began,
//! and is taken as it is; values sealed as JSON live for days at most, and what is not sealed there is not ours.
//!
//! What is too long to be held whole is sealed in pieces: [`Keys::sealer`].

use std::{cell::RefCell, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use config::Settings;
use hmac::{Hmac, Mac};
use problem::Problem;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

mod stream;

pub use stream::{HEAD, Opener, Sealer, UnknownKey};

/// The variable that holds the keys.
pub const VARIABLE: &str = "data_encryption_key";
const MARK: &str = "sealed:";
/// Bytes of a nonce of XChaCha20: long enough to be drawn at random for ever.
const NONCE: usize = 24;

/// The keys of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<[Named]>);

thread_local! {
    /// What this instance derived last, and of what: every request asks, and the answer is the same for as long as the variable is.
    static DERIVED: RefCell<Option<(String, Keys)>> = const { RefCell::new(None) };
}

struct Named {
    /// The first 8 hex digits of a fingerprint of the secret.
    id: String,
    cipher: XChaCha20Poly1305,
    index: [u8; 32],
    secret: String,
}

impl Keys {
    /// The keys that the settings hold.
    ///
    /// # Errors
    /// `internal` when there is none: sealing with an empty key would be a lie.
    pub fn from_settings(settings: &Settings) -> Result<Self, Problem> {
        let secrets = settings.text(VARIABLE)?;
        let known = DERIVED.with_borrow(|derived| derived.as_ref().filter(|(of, _)| of == secrets).map(|(_, keys)| keys.clone()));
        if let Some(keys) = known {
            return Ok(keys);
        }
        let keys = Self(settings.list(VARIABLE)?.map(Named::new).collect());
        if keys.0.is_empty() {
            return Err(Problem::internal(format!("variable {VARIABLE} is empty")));
        }
        DERIVED.set(Some((secrets.to_owned(), keys.clone())));
        Ok(keys)
    }

    /// Seals a text for one place.
    ///
    /// # Errors
    /// `internal` without randomness.
    pub fn seal(&self, place: &str, text: &str) -> Result<String, Problem> {
        let key = self.0.first().ok_or_else(|| Problem::internal("no key to seal with"))?;
        let mut nonce = [0_u8; NONCE];
        getrandom::fill(&mut nonce).map_err(Problem::internal)?;
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let ciphertext = key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(Problem::internal)?;
        let sealed = [&nonce[..], &ciphertext].concat();
        Ok(format!("{MARK}{}:{}", key.id, BASE64.encode(sealed)))
    }

    /// Opens what was sealed for this place. `None`: by another key, for another place, or tampered with. A text that is not sealed is
    /// older than sealing, and answered as it is.
    #[must_use]
    pub fn open(&self, place: &str, text: &str) -> Option<String> {
        if text.starts_with(MARK) { self.open_sealed(place, text) } else { Some(text.to_owned()) }
    }

    /// As [`Keys::open`] for what was never stored in another way: a text that is not sealed is `None`. Whoever can write to the store
    /// but has no key can put nothing there.
    #[must_use]
    pub fn open_sealed(&self, place: &str, text: &str) -> Option<String> {
        let (id, sealed) = text.strip_prefix(MARK)?.split_once(':')?;
        let sealed = BASE64.decode(sealed).ok()?;
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>()?;
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        let key = self.0.iter().find(|key| key.id == id)?;
        String::from_utf8(key.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?).ok()
    }

    /// Seals a value as JSON.
    ///
    /// # Errors
    /// As [`Keys::seal`].
    pub fn seal_json<T: Serialize>(&self, place: &str, value: &T) -> Result<String, Problem> {
        self.seal(place, &serde_json::to_string(value).map_err(Problem::internal)?)
    }

    /// Opens a value that was sealed as JSON. `None` for anything else: such values never were stored in another way.
    #[must_use]
    pub fn open_json<T: DeserializeOwned>(&self, place: &str, text: &str) -> Option<T> {
        serde_json::from_str(&self.open_sealed(place, text)?).ok()
    }

    /// Keyed fingerprints of a text, hex, one for each key, the current first: to find again what must not be read back, such as a mailbox
    /// that had its sign-up credits.
    #[must_use]
    pub fn fingerprints(&self, place: &str, text: &str) -> Vec<String> {
        let one = |key: &Named| {
            let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&key.index).expect("HMAC takes a key of any length");
            mac.update(place.as_bytes());
            mac.update(b"\0");
            mac.update(text.as_bytes());
            hex(&mac.finalize().into_bytes())
        };
        self.0.iter().map(one).collect()
    }
}

impl Named {
    fn new(secret: &str) -> Self {
        let mut id = hex(&derive("key id", secret));
        id.truncate(8);
        let cipher = XChaCha20Poly1305::new(&Key::from(derive("sealing", secret)));
        Self { id, cipher, index: derive("index", secret), secret: secret.to_owned() }
    }

    /// For streams. Made when it is needed, which is hardly ever.
    fn stream_cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(derive("streams", &self.secret)))
    }
}

/// One secret, four uses that know nothing of each other.
fn derive(purpose: &str, secret: &str) -> [u8; 32] {
    Sha256::digest(format!("ai-hairstyle {purpose}\0{secret}").as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(secrets: &'static str) -> Keys {
        Keys::from_settings(&Settings::from_values([(VARIABLE, secrets)])).expect("keys")
    }

    #[test]
    fn what_is_sealed_is_opened_in_its_place_only() {
        let keys = keys("one");
        let sealed = keys.seal("users.name of 1", "Ada").expect("sealed");
        assert!(sealed.starts_with("sealed:") && !sealed.contains("Ada"), "{sealed}");
        assert_ne!(sealed, keys.seal("users.name of 1", "Ada").expect("sealed"), "twice the same text is two");
        assert_eq!(keys.open("users.name of 1", &sealed).as_deref(), Some("Ada"));
        assert_eq!(keys.open("users.name of 2", &sealed), None);
    }

    #[test]
    fn a_new_key_goes_in_front_and_the_old_one_opens_what_it_sealed() {
        let (old, both, new) = (keys("old"), keys("new, old"), keys("new"));
        let before = old.seal("x", "Ada").expect("sealed");
        let after = both.seal("x", "Ada").expect("sealed");
        assert_eq!(both.open("x", &before).as_deref(), Some("Ada"));
        assert_eq!((old.open("x", &after), new.open("x", &after).as_deref()), (None, Some("Ada")));
        assert_eq!(new.open("x", &before), None);
        assert!(both.fingerprints("x", "Ada").contains(&old.fingerprints("x", "Ada")[0]));
    }

    #[test]
    fn what_was_stored_before_sealing_began_is_taken_as_it_is() {
        assert_eq!(keys("one").open("x", "plain").as_deref(), Some("plain"));
    }

    #[test]
    fn a_value_that_nobody_sealed_is_none_of_ours() {
        let keys = keys("one");
        let sealed = keys.seal_json("x", &"Ada").expect("sealed");
        assert_eq!(keys.open_json::<String>("x", &sealed).as_deref(), Some("Ada"));
        assert_eq!((keys.open_json::<String>("x", "\"Ada\""), keys.open_sealed("x", "Ada")), (None, None));
    }

    #[test]
    fn without_a_key_nothing_is_sealed() {
        assert!(Keys::from_settings(&Settings::from_values([(VARIABLE, " , ")])).is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_any_change_is_noticed(text in ".{0,200}", at in any::<prop::sample::Index>()) {
            let keys = keys("one");
            let sealed = keys.seal("x", &text).expect("sealed");
            prop_assert_eq!(keys.open("x", &sealed), Some(text));
            let (head, body) = sealed.rsplit_once(':').expect("three parts");
            let mut bytes = BASE64.decode(body).expect("base64");
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert_eq!(keys.open("x", &format!("{head}:{}", BASE64.encode(bytes))), None);
        }

        #[test]
        fn nothing_that_looks_sealed_breaks_it(text in "sealed:.{0,80}") {
            prop_assert_eq!(keys("one").open("x", &text), None);
        }
    }
}
