//! The bucket through signed links, as the app uses it.

use std::time::Duration;

use http::StatusCode;
use rusty_s3::actions::{DeleteObjects, ListObjectsV2, ObjectIdentifier};
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use sandbox::Fault;

use crate::{Bench, client, sandbox};

const MINUTE: Duration = Duration::from_secs(60);

fn bucket(bench: &Bench) -> (Bucket, Credentials) {
    let variables = bench.variables();
    let endpoint = variables["s3_endpoint"].parse().unwrap();
    let bucket = Bucket::new(endpoint, UrlStyle::Path, variables["s3_bucket"].clone(), variables["s3_region"].clone()).unwrap();
    (bucket, Credentials::new(variables["s3_access_key_id"].clone(), variables["s3_secret_access_key"].clone()))
}

async fn put(bench: &Bench, key: &str, body: &'static str) -> StatusCode {
    let (bucket, credentials) = bucket(bench);
    let mut action = bucket.put_object(Some(&credentials), key);
    action.headers_mut().insert("content-type", "image/png");
    client().put(action.sign(MINUTE)).header("content-type", "image/png").body(body).send().await.unwrap().status()
}

#[tokio::test]
async fn an_object_is_put_read_headed_listed_and_deleted() {
    let bench = sandbox().await;
    let (bucket, credentials) = bucket(&bench);
    assert_eq!(put(&bench, "u/1/a.png", "picture").await, 200);

    let answer = client().get(bucket.get_object(Some(&credentials), "u/1/a.png").sign(MINUTE)).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.headers()["content-length"], "7");
    let tag = answer.headers()["etag"].clone();
    assert_eq!(answer.text().await.unwrap(), "picture");

    let known = client().get(bucket.get_object(Some(&credentials), "u/1/a.png").sign(MINUTE)).header("if-none-match", tag);
    assert_eq!(known.send().await.unwrap().status(), 304);
    let head = client().head(bucket.head_object(Some(&credentials), "u/1/a.png").sign(MINUTE)).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "7");

    let list = client().get(bucket.list_objects_v2(Some(&credentials)).sign(MINUTE)).send().await.unwrap().text().await.unwrap();
    let keys: Vec<String> = ListObjectsV2::parse_response(&list).unwrap().contents.into_iter().map(|o| o.key).collect();
    assert_eq!(keys, ["u/1/a.png"]);

    for _ in 0..2 {
        let gone = client().delete(bucket.delete_object(Some(&credentials), "u/1/a.png").sign(MINUTE)).send().await.unwrap();
        assert_eq!(gone.status(), 204);
    }
    assert_eq!(client().get(bucket.get_object(Some(&credentials), "u/1/a.png").sign(MINUTE)).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_link_that_was_changed_or_is_missing_its_signature_is_refused() {
    let bench = sandbox().await;
    let (bucket, credentials) = bucket(&bench);
    put(&bench, "u/1/a.png", "picture").await;
    let signed = bucket.get_object(Some(&credentials), "u/1/a.png").sign(MINUTE);
    let other = signed.as_str().replace("a.png", "b.png");
    assert_eq!(client().get(other).send().await.unwrap().status(), 403);
    assert_eq!(client().put(signed.clone()).body("x").send().await.unwrap().status(), 403);
    let (unsigned, _) = signed.as_str().split_once('?').unwrap();
    assert_eq!(client().get(unsigned).send().await.unwrap().status(), 403);
    let stranger = Credentials::new("somebody", "else");
    assert_eq!(client().get(bucket.get_object(Some(&stranger), "u/1/a.png").sign(MINUTE)).send().await.unwrap().status(), 403);
    let month = bucket.get_object(Some(&credentials), "u/1/a.png").sign(MINUTE * 60 * 24 * 30);
    assert_eq!(client().get(month).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn lists_come_in_pages_of_a_thousand_whatever_is_asked_for() {
    let bench = sandbox().await;
    let (bucket, credentials) = bucket(&bench);
    put(&bench, "many/first.png", "x").await;
    let folder = bench._dir.path().join(sandbox::BUCKET).join("many");
    for i in 0..1_204 {
        std::fs::write(folder.join(format!("{i:05}.png")), "x").unwrap();
    }
    let (mut pages, mut keys, mut token) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let mut action = bucket.list_objects_v2(Some(&credentials));
        action.with_prefix("many/");
        action.with_max_keys(5_000);
        if let Some(token) = &token {
            action.with_continuation_token(token.clone());
        }
        let text = client().get(action.sign(MINUTE)).send().await.unwrap().text().await.unwrap();
        let page = ListObjectsV2::parse_response(&text).unwrap();
        pages.push(page.contents.len());
        keys.extend(page.contents.into_iter().map(|o| o.key));
        token = page.next_continuation_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, [1_000, 205]);
    assert!(keys.is_sorted());

    let many: Vec<ObjectIdentifier> = keys.iter().take(1_000).map(|k| ObjectIdentifier::new(k.clone())).collect();
    let action: DeleteObjects<'_, _> = bucket.delete_objects(Some(&credentials), many.iter());
    let url = action.sign(MINUTE);
    let (body, md5) = action.body_with_md5();
    let answer = client().post(url).header("content-md5", md5).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    assert_eq!(bench.control().objects().unwrap().len(), 205);
}

#[tokio::test]
async fn a_list_is_in_the_order_of_its_bytes_and_goes_on_after_any_key() {
    let bench = sandbox().await;
    let (bucket, credentials) = bucket(&bench);
    let mut all: Vec<String> =
        ["a/b/c.png", "a/b.png", "a/b0.png", "a/bc/d.png", "a-b/x.png", "a.png", "a0.png", "b/b/b/b.png", "b/b/c.png", "c.png"]
            .map(Into::into)
            .into();
    for key in &all {
        put(&bench, key, "x").await;
    }
    all.sort();
    for prefix in ["", "a", "a/", "a/b", "a/b/", "b/b/b", "c.png", "d"] {
        for after in ["", "a", "a/b", "a/b/", "a/b/c.png", "a/b/z", "a/b0.png", "a/z", "b/b/b/b.png", "z"] {
            for most in [1, 3, 100] {
                let mut action = bucket.list_objects_v2(Some(&credentials));
                action.with_prefix(prefix);
                action.with_max_keys(most);
                if !after.is_empty() {
                    action.with_start_after(after);
                }
                let text = client().get(action.sign(MINUTE)).send().await.unwrap().text().await.unwrap();
                let page = ListObjectsV2::parse_response(&text).unwrap();
                let keys: Vec<String> = page.contents.into_iter().map(|o| o.key).collect();
                let wanted: Vec<&String> = all.iter().filter(|key| key.starts_with(prefix) && key.as_str() > after).collect();
                assert_eq!(keys.iter().collect::<Vec<_>>(), wanted[..wanted.len().min(most)], "{prefix:?} after {after:?}");
                assert_eq!(page.next_continuation_token.is_some(), wanted.len() > most, "{prefix:?} after {after:?}");
            }
        }
    }
}

#[tokio::test]
async fn objects_can_be_made_old() {
    let bench = sandbox().await;
    let (bucket, credentials) = bucket(&bench);
    put(&bench, "cache/old.png", "x").await;
    put(&bench, "keep/new.png", "x").await;
    assert_eq!(bench.control().age_objects("cache/", Duration::from_secs(40 * 86_400)).unwrap(), 1);
    let text = client().get(bucket.list_objects_v2(Some(&credentials)).sign(MINUTE)).send().await.unwrap().text().await.unwrap();
    let page = ListObjectsV2::parse_response(&text).unwrap();
    assert!(page.contents[0].last_modified < page.contents[1].last_modified);
}

#[tokio::test]
async fn the_bucket_fails_as_told() {
    let bench = sandbox().await;
    let fault = Fault::S3Answers { status: 503, method: Some("PUT".into()), prefix: Some("cache/".into()) };
    bench.control().fault(fault.once());
    assert_eq!(put(&bench, "keep/a.png", "x").await, 200);
    assert_eq!(put(&bench, "cache/a.png", "x").await, 503);
    assert_eq!(put(&bench, "cache/a.png", "x").await, 200);
    assert!(bench.control().faults().is_empty());
}

#[tokio::test]
async fn streaming_signatures_are_refused_as_r2_does() {
    let bench = sandbox().await;
    let (bucket, credentials) = bucket(&bench);
    let url = bucket.put_object(Some(&credentials), "a.png").sign(MINUTE);
    let request = client().put(url).header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER").body("x");
    assert_eq!(request.send().await.unwrap().status(), 501);
}
