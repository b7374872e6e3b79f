//! `/api/uploads` and `/files`: photos in and out, and everything that is no photo.

use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::photos;
use e2e::{Person, World, sha256};
use http::Method;
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use sandbox::{Fault, Service};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// That nothing of a refused request is left anywhere.
fn assert_nothing_stored(world: &World, what: &str) {
    assert_eq!(world.objects(), Vec::<String>::new(), "{what}");
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads WHERE status = 'stored'"), 0, "{what}");
}

async fn send_form(person: &Person, expected: u16, form: Form) -> e2e::Answer {
    person.send(expected, person.request(Method::POST, "/api/uploads").multipart(form)).await
}

fn file(bytes: impl Into<Vec<u8>>, name: &str) -> Part {
    Part::bytes(bytes.into()).file_name(name.to_owned())
}

/// A body that does not say how long it is.
fn in_chunks(bytes: Vec<u8>) -> Body {
    let bytes = Bytes::from(bytes);
    let chunks: Vec<Result<Bytes, std::io::Error>> =
        (0..bytes.len()).step_by(64 * 1024).map(|at| Ok(bytes.slice(at..bytes.len().min(at + 64 * 1024)))).collect();
    Body::wrap_stream(futures::stream::iter(chunks))
}

/// A JPEG of this many bytes: a real one, with the rest after its end, where no reader looks.
fn padded_jpeg(size: usize) -> Vec<u8> {
    let mut bytes = photos::read("portrait.jpg");
    bytes.resize(size, 0);
    bytes
}

/// What large objects left in the store that were begun and neither finished nor given up.
fn unfinished_parts(world: &World) -> Vec<String> {
    let store = world.bucket_folder().parent().unwrap().to_owned();
    let names = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".upload")).collect()
}

/// For a client of its own, which may break.
fn with_cookie(mut request: reqwest::Request, person: &Person) -> reqwest::Request {
    let cookie = format!("__session={}", person.token().unwrap());
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    request
}

const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\0rest of a file";
const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_stored_as_it_is_and_told_about() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let id = ada.id().await;
    for name in ["portrait.jpg", "portrait.png", "portrait.webp"] {
        let bytes = photos::read(name);
        let upload = ada.upload(name).await;
        let key = upload["key"].as_str().unwrap();
        assert!(key.starts_with(&format!("cache/{id}/")), "{key}");
        assert_eq!(upload["url"], format!("{}files/{key}", world.address()));
        assert_eq!((&upload["size"], &upload["sha256"]), (&json!(bytes.len()), &json!(sha256(&bytes))));
        let size = image::load_from_memory(&bytes).unwrap();
        assert_eq!((&upload["width"], &upload["height"]), (&json!(size.width()), &json!(size.height())));
        assert!((upload["expires_at"].as_i64().unwrap() - e2e::now() - 7 * 86_400).abs() < 60);
        assert_eq!(ada.download(upload["url"].as_str().unwrap()).await, bytes);
        assert_eq!(ada.get(200, &format!("/api/uploads/{}", upload["id"].as_str().unwrap())).await.json()["upload"], upload);
    }
    let listed = ada.get(200, "/api/uploads?limit=2&offset=1").await.json();
    assert_eq!((listed["uploads"].as_array().unwrap().len(), &listed["limit"], &listed["offset"]), (2, &json!(2), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_photo_arrives_byte_for_byte() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let photo = photos::noise(1_780);
    assert!((9 * MIB..10 * MIB).contains(&photo.len()), "{} bytes", photo.len());
    let raw = ada.send(201, ada.upload_request("image/png", photo.clone())).await;
    let chunked = ada.send(201, ada.upload_request("image/png", in_chunks(photo.clone()))).await;
    let form = send_form(&ada, 201, Form::new().part("file", file(photo.clone(), "large.png"))).await;
    for answer in [raw, chunked, form] {
        let upload = answer.json()["uploads"][0].clone();
        assert_eq!((&upload["size"], &upload["sha256"]), (&json!(photo.len()), &json!(sha256(&photo))));
        let stored = std::fs::read(world.bucket_folder().join(upload["key"].as_str().unwrap())).unwrap();
        assert_eq!(sha256(&stored), sha256(&photo));
        assert_eq!(sha256(&ada.download(upload["url"].as_str().unwrap()).await), sha256(&photo));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_on_the_end_of_a_photo_is_not_stored() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let photo = photos::read("portrait.jpg");
    for size in [512 * 1024, 5 * MIB] {
        let answer = ada.send(201, ada.upload_request("image/jpeg", in_chunks(padded_jpeg(size)))).await;
        let upload = answer.json()["uploads"][0].clone();
        assert_eq!((&upload["size"], &upload["sha256"]), (&json!(photo.len()), &json!(sha256(&photo))));
        assert_eq!(sha256(&ada.download(upload["url"].as_str().unwrap()).await), sha256(&photo), "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_what_its_bytes_say() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for claimed in ["image/jpeg", "image/gif", "image/svg+xml"] {
        // Sent as what it is not: broken, or meant to be taken for something else somewhere.
        ada.send(415, ada.upload_request(claimed, photos::read("portrait.png"))).await.problem("unsupported_media_type");
    }
    assert_nothing_stored(&world, "sent as what it is not");
    for claimed in ["image/png", "application/octet-stream", "Image/PNG; charset=binary"] {
        let upload = ada.send(201, ada.upload_request(claimed, photos::read("portrait.png"))).await.json()["uploads"][0].clone();
        assert_eq!(upload["content_type"], "image/png", "{claimed}");
        assert!(upload["key"].as_str().unwrap().ends_with(".png"), "{claimed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_file_is_kept_without_its_folders() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let names = [
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("C:\\photos\\me.jpg", "me.jpg"),
        ("发型 100%.jpg", "发型 100%.jpg"),
        ("a\tb.jpg", "ab.jpg"),
    ];
    for (given, kept) in names {
        let form = Form::new().part("file", file(photos::read("portrait.jpg"), given));
        let upload = send_form(&ada, 201, form).await.json()["uploads"][0].clone();
        assert_eq!(upload["original_name"], kept, "{given:?}");
    }
    let raw = ada.upload_request("image/jpeg", photos::read("portrait.jpg")).header("x-file-name", "me.jpg");
    assert_eq!(ada.send(201, raw).await.json()["uploads"][0]["original_name"], "me.jpg");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_says_how_large_a_photo_may_be() {
    let variables = [("upload_max_bytes".to_owned(), "100000".to_owned())].into();
    let world = World::with(e2e::Options { variables, ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    ada.send(413, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await.problem("payload_too_large");
    ada.send(413, ada.upload_request("image/jpeg", in_chunks(photos::read("portrait.jpg")))).await.problem("payload_too_large");
    assert_nothing_stored(&world, "above the operator's limit");
    ada.upload("portrait.webp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_photo_is_refused_with_its_reason_and_nothing_is_stored() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let tiny = {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(20, 20).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let raw: [(&str, u16, &str, &str, Vec<u8>); 8] = [
        ("nothing", 422, "invalid_input", "image/jpeg", vec![]),
        ("a text named .jpg", 415, "unsupported_media_type", "image/jpeg", b"I am not a photo, whatever I am called.".to_vec()),
        ("a HEIC photo", 415, "unsupported_media_type", "image/heic", HEIC.to_vec()),
        (
            "a drawing with a script",
            415,
            "unsupported_media_type",
            "image/svg+xml",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>".to_vec(),
        ),
        ("a photo cut off in its header", 422, "invalid_input", "image/jpeg", photos::read("portrait.jpg")[..20].to_vec()),
        ("a photo too small to show a face", 422, "invalid_input", "image/png", tiny),
        ("a photo sent as text", 415, "unsupported_media_type", "text/plain", photos::read("portrait.jpg")),
        ("a photo sent as JSON", 415, "unsupported_media_type", "application/json", photos::read("portrait.jpg")),
    ];
    for (what, status, code, content_type, bytes) in raw {
        let answer = ada.ask(ada.upload_request(content_type, bytes.clone())).await;
        assert_eq!(answer.status, status, "{what}: {answer}");
        answer.problem(code);
        assert_nothing_stored(&world, what);
        if content_type.starts_with("image/") {
            let form = Form::new().part("file", file(bytes, "photo.jpg"));
            let answer = ada.ask(ada.request(Method::POST, "/api/uploads").multipart(form)).await;
            assert_eq!(answer.status, status, "{what}, in a form: {answer}");
            answer.problem(code);
            assert_nothing_stored(&world, what);
        }
    }
    let untyped = ada.request(Method::POST, "/api/uploads").body(photos::read("portrait.jpg"));
    ada.send(415, untyped).await.problem("unsupported_media_type");
    assert!(ada.send(415, ada.upload_request("image/heic", HEIC)).await.json()["detail"].as_str().unwrap().contains("HEIC"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_above_ten_mebibytes_is_refused_however_it_comes() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let large = padded_jpeg(11 * MIB);
    let answer = ada.push("image/jpeg", large.clone()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"payload_too_large\""), "{answer}{}", world.tail());
    assert_nothing_stored(&world, "its length was stated");
    ada.send(413, ada.upload_request("image/jpeg", in_chunks(large.clone()))).await.problem("payload_too_large");
    assert_nothing_stored(&world, "its length showed on the way");
    send_form(&ada, 413, Form::new().part("file", file(large, "large.jpg"))).await.problem("payload_too_large");
    assert_nothing_stored(&world, "in a form");
    assert_eq!(unfinished_parts(&world), Vec::<String>::new());
    // The limit itself is allowed.
    ada.send(201, ada.upload_request("image/jpeg", padded_jpeg(10 * MIB))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_holds_one_to_four_files_and_nothing_else() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let jpeg = || file(photos::read("portrait.jpg"), "portrait.jpg");
    let field = send_form(&ada, 422, Form::new().text("caption", "me")).await;
    assert_eq!(field.wrong_fields(), ["caption"]);
    assert_eq!(send_form(&ada, 422, Form::new().part("file", jpeg()).part("avatar", jpeg())).await.wrong_fields(), ["avatar"]);
    let five = (0..5).fold(Form::new(), |form, _| form.part("file", jpeg()));
    assert_eq!(send_form(&ada, 422, five).await.wrong_fields(), ["file"]);
    let request = ada.request(Method::POST, "/api/uploads").header("content-type", "multipart/form-data; boundary=x").body("--x--\r\n");
    assert_eq!(ada.send(422, request).await.wrong_fields(), ["file"]);
    let request = ada.request(Method::POST, "/api/uploads").header("content-type", "multipart/form-data").body("--x--\r\n");
    ada.send(422, request).await.problem("invalid_input");
    let request =
        ada.request(Method::POST, "/api/uploads").header("content-type", "multipart/form-data; boundary=x").body("no boundary in sight");
    ada.send(422, request).await.problem("invalid_input");
    // All or none: a good photo beside a bad one is not kept.
    let mixed = Form::new().part("file", jpeg()).part("file", file(b"text".to_vec(), "b.jpg"));
    send_form(&ada, 415, mixed).await.problem("unsupported_media_type");
    assert_nothing_stored(&world, "refused forms");
    let four = (0..4).fold(Form::new(), |form, _| form.part("file", jpeg()));
    assert_eq!(send_form(&ada, 201, four).await.json()["uploads"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_that_breaks_off_on_the_way_leaves_nothing_behind() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let photo = photos::noise(1_500);
    let broken = futures::StreamExt::chain(
        futures::stream::iter([Ok(Bytes::from(photo[..photo.len() - 100_000].to_vec()))]),
        futures::stream::once(async { Err(std::io::Error::other("the train enters a tunnel")) }),
    );
    let request = ada.upload_request("image/png", Body::wrap_stream(broken)).build().unwrap();
    assert!(reqwest::Client::builder().no_proxy().build().unwrap().execute(with_cookie(request, &ada)).await.is_err());
    let gone = async || {
        let rows = world.sql("SELECT status FROM uploads WHERE expires_at > unixepoch()");
        if rows.is_empty() && world.objects().is_empty() { Ok(()) } else { Err(format!("{rows:?} {:?}", world.objects())) }
    };
    world.until("the broken upload to be taken back", gone).await;
    assert_nothing_stored(&world, "it broke off");
    assert_eq!(unfinished_parts(&world), Vec::<String>::new());
    assert_eq!(ada.get(200, "/api/uploads").await.json()["uploads"], json!([]));
}

/// Sends the beginning of a large body and then a byte every second, until there is an answer; the whole text of that, and how long it took.
async fn in_drops(person: &Person, path: &str, content_type: &str, beginning: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let address = person.world.address();
    let host = format!("{}:{}", address.host_str().unwrap(), address.port().unwrap());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncookie: __session={}\r\ncontent-type: {content_type}\r\ncontent-length: 50000\r\n\
         connection: close\r\n\r\n",
        person.token().unwrap()
    );
    let (mut reading, mut writing) = TcpStream::connect(&host).await.unwrap().into_split();
    writing.write_all(&[head.as_bytes(), beginning].concat()).await.unwrap();
    let drip = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await
    };
    let hear = async {
        let mut answer = Vec::new();
        // A reset after the answer is how the other side says that it reads no further.
        let _ = reading.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(Duration::from_secs(200), async {
        tokio::select! {
            answer = hear => answer,
            () = drip => unreachable!(),
        }
    });
    (answer.await.unwrap_or_else(|_| panic!("{path} is still waited for{}", person.world.tail())), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_drops_is_not_waited_for_without_end() {
    // The host would wait for longer.
    let world = World::with(e2e::Options { request_timeout: Some(Duration::from_secs(300)), ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let photo = photos::read("portrait.jpg");
    let form = [&b"--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n"[..], &photo[..1_000]].concat();
    let (raw, form, head, words) = futures::join!(
        in_drops(&ada, "/api/uploads", "image/jpeg", &photo[..1_000]),
        in_drops(&ada, "/api/uploads", "multipart/form-data; boundary=x", &form),
        in_drops(&ada, "/api/uploads", "multipart/form-data; boundary=x", b"--x\r\n"),
        in_drops(&ada, "/api/uploads/presign", "application/json", b"{"),
    );
    for (what, (answer, took), at_least) in [("a photo", raw, 45), ("a form", form, 45), ("a part's head", head, 45), ("words", words, 9)] {
        assert!(answer.starts_with("HTTP/1.1 422 "), "{what}: {answer}{}", world.tail());
        assert!(answer.contains("\"invalid_input\"") && answer.contains("too long to arrive"), "{what}: {answer}");
        assert!(took >= Duration::from_secs(at_least), "{what} was waited for {took:?} only");
    }
    assert_nothing_stored(&world, "given up");
    ada.upload("portrait.jpg").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_uploads_nothing() {
    let world = World::new().await;
    let stranger = world.stranger();
    let answer = stranger.send(401, stranger.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    answer.problem("unauthenticated");
    assert_nothing_stored(&world, "of a stranger");
    assert_eq!(world.control().calls_to(Service::S3).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_told_and_nothing_is_charged() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.storage_down();
    let answer = ada.send(503, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    answer.problem("storage_unavailable");
    assert!(!answer.header("retry-after").is_empty(), "{answer}");
    world.control().clear_faults();
    assert_nothing_stored(&world, "the store was down");
    assert_eq!((ada.credits().await, ada.get(200, "/api/uploads").await.json()["uploads"].clone()), (3, json!([])));
    ada.upload("portrait.jpg").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stumbles_once_is_not_noticed() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::S3Answers { status: 500, method: Some("PUT".into()), prefix: None }.once());
    ada.upload("portrait.jpg").await;
    assert_eq!(world.objects().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_photo_that_meets_a_broken_store_leaves_nothing_behind() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    // The first part arrives, the second one never does.
    let photo = photos::noise(1_500);
    world.fault(Fault::S3Answers { status: 500, method: Some("PUT".into()), prefix: None });
    ada.send(503, ada.upload_request("image/png", photo)).await.problem("storage_unavailable");
    world.control().clear_faults();
    assert_nothing_stored(&world, "a broken large upload");
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads WHERE expires_at > unixepoch()"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_photo_is_gone_from_sight_and_from_the_store() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let path = format!("/api/uploads/{}", upload["id"].as_str().unwrap());
    ada.delete(204, &path).await;
    assert_nothing_stored(&world, "it was deleted");
    ada.get(404, &path).await.problem("not_found");
    ada.get(404, upload["url"].as_str().unwrap()).await.problem("not_found");
    ada.delete(404, &path).await.problem("not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_deleted_while_the_store_is_down_is_hidden_at_once_and_removed_by_the_sweep() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let path = format!("/api/uploads/{}", upload["id"].as_str().unwrap());
    world.storage_down();
    ada.delete(503, &path).await.problem("storage_unavailable");
    ada.get(404, &path).await;
    world.control().clear_faults();
    assert_eq!(world.objects().len(), 1);
    assert_eq!(world.sweep().await["uploads"]["expired"], 1);
    assert_nothing_stored(&world, "the sweep came by");
}

/// A photo that its owner has put into the bucket an hour ago; answers where it is completed.
async fn put_an_hour_ago(world: &World, person: &Person) -> String {
    let file = photos::read("portrait.jpg");
    let wish = json!({"content_type": "image/jpeg", "size": file.len()});
    let upload = person.post_json(201, "/api/uploads/presign", &wish).await.json()["upload"].clone();
    let put = world.stranger().request(Method::PUT, upload["put"]["url"].as_str().unwrap());
    world.stranger().send(200, put.header("content-type", "image/jpeg").body(file)).await;
    world.db_write("UPDATE uploads SET created_at = created_at - 3601 WHERE status = 'pending'", []);
    format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_being_completed_is_not_swept_away() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let complete = put_an_hour_ago(&world, &ada).await;
    // The look at it takes as long as a sweep.
    world.fault(Fault::S3Slow { ms: 4_000, method: Some("GET".into()), prefix: Some("cache/".into()) }.once());
    let completing = ada.send(200, ada.request(Method::POST, &complete));
    let sweeping = async {
        let began = async || if world.heard(Service::S3, ".raw") >= 2 { Ok(()) } else { Err("nobody has looked".to_owned()) };
        world.until("the look", began).await;
        world.sweep().await
    };
    let (done, report) = futures::join!(completing, sweeping);
    assert_eq!((&report["uploads"]["expired"], &report["uploads"]["deleted"]), (&json!(0), &json!(0)), "{report}");
    let done = done.json()["upload"].clone();
    assert_eq!(done["sha256"], sha256(&ada.download(done["url"].as_str().unwrap()).await));
    world.sweep().await;
    assert_eq!(world.objects(), [done["key"].as_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_being_swept_away_cannot_be_completed() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let complete = put_an_hour_ago(&world, &ada).await;
    world.fault(Fault::S3Slow { ms: 2_000, method: Some("POST".into()), prefix: None });
    let completing = async {
        let began = async || if world.heard(Service::S3, "POST") > 0 { Ok(()) } else { Err("no deletion".to_owned()) };
        world.until("the deletion", began).await;
        // Rather a word than a photo that is said to be there and is removed.
        ada.post(404, &complete).await.problem("not_found");
    };
    let (report, ()) = futures::join!(world.sweep(), completing);
    assert_eq!(report["uploads"]["expired"], 1, "{report}");
    assert_nothing_stored(&world, "swept");
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_reached_by_its_exact_key_only() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let key = upload["key"].as_str().unwrap();
    let answer = ada.get(302, &format!("/files/{key}")).await;
    let link = answer.header("location");
    assert!(link.starts_with(&format!("{}/ai-hairstyle/{key}?", world.places().s3)), "{link}");
    assert!(link.contains("X-Amz-Expires=600"), "{link}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    // A browser that keeps it does so for whoever has the cookie, and signing out takes that away.
    assert_eq!((answer.header("cache-control"), answer.header("vary")), ("private, max-age=300", "cookie, authorization"));
    // Without its signature, and with another one, the bucket gives nothing.
    let bucket = world.stranger();
    bucket.get(403, link.split('?').next().unwrap()).await;
    bucket.get(403, &link.replace("X-Amz-Expires=600", "X-Amz-Expires=6000")).await;
    for path in [
        format!("/files/{key}x"),
        format!("/files/x/../{key}/.."),
        "/files/cache".to_owned(),
        format!("/files/cache/{}/", ada.id().await),
        format!("/files/{}", key.replace('/', "%2F%2F")),
        "/files/..%2F..%2Fetc%2Fpasswd".to_owned(),
        "/files/result/hairstyle/x/result_1.png".to_owned(),
        "/files/%FF".to_owned(),
    ] {
        ada.get(404, &path).await.problem("not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_comes_under_a_name_of_ours() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let photo = upload["url"].as_str().unwrap();
    let task = ada.order_one().await;
    let done = ada.wait_completed(&task).await;
    let picture = done["result_urls"][0].as_str().unwrap();
    let bucket = world.stranger();
    let saved = async |path: &str| {
        let link = ada.get(302, path).await.header("location").to_owned();
        let file = bucket.get(200, &link).await;
        assert!(!file.body.is_empty());
        (file.header("content-disposition").to_owned(), link)
    };
    let (disposition, link) = saved(&format!("{picture}?download=1")).await;
    let tail = &task[task.len() - 6..];
    assert_eq!(disposition, format!("attachment; filename=\"bob-cut-{tail}-1.png\""));
    let (disposition, _) = saved(&format!("{photo}?download=1")).await;
    assert!(disposition.starts_with("attachment; filename=\"photo-") && disposition.ends_with(".jpg\""), "{disposition}");
    assert_eq!(saved(photo).await.0, "", "without a wish it is shown");
    // Nobody else chooses the name.
    ada.get(422, &format!("{photo}?download=evil.html")).await.problem("invalid_input");
    bucket.get(403, &link.replace("bob-cut", "evil")).await;
    world.stranger().get(401, &format!("{picture}?download=1")).await.problem("unauthenticated");
    world.sign_in("eve@example.com").await.get(404, &format!("{picture}?download=1")).await.problem("not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_asked_for_in_numbers() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for list in ["/api/uploads", "/api/tasks", "/api/orders", "/api/me/credits/history"] {
        for (query, field) in
            [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("offset=-1", "offset"), ("offset=1.5", "offset")]
        {
            assert_eq!(ada.get(422, &format!("{list}?{query}")).await.wrong_fields(), [field], "{list}?{query}");
        }
        ada.get(200, &format!("{list}?limit=100&offset=0")).await;
    }
}
