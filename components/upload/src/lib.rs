//! Photos: into the bucket as they arrive, and out of it through short-lived links.

use std::time::Duration;

use database::{Row, Value};
use http::{HeaderValue, Method, StatusCode, header};
use idempotency::Begun;
use limit::Class;
use problem::{Code, Problem};
use seal::Keys;
use serde::Serialize;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use session::SignedIn;
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

mod direct;
mod form;
mod intake;

static SERVICE: Service = Service {
    name: "upload",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
        "upload_max_bytes",
        "s3_endpoint",
        "s3_region",
        "s3_bucket",
        "s3_access_key_id",
        "s3_secret_access_key",
    ],
};

/// How long a link to a file is good.
const LINK: Duration = Duration::from_secs(600);

/// An upload as its owner sees it.
#[derive(Serialize)]
struct Upload {
    id: String,
    key: String,
    url: String,
    size: i64,
    content_type: String,
    width: i64,
    height: i64,
    sha256: String,
    original_name: Option<String>,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds; then the photo is deleted.
    expires_at: i64,
}

const COLUMNS: &str = "id, key, size, content_type, width, height, sha256, original_name, created_at, expires_at";

fn read(row: &Row, keys: &Keys, public_url: &str) -> Upload {
    Upload {
        id: row.text(0),
        url: format!("{public_url}/files/{}", row.text(1)),
        key: row.text(1),
        size: row.integer(2),
        content_type: row.text(3),
        width: row.integer(4),
        height: row.integer(5),
        sha256: row.text(6),
        original_name: row.optional_text(7).and_then(|sealed| keys.open(&intake::name_of(&row.text(0)), &sealed)),
        created_at: row.integer(8),
        expires_at: row.integer(9),
    }
}

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["api", "uploads"], &Method::POST) => create(call).await,
        (["api", "uploads"], &Method::GET | &Method::HEAD) => list(&call).await,
        (["api", "uploads", "presign"], &Method::POST) => presign(call).await,
        (["api", "uploads", "presign"], _) => Err(Problem::method_not_allowed("POST")),
        (["api", "uploads", id, "complete"], &Method::POST) => complete(&call, id).await,
        (["api", "uploads", _, "complete"], _) => Err(Problem::method_not_allowed("POST")),
        (["api", "uploads", id], &Method::GET | &Method::HEAD) => show(&call, id).await,
        (["api", "uploads", id], &Method::DELETE) => delete(&call, id).await,
        (["files", key @ ..], &Method::GET | &Method::HEAD) if !key.is_empty() => file(&call, &key.join("/")).await,
        (["api", "uploads"], _) => Err(Problem::method_not_allowed("GET, HEAD, POST")),
        (["api", "uploads", _], _) => Err(Problem::method_not_allowed("GET, HEAD, DELETE")),
        (["files", _, ..], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        _ => Err(Problem::not_found("address")),
    }
}

/// POST /api/uploads: multipart with 1 to 4 `file` parts, or one raw image. All are kept, or none.
async fn create(mut call: Call) -> Result<Reply, Problem> {
    // Who it is comes first: a stranger's body is never read.
    let caller = limit::writer(&call, Class::Uploads).await?;
    let bucket = Bucket::from_settings(&call.settings)?;
    match idempotency::begin(&call, &caller.user_id, "POST /api/uploads", None).await? {
        None => {
            let uploads = store(&mut call, &caller, &bucket).await?;
            reply::json(StatusCode::CREATED, &json!({"uploads": uploads}))
        }
        // The photos are compared by their bytes: the frame around them is another each time.
        Some(Begun::Done(done)) => done.replay(&intake::measure(&mut call, &caller, &bucket).await?),
        Some(Begun::Work(work)) => {
            let stored = store(&mut call, &caller, &bucket).await;
            let hashes = stored.iter().flatten().map(|upload| upload.sha256.as_str());
            let fingerprint = intake::fingerprint(hashes);
            work.end(&fingerprint, stored.map(|uploads| (StatusCode::CREATED, json!({"uploads": uploads})))).await
        }
    }
}

async fn store(call: &mut Call, caller: &SignedIn, bucket: &Bucket) -> Result<Vec<Upload>, Problem> {
    let ids = intake::take(call, caller, bucket).await?;
    let sql = format!("SELECT {COLUMNS} FROM uploads WHERE id IN (SELECT value FROM json_each(?1)) AND status = 'stored' ORDER BY id");
    let rows = database::run(&sql, vec![json!(ids).to_string().into()]).await?;
    let (keys, public_url) = (Keys::from_settings(&call.settings)?, call.settings.public_url()?);
    Ok(rows.iter().map(|row| read(row, &keys, public_url)).collect())
}

/// POST /api/uploads/presign `{filename, content_type, size}`: the client puts the file into the bucket itself.
async fn presign(mut call: Call) -> Result<Reply, Problem> {
    let caller = limit::writer(&call, Class::Uploads).await?;
    let input: direct::Input = call.json().await?;
    let upload = direct::presign(&call, &caller, &Bucket::from_settings(&call.settings)?, &input).await?;
    reply::json(StatusCode::CREATED, &json!({"upload": upload}))
}

/// POST /api/uploads/{id}/complete: what the client put there is looked at and becomes an upload.
async fn complete(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::Uploads).await?;
    direct::complete(call, &caller, &Bucket::from_settings(&call.settings)?, id).await?;
    one(call, &caller, id).await
}

/// GET /api/uploads?limit=&offset=&cursor=
async fn list(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let page = call.page()?;
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads WHERE user_id = ?1 AND status = 'stored' AND expires_at > ?2 AND (created_at, id) < (?5, ?6) \
         ORDER BY created_at DESC, id DESC LIMIT ?3 OFFSET ?4"
    );
    let (created_at, id) = page.before();
    let parameters = vec![caller.user_id.into(), clock::now().into(), page.limit.into(), page.offset.into(), created_at.into(), id.into()];
    let rows = database::run(&sql, parameters).await?;
    let (keys, public_url) = (Keys::from_settings(&call.settings)?, call.settings.public_url()?);
    let uploads: Vec<Upload> = rows.iter().map(|row| read(row, &keys, public_url)).collect();
    let next_cursor = page.next(uploads.len(), uploads.last().map(|upload| (upload.created_at, upload.id.as_str())));
    reply::ok(&json!({"uploads": uploads, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/uploads/{id}
async fn show(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    one(call, &caller, id).await
}

async fn one(call: &Call, caller: &SignedIn, id: &str) -> Result<Reply, Problem> {
    let sql = format!("SELECT {COLUMNS} FROM uploads WHERE id = ?1 AND user_id = ?2 AND status = 'stored' AND expires_at > ?3");
    let row = database::one(&sql, vec![id.into(), caller.user_id.as_str().into(), clock::now().into()]).await?;
    let row = row.ok_or_else(|| Problem::not_found("upload"))?;
    let keys = Keys::from_settings(&call.settings)?;
    reply::ok(&json!({"upload": read(&row, &keys, call.settings.public_url()?)}))
}

/// DELETE /api/uploads/{id}: hidden at once, then removed. If the removal of the object fails, the row still says where it lies
/// and the sweep removes both.
async fn delete(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::Uploads).await?;
    let sql = "UPDATE uploads SET expires_at = ?3 WHERE id = ?1 AND user_id = ?2 AND status = 'stored' AND expires_at > ?3 RETURNING key";
    let row = database::one(sql, vec![id.into(), caller.user_id.into(), clock::now().into()]).await?;
    let key = row.ok_or_else(|| Problem::not_found("upload"))?.text(0);
    Bucket::from_settings(&call.settings)?.delete(&key).await?;
    database::run("DELETE FROM uploads WHERE id = ?1", vec![id.into()]).await?;
    Ok(reply::no_content())
}

/// GET /files/{key}: for the owner, a redirect to a link that is good for ten minutes. With `?download=1` a browser saves what it finds there
/// under a name of ours: the bucket is another site, where a page's own wish for a download counts for nothing.
async fn file(call: &Call, key: &str) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let name = if storage::key::is_plain(key) { name_of_own(&caller, key).await? } else { None };
    let name = name.ok_or_else(|| Problem::not_found("file"))?;
    let bucket = Bucket::from_settings(&call.settings)?;
    let link = match call.query("download") {
        Some("1" | "true") => bucket.download_link(key, &name, LINK)?,
        Some(_) => return Err(Problem::invalid("download", "download is 1 or true, or left out.")),
        None => bucket.link(key, LINK)?,
    };
    let mut response = reply::redirect(&link)?;
    // The browser may reuse the redirect while the link is surely good: a page of thumbnails is drawn again and again. Not for whoever comes after
    // its owner at the same browser: signing out takes the cookie away, and what was kept for another cookie is asked for anew.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("cookie, authorization"));
    Ok(response)
}

/// What one's own file is called when it is saved: `photo-1a2b3c.jpg`, or after its hairstyle `bob-cut-1a2b3c-1.png`. `None`: it is not theirs.
async fn name_of_own(caller: &SignedIn, key: &str) -> Result<Option<String>, Problem> {
    let segments: Vec<&str> = key.split('/').collect();
    let (sql, parameters): (&str, Vec<Value>) = match segments.as_slice() {
        ["cache", user_id, _] if *user_id == caller.user_id => (
            "SELECT 'photo' FROM uploads WHERE key = ?1 AND user_id = ?2 AND status = 'stored' AND expires_at > ?3",
            vec![key.into(), caller.user_id.as_str().into(), clock::now().into()],
        ),
        ["result", "hairstyle", task_id, _] => (
            "SELECT (input_params ->> 'hairstyle') || '-' || substr(task_no, -6) FROM ai_tasks, json_each(result_urls) \
             WHERE ai_tasks.id = ?1 AND user_id = ?2 AND status = 'completed' AND value = '/files/' || ?3",
            vec![(*task_id).into(), caller.user_id.as_str().into(), key.into()],
        ),
        _ => return Ok(None),
    };
    // Both kinds of keys end with an underscore and what tells them apart.
    let end = key.rsplit('_').next().unwrap_or_default();
    Ok(database::one(sql, parameters).await?.map(|row| format!("{}-{end}", row.text(0))))
}

/// 415 with the reason in people's words.
fn refuse(refusal: &photo::Refusal) -> Problem {
    match refusal {
        photo::Refusal::Heic | photo::Refusal::NotAPhoto => Problem::new(Code::UnsupportedMediaType, refusal.to_string()),
        other => Problem::invalid("file", other.to_string()),
    }
}
