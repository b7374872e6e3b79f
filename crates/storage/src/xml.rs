//! The little XML of S3 that we send and read: flat documents of known elements.

use std::fmt::Write;

use crate::{Listed, Refused};

/// The text of the first `<name>` in `document`, decoded.
pub(crate) fn text(document: &str, name: &str) -> Option<String> {
    let (_, after) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    Some(decode(text))
}

/// How often `<name>` opens in `document`.
pub(crate) fn count(document: &str, name: &str) -> usize {
    document.matches(&format!("<{name}>")).count()
}

/// The objects of a ListObjectsV2 answer.
pub(crate) fn objects(document: &str) -> Vec<Listed> {
    let contents = document.split("<Contents>").skip(1).map(|part| part.split("</Contents>").next().unwrap_or_default());
    let objects = contents
        .filter_map(|object| Some(Listed { key: text(object, "Key")?, last_modified: text(object, "LastModified").unwrap_or_default() }));
    objects.collect()
}

/// What a DeleteObjects answer says was not removed; `None`: it says so of something that has no key. What is not there is as good as removed.
pub(crate) fn refused(document: &str) -> Option<Vec<Refused>> {
    let errors = document.split("<Error>").skip(1).map(|part| part.split("</Error>").next().unwrap_or_default());
    let refused = errors.map(|error| Some(Refused { key: text(error, "Key")?, code: text(error, "Code").unwrap_or_default() }));
    refused.filter(|refused| refused.as_ref().is_none_or(|refused| refused.code != "NoSuchKey")).collect()
}

/// The body of DeleteObjects.
pub(crate) fn delete(keys: &[String]) -> String {
    let objects = keys.iter().map(|key| format!("<Object><Key>{}</Key></Object>", encode(key))).collect::<String>();
    format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{objects}</Delete>")
}

/// The body of CompleteMultipartUpload: the parts' etags, in order.
pub(crate) fn complete(etags: &[String]) -> String {
    let mut parts = String::new();
    for (at, etag) in etags.iter().enumerate() {
        let _ = write!(parts, "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", at + 1, encode(etag));
    }
    format!("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>")
}

fn encode(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn decode(text: &str) -> String {
    // The ampersand last: what it makes is not an entity any more.
    let named = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    named.replace("&#34;", "\"").replace("&#39;", "'").replace("&#x27;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let page = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;lt;b</NextContinuationToken>\
                    <Contents><Key>cache/u/1_a.jpg</Key><LastModified>2026-11-23T17:28:16.000Z</LastModified><Size>3</Size></Contents>\
                    <Contents><Key>x&amp;y</Key></Contents></ListBucketResult>";
        let objects = objects(page);
        assert_eq!(objects.len(), 2);
        assert_eq!((objects[0].key.as_str(), objects[0].written_at()), ("cache/u/1_a.jpg", Some(1_795_454_896)));
        assert_eq!((objects[1].key.as_str(), objects[1].written_at()), ("x&y", None));
        assert_eq!(text(page, "NextContinuationToken").as_deref(), Some("a&lt;b"));
        assert_eq!(text(page, "Missing"), None);
    }

    #[test]
    fn what_was_not_removed_is_named() {
        let answer = "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Code>AccessDenied</Code><Key>b&amp;c</Key></Error>\
                      <Error><Key>d</Key><Code>NoSuchKey</Code></Error></DeleteResult>";
        let left = refused(answer).expect("keys");
        assert_eq!(left.iter().map(|one| (one.key.as_str(), one.code.as_str())).collect::<Vec<_>>(), [("b&c", "AccessDenied")]);
        assert!(refused("<DeleteResult/>").is_some_and(|left| left.is_empty()));
        assert!(refused("<DeleteResult><Error><Code>InternalError</Code></Error></DeleteResult>").is_none());
    }

    #[test]
    fn what_is_sent_is_escaped() {
        assert!(delete(&["a&b".to_owned()]).contains("<Object><Key>a&amp;b</Key></Object>"));
        assert!(complete(&["\"e1\"".to_owned(), "\"e2\"".to_owned()]).contains("<PartNumber>2</PartNumber><ETag>&quot;e2&quot;</ETag>"));
    }
}
