//! The console: pages, styles and scripts for people, and the description of the API for developers. All of it is part of this component,
//! which holds no rights: whatever the pages know, they ask of the API as their reader.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use problem::Problem;
use rust_embed::{EmbeddedFile, RustEmbed};
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};

static SERVICE: Service = Service { name: "web", settings: &["public_url", "s3_endpoint"] };

/// The site as `build.rs` leaves it: every file compressed with gzip.
#[derive(RustEmbed)]
#[folder = "$OUT_DIR/site"]
struct Site;

/// The fingerprint of the whole site, a segment of the addresses of what its pages load.
const NAME: &str = env!("SITE_NAME");

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    match path.as_slice() {
        // Which of the console's pages it is, its script finds out.
        [""] | ["gallery" | "credits" | "account" | "admin", ..] => page(&call, "index.html"),
        ["docs"] => page(&call, "docs.html"),
        ["openapi.json"] => file(&call, "openapi.json", "public, max-age=300"),
        // Pages have one address each, where they come with their policy.
        ["assets", .., name] if name.ends_with(".html") => Err(Problem::not_found("address")),
        ["robots.txt"] => file(&call, "robots.txt", "public, max-age=86400"),
        ["favicon.ico"] => file(&call, "img/favicon.svg", "public, max-age=86400"),
        // The address changes with the content, so the content under it never does.
        ["assets", name, rest @ ..] if *name == NAME => file(&call, &rest.join("/"), "public, max-age=31536000, immutable"),
        // A page of the version before, or after, asks a node of this one. It gets what there is, and nobody keeps it.
        ["assets", name, rest @ ..] if is_name(name) => file(&call, &rest.join("/"), "no-store"),
        ["assets", rest @ ..] => file(&call, &rest.join("/"), "public, max-age=3600"),
        _ => Err(Problem::not_found("address")),
    }
}

fn is_name(segment: &str) -> bool {
    segment.len() == NAME.len() && segment.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A page: kept by nobody without asking, and allowed to load and reach nothing but what it needs.
fn page(call: &Call, name: &str) -> Result<Reply, Problem> {
    let mut response = file(call, name, "no-cache")?;
    // Pictures lie in the bucket: `/files/...` leads there.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data: {}; connect-src 'self'; manifest-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        origin(call.settings.text("s3_endpoint")?)
    );
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).map_err(Problem::internal)?);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("permissions-policy", HeaderValue::from_static("camera=(self), microphone=(), geolocation=()"));
    Ok(response)
}

/// A file of the site, compressed for whoever takes it so.
fn file(call: &Call, path: &str, cache: &'static str) -> Result<Reply, Problem> {
    let EmbeddedFile { data, metadata } = Site::get(&format!("{path}.gz")).ok_or_else(|| Problem::not_found("address"))?;
    let hash: String = metadata.sha256_hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let zipped = takes_gzip(call.header("accept-encoding").unwrap_or_default());
    // Two forms of one thing are two things to a cache (RFC 9110, 8.8.3.3).
    let etag = format!("\"{hash}{}\"", if zipped { "-gz" } else { "" });
    let mut response = if call.header("if-none-match").is_some_and(|known| reply::matches(known, &etag)) {
        reply::status(StatusCode::NOT_MODIFIED)
    } else if zipped {
        let response = reply::bytes(StatusCode::OK, content_type(path), Bytes::from(data.into_owned()));
        reply::with_header(response, header::CONTENT_ENCODING, "gzip")?
    } else {
        reply::bytes(StatusCode::OK, content_type(path), unzip(&data)?)
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).map_err(Problem::internal)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}

/// The few types that the site has.
fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether an `Accept-Encoding` takes gzip: named, or meant by `*` (RFC 9110, 12.5.3).
fn takes_gzip(accepted: &str) -> bool {
    ["gzip", "x-gzip", "*"].iter().find_map(|name| service::accepts(accepted, name)).unwrap_or_default()
}

/// What is in a gzip file as `build.rs` writes it: a head of ten bytes without extras, and eight bytes of checks behind.
fn unzip(zipped: &[u8]) -> Result<Bytes, Problem> {
    let deflated = zipped.get(10..zipped.len().saturating_sub(8)).unwrap_or_default();
    miniz_oxide::inflate::decompress_to_vec(deflated).map(Bytes::from).map_err(|error| Problem::internal(format!("the site: {error}")))
}

/// `scheme://host[:port]`.
fn origin(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find('/').map_or(url.len(), |at| after_scheme + at);
    &url[..end]
}
