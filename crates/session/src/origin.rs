//! Requests that another site's page makes a browser send.
//!
//! A browser adds the session's cookie by itself, so for whatever changes something it is asked where the request comes from: it says so
//! in `Sec-Fetch-Site` (every current browser), or at least in `Origin`. What sends neither is no browser, and has its cookie from its
//! own user. A token in `Authorization` is never added by itself and needs no such question.

use http::{HeaderMap, Method};
use problem::{Code, Problem};
use service::Call;

/// Refuses what a page of another site makes a browser send.
///
/// # Errors
/// `forbidden`.
pub fn refuse_other_sites(call: &Call) -> Result<(), Problem> {
    if is_ours(&call.method, &call.headers, call.settings.public_url()?) {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "This request was made by a page of another site.").because("cross-site request"))
}

fn is_ours(method: &Method, headers: &HeaderMap, public_url: &str) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return true;
    }
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (header("sec-fetch-site"), header("origin")) {
        // "none": typed or bookmarked. "same-site" is another host of our domain, which may be somebody else's.
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => origin.eq_ignore_ascii_case(origin_of(public_url)),
        (None, None) => true,
    }
}

/// `scheme://host[:port]`.
fn origin_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ours(method: Method, lines: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_ours(&method, &headers, "https://app.example/base")
    }

    #[test]
    fn what_changes_something_comes_from_our_own_pages_or_from_no_browser() {
        for lines in [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://app.example")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://app.example")],
        ] {
            assert!(ours(Method::POST, lines), "{lines:?}");
        }
        for lines in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://app.example.evil.example")],
            &[("origin", "http://app.example")],
            &[("origin", "null")],
            &[("origin", "")],
        ] {
            assert!(!ours(Method::POST, lines), "{lines:?}");
            assert!(!ours(Method::DELETE, lines), "{lines:?}");
            assert!(ours(Method::GET, lines), "reading is not kept from anybody: {lines:?}");
        }
    }
}
