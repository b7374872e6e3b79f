//! Photos that a client puts into the bucket itself, with a link we signed, so that large files take one way instead of two.
//!
//! The link is good for one object, one type and exactly one length. What was put there is looked at like anything else that comes from
//! outside, and only its cleaned copy becomes the upload, under another key: the link stays good for a while, and must not be able to change
//! what was checked.

use std::time::Duration;

use problem::{Code, Problem};
use seal::Keys;
use serde::Deserialize;
use serde_json::{Value, json};
use service::Call;
use session::SignedIn;
use storage::{Bucket, key};

use crate::intake;

/// How long the link is good.
const LINK: Duration = Duration::from_secs(900);
/// For how long the look at a file is somebody's, in seconds: longer than reading and writing it can take, each up to three times 40.
const CLAIM: i64 = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    filename: Option<String>,
    content_type: String,
    size: u64,
}

/// Prepares an upload; answers its id and the request that brings the file.
///
/// # Errors
/// `unsupported_media_type`, `payload_too_large`, `invalid_input`.
pub async fn presign(call: &Call, caller: &SignedIn, bucket: &Bucket, input: &Input) -> Result<Value, Problem> {
    let most_bytes = u64::try_from(call.settings.integer("upload_max_bytes")?).unwrap_or_default();
    let kind = photo::Kind::named(&input.content_type.to_ascii_lowercase())
        .ok_or_else(|| Problem::new(Code::UnsupportedMediaType, "Only image/jpeg, image/png and image/webp are accepted."))?;
    if input.size > most_bytes {
        return Err(intake::too_large(most_bytes));
    }
    if input.size == 0 {
        return Err(Problem::invalid("size", "The size of the file in bytes."));
    }
    let name = input.filename.as_deref().map(intake::plain_name).filter(|name| !name.is_empty());
    let keys = Keys::from_settings(&call.settings)?;
    let (id, key) = intake::intend(&keys, caller, kind, name.as_deref()).await?;
    let headers = [("content-type", kind.content_type().to_owned()), ("content-length", input.size.to_string())];
    let url = bucket.put_link(&key::raw(&key), &headers, LINK)?;
    let expires_at = clock::now() + LINK.as_secs() as i64;
    Ok(json!({
        "id": id,
        "put": {"method": "PUT", "url": url, "headers": {"content-type": kind.content_type(), "content-length": input.size.to_string()}, "expires_at": expires_at},
    }))
}

/// Looks at what was put into the bucket and makes it the upload. Doing it again changes nothing.
///
/// One at a time: between looking and writing another file may be put there, and of two who looked at two files one would write its file and
/// the other its row.
///
/// # Errors
/// `not_found`; `conflict` when nothing was put there, or somebody is at it; those of [`intake::look`], and then nothing is kept.
pub async fn complete(call: &Call, caller: &SignedIn, bucket: &Bucket, id: &str) -> Result<(), Problem> {
    let sql = "UPDATE uploads SET claimed_until = ?3 + ?4 \
               WHERE id = ?1 AND user_id = ?2 AND expires_at > ?3 AND status = 'pending' AND claimed_until <= ?3 RETURNING key, content_type";
    let row = database::one(sql, vec![id.into(), caller.user_id.as_str().into(), clock::now().into(), CLAIM.into()]).await?;
    let Some(row) = row else { return done_or_claimed(caller, bucket, id).await };
    let (key, claimed) = (row.text(0), row.text(1));
    let done = look_and_store(call, caller, bucket, id, &key, &claimed).await;
    if done.is_err() {
        // What is not there yet, or not to be had now, may be tried again at once. A row that is gone needs nothing.
        database::run("UPDATE uploads SET claimed_until = 0 WHERE id = ?1 AND status = 'pending'", vec![id.into()]).await?;
    }
    done
}

/// Why an upload cannot be claimed.
async fn done_or_claimed(caller: &SignedIn, bucket: &Bucket, id: &str) -> Result<(), Problem> {
    let sql = "SELECT key, status FROM uploads WHERE id = ?1 AND user_id = ?2 AND expires_at > ?3";
    let row = database::one(sql, vec![id.into(), caller.user_id.as_str().into(), clock::now().into()]).await?;
    let row = row.ok_or_else(|| Problem::not_found("upload"))?;
    if row.text(1) == "stored" {
        // Done before; perhaps cut off at its last step.
        bucket.delete(&key::raw(&row.text(0))).await?;
        return Ok(());
    }
    Err(Problem::new(Code::Conflict, "This upload is being completed at this moment.").retry_after(2))
}

async fn look_and_store(call: &Call, caller: &SignedIn, bucket: &Bucket, id: &str, key: &str, claimed: &str) -> Result<(), Problem> {
    let most_bytes = u64::try_from(call.settings.integer("upload_max_bytes")?).unwrap_or_default();
    let raw = key::raw(key);
    let file = bucket.get(&raw, usize::try_from(most_bytes).unwrap_or(usize::MAX)).await;
    let clean = match file {
        Ok(Some(file)) => intake::look(file, claimed),
        Ok(None) => {
            return Err(Problem::new(Code::Conflict, "The file is not there yet. Put it first, with the request you were given."));
        }
        Err(storage::Error::TooLarge) => Err(intake::too_large(most_bytes)),
        Err(error) => return Err(error.into()),
    };
    let clean = match clean {
        Ok(clean) => clean,
        Err(problem) => {
            bucket.delete(&raw).await?;
            database::run("DELETE FROM uploads WHERE id = ?1 AND status = 'pending'", vec![id.into()]).await?;
            return Err(problem);
        }
    };
    bucket.put(key, &intake::description(&clean, &caller.user_id), clean.bytes.clone()).await?;
    if !intake::confirm(id, &clean).await? && !is_stored(id).await? {
        // Nobody's any more.
        bucket.delete(key).await?;
    }
    bucket.delete(&raw).await?;
    Ok(())
}

async fn is_stored(id: &str) -> Result<bool, Problem> {
    Ok(database::one("SELECT 1 FROM uploads WHERE id = ?1 AND status = 'stored'", vec![id.into()]).await?.is_some())
}
