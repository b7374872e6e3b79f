//! Where results may be fetched from.

use http::Uri;

/// Whether `url` lies at the place the operator named: `scheme://host[:port]`, where the host may begin with `*.`.
/// Anything else (another scheme, credentials in the URL, a look-alike host) would let a forged result make us fetch at will.
#[must_use]
pub fn is_from(place: &str, url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else { return false };
    let Some((wanted_scheme, wanted)) = place.trim_end_matches('/').split_once("://") else { return false };
    if scheme != wanted_scheme || authority.as_str().contains('@') {
        return false;
    }
    let usual = if scheme == "https" { 443 } else { 80 };
    let (wanted_host, wanted_port) = match wanted.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()),
        None => (wanted, Some(usual)),
    };
    let host = authority.host().to_ascii_lowercase();
    let host_fits = match wanted_host.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|prefix| prefix.len() > 1 && prefix.ends_with('.')),
        None => host == wanted_host,
    };
    host_fits && wanted_port.is_some() && Some(authority.port_u16().unwrap_or(usual)) == wanted_port
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
