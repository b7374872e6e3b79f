//! `POST /internal/cleanup`: the sweep.

use std::fs;
use std::time::{Duration, Instant};

use e2e::{CRON_SECRET, Options, World, now};
use http::Method;
use rusqlite::Connection;
use sandbox::Fault;
use serde_json::{Value, json};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

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
    assert_eq!(counted(&report), []);
    assert_eq!(report["walk"]["round_ended"], true);
}

/// What of the database's rows the sweep had something to do with.
fn counted(report: &Value) -> Vec<(&str, i64)> {
    let kinds = report["database"].as_object().unwrap();
    assert!(kinds.len() >= 10, "{report}");
    kinds.iter().map(|(kind, count)| (kind.as_str(), count.as_i64().unwrap())).filter(|(_, count)| *count != 0).collect()
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
async fn what_the_store_will_not_give_up_is_not_forgotten_and_fails_the_run() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let key = |upload: Value| upload["key"].as_str().unwrap().to_owned();
    let (locked, half, free) =
        (key(ada.upload("portrait.jpg").await), key(ada.upload("portrait.png").await), key(ada.upload("portrait.webp").await));
    // Of one only what was put there to be looked at is kept back.
    let (raw, nobodys) = (format!("{half}.raw"), photo(2 * HOUR));
    stray(&world, &raw, 0);
    stray(&world, &nobodys, 2 * HOUR);
    world.db_write("UPDATE uploads SET expires_at = unixepoch()", []);
    for kept in [&locked, &raw, &nobodys] {
        world.fault(Fault::S3Locked { prefix: Some(kept.clone()) });
    }
    for expired in [1, 0] {
        let report = world.scheduled(503, "/internal/cleanup").await;
        assert_eq!(
            (&report["outcome"], &report["uploads"]["expired"], &report["uploads"]["refused"]),
            (&json!("failed"), &json!(expired), &json!(2))
        );
        assert_eq!((&report["walk"]["deleted"], &report["walk"]["refused"]), (&json!(0), &json!(1)), "{report}");
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), 2, "their rows lead to them");
    let left = world.objects();
    assert!(left.contains(&locked) && left.contains(&raw) && left.contains(&nobodys) && !left.contains(&free), "{left:?}");
    assert_eq!(world.events("deletions_refused")[0]["code"], "ObjectLockedByBucketPolicy");
    world.control().clear_faults();
    assert_eq!(world.sweep().await["uploads"]["expired"], 2);
    assert_eq!((world.objects(), world.sql_number("SELECT count(*) FROM uploads")), (Vec::new(), 0));
}

/// Neither can say by its own clock what is over: a host whose clock is days ahead would delete every photo, or every backup but one.
#[test]
fn the_sweep_and_the_backup_have_no_clock_but_the_databases() {
    for component in ["cleanup-cron", "backup-cron"] {
        let manifest = fs::read_to_string(e2e::root().join("components").join(component).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        assert!(!manifest["dependencies"].as_table().unwrap().contains_key("clock"), "{component}: take run.started_at");
        for file in fs::read_dir(e2e::root().join("components").join(component).join("src")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(!text.contains("SystemTime") && !text.contains("clock::now"), "{component}: take run.started_at");
        }
    }
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
    assert_eq!(counted(&world.sweep().await), [("expired_balances", 1), ("expired_sessions", 1), ("expired_tokens", 1)]);
    assert_eq!(world.sql_number("SELECT credits FROM users"), 3);
    assert_eq!(counted(&world.sweep().await), []);
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
    assert_eq!(report["walk"], json!({"error": "storage_unavailable"}));
    assert_eq!(report["outcome"], "failed");
    assert_eq!(report["database"]["expired_tokens"], 1);
    assert_eq!(report["erasures"]["looked_at"], 0);
    assert!(!world.events("sweep_step_failed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sweeps_at_once_finish_a_task_once() {
    let world = World::new().await;
    world.fault(Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    world.until_done_at_provider().await;
    world.db_tasks_are_due();
    let (one, other) = futures::join!(world.sweep(), world.sweep());
    // The one that came second was told so, or found nothing more to do.
    let looked = |report: &Value| report["tasks"]["looked_at"].as_u64().unwrap_or_default();
    assert_eq!(looked(&one) + looked(&other), 1);
    ada.wait_completed(&task).await;
    assert_eq!(world.heard(sandbox::Service::S3, "PUT /ai-hairstyle/result/"), 1);
}

/// Puts an object into the bucket that nobody knows of, written so long ago.
fn stray(world: &World, key: &str, seconds: i64) {
    let path = world.bucket_folder().join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "x").unwrap();
    let then = std::time::SystemTime::now() - Duration::from_secs(u64::try_from(seconds).unwrap());
    fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
}

/// The key of a photo that was uploaded so long ago.
fn photo(seconds: i64) -> String {
    format!("cache/nobody/{}_x.jpg", (now() - seconds) * 1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_without_a_row_goes_after_an_hour() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    // Hers, uploaded two hours ago.
    let now_key = ada.upload("portrait.jpg").await["key"].as_str().unwrap().to_owned();
    let hers = photo(2 * HOUR).replace("nobody", "ada");
    stray(&world, &hers, 2 * HOUR);
    fs::remove_file(world.bucket_folder().join(now_key)).unwrap();
    world.db_write("UPDATE uploads SET key = ?1, created_at = created_at - 7200", [&hers]);
    let slow = photo(2 * HOUR).replace("_x", "_slow");
    let young = photo(10);
    for (key, written) in [
        (photo(2 * HOUR), 2 * HOUR),
        (format!("{}.raw", photo(3 * HOUR)), 2 * HOUR),
        // What was put there to be looked at, and has been.
        (format!("{hers}.raw"), 2 * HOUR),
        // It was begun two hours ago and has come just now.
        (slow.clone(), 10),
        (young.clone(), 2 * HOUR),
    ] {
        stray(&world, &key, written);
    }
    let report = world.sweep().await;
    assert_eq!(
        (&report["walk"]["strays"], &report["walk"]["deleted"], &report["deleted_files"]),
        (&json!(3), &json!(3), &json!(3)),
        "{report}"
    );
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert_eq!(sorted(world.objects()), sorted(vec![hers.clone(), slow.clone(), young.clone()]));
    world.control().age_objects(&slow, Duration::from_secs(7_200)).unwrap();
    assert_eq!(world.sweep().await["walk"]["strays"], 1);
    assert_eq!(sorted(world.objects()), sorted(vec![hers, young]));
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_stay_as_long_as_somebody_was_promised_them() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let done = ada.order_one().await;
    ada.wait_completed(&done).await;
    let promised = world.objects().into_iter().find(|key| key.starts_with("result/")).unwrap();
    world.fault(Fault::KieFail { code: 501, msg: None });
    let failed = ada.order_one().await;
    ada.wait_failed(&failed).await;
    let failed = world.sql_text("SELECT id FROM ai_tasks WHERE status = 'failed'");
    let gone = "INSERT INTO users (id, email, name, credits, erased_at) VALUES ('gone', 'erased-gone@erased.invalid', 'Erased', 0, 1)";
    world.db_write(gone, []);
    let me = ada.id().await;
    for (key, age) in [
        (format!("result/hairstyle/{failed}/result_1.png"), 2 * HOUR),
        ("avatars/gone.jpg".to_owned(), 2 * HOUR),
        (format!("avatars/{me}.jpg"), 30 * DAY),
        // A backup that was restored knows nothing of what came after it: that is given a week.
        ("result/hairstyle/unknown/result_1.png".to_owned(), 6 * DAY),
        ("result/hairstyle/forgotten/result_1.png".to_owned(), 8 * DAY),
        ("avatars/forgotten.jpg".to_owned(), 8 * DAY),
        // It may be on its way.
        (format!("result/hairstyle/{failed}/result_2.png"), HOUR / 2),
        // Whoever put these there, they are not ours to judge.
        ("result/hairstyle/notes.txt".to_owned(), 30 * DAY),
        ("result/other/1/result_1.png".to_owned(), 30 * DAY),
        ("avatars/readme.txt".to_owned(), 30 * DAY),
        ("backups/1".to_owned(), 30 * DAY),
    ] {
        stray(&world, &key, age);
    }
    world.control().age_objects(&promised, Duration::from_secs(40 * 86_400)).unwrap();
    let report = world.sweep().await;
    assert_eq!(report["walk"]["strays"], 4, "{report}");
    let mut left: Vec<String> = world.objects().into_iter().filter(|key| !key.starts_with("cache/")).collect();
    left.sort();
    let mut expected = vec![
        "avatars/readme.txt".to_owned(),
        format!("avatars/{me}.jpg"),
        promised,
        format!("result/hairstyle/{failed}/result_2.png"),
        "result/hairstyle/notes.txt".to_owned(),
        "result/hairstyle/unknown/result_1.png".to_owned(),
        "result/other/1/result_1.png".to_owned(),
    ];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(world.backups(), ["backups/1"], "no business of this sweep");
    assert_eq!(report["walk"]["lost_results"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_has_lost_its_photo_can_not_be_ordered_from() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let (lost, kept) = (ada.upload("portrait.jpg").await, ada.upload("portrait.png").await);
    fs::remove_file(world.bucket_folder().join(lost["key"].as_str().unwrap())).unwrap();
    assert_eq!(world.sweep().await["walk"]["lost_photos"], 0, "it may be on its way");
    world.db_write("UPDATE uploads SET created_at = created_at - 7200", []);
    assert_eq!(world.sweep().await["walk"]["lost_photos"], 1);
    let order = json!({"upload_id": lost["id"], "hairstyles": ["bob-cut"]});
    ada.post_json(422, "/api/tasks", &order).await.problem("invalid_input");
    let uploads = ada.get(200, "/api/uploads").await.json()["uploads"].clone();
    assert_eq!((uploads.as_array().unwrap().len(), &uploads[0]["id"]), (1, &kept["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_is_lost_is_told_and_nothing_is_changed() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let tasks = ada.order(&["bob-cut", "quiff"]).await;
    for task in &tasks {
        ada.wait_completed(task).await;
    }
    let file = world.objects().into_iter().find(|key| key.starts_with("result/")).unwrap();
    fs::remove_file(world.bucket_folder().join(file)).unwrap();
    let rows = || world.sql("SELECT * FROM ai_tasks ORDER BY id");
    assert_eq!(world.sweep().await["walk"]["lost_results"], 0, "it may be on its way");
    world.db_write("UPDATE ai_tasks SET completed_at = completed_at - 7200", []);
    let before = rows();
    for _ in 0..2 {
        assert_eq!(world.sweep().await["walk"]["lost_results"], 1, "as often as it is looked");
    }
    assert_eq!(rows(), before);
    let told = world.events("results_lost");
    assert_eq!((told.len(), &told[0]["tasks"]), (2, &json!(1)), "{}", world.tail());
    assert_eq!(told[0]["among_them"].as_array().unwrap().len(), 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_another_bucket_or_another_database_is_left_alone() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.upload("portrait.jpg").await;
    let uploads = "INSERT INTO uploads (id, user_id, key, status, content_type, size, width, height, sha256, created_at, expires_at) \
                   WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1500) \
                   SELECT 'lost' || n, (SELECT id FROM users), 'cache/lost/' || n || '_x.jpg', 'stored', 'image/jpeg', 1, 1, 1, 'x', \
                          unixepoch() - 7200, unixepoch() + 7200 FROM n";
    world.db_write(uploads, []);
    for task in 0..150 {
        stray(&world, &format!("result/hairstyle/elsewhere{task:04}/result_1.png"), 30 * DAY);
    }
    let report = world.sweep().await;
    assert_eq!(report["walk"]["doubted"], 1_500 + 150, "{report}");
    assert_eq!((&report["walk"]["lost_photos"], &report["walk"]["deleted"]), (&json!(0), &json!(0)));
    assert_eq!((world.sql_number("SELECT count(*) FROM uploads"), world.objects().len()), (1_501, 151));
    assert!(!world.events("uploads_without_objects").is_empty() && !world.events("objects_unknown").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn photos_are_not_removed_by_the_hundred_because_the_database_does_not_know_them() {
    let world = World::new().await;
    for number in 0..150 {
        stray(&world, &photo(2 * HOUR).replace("_x", &format!("_{number}")), 2 * HOUR);
    }
    // Those whose week is over go in any case.
    stray(&world, &photo(8 * DAY), 8 * DAY);
    let report = world.sweep().await;
    assert_eq!((&report["walk"]["doubted"], &report["walk"]["deleted"]), (&json!(150), &json!(1)), "{report}");
    assert_eq!(world.objects().len(), 150);
    assert_eq!(world.events("objects_unknown")[0]["folder"], "cache/");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_a_while_goes_when_it_is_over() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let id = ada.id().await;
    for (age, end) in [(89 * DAY, "young"), (91 * DAY, "old")] {
        world.db_write("INSERT INTO signin_logs (id, user_id, created_at) VALUES (?1, ?2, unixepoch() - ?3)", (end, &id, age));
    }
    for (age, end) in [(179 * DAY, "young"), (181 * DAY, "old")] {
        let sql = "INSERT INTO prompt_verdicts (id, user_id, decision, created_at) VALUES (?1, ?2, 'allow', unixepoch() - ?3)";
        world.db_write(sql, (end, &id, age));
    }
    for (age, end) in [(6 * DAY, "young"), (8 * DAY, "old")] {
        world.db_write("INSERT INTO signup_grants VALUES (?1, 'address', unixepoch() - ?2)", (end, age));
    }
    for days in [399, 401] {
        world.db_write("INSERT INTO provider_spend VALUES (unixepoch() / 86400 - ?1, 7)", [days]);
    }
    world.db_write("INSERT INTO payment_events (id, type, payload, status, received_at) VALUES ('e', 'x', '{}', 'done', 1)", []);
    world.sweep().await;
    world.db_write("UPDATE job_runs SET started_at = started_at - ?1", [31 * DAY]);
    world.sweep().await;
    assert_eq!(world.sql_number("SELECT count(*) FROM job_runs WHERE job = 'cleanup'"), 1);
    // Those of the other jobs were the last of theirs, until they ran again.
    assert_eq!(counted(&world.sweep().await), [("old_runs", 2)]);
    let left = |table: &str| world.sql_number(&format!("SELECT count(*) FROM {table}"));
    assert_eq!((left("signin_logs"), left("prompt_verdicts"), left("provider_spend")), (2, 1, 1));
    assert_eq!(world.sql_number("SELECT count(*) FROM signup_grants WHERE identity_hash IN ('young', 'old')"), 2, "a mailbox stays known");
    assert_eq!(world.sql_text("SELECT identity_hash FROM signup_grants WHERE address_hash = 'address'"), "young");
    assert_eq!(left("payment_events"), 1, "an event that comes again in a year is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_run_is_at_work_another_is_told_so() {
    let world = World::new().await;
    world.stranger().get(302, "/auth/login/google").await;
    world.db_write("UPDATE one_time_tokens SET expires_at = unixepoch() - 1", []);
    let running =
        "INSERT INTO job_runs (id, job, started_at, leased_until) VALUES ('elsewhere', 'cleanup', unixepoch(), unixepoch() + 120)";
    world.db_write(running, []);
    assert_eq!(world.scheduled(200, "/internal/cleanup").await, json!({"job": "cleanup", "outcome": "already_running"}));
    assert_eq!(world.sql_number("SELECT count(*) FROM one_time_tokens"), 1);
    assert_eq!(world.scheduled(200, "/internal/tasks").await["outcome"], "done", "another job is another matter");
    // It is heard of no more, and the next one takes over.
    world.db_time_passes(121);
    let report = world.scheduled(200, "/internal/cleanup").await;
    assert_eq!((&report["outcome"], &report["database"]["expired_tokens"]), (&json!("done"), &json!(1)));
    assert_eq!(world.sql_text("SELECT outcome FROM job_runs WHERE id = 'elsewhere'"), "cut_off");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_that_share_a_database_share_its_lease() {
    let folder = tempfile::TempDir::new().unwrap();
    let options = || Options { database: Some(folder.path().join("app.db")), ..Options::default() };
    let (one, other) = (World::with(options()).await, World::with(options()).await);
    one.fault(Fault::S3Slow { ms: 1_500, method: Some("GET".into()), prefix: None });
    let run = tokio::spawn({
        let one = one.clone();
        async move { one.scheduled(200, "/internal/cleanup").await }
    });
    let begun = async || if one.heard(sandbox::Service::S3, "GET") > 0 { Ok(()) } else { Err("not yet".to_owned()) };
    one.until("the walk", begun).await;
    assert_eq!(other.scheduled(200, "/internal/cleanup").await["outcome"], "already_running");
    assert_eq!(other.heard(sandbox::Service::S3, "GET"), 0);
    assert_eq!(run.await.unwrap()["outcome"], "done");
    assert_eq!(other.scheduled(200, "/internal/cleanup").await["outcome"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_is_recorded_with_what_it_did_and_how_long_it_took() {
    let world = World::new().await;
    let report = world.scheduled(200, "/internal/cleanup").await;
    world.storage_down();
    world.scheduled(503, "/internal/cleanup").await;
    let runs = world.sql("SELECT outcome, report ->> '$.deleted_files', report ->> '$.walk.error', report ->> '$.ms' >= 0, ended_at >= started_at FROM job_runs ORDER BY rowid");
    assert_eq!(
        runs,
        [
            [json!("done"), json!(0), Value::Null, json!(1), json!(1)],
            [json!("failed"), json!(0), json!("storage_unavailable"), json!(1), json!(1)],
        ]
    );
    assert_eq!(world.sql_text("SELECT id FROM job_runs WHERE outcome = 'done'"), report["run"].as_str().unwrap());
    assert_eq!(world.events("job_ended").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_taken_over_from_stops() {
    let world = World::new().await;
    for number in 0..1_100 {
        stray(&world, &format!("cache/u/{number:04}_x.jpg"), 10);
    }
    world.fault(Fault::S3Slow { ms: 1_000, method: Some("GET".into()), prefix: None });
    let run = tokio::spawn({
        let world = world.clone();
        async move { world.scheduled(409, "/internal/cleanup").await }
    });
    let begun = async || if world.heard(sandbox::Service::S3, "GET") > 0 { Ok(()) } else { Err("not yet".to_owned()) };
    world.until("the walk", begun).await;
    // Its host stood still; another one took over, and is done.
    world.db_write("UPDATE job_runs SET outcome = 'cut_off', ended_at = unixepoch()", []);
    let answer = run.await.unwrap();
    assert_eq!(answer["code"], "conflict", "{answer}");
    assert!(world.objects().len() > 50, "the second page was left alone");
    assert_eq!(world.sql("SELECT outcome, report FROM job_runs"), [[json!("cut_off"), Value::Null]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_goes_on_where_the_last_one_stopped() {
    let world = World::new().await;
    for name in ["a", "m", "z"] {
        stray(&world, &format!("cache/{name}/1_x.jpg"), 10);
    }
    let stopped = json!({"walk": {"folder": 1, "after": "cache/m/1_x.jpg"}, "cache": {"turn": 7, "shares": 1}});
    let before = "INSERT INTO job_runs (id, job, started_at, leased_until, position) VALUES ('before', 'cleanup', unixepoch() - 1, unixepoch() + 9, ?1)";
    world.db_write(before, [stopped.to_string()]);
    world.db_write("UPDATE job_runs SET outcome = 'failed', ended_at = unixepoch()", []);
    let report = world.scheduled(200, "/internal/cleanup").await;
    assert_eq!((&report["walk"]["deleted"], &report["walk"]["round_ended"]), (&json!(1), &json!(true)), "{report}");
    assert_eq!(world.objects(), ["cache/a/1_x.jpg", "cache/m/1_x.jpg"]);
    // Then it begins anew.
    assert_eq!(world.scheduled(200, "/internal/cleanup").await["walk"]["deleted"], 2);
    assert_eq!(world.sql_number("SELECT position ->> '$.cache.turn' FROM job_runs ORDER BY rowid DESC LIMIT 1"), 9);
    // Another version's position is no position.
    world.db_write("INSERT INTO job_runs (id, job, started_at, leased_until, position) VALUES ('other', 'cleanup', unixepoch() + 1, unixepoch() + 9, '[\"?\"]')", []);
    world.db_write("UPDATE job_runs SET outcome = 'done', ended_at = 1 WHERE id = 'other'", []);
    assert_eq!(world.scheduled(200, "/internal/cleanup").await["walk"]["round_ended"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_cache_is_swept_share_by_share() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("kv.db");
    let world = World::with(Options { key_value: Some(host::KvLocation::File(path.clone())), ..Default::default() }).await;
    let mut cache = Connection::open(&path).unwrap();
    cache.busy_timeout(e2e::PATIENCE).unwrap();
    let entries = cache.transaction().unwrap();
    for number in 0..12_000 {
        let value = json!({"expires_at": now() + if number % 3 == 0 { -1 } else { 6_000 }, "value": number}).to_string().into_bytes();
        let put = "INSERT INTO spin_key_value (store, key, value) VALUES ('default', ?1, ?2)";
        entries.execute(put, (format!("task:result:TASK_{number}"), value)).unwrap();
    }
    entries.commit().unwrap();
    let mut deleted = 0;
    for sweep in 1.. {
        let report = world.scheduled(200, "/internal/cleanup").await["cache"].clone();
        assert!(report["looked_at"].as_u64().unwrap() <= 4_000, "{report}");
        assert_eq!(report["seen"].as_u64().unwrap(), 12_000 - deleted, "{report}");
        deleted += report["deleted"].as_u64().unwrap();
        if deleted == 4_000 {
            println!("{sweep} sweeps");
            break;
        }
        assert!(sweep < 16, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_follow_however_many_lots_have_expired() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let (ada, eve) = (ada.id().await, world.sign_in("eve@example.com").await.id().await);
    let lots = "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, created_at) \
                WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?3) \
                SELECT ?2 || n, ?1, 1, 'gift', 'signup', ?2 || n, unixepoch() - ?4 + n / 100, unixepoch() - 2 * ?4 FROM n";
    // More than a batch for one, and the other's after them.
    world.db_write(lots, (&ada, "a", 2_500, 9_000));
    world.db_write(lots, (&eve, "e", 3, 7_000));
    assert_eq!(counted(&world.sweep().await), [("expired_balances", 2)]);
    // What expires from now on is seen by the next run.
    world.db_write(lots, (&ada, "b", 5, 60));
    assert_eq!(counted(&world.sweep().await), [("expired_balances", 1)]);
    assert_eq!(counted(&world.sweep().await), []);
    assert_eq!(world.sql_number("SELECT sum(credits) FROM users"), 6);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_goes_in_front_and_schedulers_follow_when_they_can() {
    let with = |secrets: &str| Options { variables: [("cron_secret".to_owned(), secrets.to_owned())].into(), ..Default::default() };
    let world = World::with(with("new-secret-1, old-secret-1")).await;
    let caller = world.stranger();
    for path in e2e::SWEEPS {
        for (secret, status) in [("new-secret-1", 200), ("old-secret-1", 200), ("new-secret-1, old-secret-1", 401), ("old", 401), ("", 401)]
        {
            caller.send(status, caller.request(Method::POST, path).bearer_auth(secret)).await;
        }
    }
    let world = World::with(with(" , ")).await;
    let caller = world.stranger();
    for secret in ["", ",", " "] {
        caller.send(401, caller.request(Method::POST, "/internal/cleanup").bearer_auth(secret)).await;
    }
}

/// Fills the bucket with photos of which every tenth belongs to somebody, and sweeps until the walk has come round; answers the runs it took.
async fn sweep_many(world: &World, objects: i64) -> usize {
    let ada = world.sign_in("ada@example.com").await.id().await;
    let (old, hours) = (now() - 8 * DAY, now() - 2 * HOUR);
    for number in 0..objects {
        // By person, as they are; half of them are older than a week, half of them nobody's.
        let millis = (if number % 2 == 0 { old } else { hours }) * 1_000 + number;
        stray(world, &format!("cache/user{:04}/{millis}_x.jpg", number % (objects / 100)), 2 * HOUR);
    }
    let rows = "INSERT INTO uploads (id, user_id, key, status, content_type, size, width, height, sha256, created_at, expires_at) \
                WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 10 FROM n WHERE n + 10 < ?2) \
                SELECT 'kept' || n, ?1, printf('cache/user%04d/%d_x.jpg', n % (?2 / 100), ?3 * 1000 + n), 'stored', 'image/jpeg', 1, 1, 1, 'x', ?3, ?3 + 604800 FROM n";
    let kept = world.db_write(rows, (&ada, objects, hours));
    let (mut runs, mut deleted, mut listed) = (0, 0, 0);
    loop {
        let started = Instant::now();
        let report = world.scheduled(200, "/internal/cleanup").await;
        runs += 1;
        deleted += report["deleted_files"].as_u64().unwrap();
        listed += report["walk"]["listed"].as_u64().unwrap();
        println!("run {runs}: {:.1} s, {}", started.elapsed().as_secs_f64(), report["walk"]);
        if report["walk"]["round_ended"] == true {
            break;
        }
    }
    let left = world.objects();
    assert_eq!((left.len(), world.sql_number("SELECT count(*) FROM uploads")), (kept, i64::try_from(kept).unwrap()));
    assert_eq!(deleted, u64::try_from(objects).unwrap() - kept as u64);
    assert_eq!(listed, u64::try_from(objects).unwrap());
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_are_swept_page_by_page() {
    let world = World::new().await;
    sweep_many(&world, 4_000).await;
}

/// Memory of this process, in MiB: what it holds now, and the most it has held.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    (kib("VmRSS:").unwrap_or_default() / 1_024, kib("VmHWM:").unwrap_or_default() / 1_024)
}

/// The same at full size, against a bucket as far away as one is: `cargo test -p e2e --test it -- --ignored --nocapture cleanup::`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_objects_are_swept_page_by_page() {
    // So that what any sweep needs is there before it is measured.
    sweep_many(&World::new().await, 4_000).await;
    for away in [0, 150] {
        let world = World::new().await;
        world.fault(Fault::S3Slow { ms: away, method: None, prefix: None });
        let (before, started) = (memory(), Instant::now());
        let runs = sweep_many(&world, 100_000).await;
        let seconds = started.elapsed().as_secs_f64();
        println!("100,000 objects, {away} ms away: {runs} runs, {seconds:.1} s with filling; MiB before {before:?}, after {:?}", memory());
    }
}

/// A sweep over a million rows of which none, and then many, have had their time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_million_rows_cost_a_sweep_no_more_than_none() {
    let world = World::new().await;
    let id = world.sign_in("ada@example.com").await.id().await;
    let sweep = async || {
        let report = world.scheduled(200, "/internal/cleanup").await;
        println!("{} ms, {}", report["ms"], report["database"]);
        report
    };
    sweep().await;
    sweep().await;
    let many = |sql: &str, rows: i64| {
        let numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)";
        world.db_write(&sql.replace("NUMBERS", numbers).replace("?2", &format!("'{id}'")), [rows]);
    };
    many("INSERT INTO sessions (id_hash, user_id, expires_at) NUMBERS SELECT 's' || n, ?2, unixepoch() + 86400 FROM n", 300_000);
    many("INSERT INTO rate_counters NUMBERS SELECT 'x', 's' || n, 1, unixepoch() + 3600 FROM n", 200_000);
    many("INSERT INTO one_time_tokens NUMBERS SELECT 's' || n, 'x', '{}', unixepoch() + 3600 FROM n", 100_000);
    let lots = "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at) \
                NUMBERS SELECT 'l' || n, ?2 || (n % 1000), 1, 'gift', 'admin', 'l' || n, unixepoch() + 99999 FROM n";
    many("INSERT INTO users (id, email, name, credits) NUMBERS SELECT ?2 || (n % 1000), 'u' || n, 'x', 0 FROM n", 1_000);
    many(lots, 100_000);
    println!("1,000,000 rows, none of them old");
    let report = sweep().await;
    assert_eq!(counted(&report), []);
    world.db_write("UPDATE signin_logs SET created_at = 1 WHERE rowid % 2 = 0", []);
    world.db_write("UPDATE sessions SET created_at = 1 WHERE rowid % 3 = 0", []);
    world.db_write("UPDATE rate_counters SET window_ends = 1", []);
    println!("and many of them old");
    while !counted(&sweep().await).is_empty() {}
    assert_eq!(world.sql_number("SELECT count(*) FROM signin_logs"), 150_001);
    assert_eq!(world.sql_number("SELECT count(*) FROM rate_counters WHERE class = 'x'"), 0);
}
