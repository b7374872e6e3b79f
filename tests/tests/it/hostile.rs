//! Files that strangers send, and photos that clients put into the bucket themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use e2e::{Person, World, photos, sha256};
use futures::StreamExt;
use http::Method;
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use sandbox::{Fault, Service};
use serde_json::{Value, json};

/// Hostile files by what they are, with the status they get.
fn corpus() -> Vec<(&'static str, Vec<u8>, u16)> {
    let [jpeg, png, webp] = ["portrait.jpg", "portrait.png", "portrait.webp"].map(photos::read);
    let with = |file: &[u8], at: usize, bytes: &[u8]| {
        let mut file = file.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let append = |file: &[u8], tail: &[u8]| [file, tail].concat();
    vec![
        ("half a jpeg", jpeg[..jpeg.len() / 2].to_vec(), 422),
        ("half a png", png[..png.len() / 2].to_vec(), 422),
        ("half a webp", webp[..webp.len() / 2].to_vec(), 422),
        ("a png that says it is 100,000 pixels wide", with(&png, 16, &100_000_u32.to_be_bytes()), 422),
        ("a png that says it has 121 million pixels", with(&with(&png, 16, &11_000_u32.to_be_bytes()), 20, &11_000_u32.to_be_bytes()), 422),
        ("a png with an endless chunk", with(&png, 33, &[0xff; 4]), 422),
        ("a webp with an endless chunk", with(&webp, 16, &[0xff; 4]), 422),
        ("a drawing with a script", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec(), 415),
        ("a page", b"<!doctype html><script>alert(1)</script>".to_vec(), 415),
        ("a program", b"MZ\x90\0\x03".to_vec(), 415),
        ("an archive", b"PK\x03\x04whatever".to_vec(), 415),
        ("a HEIC photo", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\0rest".to_vec(), 415),
        ("a jpeg with an archive behind it", append(&jpeg, b"PK\x03\x04evil"), 201),
        ("a jpeg with a page behind it", append(&jpeg, b"<html><script>alert(1)</script>"), 201),
        ("a png with a program behind it", append(&png, b"<?php system($_GET[0]); ?>"), 201),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_refused_or_made_harmless_and_never_a_fault_of_ours() {
    let variables = [("rate_limit_per_hour".to_owned(), "1000".to_owned())].into();
    let world = World::with(e2e::Options { variables, ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let mut taken = 0;
    for (what, file, status) in corpus() {
        for name in [
            "photo.jpg",
            "photo.svg",
            "../../../etc/passwd",
            "a\"; filename=\"b.html",
            "..\\..\\x.php%00.jpg",
            "\u{202e}gpj.exe",
            "發型.jpg",
        ] {
            let part = Part::bytes(file.clone()).file_name(name);
            let answer = ada.ask(ada.request(Method::POST, "/api/uploads").multipart(Form::new().part("file", part))).await;
            assert_eq!(answer.status, status, "{what} named {name}: {answer}");
            if status != 201 {
                answer.problem(if status == 415 { "unsupported_media_type" } else { "invalid_input" });
                continue;
            }
            taken += 1;
            let upload = answer.json()["uploads"][0].clone();
            let stored = std::fs::read(world.bucket_folder().join(upload["key"].as_str().unwrap())).unwrap();
            for trace in [&b"PK\x03\x04"[..], b"<script>", b"<?php"] {
                assert!(!stored.windows(trace.len()).any(|window| window == trace), "{what}");
            }
            // What it is stored and served as is ours to say.
            assert!(["jpg", "png"].contains(&upload["key"].as_str().unwrap().rsplit('.').next().unwrap()), "{upload}");
            let shown = upload["original_name"].as_str().unwrap_or_default().to_owned();
            assert!(!shown.contains('/') && !shown.contains('\\') && !shown.contains('\0'), "{shown:?}");
        }
    }
    assert_eq!(world.objects().len(), taken, "nothing that was refused is stored");
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), i64::try_from(taken).unwrap());
    assert!(world.events("request").iter().all(|line| line["status"].as_u64().unwrap() < 500), "{}", world.tail());
}

/// Photos of ten megabytes whose picture is said to be small, made of as many pieces as fit: whoever keeps a note of each of them needs many times
/// as much.
fn crumbs() -> [(&'static str, &'static str, Vec<u8>); 3] {
    const LENGTH: usize = 10_400_000;
    let filled = |head: &[u8], crumb: &[u8], end: &[u8]| {
        let crumbs = crumb.repeat((LENGTH - head.len() - end.len()) / crumb.len());
        [head, &crumbs, end].concat()
    };
    let frame = b"\xff\xd8\xff\xc0\x00\x11\x08\x02\x00\x02\x00\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01";
    let jpeg = filled(frame, b"\xff\xe1\x00\x02", b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00\xff\xd9");
    let empty = b"\0\0\0\0IDAT\x35\xaf\x06\x1e";
    let png = filled(&photos::read("portrait.png")[..33], empty, b"\0\0\0\0IEND\xae\x42\x60\x82");
    // 512 by 512, less one.
    let mut webp = filled(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x01\0\xff\x01\0", b"ALPH\0\0\0\0", b"");
    let length = u32::try_from(webp.len() - 8).unwrap();
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    [("a jpeg", "image/jpeg", jpeg), ("a png", "image/png", png), ("a webp", "image/webp", webp)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_of_millions_of_pieces_is_refused_and_takes_nobody_along() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for (what, content_type, file) in crumbs() {
        let answer = ada.ask(ada.upload_request(content_type, file.clone())).await;
        assert_eq!(answer.status, 422, "{what}: {answer}{}", world.tail());
        answer.problem("invalid_input");
        // Put into the bucket it is looked at in the same way.
        let upload = presign(&ada, 201, json!({"content_type": content_type, "size": file.len()})).await.json()["upload"].clone();
        assert_eq!(put(&ada, &upload, file).await, 200, "{what}");
        let answer = ada.ask(ada.request(Method::POST, &format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap()))).await;
        assert_eq!(answer.status, 422, "{what}, put into the bucket: {answer}{}", world.tail());
        assert_eq!(world.objects(), Vec::<String>::new(), "{what}");
    }
    // An instance that runs out of memory ends, and everybody's requests in it.
    assert!(world.events("trap").is_empty(), "{}", world.tail());
    ada.upload("portrait.jpg").await;
}

async fn presign(person: &Person, expected: u16, body: Value) -> e2e::Answer {
    person.post_json(expected, "/api/uploads/presign", &body).await
}

/// Puts a file where a presigned upload says, with the headers it says.
async fn put(person: &Person, upload: &Value, file: Vec<u8>) -> u16 {
    let put = &upload["put"];
    let request = person.world.stranger().request(Method::PUT, put["url"].as_str().unwrap());
    let request = request.header("content-type", put["headers"]["content-type"].as_str().unwrap()).body(file);
    person.ask(request).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_goes_straight_into_the_bucket_and_is_checked_there() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let file = photos::read("portrait-exif-rotated.jpg");
    let wish = json!({"filename": "../me.jpg", "content_type": "image/jpeg", "size": file.len()});
    let upload = presign(&ada, 201, wish).await.json()["upload"].clone();
    let complete = format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap());
    ada.post(409, &complete).await.problem("conflict");
    assert_eq!(put(&ada, &upload, file.clone()).await, 200);
    // Until it has been looked at it is no upload.
    ada.get(404, &format!("/api/uploads/{}", upload["id"].as_str().unwrap())).await;
    let done = ada.post(200, &complete).await.json()["upload"].clone();
    assert_eq!((&done["content_type"], &done["original_name"]), (&json!("image/jpeg"), &json!("me.jpg")));
    let stored = ada.download(done["url"].as_str().unwrap()).await;
    assert_eq!(done["sha256"], sha256(&stored));
    assert!(stored.len() < file.len(), "without what a phone writes into it");
    assert_eq!(world.objects(), [done["key"].as_str().unwrap()], "and nothing else is left");
    // Again is fine, and what is put there later changes nothing.
    assert_eq!(put(&ada, &upload, vec![0; file.len()]).await, 200);
    assert_eq!(ada.post(200, &complete).await.json()["upload"], done);
    assert_eq!(ada.download(done["url"].as_str().unwrap()).await, stored);
    // It can be ordered from.
    ada.post_json(202, "/api/tasks", &json!({"upload_id": done["id"], "hairstyles": ["bob-cut"]})).await;
    // Somebody else has no part in it.
    let eve = world.sign_in("eve@example.com").await;
    eve.post(404, &complete).await.problem("not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_complete_an_upload_at_once_one_does_and_row_and_file_agree() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let first = photos::read("portrait.jpg");
    // Another photo of the same length.
    let mut second = photos::read("portrait-exif-rotated.jpg");
    assert!(second.len() <= first.len());
    second.resize(first.len(), 0);
    let upload = presign(&ada, 201, json!({"content_type": "image/jpeg", "size": first.len()})).await.json()["upload"].clone();
    let id = upload["id"].as_str().unwrap();
    let complete = format!("/api/uploads/{id}/complete");
    assert_eq!(put(&ada, &upload, first.clone()).await, 200);
    // Whoever looked first is slow to write.
    world.fault(Fault::S3Slow { ms: 5_000, method: Some("PUT".into()), prefix: None }.once());
    let slow = ada.ask(ada.request(Method::POST, &complete));
    let quick = async {
        let began = async || {
            let writes = world.heard(Service::S3, "PUT /ai-hairstyle/cache/");
            if writes >= 2 { Ok(()) } else { Err(format!("{writes} writes")) }
        };
        world.until("the first to write", began).await;
        assert_eq!(put(&ada, &upload, second).await, 200);
        ada.ask(ada.request(Method::POST, &complete)).await
    };
    let (slow, quick) = futures::join!(slow, quick);
    assert_eq!((slow.status, quick.status), (200, 409), "{slow} {quick}");
    quick.problem("conflict");
    let done = slow.json()["upload"].clone();
    assert_eq!(ada.get(200, &format!("/api/uploads/{id}")).await.json()["upload"], done);
    assert_eq!(done["sha256"], sha256(&ada.download(done["url"].as_str().unwrap()).await));
    assert_eq!(ada.post(200, &complete).await.json()["upload"], done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_was_cut_off_is_begun_again_when_its_time_is_over() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let file = photos::read("portrait.jpg");
    let upload = presign(&ada, 201, json!({"content_type": "image/jpeg", "size": file.len()})).await.json()["upload"].clone();
    let complete = format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap());
    assert_eq!(put(&ada, &upload, file).await, 200);
    world.db_write("UPDATE uploads SET claimed_until = unixepoch() + 300", []);
    ada.post(409, &complete).await.problem("conflict");
    world.db_time_passes(301);
    ada.post(200, &complete).await;
    // A store that is down gives the claim back.
    let upload = presign(&ada, 201, json!({"content_type": "image/jpeg", "size": 10})).await.json()["upload"].clone();
    let complete = format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap());
    world.storage_down();
    ada.post(503, &complete).await.problem("storage_unavailable");
    assert_eq!(world.sql_number("SELECT max(claimed_until) FROM uploads WHERE status = 'pending'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_there_and_is_no_photo_leaves_nothing_behind() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let png = photos::read("portrait.png");
    for (what, claimed, file, status) in [
        ("a page", "image/jpeg", b"<!doctype html><script>alert(1)</script>".to_vec(), 415),
        ("another picture than it says", "image/jpeg", png.clone(), 415),
        ("half a picture", "image/png", png[..png.len() / 2].to_vec(), 422),
    ] {
        let upload = presign(&ada, 201, json!({"content_type": claimed, "size": file.len()})).await.json()["upload"].clone();
        assert_eq!(put(&ada, &upload, file).await, 200, "{what}");
        let complete = format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap());
        let answer = ada.ask(ada.request(Method::POST, &complete)).await;
        assert_eq!(answer.status, status, "{what}: {answer}");
        assert_eq!(world.objects(), Vec::<String>::new(), "{what}");
        ada.post(404, &complete).await.problem("not_found");
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_good_for_one_file_of_one_length_and_type() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let file = photos::read("portrait.jpg");
    let upload = presign(&ada, 201, json!({"content_type": "image/jpeg", "size": file.len()})).await.json()["upload"].clone();
    assert_eq!(put(&ada, &upload, [&file[..], b"and more"].concat()).await, 403, "longer than it was signed for");
    let other = upload["put"]["url"].as_str().unwrap().replace("/cache/", "/avatars/");
    let mut elsewhere = upload.clone();
    elsewhere["put"]["url"] = json!(other);
    assert_eq!(put(&ada, &elsewhere, file.clone()).await, 403, "another key");
    let mut as_page = upload.clone();
    as_page["put"]["headers"]["content-type"] = json!("text/html");
    assert_eq!(put(&ada, &as_page, file.clone()).await, 403, "another type");
    assert_eq!(world.objects(), Vec::<String>::new());

    presign(&ada, 413, json!({"content_type": "image/jpeg", "size": 10_485_761})).await.problem("payload_too_large");
    presign(&ada, 415, json!({"content_type": "image/svg+xml", "size": 10})).await.problem("unsupported_media_type");
    presign(&ada, 422, json!({"content_type": "image/png", "size": 0})).await.problem("invalid_input");
    presign(&ada, 422, json!({"content_type": "image/png", "size": -1})).await.problem("invalid_input");
    // What is never completed is swept away, file and row.
    assert_eq!(put(&ada, &upload, file).await, 200);
    world.db_time_passes(4_000);
    world.sweep().await;
    assert_eq!((world.objects().len(), world.sql_number("SELECT count(*) FROM uploads")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_gibibyte_only_the_beginning_is_taken() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let sent = Arc::new(AtomicUsize::new(0));
    let head = Bytes::from(photos::read("portrait.jpg"));
    let chunk = Bytes::from(vec![0_u8; 64 * 1024]);
    let counted = Arc::clone(&sent);
    let body = futures::stream::iter(std::iter::once(head).chain(std::iter::repeat_n(chunk, 16 * 1024))).map(move |data| {
        counted.fetch_add(data.len(), Ordering::Relaxed);
        Ok::<_, std::io::Error>(data)
    });
    ada.send(413, ada.upload_request("image/jpeg", Body::wrap_stream(body))).await.problem("payload_too_large");
    let sent = sent.load(Ordering::Relaxed);
    // What lies in the buffers of both sides, and the little that is read of what is refused, count as well.
    assert!(sent < 64 << 20, "{sent} bytes went out before the answer came");
    assert_eq!(world.objects(), Vec::<String>::new());
}

/// A body that begins somehow and then goes on for a gibibyte, and how much of it has been asked for.
fn endless(head: &'static [u8]) -> (Body, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let chunk = Bytes::from(vec![b'a'; 64 * 1024]);
    let body =
        futures::stream::iter(std::iter::once(Bytes::from_static(head)).chain(std::iter::repeat_n(chunk, 16 * 1024))).map(move |data| {
            counted.fetch_add(data.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(data)
        });
    (Body::wrap_stream(body), sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_form_without_end_only_the_beginning_is_taken() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for (asked, (what, head)) in [
        ("no part ever begins", &b"whatever"[..]),
        ("the head of a part never ends", b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\""),
        ("a part never ends", b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n\xff\xd8\xff"),
        ("the second part never begins", b"--x\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--x\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let (body, sent) = endless(head);
        let request = ada.request(Method::POST, "/api/uploads").header("content-type", "multipart/form-data; boundary=x").body(body);
        // The server answers and hangs up in the middle of the form. A client that is writing just then may find the door shut before it reads.
        if let Ok(answer) = request.send().await {
            assert!(matches!(answer.status().as_u16(), 413 | 422), "{what}: {answer:?}");
        }
        let refused = async || {
            let told = world.events("request").into_iter().filter(|line| line["path"] == "/api/uploads").map(|line| line["status"].clone());
            let told: Vec<_> = told.collect();
            if told.len() == asked + 1 && told.iter().all(|status| [413, 422].map(Value::from).contains(status)) {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        };
        world.until(&format!("a refusal where {what}"), refused).await;
        assert!(sent.load(Ordering::Relaxed) < 64 << 20, "{what}: {} bytes went out before the answer came", sent.load(Ordering::Relaxed));
        assert_eq!(world.objects(), Vec::<String>::new(), "{what}");
    }
    // The instance that met them goes on.
    ada.upload("portrait.jpg").await;
}

/// A generator of its own: the same bodies every time.
fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % u64::try_from(below).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_however_broken_is_a_fault_of_ours() {
    let variables = [("rate_limit_per_hour".to_owned(), "0".to_owned())].into();
    let world = World::with(e2e::Options { variables, ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let photo = &photos::read("portrait.webp")[..2_000];
    let pieces: [&[u8]; 16] = [
        b"--x\r\n",
        b"--x--\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Disposition: form-data; name=\"file\"",
        b"; filename=\"a.jpg\"",
        b"; filename*=UTF-8''%ff%fe",
        b"Content-Type: image/webp",
        b"Content-Type: \xff\xfe",
        b"Content-Length: -1",
        b"\0\0\0",
        b"--x",
        b"\"",
        &[b'a'; 9_000],
        photo,
        b"Content-Transfer-Encoding: base64",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..400 {
        let body: Vec<u8> = (0..random(&mut state, 14)).flat_map(|_| pieces[random(&mut state, pieces.len())].to_vec()).collect();
        let content_type = [
            "multipart/form-data; boundary=x",
            "multipart/form-data; boundary=\"x\"",
            "multipart/form-data; boundary=",
            "multipart/form-data",
        ][random(&mut state, 12).min(3) % 4];
        let request = ada.request(Method::POST, "/api/uploads").header("content-type", content_type).body(body.clone());
        let answer = ada.ask(request).await;
        assert!(matches!(answer.status, 413 | 415 | 422), "{number}: {answer}\n{}", String::from_utf8_lossy(&body));
    }
    assert_eq!(world.objects(), Vec::<String>::new());
    ada.upload("portrait.webp").await;
}
