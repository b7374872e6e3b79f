//! The bucket: Cloudflare R2 or any S3, reached with presigned URLs over outbound HTTP.
//!
//! Every request is signed in its query (SigV4, `UNSIGNED-PAYLOAD`), so one mechanism serves our own calls and the links that
//! people and the AI provider are given. The bucket stays private. Bodies are never held whole: [`Writer`] keeps one part.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::Settings;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outbound::Failure;
use problem::{Code, Problem};
use rusty_s3::{
    Credentials, S3Action, UrlStyle,
    actions::{CreateMultipartUpload, DeleteObjectsResponse, ListObjectsV2, ObjectIdentifier},
};

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

    /// All uploads.
    pub const UPLOADS: &str = "cache/";

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
    /// As the store says it, ISO 8601 in UTC.
    pub last_modified: String,
}

/// The product's bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
}

impl Bucket {
    /// The bucket that the settings name.
    ///
    /// # Errors
    /// `internal` when the endpoint or the name is none.
    pub fn from_settings(settings: &Settings) -> Result<Self, Problem> {
        let endpoint = settings.text("s3_endpoint")?;
        let endpoint = endpoint.parse().map_err(|error| Problem::internal(format!("variable s3_endpoint: {error}")))?;
        let name = settings.text("s3_bucket")?.to_owned();
        let region = settings.text("s3_region")?.to_owned();
        let bucket = rusty_s3::Bucket::new(endpoint, UrlStyle::Path, name, region)
            .map_err(|error| Problem::internal(format!("variable s3_endpoint or s3_bucket: {error}")))?;
        let credentials = Credentials::new(settings.text("s3_access_key_id")?, settings.text("s3_secret_access_key")?);
        Ok(Self { bucket, credentials })
    }

    /// A link that lets anyone who has it read one object for a while.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn link(&self, key: &str, good_for: Duration) -> Result<String, Error> {
        check(key)?;
        Ok(self.bucket.get_object(Some(&self.credentials), key).sign(good_for).into())
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
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        for (name, value) in &description.0 {
            action.headers_mut().insert(*name, value.as_str());
        }
        let url = action.sign(OWN_URL);
        self.exchange("put", Method::PUT, url.as_str(), &description.0, body).await.map(drop)
    }

    /// Removes one object; removing what is not there is fine.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        check(key)?;
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(OWN_URL);
        self.exchange("delete", Method::DELETE, url.as_str(), &[], Bytes::new()).await.map(drop)
    }

    /// Removes up to [`PAGE`] objects in one call and answers how many the store removed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_many(&self, keys: &[String]) -> Result<usize, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let objects: Vec<_> = keys.iter().take(PAGE).cloned().map(ObjectIdentifier::new).collect();
        let mut action = self.bucket.delete_objects(Some(&self.credentials), objects.iter());
        action.set_quiet(false);
        let url = action.sign(OWN_URL);
        let (body, md5) = action.body_with_md5();
        let headers = [("content-md5", md5), ("content-type", "application/xml".to_owned())];
        let answer = self.exchange("delete_many", Method::POST, url.as_str(), &headers, body.into()).await?;
        // The answer is 200 even when single keys failed.
        let answer = DeleteObjectsResponse::parse(&String::from_utf8_lossy(&answer.body)).map_err(|error| unexpected("delete_many", &error))?;
        Ok(objects.len() - answer.errors.len().min(objects.len()))
    }

    /// One page of the objects under `prefix` in key order, and the token of the next page.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, prefix: &str, continuation: Option<String>, most: usize) -> Result<(Vec<Listed>, Option<String>), Error> {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(prefix);
        action.with_max_keys(most.min(PAGE));
        if let Some(token) = continuation {
            action.with_continuation_token(token);
        }
        let url = action.sign(OWN_URL);
        let answer = self.exchange("list", Method::GET, url.as_str(), &[], Bytes::new()).await?;
        let page = ListObjectsV2::parse_response(&String::from_utf8_lossy(&answer.body)).map_err(|error| unexpected("list", &error))?;
        let listed = page.contents.into_iter().map(|object| Listed { key: object.key, last_modified: object.last_modified.unwrap_or_default() });
        Ok((listed.collect(), page.next_continuation_token))
    }

    /// Sends one signed request, again after a passing fault: every call here may be repeated.
    async fn exchange(
        &self,
        action: &'static str,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = self.try_exchange(action, method.clone(), url, headers, body.clone()).await;
            let passing = match &result {
                Ok(_) => false,
                Err(Error::Refused { status, .. }) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
                Err(Error::Failed { .. }) => true,
                Err(Error::Key) => false,
            };
            if !passing || attempt == 3 {
                return result;
            }
            spin_sleep(Duration::from_millis(100 << (2 * attempt))).await;
        }
    }

    async fn try_exchange(
        &self,
        action: &'static str,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
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
        let response = outbound::send("storage", request, LIMIT).await.map_err(failed)?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = outbound::read(response, XML_CAP, LIMIT).await.map_err(failed)?;
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
        let url = self.bucket.bucket.abort_multipart_upload(Some(&self.bucket.credentials), &self.key, &id).sign(OWN_URL);
        // Failure is in the outbound log line; the caller has a more important error to tell.
        let _ = self.bucket.exchange("abort", Method::DELETE, url.as_str(), &[], Bytes::new()).await;
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), Error> {
        let id = match &self.upload_id {
            Some(id) => id.clone(),
            None => self.create().await?,
        };
        let number = u16::try_from(self.etags.len() + 1).map_err(|_| Error::Key)?;
        let url = self.bucket.bucket.upload_part(Some(&self.bucket.credentials), &self.key, number, &id).sign(OWN_URL);
        let answer = self.bucket.exchange("part", Method::PUT, url.as_str(), &[], part).await?;
        let etag = answer.headers.get("etag").and_then(|value| value.to_str().ok());
        self.etags.push(etag.ok_or_else(|| unexpected("part", &"no etag"))?.to_owned());
        Ok(())
    }

    async fn create(&mut self) -> Result<String, Error> {
        let mut action = self.bucket.bucket.create_multipart_upload(Some(&self.bucket.credentials), &self.key);
        for (name, value) in &self.description.0 {
            action.headers_mut().insert(*name, value.as_str());
        }
        let url = action.sign(OWN_URL);
        let answer = self.bucket.exchange("create", Method::POST, url.as_str(), &self.description.0, Bytes::new()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let created = CreateMultipartUpload::parse_response(&text).map_err(|error| unexpected("create", &error))?;
        self.upload_id = Some(created.upload_id().to_owned());
        Ok(created.upload_id().to_owned())
    }

    async fn complete(&self) -> Result<(), Error> {
        let id = self.upload_id.as_deref().unwrap_or_default();
        let etags = self.etags.iter().map(String::as_str);
        let action = self.bucket.bucket.complete_multipart_upload(Some(&self.bucket.credentials), &self.key, id, etags);
        let url = action.sign(OWN_URL);
        let headers = [("content-type", "application/xml".to_owned())];
        let answer = self.bucket.exchange("complete", Method::POST, url.as_str(), &headers, action.body().into()).await?;
        // S3 may answer 200 and say in the body that it failed.
        match error_code(&answer.body).as_str() {
            "" => Ok(()),
            code => Err(unexpected("complete", &code)),
        }
    }
}

async fn spin_sleep(duration: Duration) {
    // `within` is the one timer we have; a future that never ends makes it a sleep.
    let _ = outbound::within::<()>(duration, std::future::pending()).await;
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
    let Some((_, after)) = text.split_once("<Error>") else { return String::new() };
    after.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or_else(|| "unknown".to_owned(), |(code, _)| code.to_owned())
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
