//! Sign-in with Google and GitHub: the OAuth 2 code flow with state, PKCE and, where there is one, a nonce.
//!
//! What a provider says about a person becomes an [`Identity`] here and nothing else of it is kept: access tokens are used once
//! and dropped. The sources of the protocol facts are the providers' own documents.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use config::Settings;
use outbound::Breaker;
use problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
pub use user::Identity;

pub mod github;
pub mod google;
mod id_token;

/// How long a provider may take for one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A provider one can sign in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Google,
    Github,
}

impl Provider {
    /// By the name in our routes.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "google" => Some(Self::Google),
            "github" => Some(Self::Github),
            _ => None,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Github => "github",
        }
    }
}

/// A sign-in that has begun: kept on our side under its `state` until the person comes back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attempt {
    pub provider: Provider,
    pub nonce: String,
    pub verifier: String,
    /// Where the person wants to be afterwards: a path of ours.
    pub return_to: String,
    /// Whose account the identity is to be added to; `None`: this is a sign-in.
    #[serde(default)]
    pub link_to: Option<String>,
}

impl Attempt {
    /// A new attempt and its `state`.
    ///
    /// # Errors
    /// `internal` without randomness.
    pub fn begin(provider: Provider, return_to: &str, link_to: Option<String>) -> Result<(Self, String), Problem> {
        let attempt = Self { provider, nonce: random()?, verifier: random()?, return_to: return_to.to_owned(), link_to };
        Ok((attempt, random()?))
    }

    /// Where the provider asks the person. `hint` is an address to suggest.
    ///
    /// # Errors
    /// `internal` when the settings hold no valid address of the provider.
    pub fn authorize_url(&self, settings: &Settings, state: &str, hint: Option<&str>) -> Result<String, Problem> {
        let challenge = challenge(&self.verifier);
        match self.provider {
            Provider::Google => google::authorize_url(settings, state, &self.nonce, &challenge, hint),
            Provider::Github => github::authorize_url(settings, state, &challenge, hint),
        }
    }

    /// Trades the code for the identity it stands for.
    ///
    /// # Errors
    /// `unauthenticated` when the provider does not vouch for the person, `provider_unavailable` when it cannot be asked.
    pub async fn finish(&self, settings: &Settings, code: &str) -> Result<Identity, Problem> {
        let pass = Breaker::of(self.provider.name()).pass().await.map_err(unavailable)?;
        let identity = match self.provider {
            Provider::Google => google::identity(settings, code, self).await,
            Provider::Github => github::identity(settings, code, self).await,
        };
        pass.told(!matches!(&identity, Err(problem) if problem.code == Code::ProviderUnavailable)).await;
        identity
    }

    /// Whether `iss` of an answer (RFC 9207) names somebody else than the provider that was asked. Without it nobody is named.
    #[must_use]
    pub fn is_from_another(&self, issuer: Option<&str>) -> bool {
        match (self.provider, issuer) {
            (_, None) => false,
            (Provider::Google, Some(issuer)) => !google::is_issuer(issuer),
            // It is said to send its own address, but nothing documents which.
            (Provider::Github, Some(_)) => false,
        }
    }
}

/// A path of ours that a person may be sent to; anything else becomes `/`.
/// `//host`, `/\host` and control characters are how such a parameter is turned into a redirect to somewhere else.
#[must_use]
pub fn safe_return(path: Option<&str>) -> String {
    let path = path.unwrap_or("/");
    let safe = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= 500
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if safe { path.to_owned() } else { "/".to_owned() }
}

/// Where a provider sends people back to; registered there, so it is exact.
fn redirect_uri(settings: &Settings, provider: Provider) -> Result<String, Problem> {
    Ok(format!("{}/auth/callback/{}", settings.public_url()?, provider.name()))
}

/// A secret for the browser, and the nonce that Google's button is given: its hash. Whoever reads the nonce in a token that was captured
/// cannot make the cookie that goes with it.
///
/// # Errors
/// `internal` without randomness.
pub fn one_tap_nonce() -> Result<(String, String), Problem> {
    let secret = random()?;
    let nonce = challenge(&secret);
    Ok((secret, nonce))
}

/// The identity in a token from Google's own button, for the browser that holds the secret of its nonce.
///
/// # Errors
/// As [`google::verify`].
pub async fn one_tap(settings: &Settings, credential: &str, secret: &str) -> Result<Identity, Problem> {
    google::verify(settings, credential, &challenge(secret), Some(&Breaker::of(Provider::Google.name()))).await
}

/// 256 random bits, base64url: 43 characters, as PKCE wants them.
fn random() -> Result<String, Problem> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(Problem::internal)?;
    Ok(BASE64.encode(bytes))
}

/// PKCE S256 (RFC 7636).
fn challenge(verifier: &str) -> String {
    BASE64.encode(Sha256::digest(verifier.as_bytes()))
}

fn refused(cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Unauthenticated, "The sign-in did not succeed. Start again.").because(cause)
}

fn unavailable(cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::ProviderUnavailable, "The sign-in service is out of reach. Try again in a moment.").retry_after(5).because(cause)
}

fn url(settings: &Settings, variable: &str, path: &str) -> Result<String, Problem> {
    Ok(format!("{}{path}", settings.text(variable)?.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pkce_vector_of_rfc_7636() {
        assert_eq!(challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn nobody_is_sent_elsewhere_after_signing_in() {
        for path in ["/", "/studio?x=1#top", "/auth/session"] {
            assert_eq!(safe_return(Some(path)), path);
        }
        for path in ["//evil.test", "/\\evil.test", "https://evil.test", "studio", "", "/a\r\nset-cookie: x", "/\tb"] {
            assert_eq!(safe_return(Some(path)), "/", "{path:?}");
        }
        assert_eq!(safe_return(None), "/");
    }
}
