//! AWS Signature Version 4 in the query of a URL ("presigned"), as S3 and R2 take it.
//!
//! Pure: time and everything else is given. Source: "Authenticating Requests: Using Query Parameters" in the S3 reference; the
//! tests hold its published vector and one in R2's shape.

use std::{collections::BTreeMap, fmt::Write};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Who signs, and for which place.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// `host` or `host:port`, as it goes into the `Host` header.
    pub(crate) authority: String,
    pub(crate) region: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

/// What is signed. Names of headers are lower-case.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// From the root of the host, not encoded.
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) headers: &'a [(&'static str, String)],
}

impl Signer {
    /// The URL that carries the right to make this request, for `seconds` from `now` (Unix seconds).
    pub(crate) fn presign(&self, request: &Request<'_>, seconds: u64, now: i64) -> String {
        let time = clock::stamp(now);
        let day = &time[..8];
        let scope = format!("{day}/{}/s3/aws4_request", self.region);

        // Sorted by a map of the one kind that components have anyway: sorting lists of their own types links 9 KiB more.
        let mut headers = BTreeMap::<String, String>::new();
        headers.insert("host".to_owned(), self.authority.clone());
        for (name, value) in request.headers {
            // S3 takes runs of spaces for one when it verifies; the header itself keeps them.
            headers.insert((*name).to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let signed_headers = headers.keys().map(String::as_str).collect::<Vec<_>>().join(";");

        let credential = format!("{}/{scope}", self.access_key_id);
        let seconds = seconds.to_string();
        let own = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", credential.as_str()),
            ("X-Amz-Date", time.as_str()),
            ("X-Amz-Expires", seconds.as_str()),
            ("X-Amz-SignedHeaders", signed_headers.as_str()),
        ];
        let mut query = BTreeMap::<String, String>::new();
        for (name, value) in own.iter().chain(request.query) {
            query.insert(encode(name, false), encode(value, false));
        }
        let query = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");

        // Each segment is encoded once; the path on the wire is the very same text.
        let path = encode(request.path, true);
        let mut canonical = format!("{}\n{path}\n{query}\n", request.method);
        for (name, value) in &headers {
            let _ = writeln!(canonical, "{name}:{value}");
        }
        let _ = write!(canonical, "\n{signed_headers}\nUNSIGNED-PAYLOAD");

        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", fingerprint::of(&canonical));
        let mut key = hmac(format!("AWS4{}", self.secret_access_key).as_bytes(), day);
        for part in [self.region.as_str(), "s3", "aws4_request"] {
            key = hmac(&key, part);
        }
        let signature = fingerprint::hex(&hmac(&key, &to_sign));
        format!("{}://{}{path}?{query}&X-Amz-Signature={signature}", self.scheme, self.authority)
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Percent-encodes all but the unreserved characters, and `/` unless it is kept.
fn encode(text: &str, keep_slashes: bool) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/') {
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

    fn signer(authority: &str, region: &str) -> Signer {
        Signer {
            scheme: "https".into(),
            authority: authority.into(),
            region: region.into(),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        }
    }

    #[test]
    fn the_vector_that_aws_publishes() {
        let request = Request { method: "GET", path: "/test.txt", query: &[], headers: &[] };
        let url = signer("examplebucket.s3.amazonaws.com", "us-east-1").presign(&request, 86_400, 1_369_353_600);
        assert!(url.ends_with("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"), "{url}");
        assert!(url.contains("X-Amz-Date=20130524T000000Z"), "{url}");
    }

    #[test]
    fn a_vector_in_the_shape_of_r2() {
        let headers = [("content-type", "image/png".to_owned())];
        let request = Request { method: "PUT", path: "/media/a b+c/é.png", query: &[], headers: &headers };
        let url = signer("acct.r2.cloudflarestorage.com", "auto").presign(&request, 600, 1_735_787_045);
        assert!(url.starts_with("https://acct.r2.cloudflarestorage.com/media/a%20b%2Bc/%C3%A9.png?"), "{url}");
        assert!(url.ends_with("&X-Amz-Signature=0e9eba45d3e78f7b0e01370ec49255743fe6d11b03e210b9bcf2bd58cfe8037b"), "{url}");
    }

    #[test]
    fn headers_are_signed_as_s3_reads_them() {
        let url = |value: &str| {
            let headers = [("x-amz-meta-original-name", value.to_owned()), ("content-type", "image/png".to_owned())];
            let request =
                Request { method: "PUT", path: "/media/a.png", query: &[("partNumber", "2"), ("uploadId", "a/b")], headers: &headers };
            signer("s3.test", "auto").presign(&request, 600, 1_735_787_045)
        };
        assert!(
            url("a").contains(
                "&X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-meta-original-name&partNumber=2&uploadId=a%2Fb&X-Amz-Signature="
            )
        );
        // Two spaces count as one, and those around it not at all.
        assert_eq!(url("my photo.png"), url(" my  photo.png "));
        assert_ne!(url("my photo.png"), url("myphoto.png"));
    }
}
