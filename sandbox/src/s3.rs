//! The bucket: s3s in front of a folder.
//!
//! s3s checks signatures (header and presigned), s3s-fs keeps the files. What differs from R2 and matters is put
//! right here: pages of at most 1,000 keys, `If-None-Match` and `response-content-disposition` on reads, side-files that go
//! with their object, deletes that may meet each other, and listings that do not read the whole bucket for each page.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::RwLock;

use crate::fault::Fault;
use crate::world::{World, pause};

/// The one bucket there is at the start.
pub const BUCKET: &str = "ai-hairstyle";

/// The largest page of keys S3 gives, whatever is asked for.
const PAGE_MAX: i32 = 1_000;

/// Signed links live a week at most.
const PRESIGN_MAX_SECONDS: u64 = 604_800;

pub(crate) fn router(world: &Arc<World>) -> anyhow::Result<Router> {
    let root = world.dir.clone();
    std::fs::create_dir_all(root.join(BUCKET))?;
    let files = FileSystem::new(&root).map_err(|e| anyhow::anyhow!("the bucket folder {}: {e:?}", root.display()))?;
    let mut builder = S3ServiceBuilder::new(Bucket { files, root, listing: RwLock::default(), world: Arc::clone(world) });
    let credentials = &world.credentials;
    builder.set_auth(s3s::auth::SimpleAuth::from_single(credentials.s3_access_key_id.as_str(), credentials.s3_secret_access_key.as_str()));
    Ok(Router::new().fallback(serve).with_state((Arc::clone(world), builder.build())))
}

/// Longest body of one request, in bytes: parts of the app's objects have five MiB, its photos ten.
const LONGEST: usize = 64 << 20;

async fn serve(State((world, service)): State<(Arc<World>, S3Service)>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // Read before anything is said: a client that still sends when it is refused finds the connection closed and misses the reason.
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LONGEST).await else {
        return error(StatusCode::BAD_REQUEST, "IncompleteBody", "The body broke off, or is longer than anything we store.");
    };
    let request = http::Request::from_parts(parts, body);
    if let Some(refused) = misbehave(&world, &method, &path).await.or_else(|| unlike_r2(&request)) {
        return refused;
    }
    match service.call(request.map(s3s::Body::from)).await {
        Ok(answer) => answer.map(Body::new).into_response(),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &format!("{e:?}")),
    }
}

async fn misbehave(world: &World, method: &Method, path: &str) -> Option<Response> {
    let subject = format!("{method} {path}");
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    let concerns = |only: &Option<String>, prefix: &Option<String>| {
        only.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method.as_str())) && prefix.as_ref().is_none_or(|p| key.starts_with(p.as_str()))
    };
    let slow = world.faults.strike(&subject, |fault| match fault {
        Fault::S3Slow { ms, method, prefix } if concerns(method, prefix) => Some(*ms),
        _ => None,
    });
    if let Some(ms) = slow {
        pause(ms).await;
    }
    let status = world.faults.strike(&subject, |fault| match fault {
        Fault::S3Answers { status, method, prefix } if concerns(method, prefix) => Some(*status),
        _ => None,
    })?;
    let code = match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Some(error(status, code, "As told by the sandbox."))
}

/// What s3s would take and R2 refuses.
fn unlike_r2<B>(request: &http::Request<B>) -> Option<Response> {
    let content = request.headers().get("x-amz-content-sha256").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if content.starts_with("STREAMING-") {
        return Some(error(StatusCode::NOT_IMPLEMENTED, "NotImplemented", &format!("{content} not implemented")));
    }
    let expires = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "X-Amz-Expires")
        .and_then(|(_, value)| value.parse::<u64>().ok());
    if expires.is_some_and(|seconds| seconds > PRESIGN_MAX_SECONDS) {
        let message = "X-Amz-Expires must be at most a week (in seconds)";
        return Some(error(StatusCode::BAD_REQUEST, "AuthorizationQueryParametersError", message));
    }
    None
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let message = crate::page::escape(message);
    let xml = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, [(header::CONTENT_TYPE, "application/xml")], xml).into_response()
}

/// Makes every object under a prefix look as if it had been written `age` ago. Returns how many there were.
pub(crate) fn age(root: &Path, prefix: &str, age: Duration) -> std::io::Result<usize> {
    let then = SystemTime::now() - age;
    let mut aged = 0;
    for (key, path) in objects(root)? {
        if key.starts_with(prefix) {
            std::fs::File::options().write(true).open(path)?.set_modified(then)?;
            aged += 1;
        }
    }
    Ok(aged)
}

/// Keys and files of the bucket, sorted by key.
pub(crate) fn objects(root: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let bucket = root.join(BUCKET);
    let mut found = Vec::new();
    let mut folders = vec![bucket.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Ok(key) = entry.path().strip_prefix(&bucket) {
                let key: Vec<_> = key.components().map(|part| part.as_os_str().to_string_lossy()).collect();
                found.push((key.join("/"), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A page of a listing.
struct Page {
    objects: Vec<Object>,
    more: bool,
}

/// The first objects under `prefix` whose keys come after `after`, in byte order. Folders that cannot hold one of them are not read.
fn page(bucket: &Path, prefix: &str, after: &str, most: usize) -> std::io::Result<Page> {
    let mut page = Page { objects: Vec::new(), more: false };
    read(bucket, "", &Wanted { prefix, after, most }, &mut page)?;
    Ok(page)
}

struct Wanted<'a> {
    prefix: &'a str,
    after: &'a str,
    most: usize,
}

/// Adds what is wanted of one folder; answers whether the page is full.
fn read(folder: &Path, key: &str, wanted: &Wanted<'_>, page: &mut Page) -> std::io::Result<bool> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // With the slash that follows it in its keys, a folder sorts where its keys do.
        let key = if entry.file_type()?.is_dir() { format!("{key}{name}/") } else { format!("{key}{name}") };
        let wants = if key.ends_with('/') {
            (key.starts_with(wanted.prefix) || wanted.prefix.starts_with(&key))
                && (key.as_str() > wanted.after || wanted.after.starts_with(&key))
        } else {
            key.starts_with(wanted.prefix) && key.as_str() > wanted.after
        };
        if wants {
            entries.push((key, entry.path()));
        }
    }
    entries.sort();
    for (key, path) in entries {
        if key.ends_with('/') {
            if read(&path, &key, wanted, page)? {
                return Ok(true);
            }
            continue;
        }
        if page.objects.len() == wanted.most {
            page.more = true;
            return Ok(true);
        }
        // One that has gone since is not listed.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        page.objects.push(Object {
            key: Some(key),
            size: i64::try_from(metadata.len()).ok(),
            last_modified: Some(metadata.modified()?.into()),
            ..Object::default()
        });
    }
    Ok(false)
}

/// Empties the bucket: objects, side-files and unfinished uploads.
pub(crate) fn empty(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_name().to_string_lossy().starts_with('.') {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::create_dir_all(root.join(BUCKET))
}

/// s3s-fs, corrected where R2 differs.
struct Bucket {
    files: FileSystem,
    root: PathBuf,
    /// s3s-fs fails a listing when a file it has just seen is gone: deletes wait for listings.
    listing: RwLock<()>,
    world: Arc<World>,
}

/// R2's code for what a lock keeps.
const LOCKED: &str = "ObjectLockedByBucketPolicy";

fn locked() -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(LOCKED.into()), "The object is locked, as told by the sandbox.");
    error.set_status_code(StatusCode::FORBIDDEN);
    error
}

impl Bucket {
    /// Whether there is such an object and a lock lies on it.
    fn is_locked(&self, method: &Method, bucket: &str, key: &str) -> bool {
        let locks = |fault: &Fault| match fault {
            Fault::S3Locked { prefix } if prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_str())) => Some(()),
            _ => None,
        };
        self.root.join(bucket).join(key).exists() && self.world.faults.strike(&format!("{method} /{bucket}/{key}"), locks).is_some()
    }

    /// The side-files s3s-fs leaves when it deletes: a key written again later would inherit them.
    fn forget_attributes(&self, bucket: &str, key: &str) {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        for end in ["metadata.json", "internal.json"] {
            let name = format!(".bucket-{}.object-{}.{end}", encode(bucket), encode(key));
            let _ = std::fs::remove_file(self.root.join(name));
        }
    }
}

/// The operations of the bucket: those written out, and those that s3s-fs does well enough. (One macro around all of
/// them, because `async_trait` does not look into macros inside an `impl`.)
macro_rules! bucket_operations {
    (corrected { $($corrected:tt)* } as_s3s_fs_does { $($operation:ident: $input:ident -> $output:ident,)* }) => {
        #[async_trait::async_trait]
        impl S3 for Bucket {
            $($corrected)*
            $(async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$operation(request).await
            })*
        }
    };
}

bucket_operations! {
    corrected {
        async fn list_objects_v2(&self, mut request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
            let _seen = self.listing.read().await;
            let most = request.input.max_keys.unwrap_or(PAGE_MAX).min(PAGE_MAX);
            request.input.max_keys = Some(most);
            let bucket = self.root.join(&request.input.bucket);
            if request.input.delimiter.is_some() || most < 1 || !bucket.is_dir() {
                return self.files.list_objects_v2(request).await;
            }
            let input = request.input;
            let (prefix, most) = (input.prefix.clone().unwrap_or_default(), usize::try_from(most).unwrap_or_default());
            let after = input.continuation_token.clone().max(input.start_after.clone()).unwrap_or_default();
            let page = tokio::task::spawn_blocking(move || page(&bucket, &prefix, &after, most));
            let page = page.await.map_err(|e| s3_error!(e, InternalError))?.map_err(|e| s3_error!(e, InternalError))?;
            Ok(S3Response::new(ListObjectsV2Output {
                key_count: i32::try_from(page.objects.len()).ok(),
                max_keys: input.max_keys,
                is_truncated: Some(page.more),
                next_continuation_token: page.objects.last().filter(|_| page.more).and_then(|last| last.key.clone()),
                contents: (!page.objects.is_empty()).then_some(page.objects),
                continuation_token: input.continuation_token,
                encoding_type: input.encoding_type,
                name: Some(input.bucket),
                prefix: input.prefix,
                start_after: input.start_after,
                ..Default::default()
            }))
        }

        async fn list_objects(&self, mut request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
            let _seen = self.listing.read().await;
            request.input.max_keys = Some(request.input.max_keys.unwrap_or(PAGE_MAX).min(PAGE_MAX));
            self.files.list_objects(request).await
        }

        async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
            let known = request.headers.get(header::IF_NONE_MATCH).cloned();
            let disposition = request.input.response_content_disposition.clone();
            let mut answer = self.files.get_object(request).await?;
            // A link may say under which name a browser should save the object.
            answer.output.content_disposition = disposition.or(answer.output.content_disposition);
            if let (Some(known), Some(tag)) = (known, &answer.output.e_tag)
                && known.to_str().is_ok_and(|known| known.contains(tag.value())) {
                    return Err(s3_error!(NotModified));
                }
            Ok(answer)
        }

        async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
            if self.is_locked(&Method::PUT, &request.input.bucket, &request.input.key) {
                return Err(locked());
            }
            self.files.put_object(request).await
        }

        async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
            let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
            if self.is_locked(&Method::DELETE, &bucket, &key) {
                return Err(locked());
            }
            let _unseen = self.listing.write().await;
            let answer = match self.files.delete_object(request).await {
                // Two deletes of one key at once: both are right that it is gone.
                Err(_) if !self.root.join(&bucket).join(&key).exists() && self.root.join(&bucket).exists() => {
                    S3Response::new(DeleteObjectOutput::default())
                }
                other => other?,
            };
            self.forget_attributes(&bucket, &key);
            Ok(answer)
        }

        async fn delete_objects(&self, mut request: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
            if request.input.delete.objects.len() > PAGE_MAX as usize {
                return Err(s3_error!(MalformedXML));
            }
            let bucket = request.input.bucket.clone();
            let kept: Vec<_> = request.input.delete.objects.extract_if(.., |o| self.is_locked(&Method::POST, &bucket, &o.key)).collect();
            let keys: Vec<String> = request.input.delete.objects.iter().map(|o| o.key.clone()).collect();
            let _unseen = self.listing.write().await;
            let mut answer = self.files.delete_objects(request).await?;
            for key in keys {
                self.forget_attributes(&bucket, &key);
            }
            let errors = kept.into_iter().map(|o| Error { code: Some(LOCKED.to_owned()), key: Some(o.key), ..Default::default() });
            answer.output.errors = Some(errors.collect());
            Ok(answer)
        }
    }
    as_s3s_fs_does {
        create_bucket: CreateBucketInput -> CreateBucketOutput,
        delete_bucket: DeleteBucketInput -> DeleteBucketOutput,
        head_bucket: HeadBucketInput -> HeadBucketOutput,
        list_buckets: ListBucketsInput -> ListBucketsOutput,
        get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput,
        head_object: HeadObjectInput -> HeadObjectOutput,
        copy_object: CopyObjectInput -> CopyObjectOutput,
        create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput,
        upload_part: UploadPartInput -> UploadPartOutput,
        upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput,
        list_parts: ListPartsInput -> ListPartsOutput,
        complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput,
        abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput,
    }
}
