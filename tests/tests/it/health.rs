//! `/health`: is each of the stores there?

use std::time::Duration;

use e2e::{Options, World, product_with};
use http::Method;
use rusqlite::Connection;
use sandbox::{Fault, Service};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well() {
    let world = World::new().await;
    let answer = world.stranger().get(200, "/health").await;
    assert_eq!(answer.json(), json!({"status": "ok", "database": true, "storage": true, "cache": true}));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(world.stranger().get(200, "/health/live").await.json(), json!({"status": "ok"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_down_is_named_and_the_others_are_not_blamed() {
    let world = World::new().await;
    world.storage_down();
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "down", "database": true, "storage": false, "cache": true}));
    world.stranger().get(200, "/health/live").await;
    world.control().clear_faults();
    world.stranger().get(200, "/health").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_to_the_bucket_is_unhealthy() {
    let variables = [("s3_secret_access_key".to_owned(), "not-the-secret".to_owned())].into();
    let world = World::with(Options { variables, ..Default::default() }).await;
    assert_eq!(world.stranger().get(503, "/health").await.json()["storage"], false);
    let reasons = world.events("store_unhealthy");
    assert_eq!(reasons[0]["store"], "storage", "{reasons:?}");
    assert!(reasons[0]["cause"].as_str().unwrap().contains("SignatureDoesNotMatch"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_makes_us_read_from_the_bucket_and_not_list_it() {
    let world = World::new().await;
    world.stranger().get(200, "/health").await;
    // R2 and S3 bill a listing as a write, a dozen times a read.
    assert_eq!(world.heard(Service::S3, "GET /ai-hairstyle/health-check"), 1);
    assert_eq!(world.control().calls_to(Service::S3).len(), 1);
    // A bucket that stumbles once is not down.
    world.fault(Fault::S3Answers { status: 500, method: None, prefix: None }.once());
    world.stranger().get(200, "/health").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_its_schema_is_unhealthy() {
    let world = World::new().await;
    world.db_write("DROP TABLE schema_migrations", []);
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "down", "database": false, "storage": true, "cache": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_hangs_is_down_before_anybody_loses_patience() {
    let world = World::new().await;
    // It would answer, in a minute.
    world.fault(Fault::S3Slow { ms: 60_000, method: None, prefix: None });
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "down", "database": true, "storage": false, "cache": true}));
    let reasons = world.events("store_unhealthy");
    assert!(reasons[0]["cause"].as_str().unwrap().contains("no answer within 2s"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_cache_the_product_goes_on_and_says_so() {
    let without_cache = |manifest: &mut toml::Table| {
        for name in ["health", "account"] {
            manifest["component"][name].as_table_mut().unwrap().remove("key_value_stores").unwrap();
        }
    };
    let runtime = tokio::task::spawn_blocking(move || product_with(without_cache)).await.unwrap();
    let world = World::with(Options { runtime: Some(runtime), ..Default::default() }).await;
    // Whoever balances the load goes on sending people here, and rightly so.
    let answer = world.stranger().get(200, "/health").await;
    assert_eq!(answer.json(), json!({"status": "degraded", "database": true, "storage": true, "cache": false}));
    let ada = world.sign_in("ada@example.com").await;
    ada.get(200, "/api/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_be_read_and_not_written_is_unhealthy() {
    let world = World::new().await;
    world.stranger().get(200, "/health").await;
    let before = world.sql_number("SELECT at FROM last_write");
    assert!(before > 0, "it was tried");
    // Nothing is written again at once, whoever asks.
    world.stranger().get(200, "/health").await;
    world.db_write("UPDATE last_write SET at = 0", []);
    // What a full disk looks like: whatever would be added is refused.
    world.db_write("CREATE TRIGGER full BEFORE UPDATE ON last_write BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END", []);
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "down", "database": false, "storage": true, "cache": true}));
    assert_eq!(world.events("store_unhealthy")[0]["how"], "can be read, but refuses to be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_who_writes_for_long_does_not_make_the_database_unhealthy() {
    let world = World::new().await;
    world.stranger().get(200, "/health").await;
    world.db_write("UPDATE last_write SET at = 0", []);
    let writer = world.db_hold_the_pen();
    world.stranger().get(200, "/health").await;
    drop(writer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writing_for_a_minute_is_unhealthy() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Options::default() }).await;
    world.db_write("UPDATE last_write SET at = 0", []);
    let writer = world.db_hold_the_pen();
    world.stranger().get(200, "/health").await;
    // A minute later, when what waited for its turn has given up.
    let store = Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let earlier = "UPDATE spin_key_value SET value = CAST(json_set(CAST(value AS TEXT), '$.value', unixepoch() - 61) AS BLOB) WHERE key = 'temp:health'";
    assert_eq!(store.execute(earlier, []).unwrap(), 1);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "down", "database": false, "storage": true, "cache": true}));
    assert_eq!(world.events("store_unhealthy")[0]["how"], "can be read, but refuses to be written");
    drop(writer);
    let well = async || {
        let answer = world.stranger().ask(world.stranger().request(Method::GET, "/health")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    };
    world.until("the database to be written again", well).await;
    assert!(world.sql_number("SELECT at FROM last_write") > 0);
    // What was before that does not count any more.
    world.db_write("UPDATE last_write SET at = at - 31", []);
    let writer = world.db_hold_the_pen();
    world.stranger().get(200, "/health").await;
    drop(writer);
}
