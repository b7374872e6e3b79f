//! Taking photos in: counted while they arrive, cleaned, and only then stored.
//!
//! A photo is held whole while it is looked at, which `upload_max_bytes` bounds: one that is longer is given up as soon as it is, however
//! much more is said to come. The row of an upload is written before its object, as `pending`; so whatever is cut off can be found by the sweep,
//! and nothing that was refused is ever visible.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use multer::Multipart;
use photo::Clean;
use problem::{Code, Problem};
use seal::Keys;
use service::{
    Call,
    body::{self, Fault},
};
use session::SignedIn;
use storage::{Bucket, Description, key};

use crate::{form, refuse};

/// Most files in one request.
const MOST_FILES: usize = 4;

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

/// Looks at a whole file that says to be of some type, and answers its picture.
///
/// # Errors
/// `unsupported_media_type`, `invalid_input`.
pub fn look(file: Bytes, claimed: &str) -> Result<Clean, Problem> {
    let clean = photo::clean(file).map_err(|refusal| refuse(&refusal))?;
    let is = clean.photo.kind.content_type();
    // What claims to be one picture and is another is broken, or meant to be taken for what it is not somewhere else.
    if claimed.starts_with("image/") && claimed != is && !(claimed == "image/jpg" && is == "image/jpeg") {
        let message = format!("The file says it is {claimed}, and it is {is}. Send it as what it is.");
        return Err(Problem::new(Code::UnsupportedMediaType, message));
    }
    Ok(clean)
}

/// What is stored with a photo's object. Not the name its owner gave it: whoever is given a link to it, the AI provider too, reads this.
pub fn description(clean: &Clean, user_id: &str) -> Description {
    Description::of(clean.photo.kind.content_type())
        .with("x-amz-meta-uploaded-at", &clock::now().to_string())
        .with("x-amz-meta-user-id", user_id)
}

/// The object lies there: the upload exists. Answers whether somebody still waits for it; an owner who has gone does not.
///
/// # Errors
/// The database's.
pub async fn confirm(id: &str, clean: &Clean) -> Result<bool, Problem> {
    let sql = "UPDATE uploads SET status = 'stored', size = ?2, sha256 = ?3, width = ?4, height = ?5, content_type = ?6 \
               WHERE id = ?1 AND status = 'pending' RETURNING 1";
    let size = i64::try_from(clean.bytes.len()).map_err(Problem::internal)?;
    let photo = clean.photo;
    let parameters = vec![
        id.into(),
        size.into(),
        fingerprint::of_bytes(&clean.bytes).into(),
        photo.width.into(),
        photo.height.into(),
        photo.kind.content_type().into(),
    ];
    Ok(database::one(sql, parameters).await?.is_some())
}

enum Keep {
    Photos,
    /// SHA-256 of each photo, in hex.
    Fingerprints(Vec<String>),
}

struct Intake<'a> {
    caller: &'a SignedIn,
    bucket: &'a Bucket,
    keys: Keys,
    most_bytes: u64,
    /// What has a row already.
    ids: Vec<String>,
    keep: Keep,
}

impl<'a> Intake<'a> {
    fn new(call: &Call, caller: &'a SignedIn, bucket: &'a Bucket, keep: Keep) -> Result<Self, Problem> {
        let most_bytes = u64::try_from(call.settings.integer("upload_max_bytes")?).unwrap_or_default();
        Ok(Self { caller, bucket, keys: Keys::from_settings(&call.settings)?, most_bytes, ids: Vec::new(), keep })
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

    async fn raw(&mut self, call: &mut Call) -> Result<(), Problem> {
        if call.stated_length().is_some_and(|length| length > self.most_bytes) {
            return Err(self.refuse_unread(call).await);
        }
        let (name, claimed) = (call.header("x-file-name").map(str::to_owned), call.media_type());
        let length = call.stated_length();
        let body = call.take_body(body::FOR_PHOTOS)?.map_err(Problem::from);
        self.take_one(name, &claimed, length, body).await
    }

    async fn multipart(&mut self, call: &mut Call) -> Result<(), Problem> {
        if call.stated_length().is_some_and(|length| length > self.most_bytes * MOST_FILES as u64 + form::FRAMING) {
            return Err(self.refuse_unread(call).await);
        }
        let boundary = multer::parse_boundary(call.header("content-type").unwrap_or_default())
            .map_err(|error| Problem::invalid("content-type", "The multipart boundary is missing.").because(error))?;
        let (body, framing) = form::bounded(call.take_body(body::FOR_PHOTOS)?, self.most_bytes * MOST_FILES as u64 + form::FRAMING);
        let mut parts = Multipart::new(body, boundary);
        let unreadable = unreadable(self.most_bytes);
        let mut files = 0;
        loop {
            framing.closed();
            let Some(part) = parts.next_field().await.map_err(&unreadable)? else { break };
            framing.open();
            if part.name() != Some("file") {
                return Err(Problem::invalid(part.name().unwrap_or("part").to_owned(), "Only `file` parts are expected."));
            }
            files += 1;
            if files > MOST_FILES {
                return Err(Problem::invalid("file", format!("At most {MOST_FILES} photos at once.")));
            }
            let name = part.file_name().map(str::to_owned);
            let claimed = part.content_type().map(|mime| mime.essence_str().to_ascii_lowercase()).unwrap_or_default();
            self.take_one(name, &claimed, None, part.map_err(&unreadable)).await?;
        }
        if files == 0 {
            return Err(Problem::invalid("file", "There is no `file` part in the request."));
        }
        Ok(())
    }

    /// Takes in one photo that arrives as a stream, of a length that may be known.
    async fn take_one(
        &mut self,
        name: Option<String>,
        claimed: &str,
        length: Option<u64>,
        body: impl Stream<Item = Result<Bytes, Problem>>,
    ) -> Result<(), Problem> {
        let clean = look(self.whole(length, body).await?, claimed)?;
        if let Keep::Fingerprints(hashes) = &mut self.keep {
            hashes.push(fingerprint::of_bytes(&clean.bytes));
            return Ok(());
        }
        let name = name.map(|name| plain_name(&name)).filter(|name| !name.is_empty());
        let (id, key) = intend(&self.keys, self.caller, clean.photo.kind, name.as_deref()).await?;
        self.ids.push(id.clone());
        self.bucket.put(&key, &description(&clean, &self.caller.user_id), clean.bytes.clone()).await?;
        if !confirm(&id, &clean).await? {
            // Nobody's any more.
            self.bucket.delete(&key).await?;
        }
        Ok(())
    }

    /// A body as a whole, unless it is too long: then little more of it is waited for.
    async fn whole(&self, length: Option<u64>, body: impl Stream<Item = Result<Bytes, Problem>>) -> Result<Bytes, Problem> {
        let mut body = std::pin::pin!(body);
        // Where the length is known, the room for it is taken once; growing would take up to twice as much.
        let room = length.unwrap_or_default().min(self.most_bytes);
        let mut whole = BytesMut::with_capacity(usize::try_from(room).unwrap_or_default());
        while let Some(data) = body.next().await.transpose()? {
            if whole.len() as u64 + data.len() as u64 > self.most_bytes {
                drop(whole);
                service::drain(body).await;
                return Err(self.too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
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

    /// Refuses a body by its stated length.
    async fn refuse_unread(&self, call: &mut Call) -> Problem {
        if let Ok(body) = call.take_body(body::FOR_WORDS) {
            service::drain(body).await;
        }
        self.too_large()
    }

    fn too_large(&self) -> Problem {
        too_large(self.most_bytes)
    }
}

/// Where the name of an upload's file is sealed for.
pub fn name_of(upload_id: &str) -> String {
    format!("name of {upload_id}")
}

/// The row, before the object; answers its id and its key.
///
/// # Errors
/// The database's; refused for somebody who has gone.
pub async fn intend(keys: &Keys, caller: &SignedIn, kind: photo::Kind, name: Option<&str>) -> Result<(String, String), Problem> {
    let id = uuid::Uuid::now_v7().to_string();
    let name = name.map(|name| keys.seal(&name_of(&id), name)).transpose()?;
    let random = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let key = key::upload(&caller.user_id, clock::now_millis(), random, kind.extension());
    let sql =
        "INSERT INTO uploads (id, user_id, key, content_type, original_name, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let parameters = vec![
        id.as_str().into(),
        caller.user_id.as_str().into(),
        key.as_str().into(),
        kind.content_type().into(),
        name.into(),
        clock::now().into(),
        (clock::now() + key::UPLOADS_KEPT).into(),
    ];
    database::run(sql, parameters).await?;
    Ok((id, key))
}

/// 413.
pub fn too_large(most_bytes: u64) -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("A photo may have at most {most_bytes} bytes."))
}

/// What a form's parser stumbles over.
fn unreadable(most_bytes: u64) -> impl Fn(multer::Error) -> Problem {
    move |error| match error {
        multer::Error::StreamReadFailed(source) if source.is::<form::TooLong>() => too_large(most_bytes).because(source),
        multer::Error::StreamReadFailed(source) => source.downcast::<Fault>().map_or_else(Problem::internal, |fault| (*fault).into()),
        error => Problem::invalid("body", "The multipart body cannot be read.").because(error),
    }
}

/// The last part of a file name, without what could hurt where it is shown.
pub fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars().filter(|character| !character.is_control()).take(120).collect::<String>().trim().to_owned()
}
