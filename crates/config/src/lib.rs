//! The settings of the running component: application variables, read once per instance.
//!
//! A component names the variables it holds; they are fetched side by side at its first request and kept for the life of the
//! instance (an instance lives for at most some hundred requests, so a changed value arrives soon).

use std::{collections::BTreeMap, rc::Rc};

use problem::Problem;
use spin_sdk::variables;

/// A value with this prefix is a placeholder that is good on this machine only.
pub const PLACEHOLDER: &str = "loopback-only";
/// What the recipes of `deploy/` have where a value has to be filled in.
const TO_FILL_IN: [&str; 4] = ["SECRET", "CLIENT-ID", "CLIENT-ID.apps.googleusercontent.com", "https://ACCOUNT.r2.cloudflarestorage.com"];

/// The variables of one component.
#[derive(Debug, Default)]
pub struct Settings(BTreeMap<&'static str, String>);

thread_local! {
    static LOADED: std::cell::RefCell<Option<Rc<Settings>>> = const { std::cell::RefCell::new(None) };
}

impl Settings {
    /// Fetches `names`, or answers what this instance already has.
    ///
    /// # Errors
    /// `internal` when a variable is not mapped in spin.toml, or when a placeholder meets a `public_url` that is not loopback:
    /// a service that strangers can reach must not run with secrets that everybody knows.
    pub async fn load(names: &[&'static str]) -> Result<Rc<Self>, Problem> {
        if let Some(settings) = LOADED.with_borrow(Clone::clone) {
            return Ok(settings);
        }
        let values = futures::future::join_all(names.iter().map(variables::get)).await;
        let mut settings = Self::default();
        for (name, value) in names.iter().zip(values) {
            let value = value.map_err(|error| Problem::internal(format!("variable {name}: {error}")))?;
            settings.0.insert(name, value);
        }
        settings.refuse_placeholders()?;
        let settings = Rc::new(settings);
        LOADED.set(Some(settings.clone()));
        Ok(settings)
    }

    /// Settings from given values: for tests.
    pub fn from_values<'a>(values: impl IntoIterator<Item = (&'static str, &'a str)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
    }

    /// The value of a variable that the component names.
    ///
    /// # Errors
    /// `internal` for a name the component does not hold: a fault of ours that the first request finds.
    pub fn text(&self, name: &str) -> Result<&str, Problem> {
        self.0.get(name).map(String::as_str).ok_or_else(|| Problem::internal(format!("this component does not hold the variable {name}")))
    }

    /// The values of a variable that holds several, separated by commas: secrets while they are being exchanged, the newest first.
    ///
    /// # Errors
    /// As [`Settings::text`].
    pub fn list(&self, name: &str) -> Result<impl Iterator<Item = &str>, Problem> {
        Ok(self.text(name)?.split(',').map(str::trim).filter(|value| !value.is_empty()))
    }

    /// The same as a whole number.
    ///
    /// # Errors
    /// `internal` when it is not one.
    pub fn integer(&self, name: &str) -> Result<i64, Problem> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Problem::internal(format!("variable {name} should be a whole number")))
    }

    /// Where people reach the app, without a trailing slash.
    ///
    /// # Errors
    /// As [`Settings::text`].
    pub fn public_url(&self) -> Result<&str, Problem> {
        Ok(self.text("public_url")?.trim_end_matches('/'))
    }

    /// Whether the app is reached from this machine only.
    ///
    /// # Errors
    /// As [`Settings::text`].
    pub fn is_loopback(&self) -> Result<bool, Problem> {
        Ok(is_loopback(self.public_url()?))
    }

    fn refuse_placeholders(&self) -> Result<(), Problem> {
        if self.is_loopback()? {
            return Ok(());
        }
        match self.0.iter().find(|(_, value)| is_placeholder(value)) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::internal(format!(
                "variable {name} still has its placeholder, but public_url is not a loopback address: set {name}"
            ))),
        }
    }
}

/// Whether a value, or one of several, has still to be set by whoever runs the app for others.
#[must_use]
pub fn is_placeholder(value: &str) -> bool {
    value.split(',').map(str::trim).any(|value| value.starts_with(PLACEHOLDER) || TO_FILL_IN.contains(&value))
}

/// Whether an address only reaches this machine.
fn is_loopback(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host == "::1" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(public_url: &str, secret: &str) -> Option<String> {
        let settings = Settings::from_values([("public_url", public_url), ("session_secret", secret)]);
        settings.refuse_placeholders().err().and_then(|problem| problem.cause)
    }

    #[test]
    fn a_placeholder_is_good_on_loopback_only() {
        for url in ["http://127.0.0.1:3000", "http://localhost:3000", "http://[::1]:3000", "http://127.9.9.9"] {
            assert_eq!(refusal(url, "loopback-only-x"), None, "{url}");
        }
        for url in ["https://app.example", "http://127.0.0.1.example", "http://localhost@app.example", "http://10.0.0.1", "app"] {
            let cause = refusal(url, "loopback-only-x").expect(url);
            assert!(cause.contains("session_secret"), "{cause}");
        }
    }

    #[test]
    fn what_a_recipe_leaves_to_be_filled_in_is_a_placeholder() {
        for secret in ["SECRET", " SECRET", "new, SECRET"] {
            assert_eq!(refusal("http://127.0.0.1:3000", secret), None, "{secret}");
            let cause = refusal("https://app.example", secret).expect(secret);
            assert!(cause.contains("session_secret"), "{cause}");
        }
    }

    #[test]
    fn a_real_secret_is_good_everywhere() {
        assert_eq!(refusal("https://app.example", "3f1c8d"), None);
        assert_eq!(refusal("https://app.example", "SECRET-that-somebody-chose"), None);
        assert!(refusal("https://app.example", "3f1c8d, loopback-only-x").is_some(), "an old placeholder is no old secret");
    }
}
