//! Taking a photo in: looked at before a byte is stored, counted and hashed while it streams, never held whole.
//!
//! The row of an upload is written before its object, as `pending`. So whatever is cut off can be found by the sweep, and nothing
//! that was refused is ever visible.

use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::BodyDataStream;
use multer::{Field, Multipart};
use photo::Photo;
use problem::{Code, Problem};
use service::Call;
use session::SignedIn;
use storage::{Bucket, Description, Writer, key};

use crate::refuse;

/// Most files in one request.
const MOST_FILES: usize = 4;
/// How much of a file is looked at before it is stored, in bytes: the size in pixels stands after the metadata, which may hold a
/// preview picture.
const HEAD: usize = 512 * 1024;
/// What a multipart body may be longer than its files, in bytes.
const FRAMING: u64 = 64 * 1024;

/// Stores the photos of a request and answers their ids.
///
/// # Errors
/// `unsupported_media_type`, `payload_too_large`, `invalid_input`, `storage_unavailable`; then nothing of the request is kept.
pub async fn take(call: &mut Call, caller: &SignedIn, bucket: &Bucket) -> Result<Vec<String>, Problem> {
    let mut intake = Intake::new(call, caller, bucket, Keep::Photos)?;
    match intake.read(call).await {
        Ok(()) => Ok(intake.ids),
        Err(problem) => {
            intake.undo().await;
            Err(problem)
        }
    }
}

/// Reads the photos of a request as [`take`] does and keeps nothing but their fingerprint: to tell a repeated request from another.
///
/// # Errors
/// As [`take`].
pub async fn measure(call: &mut Call, caller: &SignedIn, bucket: &Bucket) -> Result<String, Problem> {
    let mut intake = Intake::new(call, caller, bucket, Keep::Fingerprints(Vec::new()))?;
    intake.read(call).await?;
    match &intake.keep {
        Keep::Fingerprints(hashes) => Ok(fingerprint(hashes.iter().map(String::as_str))),
        Keep::Photos => Err(Problem::internal("a measure that kept photos")),
    }
}

/// The fingerprint of a request, by those of its photos.
pub fn fingerprint<'h>(hashes: impl Iterator<Item = &'h str>) -> String {
    fingerprint::of(&hashes.collect::<Vec<_>>().join(" "))
}

enum Keep {
    Photos,
    /// SHA-256 of each photo, in hex.
    Fingerprints(Vec<String>),
}

impl<'a> Intake<'a> {
    fn new(call: &Call, caller: &'a SignedIn, bucket: &'a Bucket, keep: Keep) -> Result<Self, Problem> {
        let most_bytes = u64::try_from(call.settings.integer("upload_max_bytes")?).unwrap_or_default();
        Ok(Self { caller, bucket, most_bytes, ids: Vec::new(), keep })
    }

    async fn read(&mut self, call: &mut Call) -> Result<(), Problem> {
        match call.media_type().as_str() {
            "multipart/form-data" => self.multipart(call).await,
            media_type if media_type.starts_with("image/") || media_type == "application/octet-stream" => self.raw(call).await,
            _ => Err(Problem::new(
                Code::UnsupportedMediaType,
                "Send multipart/form-data with `file` parts, or a photo itself with its image type.",
            )),
        }
    }
}

struct Intake<'a> {
    caller: &'a SignedIn,
    bucket: &'a Bucket,
    most_bytes: u64,
    /// What has a row already.
    ids: Vec<String>,
    keep: Keep,
}

impl Intake<'_> {
    async fn raw(&mut self, call: &mut Call) -> Result<(), Problem> {
        if call.stated_length().is_some_and(|length| length > self.most_bytes) {
            return Err(self.refuse_unread(call).await);
        }
        let name = call.header("x-file-name").map(str::to_owned);
        let body = BodyDataStream::new(call.take_body()?).map_err(broken);
        self.store(name, body).await
    }

    async fn multipart(&mut self, call: &mut Call) -> Result<(), Problem> {
        if call.stated_length().is_some_and(|length| length > self.most_bytes * MOST_FILES as u64 + FRAMING) {
            return Err(self.refuse_unread(call).await);
        }
        let boundary = multer::parse_boundary(call.header("content-type").unwrap_or_default())
            .map_err(|error| Problem::invalid("content-type", "The multipart boundary is missing.").because(error))?;
        let body = BodyDataStream::new(call.take_body()?).map_err(|error| std::io::Error::other(error.to_string()));
        let mut parts = Multipart::new(body, boundary);
        let mut files = 0;
        while let Some(part) = parts.next_field().await.map_err(unreadable)? {
            if part.name() != Some("file") {
                return Err(Problem::invalid(part.name().unwrap_or("part").to_owned(), "Only `file` parts are expected."));
            }
            files += 1;
            if files > MOST_FILES {
                return Err(Problem::invalid("file", format!("At most {MOST_FILES} photos at once.")));
            }
            let name = part.file_name().map(str::to_owned);
            self.store(name, chunks(part)).await?;
        }
        if files == 0 {
            return Err(Problem::invalid("file", "There is no `file` part in the request."));
        }
        Ok(())
    }

    /// Stores one photo that arrives as a stream.
    async fn store(&mut self, name: Option<String>, body: impl Stream<Item = Result<bytes::Bytes, Problem>>) -> Result<(), Problem> {
        let mut body = std::pin::pin!(body);
        let mut head = Vec::new();
        let mut ended = false;
        while head.len() < HEAD && !ended {
            match body.next().await.transpose()? {
                Some(data) => head.extend_from_slice(&data),
                None => ended = true,
            }
        }
        let photo = match photo::inspect(&head) {
            Ok(photo) => photo,
            Err(refusal) => {
                // What is too large is told so, whatever it is. Reading on is bounded, and a client that is still sending
                // might otherwise never see the answer.
                let mut size = head.len() as u64;
                while size <= self.most_bytes && !ended {
                    match body.next().await.transpose()? {
                        Some(data) => size += data.len() as u64,
                        None => ended = true,
                    }
                }
                return Err(if size > self.most_bytes { self.too_large() } else { refuse(&refusal) });
            }
        };

        if matches!(self.keep, Keep::Fingerprints(_)) {
            return self.measure(&head, body).await;
        }
        let id = uuid::Uuid::now_v7().to_string();
        let random = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let key = key::upload(&self.caller.user_id, clock::now_millis(), random, photo.kind.extension());
        let name = name.map(|name| plain_name(&name)).filter(|name| !name.is_empty());
        self.intend(&id, &key, &photo, name.as_deref()).await?;

        let description = Description::of(photo.kind.content_type())
            .with("x-amz-meta-original-name", name.as_deref().unwrap_or_default())
            .with("x-amz-meta-uploaded-at", &clock::now().to_string())
            .with("x-amz-meta-user-id", &self.caller.user_id);
        let mut writer = self.bucket.writer(&key, description)?;
        let mut received = Received::default();
        let copied = async {
            self.receive(&mut writer, &mut received, &head).await?;
            while let Some(data) = body.next().await.transpose()? {
                self.receive(&mut writer, &mut received, &data).await?;
            }
            Ok(())
        }
        .await;
        if let Err(problem) = copied {
            writer.abort().await;
            return Err(problem);
        }
        writer.finish().await?;
        self.confirm(&id, received).await
    }

    async fn measure(&mut self, head: &[u8], mut body: impl Stream<Item = Result<bytes::Bytes, Problem>> + Unpin) -> Result<(), Problem> {
        let mut received = Received { size: head.len() as u64, ..Received::default() };
        received.hash.update(head);
        while let Some(data) = body.next().await.transpose()? {
            received.size += data.len() as u64;
            if received.size > self.most_bytes {
                return Err(self.too_large());
            }
            received.hash.update(&data);
        }
        if let Keep::Fingerprints(hashes) = &mut self.keep {
            hashes.push(received.hash.finish());
        }
        Ok(())
    }

    async fn receive(&self, writer: &mut Writer<'_>, received: &mut Received, data: &[u8]) -> Result<(), Problem> {
        received.size += data.len() as u64;
        if received.size > self.most_bytes {
            return Err(self.too_large());
        }
        received.hash.update(data);
        Ok(writer.push(data).await?)
    }

    /// The row, before the object.
    async fn intend(&mut self, id: &str, key: &str, photo: &Photo, name: Option<&str>) -> Result<(), Problem> {
        let sql = "INSERT INTO uploads (id, user_id, key, content_type, original_name, width, height, created_at, expires_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let parameters = vec![
            id.into(),
            self.caller.user_id.as_str().into(),
            key.into(),
            photo.kind.content_type().into(),
            name.into(),
            photo.width.into(),
            photo.height.into(),
            clock::now().into(),
            (clock::now() + key::UPLOADS_KEPT).into(),
        ];
        database::run(sql, parameters).await?;
        self.ids.push(id.to_owned());
        Ok(())
    }

    /// The object lies there: the upload exists.
    async fn confirm(&self, id: &str, received: Received) -> Result<(), Problem> {
        let hash = received.hash.finish();
        let size = i64::try_from(received.size).map_err(Problem::internal)?;
        let sql = "UPDATE uploads SET status = 'stored', size = ?2, sha256 = ?3 WHERE id = ?1 AND status = 'pending'";
        database::run(sql, vec![id.into(), size.into(), hash.into()]).await?;
        Ok(())
    }

    /// Takes back what a refused request stored so far: rows vanish from sight at once; what cannot be removed now is left
    /// expired, for the sweep.
    async fn undo(&self) {
        for id in &self.ids {
            let row = database::one("UPDATE uploads SET expires_at = 0 WHERE id = ?1 RETURNING key", vec![id.as_str().into()]).await;
            let Ok(Some(row)) = row else { continue };
            if self.bucket.delete(&row.text(0)).await.is_ok() {
                let _ = database::run("DELETE FROM uploads WHERE id = ?1", vec![id.as_str().into()]).await;
            }
        }
    }

    /// Refuses a body by its stated length. A client that is still sending may never see an answer that comes before it is done,
    /// so a body that is only somewhat too long is read and thrown away; a huge one is not worth it.
    async fn refuse_unread(&self, call: &mut Call) -> Problem {
        if let Ok(body) = call.take_body() {
            let mut body = BodyDataStream::new(body);
            let mut rest = self.most_bytes * 2;
            while let Some(Ok(data)) = body.next().await {
                rest = rest.saturating_sub(data.len() as u64);
                if rest == 0 {
                    break;
                }
            }
        }
        self.too_large()
    }

    fn too_large(&self) -> Problem {
        Problem::new(Code::PayloadTooLarge, format!("A photo may have at most {} bytes.", self.most_bytes))
    }
}

#[derive(Default)]
struct Received {
    size: u64,
    hash: fingerprint::Running,
}

fn chunks<'f>(part: Field<'f>) -> impl Stream<Item = Result<bytes::Bytes, Problem>> + use<'f> {
    part.map_err(unreadable)
}

fn broken(error: impl std::fmt::Display) -> Problem {
    Problem::invalid("body", "The upload broke off.").because(error)
}

fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem::invalid("body", "The multipart body cannot be read.").because(error)
}

/// The last part of a file name, without what could hurt where it is shown.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars().filter(|character| !character.is_control()).take(120).collect::<String>().trim().to_owned()
}
