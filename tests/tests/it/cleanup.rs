//! `POST /internal/cleanup`: the sweep.

use std::fs;

use e2e::{CRON_SECRET, Options, World, now};
use http::Method;
use rusqlite::Connection;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn only_who_knows_the_secret_may_sweep() {
    let world = World::new().await;
    let caller = world.stranger();
    let with = |value: String| caller.request(Method::POST, "/internal/cleanup").header("authorization", value);
    caller.post(401, "/internal/cleanup").await.problem("unauthenticated");
    for value in [
        "Bearer ".to_owned(),
        "Bearer wrong".to_owned(),
        format!("Bearer {}", &CRON_SECRET[1..]),
        format!("Bearer {CRON_SECRET}x"),
        format!("Basic {CRON_SECRET}"),
        CRON_SECRET.to_owned(),
    ] {
        let answer = caller.send(401, with(value)).await;
        answer.problem("unauthenticated");
        assert_eq!(answer.calls(), e2e::Calls::default());
    }
    let admin = world.sign_in("admin@example.com").await;
    admin.post(401, "/internal/cleanup").await;
    caller.send(200, with(format!("Bearer {CRON_SECRET}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_with_nothing_to_do_says_so() {
    let world = World::new().await;
    let report = world.sweep().await;
    assert_eq!((&report["deleted_files"], &report["deleted_cache_keys"]), (&json!(0), &json!(0)));
    assert_eq!(
        report["database"],
        json!({"expired_tokens": 0, "expired_sessions": 0, "expired_balances": 0, "expired_keys": 0, "expired_counters": 0})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_old_objects_go_and_young_ones_stay() {
    let world = World::new().await;
    let folder = world.bucket_folder().join("cache/u");
    fs::create_dir_all(&folder).unwrap();
    let (young, old) = (now() * 1_000, (now() - 8 * 86_400) * 1_000);
    for number in 0..1_050 {
        fs::write(folder.join(format!("{}_x.jpg", old + number)), "x").unwrap();
    }
    for number in 0..30 {
        fs::write(folder.join(format!("{}_y.jpg", young - number * 3_600_000)), "y").unwrap();
    }
    let six_days = (now() - 6 * 86_400) * 1_000;
    fs::write(folder.join(format!("{six_days}_z.jpg")), "z").unwrap();
    fs::create_dir_all(world.bucket_folder().join("result/hairstyle/t")).unwrap();
    fs::write(world.bucket_folder().join("result/hairstyle/t/1_old.jpg"), "picture").unwrap();
    let mut deleted = 0;
    for _ in 0..3 {
        deleted += world.sweep().await["deleted_files"].as_u64().unwrap();
    }
    assert_eq!(deleted, 1_050);
    let left = world.objects();
    assert_eq!(left.len(), 32, "{left:?}");
    assert!(left.iter().all(|key| !key.ends_with("_x.jpg")));
    assert!(left.contains(&"result/hairstyle/t/1_old.jpg".to_owned()), "pictures are not uploads");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_when_their_week_is_over() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let (old, young) = (ada.upload("portrait.jpg").await, ada.upload("portrait.png").await);
    world.db_write("UPDATE uploads SET expires_at = unixepoch() WHERE id = ?1", [old["id"].as_str().unwrap()]);
    let report = world.sweep().await;
    assert_eq!((&report["deleted_files"], &report["uploads"]["expired"]), (&json!(1), &json!(1)));
    assert_eq!(world.objects(), [young["key"].as_str().unwrap()]);
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_off_goes_after_an_hour() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    // As if it had been cut off between the object and its confirmation.
    world.db_write("UPDATE uploads SET status = 'pending'", []);
    ada.get(404, &format!("/api/uploads/{}", upload["id"].as_str().unwrap())).await;
    world.sweep().await;
    assert_eq!(world.objects().len(), 1, "it may still be under way");
    world.db_write("UPDATE uploads SET created_at = created_at - 3601", []);
    world.sweep().await;
    assert_eq!((world.objects().len(), world.sql_number("SELECT count(*) FROM uploads")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_whose_time_is_over_leave_the_cache() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("kv.db");
    let world = World::with(Options { key_value: Some(host::KvLocation::File(path.clone())), ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let cache = Connection::open(&path).unwrap();
    cache.busy_timeout(e2e::PATIENCE).unwrap();
    let count = || cache.query_row("SELECT count(*) FROM spin_key_value", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = count();
    let put = "INSERT INTO spin_key_value (store, key, value) VALUES ('default', ?1, ?2)";
    for number in 0..7 {
        let value = json!({"expires_at": now() - 1, "value": number}).to_string().into_bytes();
        cache.execute(put, (format!("config:old{number}"), value)).unwrap();
    }
    cache.execute(put, ("config:young", json!({"expires_at": now() + 600, "value": 1}).to_string().into_bytes())).unwrap();
    // Whoever wrote this, it is not ours to judge.
    cache.execute(put, ("foreign", b"no envelope".to_vec())).unwrap();
    let report = world.sweep().await;
    assert_eq!(report["deleted_cache_keys"], 7, "{report}");
    assert_eq!(count(), before + 2);
    ada.get(200, "/api/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_time_is_over_leave_the_database() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.stranger().get(302, "/auth/login/google").await;
    world.db_write("UPDATE one_time_tokens SET expires_at = unixepoch() - 1", []);
    world.db_write("UPDATE sessions SET expires_at = unixepoch() - 1", []);
    world.db_gift("brief", 5, e2e::now() - 60, Some(59));
    assert_eq!(world.sql_number("SELECT credits FROM users"), 8);
    let report = world.sweep().await;
    assert_eq!(
        report["database"],
        json!({"expired_tokens": 1, "expired_sessions": 1, "expired_balances": 1, "expired_keys": 0, "expired_counters": 0})
    );
    assert_eq!(world.sql_number("SELECT credits FROM users"), 3);
    assert_eq!(
        world.sweep().await["database"],
        json!({"expired_tokens": 0, "expired_sessions": 0, "expired_balances": 0, "expired_keys": 0, "expired_counters": 0})
    );
    world.assert_books_balance();
    drop(ada);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_step_that_fails_does_not_stop_the_others() {
    let world = World::new().await;
    world.stranger().get(302, "/auth/login/google").await;
    world.db_write("UPDATE one_time_tokens SET expires_at = unixepoch() - 1", []);
    world.storage_down();
    let caller = world.stranger();
    let report = caller.send(503, caller.request(Method::POST, "/internal/cleanup").bearer_auth(CRON_SECRET)).await.json();
    assert_eq!(report["uploads"], json!({"error": "storage_unavailable"}));
    assert_eq!(report["database"]["expired_tokens"], 1);
    assert_eq!(report["erasures"]["looked_at"], 0);
    assert!(!world.events("sweep_step_failed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sweeps_at_once_finish_a_task_once() {
    let world = World::new().await;
    world.fault(sandbox::Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let done = async || {
        let tasks = world.control().kie_tasks();
        if tasks[0].outcome.is_some() { Ok(()) } else { Err(format!("{tasks:?}")) }
    };
    world.until("the provider to finish", done).await;
    world.db_tasks_are_due();
    let (one, other) = futures::join!(world.sweep(), world.sweep());
    let looked = |report: &serde_json::Value| report["tasks"]["looked_at"].as_u64().unwrap();
    assert_eq!(looked(&one) + looked(&other), 1);
    ada.wait_completed(&task).await;
    assert_eq!(world.heard(sandbox::Service::S3, "PUT /ai-hairstyle/result/"), 1);
}
