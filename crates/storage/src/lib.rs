//! The bucket: Cloudflare R2 or any S3, reached with presigned URLs over outbound HTTP.
//!
//! Every request is signed in its query (SigV4, `UNSIGNED-PAYLOAD`), so one mechanism serves our own calls and the links that
//! people and the AI provider are given. The bucket stays private. [`Bucket::put`] and [`Bucket::get`] hold a body whole, for what is bounded
//! anyway (a photo, see decision 11); [`Writer`] takes what comes as a stream and holds one part of it.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use config::Settings;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use md5::{Digest, Md5};
use outbound::Failure;
use problem::{Code, Problem};

mod sigv4;
mod xml;

use sigv4::{Request, Signer};

/// Where things lie in the bucket.
pub mod key {
    /// A user's upload.
    #[must_use]
    pub fn upload(user_id: &str, millis: i64, random: &str, extension: &str) -> String {
        format!("cache/{user_id}/{millis}_{random}.{extension}")
    }

    /// The `number`-th picture (from 1) of a task.
    #[must_use]
    pub fn result(task_id: &str, number: usize, extension: &str) -> String {
        format!("result/hairstyle/{task_id}/result_{number}.{extension}")
    }

    /// Where a client puts a file itself, before it is looked at and becomes the upload of this key.
    #[must_use]
    pub fn raw(upload: &str) -> String {
        format!("{upload}.raw")
    }

    /// The upload that such a file is to become.
    #[must_use]
    pub fn upload_of_raw(raw: &str) -> Option<&str> {
        raw.strip_suffix(".raw")
    }

    /// The task that a result was made for.
    #[must_use]
    pub fn task_of_result(key: &str) -> Option<&str> {
        key.strip_prefix(RESULTS)?.split_once('/').map(|(task, _)| task)
    }

    /// Whose profile picture it is.
    #[must_use]
    pub fn user_of_avatar(key: &str) -> Option<&str> {
        key.strip_prefix(AVATARS)?.strip_suffix(".jpg")
    }

    /// Everything a user has uploaded.
    #[must_use]
    pub fn of_user(user_id: &str) -> String {
        format!("cache/{user_id}/")
    }

    /// Everything made for a task.
    #[must_use]
    pub fn of_task(task_id: &str) -> String {
        format!("result/hairstyle/{task_id}/")
    }

    /// A user's profile picture.
    #[must_use]
    pub fn avatar(user_id: &str) -> String {
        format!("avatars/{user_id}.jpg")
    }

    /// Everything about backups: what belongs together when it is copied elsewhere.
    pub const BACKUPS: &str = "backups/";
    /// Notes of people who have gone, for whoever restores a backup that was made before. They lie with the backups and not with what is
    /// somebody's: they have to outlive them.
    pub const ERASURES: &str = "backups/erasures/";

    /// The rows of a backup.
    #[must_use]
    pub fn backup_data(id: &str) -> String {
        format!("{BACKUPS}{id}/data")
    }

    /// What is said of a backup. Without it there is none.
    #[must_use]
    pub fn backup_manifest(id: &str) -> String {
        format!("{BACKUPS}{id}/manifest.json")
    }

    /// The note that a person has gone.
    #[must_use]
    pub fn erased(user_id: &str) -> String {
        format!("{ERASURES}{user_id}")
    }

    /// All uploads.
    pub const UPLOADS: &str = "cache/";
    /// All results.
    pub const RESULTS: &str = "result/hairstyle/";
    /// All profile pictures.
    pub const AVATARS: &str = "avatars/";
    /// How long an upload is kept, in seconds: 7 days.
    pub const UPLOADS_KEPT: i64 = 7 * 86_400;

    /// Whether a key is one of ours. Path segments such as `..` would be resolved by the URL and leave the bucket, so only
    /// plain names pass.
    #[must_use]
    pub fn is_plain(key: &str) -> bool {
        !key.is_empty()
            && key.len() <= 512
            && key.split('/').all(|segment| !segment.is_empty() && !segment.starts_with('.'))
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte))
    }
}

/// Size of the parts of a large object, in bytes: the smallest S3 allows, and R2 wants all equal.
pub const PART: usize = 5 << 20;
/// How long one call to the store may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the URLs of our own calls are good.
const OWN_URL: Duration = Duration::from_secs(300);
/// Keys per listing and per deletion, the protocol's maximum.
pub const PAGE: usize = 1_000;
/// Longest XML answer that is read, in bytes: a page of 1,000 keys is some 400 KiB.
const XML_CAP: usize = 4 << 20;

/// The store did not do what was asked. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("storage {action}: {failure}")]
    Failed { action: &'static str, failure: Failure },
    #[error("storage {action}: status {status}, code {code}")]
    Refused { action: &'static str, status: StatusCode, code: String },
    #[error("storage: not a plain key")]
    Key,
    #[error("storage: the object is longer than we are willing to read")]
    TooLarge,
}

impl Error {
    /// Whether the store understood and would not: asking again changes nothing. What is locked answers so, and to a key without the right.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.is_client_error() && !outbound::is_passing(*status))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(Code::StorageUnavailable, "The file store is out of reach. Nothing was lost; try again in a moment.")
            .retry_after(5)
            .because(error)
    }
}

/// Headers that are stored with an object, all of them signed. Names are lower-case.
#[derive(Clone, Debug, Default)]
pub struct Description(Vec<(&'static str, String)>);

impl Description {
    /// An object of this type that never changes.
    #[must_use]
    pub fn of(content_type: &str) -> Self {
        Self(vec![("content-type", content_type.to_owned()), ("cache-control", "public, max-age=31536000".to_owned())])
    }

    /// An object that is for nobody's eyes but ours.
    #[must_use]
    pub fn private(content_type: &str) -> Self {
        Self(vec![("content-type", content_type.to_owned()), ("cache-control", "private, no-store".to_owned())])
    }

    /// Adds a metadata value (`x-amz-meta-...`). What isn't printable ASCII is percent-encoded: headers carry nothing else.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        let mut encoded = String::new();
        for byte in value.bytes().take(1_000) {
            match byte {
                b'%' => encoded.push_str("%25"),
                b' '..=b'~' => encoded.push(char::from(byte)),
                other => encoded.push_str(&format!("%{other:02X}")),
            }
        }
        self.0.push((name, encoded.trim().to_owned()));
        self
    }
}

/// An object in a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    pub key: String,
    /// As the store says it: ISO 8601 in UTC.
    pub last_modified: String,
}

impl Listed {
    /// When it was written, in Unix seconds, if the store says so.
    #[must_use]
    pub fn written_at(&self) -> Option<i64> {
        clock::parse_millis(&self.last_modified).map(|millis| millis / 1_000)
    }
}

/// An object that the store would not remove, and the code it gave.
#[derive(Clone, Debug)]
pub struct Refused {
    pub key: String,
    pub code: String,
}

/// The product's bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    signer: Signer,
    name: String,
}

impl Bucket {
    /// The bucket that the settings name.
    ///
    /// # Errors
    /// `internal` when the endpoint is none.
    pub fn from_settings(settings: &Settings) -> Result<Self, Problem> {
        let endpoint = settings.text("s3_endpoint")?.trim_end_matches('/');
        let parsed = endpoint
            .split_once("://")
            .filter(|(scheme, authority)| ["http", "https"].contains(scheme) && !authority.is_empty() && !authority.contains('/'));
        let (scheme, authority) = parsed.ok_or_else(|| Problem::internal("variable s3_endpoint should be http(s)://host[:port]"))?;
        let signer = Signer {
            scheme: scheme.to_owned(),
            authority: authority.to_ascii_lowercase(),
            region: settings.text("s3_region")?.to_owned(),
            access_key_id: settings.text("s3_access_key_id")?.to_owned(),
            secret_access_key: settings.text("s3_secret_access_key")?.to_owned(),
        };
        Ok(Self { signer, name: settings.text("s3_bucket")?.to_owned() })
    }

    /// A link that lets anyone who has it read one object for a while.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn link(&self, key: &str, good_for: Duration) -> Result<String, Error> {
        check(key)?;
        Ok(self.sign("GET", key, &[], &[], good_for))
    }

    /// The same; a browser that follows it saves the object under this name instead of showing it. The name is one of ours and plain.
    ///
    /// # Errors
    /// [`Error::Key`], also for such a name.
    pub fn download_link(&self, key: &str, name: &str, good_for: Duration) -> Result<String, Error> {
        check(key)?;
        check(name)?;
        let disposition = format!("attachment; filename=\"{name}\"");
        Ok(self.sign("GET", key, &[("response-content-disposition", &disposition)], &[], good_for))
    }

    /// A link that lets anyone who has it write one object, with exactly these headers.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn put_link(&self, key: &str, headers: &[(&'static str, String)], good_for: Duration) -> Result<String, Error> {
        check(key)?;
        Ok(self.sign("PUT", key, &[], headers, good_for))
    }

    fn sign(&self, method: &str, key: &str, query: &[(&str, &str)], headers: &[(&'static str, String)], good_for: Duration) -> String {
        let path = if key.is_empty() { format!("/{}", self.name) } else { format!("/{}/{key}", self.name) };
        self.signer.presign(&Request { method, path: &path, query, headers }, good_for.as_secs(), clock::now())
    }

    /// Starts writing an object.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn writer(&self, key: &str, description: Description) -> Result<Writer<'_>, Error> {
        check(key)?;
        Ok(Writer { bucket: self, key: key.to_owned(), description, buffer: BytesMut::new(), upload_id: None, etags: Vec::new() })
    }

    /// Stores a small object whole.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(&self, key: &str, description: &Description, body: Bytes) -> Result<(), Error> {
        check(key)?;
        self.exchange("put", Method::PUT, key, &[], &description.0, body).await.map(drop)
    }

    /// Reads a whole object of at most `cap` bytes; `None`: there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: &str, cap: usize) -> Result<Option<Bytes>, Error> {
        check(key)?;
        let failed = |failure| match failure {
            Failure::TooLarge(_) => Error::TooLarge,
            failure => Error::Failed { action: "get", failure },
        };
        let url = self.sign("GET", key, &[], &[], OWN_URL);
        for attempt in 1.. {
            let answer = async {
                let response = outbound::try_to_send("storage", outbound::empty(Method::GET, &url)?, LIMIT, attempt).await?;
                let status = response.status();
                let cap = if status.is_success() { cap } else { XML_CAP };
                Ok((status, outbound::read("storage", response, cap, LIMIT).await?))
            }
            .await;
            match answer {
                Ok((StatusCode::NOT_FOUND, _)) => return Ok(None),
                Ok((status, body)) if status.is_success() => return Ok(Some(body)),
                Ok((status, body)) if attempt == 3 || !outbound::is_passing(status) => {
                    return Err(Error::Refused { action: "get", status, code: error_code(&body) });
                }
                Err(failure @ Failure::TooLarge(_)) => return Err(failed(failure)),
                Err(failure) if attempt == 3 => return Err(failed(failure)),
                _ => outbound::pause(attempt).await,
            }
        }
        Ok(None)
    }

    /// Removes one object; removing what is not there is fine.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        check(key)?;
        self.exchange("delete", Method::DELETE, key, &[], &[], Bytes::new()).await.map(drop)
    }

    /// Removes up to [`PAGE`] objects in one call and answers those that the store would not remove: somebody has locked them, or our key may
    /// not remove anything.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_many(&self, keys: &[String]) -> Result<Vec<Refused>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = &keys[..keys.len().min(PAGE)];
        let body = xml::delete(keys);
        // S3 demands a digest here.
        let headers =
            [("content-md5", BASE64_STANDARD.encode(Md5::digest(body.as_bytes()))), ("content-type", "application/xml".to_owned())];
        let answer = self.exchange("delete_many", Method::POST, "", &[("delete", "")], &headers, body.into()).await?;
        // The answer is 200 even when single keys failed. Another document than this one says nothing of what was removed.
        let answer = String::from_utf8_lossy(&answer.body);
        if !answer.contains("<DeleteResult") {
            return Err(unexpected("delete_many", &"not a result"));
        }
        xml::refused(&answer).ok_or_else(|| unexpected("delete_many", &"a refusal of no key"))
    }

    /// One page of the objects under `prefix` in key order, and the token of the next page.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, prefix: &str, continuation: Option<String>, most: usize) -> Result<(Vec<Listed>, Option<String>), Error> {
        let from = continuation.as_deref().map(|token| ("continuation-token", token));
        let page = self.page(prefix, from, most).await?;
        let truncated = xml::text(&page, "IsTruncated").as_deref() == Some("true");
        let next = xml::text(&page, "NextContinuationToken").filter(|token| truncated && !token.is_empty());
        Ok((xml::objects(&page), next))
    }

    /// One page of the objects under `prefix` whose keys come after `after` (empty: from the first), in key order, and whether there are more. A
    /// key is a place to go on from that is still good a day later, as a token may not be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_after(&self, prefix: &str, after: &str, most: usize) -> Result<(Vec<Listed>, bool), Error> {
        let page = self.page(prefix, (!after.is_empty()).then_some(("start-after", after)), most).await?;
        let (objects, more) = (xml::objects(&page), xml::text(&page, "IsTruncated").as_deref() == Some("true"));
        if more && objects.is_empty() {
            // There would be no place to go on from, and it must not be taken for the end.
            return Err(unexpected("list", &"an empty page that says there are more"));
        }
        Ok((objects, more))
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn has(&self, key: &str) -> Result<bool, Error> {
        check(key)?;
        // The key itself is the first of those that begin with it.
        Ok(self.list_after(key, "", 1).await?.0.first().is_some_and(|first| first.key == key))
    }

    async fn page(&self, prefix: &str, from: Option<(&str, &str)>, most: usize) -> Result<String, Error> {
        let most = most.min(PAGE).to_string();
        let mut query = vec![("list-type", "2"), ("prefix", prefix), ("max-keys", most.as_str())];
        query.extend(from);
        let answer = self.exchange("list", Method::GET, "", &query, &[], Bytes::new()).await?;
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        if xml::count(&page, "IsTruncated") == 0 {
            return Err(unexpected("list", &"not a listing"));
        }
        Ok(page)
    }

    /// Sends one signed request, again after a passing fault: every call here may be repeated.
    async fn exchange(
        &self,
        action: &'static str,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, Error> {
        let url = self.sign(method.as_str(), key, query, headers, OWN_URL);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = self.try_exchange(action, method.clone(), &url, headers, body.clone(), attempt).await;
            let passing = match &result {
                Ok(_) => false,
                Err(Error::Refused { status, .. }) => outbound::is_passing(*status),
                Err(Error::Failed { .. }) => true,
                Err(Error::Key | Error::TooLarge) => false,
            };
            if !passing || attempt == 3 {
                return result;
            }
            outbound::pause(attempt).await;
        }
    }

    async fn try_exchange(
        &self,
        action: &'static str,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
        attempt: u32,
    ) -> Result<Answer, Error> {
        let failed = |failure| Error::Failed { action, failure };
        let mut request = if body.is_empty() && method != Method::PUT {
            outbound::empty(method, url)
        } else {
            outbound::full(method, url, "application/octet-stream", body)
        }
        .map_err(failed)?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| failed(Failure::NotSent(error.to_string())))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let response = outbound::try_to_send("storage", request, LIMIT, attempt).await.map_err(failed)?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = outbound::read("storage", response, XML_CAP, LIMIT).await.map_err(failed)?;
        if !status.is_success() {
            return Err(Error::Refused { action, status, code: error_code(&body) });
        }
        Ok(Answer { headers, body })
    }
}

struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

/// Writes an object of unknown length in constant memory: what fits one part is put whole, more becomes a multipart upload.
/// Nothing is visible in the bucket before [`Writer::finish`].
pub struct Writer<'a> {
    bucket: &'a Bucket,
    key: String,
    description: Description,
    buffer: BytesMut,
    upload_id: Option<String>,
    etags: Vec<String>,
}

impl Writer<'_> {
    /// Takes the next bytes; sends a part when one is full.
    ///
    /// # Errors
    /// See [`Error`]. After one, call [`Writer::abort`].
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() > PART {
            let part = self.buffer.split_to(PART).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    /// Makes the object visible.
    ///
    /// # Errors
    /// See [`Error`]. The parts of an upload that could not be finished are removed.
    pub async fn finish(mut self) -> Result<(), Error> {
        let rest = self.buffer.split().freeze();
        if self.upload_id.is_none() {
            return self.bucket.put(&self.key, &self.description, rest).await;
        }
        let result = async {
            self.send_part(rest).await?;
            self.complete().await
        }
        .await;
        if result.is_err() {
            self.abort().await;
        }
        result
    }

    /// Gives up: nothing of the object remains. A store that cannot be reached drops the parts by itself later (R2: 7 days).
    pub async fn abort(mut self) {
        let Some(id) = self.upload_id.take() else { return };
        // Failure is in the outbound log line; the caller has a more important error to tell.
        let _ = self.bucket.exchange("abort", Method::DELETE, &self.key, &[("uploadId", &id)], &[], Bytes::new()).await;
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), Error> {
        let id = match &self.upload_id {
            Some(id) => id.clone(),
            None => self.create().await?,
        };
        let number = (self.etags.len() + 1).to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", &id)];
        let answer = self.bucket.exchange("part", Method::PUT, &self.key, &query, &[], part).await?;
        let etag = answer.headers.get("etag").and_then(|value| value.to_str().ok());
        self.etags.push(etag.ok_or_else(|| unexpected("part", &"no etag"))?.to_owned());
        Ok(())
    }

    async fn create(&mut self) -> Result<String, Error> {
        let answer = self.bucket.exchange("create", Method::POST, &self.key, &[("uploads", "")], &self.description.0, Bytes::new()).await?;
        let id = xml::text(&String::from_utf8_lossy(&answer.body), "UploadId").ok_or_else(|| unexpected("create", &"no upload id"))?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    async fn complete(&self) -> Result<(), Error> {
        let id = self.upload_id.as_deref().unwrap_or_default();
        let headers = [("content-type", "application/xml".to_owned())];
        let body = xml::complete(&self.etags);
        let answer = self.bucket.exchange("complete", Method::POST, &self.key, &[("uploadId", id)], &headers, body.into()).await?;
        // S3 may answer 200 and say in the body that it failed.
        match error_code(&answer.body).as_str() {
            "" => Ok(()),
            code => Err(unexpected("complete", &code)),
        }
    }
}

fn check(key: &str) -> Result<(), Error> {
    if key::is_plain(key) { Ok(()) } else { Err(Error::Key) }
}

fn unexpected(action: &'static str, what: &impl std::fmt::Display) -> Error {
    Error::Failed { action, failure: Failure::Unexpected(what.to_string()) }
}

/// The `<Code>` of an S3 error document; empty when the body is none.
fn error_code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if xml::count(&text, "Error") == 0 {
        return String::new();
    }
    xml::text(&text, "Code").unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_bucket_are_refused() {
        for key in ["cache/u/1_a.jpg", "result/hairstyle/t/result_1.png"] {
            assert!(key::is_plain(key), "{key}");
        }
        for key in ["", "/a", "a//b", "../a", "a/../b", "a/./b", "a b", "a%2e", "a?b", "a\\b", "é"] {
            assert!(!key::is_plain(key), "{key}");
        }
    }

    #[test]
    fn metadata_is_plain_ascii() {
        let description = Description::of("image/jpeg").with("x-amz-meta-original-name", "发型 100%.jpg\n");
        assert_eq!(description.0[2].1, "%E5%8F%91%E5%9E%8B 100%25.jpg%0A");
    }

    #[test]
    fn an_error_document_is_recognised() {
        assert_eq!(error_code(b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>"), "NoSuchKey");
        assert_eq!(error_code(b"<CompleteMultipartUploadResult/>"), "");
    }
}
