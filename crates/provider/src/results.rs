//! Where results may be fetched from.

use std::fmt::Write;

use url::Url;

/// Whether `url` lies at the place the operator named: `scheme://host[:port]`, where the host may begin with `*.`.
/// Anything else (another scheme, credentials in the URL, a look-alike host) would let a forged result make us fetch at will.
#[must_use]
pub fn is_from(place: &str, url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let Some((scheme, rest)) = place.trim_end_matches('/').split_once("://") else { return false };
    if url.scheme() != scheme || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()),
        None => (rest, if scheme == "https" { Some(443) } else { Some(80) }),
    };
    let Some(actual) = url.host_str() else { return false };
    let host_fits = match host.strip_prefix("*.") {
        Some(domain) => actual.strip_suffix(domain).is_some_and(|prefix| prefix.len() > 1 && prefix.ends_with('.')),
        None => actual == host,
    };
    host_fits && port.is_some() && url.port_or_known_default() == port
}

/// Percent-encodes a value for a query.
pub(crate) fn query_value(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_place_is_fetched_from() {
        for (place, url) in [
            ("http://127.0.0.1:3102", "http://127.0.0.1:3102/results/a.png"),
            ("https://tempfile.example", "https://tempfile.example/a.png?x=1"),
            ("https://*.files.example", "https://cdn.files.example/a.png"),
        ] {
            assert!(is_from(place, url), "{url}");
        }
        for (place, url) in [
            ("http://127.0.0.1:3102", "http://127.0.0.1:3101/a.png"),
            ("https://tempfile.example", "http://tempfile.example/a.png"),
            ("https://tempfile.example", "https://tempfile.example.evil.test/a.png"),
            ("https://tempfile.example", "https://tempfile.example@evil.test/a.png"),
            ("https://tempfile.example", "https://tempfile.example:8443/a.png"),
            ("https://*.files.example", "https://files.example/a.png"),
            ("https://*.files.example", "https://evilfiles.example/a.png"),
            ("https://tempfile.example", "file:///etc/passwd"),
            ("https://tempfile.example", "nonsense"),
        ] {
            assert!(!is_from(place, url), "{url}");
        }
    }
}
