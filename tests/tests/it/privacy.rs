//! What is kept of a person: sealed where it is nobody's business, handed out when they ask, and gone when they go.

use e2e::{CRON_SECRET, DATA_KEY, Options, Person, SESSION_SECRET, World, photos};
use http::Method;
use rusqlite::Connection;
use sandbox::{Credentials, Fault, Service};
use serde_json::json;

const WISH: &str = "a little shorter over the left ear, like grandmother's";

async fn order_with_a_wish(person: &Person) -> String {
    let upload = person.any_upload().await;
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"], "detail": WISH});
    let request = person.request(Method::POST, "/api/tasks").header("idempotency-key", "with-a-wish").json(&body);
    let answer = person.send(202, request).await;
    assert_eq!(answer.json()["tasks"][0]["detail"], WISH);
    answer.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned()
}

/// Somebody who has done a bit of everything.
async fn somebody(world: &World, email: &str) -> (Person, String) {
    let person = world.sign_in(email).await;
    let task = order_with_a_wish(&person).await;
    person.wait_completed(&task).await;
    let order = person.begin_purchase("credits-10").await;
    person.pay(&order).await;
    (person, task)
}

/// Every value of every column of the database, with its place.
fn everything(world: &World) -> Vec<(String, String)> {
    let tables = world.sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    let mut values = Vec::new();
    for table in tables.iter().map(|row| row[0].as_str().unwrap()) {
        let columns: Vec<String> = world
            .sql(&format!("SELECT name FROM pragma_table_info('{table}')"))
            .iter()
            .map(|row| row[0].as_str().unwrap().to_owned())
            .collect();
        for row in world.sql(&format!("SELECT * FROM {table}")) {
            values.extend(
                columns
                    .iter()
                    .zip(row)
                    .map(|(column, value)| (format!("{table}.{column}"), value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
            );
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_wish_or_address_is_in_a_column_that_is_not_meant_for_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let variables = [("trusted_proxy".to_owned(), "x-real-ip".to_owned())].into();
    let world = World::with(Options { variables, key_value: Some(host::KvLocation::File(cache.clone())), ..Options::default() }).await;
    let (ada, _) = somebody(&world, "ada@example.com").await;
    let file = photos::read("portrait.jpg");
    ada.send(201, ada.upload_request("image/jpeg", file.clone()).header("x-file-name", "Passport of Countess Augusta.jpg")).await;
    let wish = json!({"filename": "Passport of Countess Augusta.jpg", "content_type": "image/jpeg", "size": file.len()});
    ada.post_json(201, "/api/uploads/presign", &wish).await;
    let abroad = world.stranger();
    let login = abroad.begin_sign_in("google", "ada@example.com", "/").await;
    let request = abroad.request(Method::GET, &login).header("x-real-ip", "203.0.113.77").header("user-agent", "Browser of Ada 9.9");
    abroad.send(302, request).await;
    // One more that is under way.
    let waiting = world.stranger();
    let state = waiting.get(302, "/auth/login/google").await.header("location").to_owned();
    let nonce = url::Url::parse(&state).unwrap().query_pairs().find(|(name, _)| name == "nonce").unwrap().1.into_owned();

    let Credentials {
        s3_secret_access_key,
        kie_api_key,
        kie_webhook_hmac_key,
        creem_api_key,
        creem_webhook_secret,
        google_client_secret,
        github_client_secret,
        ..
    } = Credentials::default();
    let token = ada.token().unwrap();
    let (id, seal) = token.split_once('.').unwrap();
    let mut secrets: Vec<(&str, String, &[&str])> = vec![
        ("the id of a session", id.into(), &[]),
        ("the seal of a session", seal.into(), &[]),
        ("the state of a sign-in", waiting.cookie("__signin").unwrap(), &[]),
        ("the nonce of a sign-in", nonce, &[]),
        ("a wish", WISH.into(), &[]),
        ("a part of a wish", "left ear".into(), &[]),
        ("a prompt", "Change only the hair".into(), &[]),
        ("a client's address", "203.0.113.77".into(), &[]),
        ("a browser", "Browser of Ada".into(), &[]),
        ("a person's address", "ada@example.com".into(), &["users.email"]),
        ("a buyer's address", "buyer@example.com".into(), &[]),
        ("a person's name", "Lovelace".into(), &["users.name"]),
        ("a file's name", "Countess".into(), &[]),
    ];
    for key in [
        s3_secret_access_key,
        kie_api_key,
        kie_webhook_hmac_key,
        creem_api_key,
        creem_webhook_secret,
        google_client_secret,
        github_client_secret,
    ] {
        secrets.push(("a key of the app", key, &[]));
    }
    for key in [SESSION_SECRET, CRON_SECRET, DATA_KEY] {
        secrets.push(("a secret of the app", key.into(), &[]));
    }
    let values = everything(&world);
    assert!(values.len() > 300, "{} values", values.len());
    for (what, secret, meant_for) in &secrets {
        let places: Vec<_> =
            values.iter().filter(|(place, value)| value.contains(secret.as_str()) && !meant_for.contains(&place.as_str())).collect();
        assert!(places.is_empty(), "{what} ({secret}) is in {places:#?}");
    }
    // What is meant to be there is.
    assert!(values.iter().any(|(place, value)| place == "users.email" && value == "ada@example.com"));
    for place in [
        "sessions.ip_address",
        "sessions.user_agent",
        "signin_logs.ip_address",
        "signin_logs.user_agent",
        "idempotency_keys.body",
        "uploads.original_name",
    ] {
        let found: Vec<_> = values.iter().filter(|(column, value)| column == place && value != "null").collect();
        assert!(!found.is_empty() && found.iter().all(|(_, value)| value.starts_with("sealed:")), "{place}: {found:?}");
    }
    // Nor in key-value: neither whose a session is nor what a task was about.
    let store = Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let mut statement = store.prepare("SELECT key, value FROM spin_key_value").unwrap();
    let entries: Vec<(String, Vec<u8>)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let user_id = ada.id().await;
    assert!(entries.iter().any(|(key, _)| key.starts_with("session:")) && entries.iter().any(|(key, _)| key.starts_with("task:result:")));
    for (key, value) in &entries {
        let text = format!("{key} {}", String::from_utf8_lossy(value));
        for secret in secrets.iter().map(|(_, secret, _)| secret).chain([&user_id]) {
            assert!(!text.contains(secret.as_str()), "{secret} is in the cache: {text}");
        }
    }
    // Its owner sees it all.
    let named = |uploads: &serde_json::Value| uploads.to_string().matches("Passport of Countess Augusta.jpg").count();
    assert_eq!(named(&ada.get(200, "/api/uploads").await.json()["uploads"]), 1);
    assert_eq!(named(&ada.get(200, "/api/me/export").await.json()["uploads"]), 2, "the one that was only begun, too");
    let sessions = ada.get(200, "/auth/sessions").await.json()["sessions"].clone();
    assert!(
        sessions
            .as_array()
            .unwrap()
            .iter()
            .any(|session| session["ip_address"] == "203.0.113.77" && session["user_agent"] == "Browser of Ada 9.9"),
        "{sessions}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_name_was_stored_before_it_was_sealed_keeps_it_and_no_link_tells_it() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let request = ada.upload_request("image/jpeg", photos::read("portrait.jpg")).header("x-file-name", "Augusta.jpg");
    let upload = ada.send(201, request).await.json()["uploads"][0].clone();
    // Whoever has a link to a photo, as the AI provider does, is told nothing but the photo.
    let link = ada.get(302, upload["url"].as_str().unwrap()).await.header("location").to_owned();
    let shown = world.stranger().get(200, &link).await;
    assert!(!format!("{:?}", shown.headers).contains("Augusta"), "{shown}");
    world.db_write("UPDATE uploads SET original_name = 'old.jpg'", []);
    let path = format!("/api/uploads/{}", upload["id"].as_str().unwrap());
    assert_eq!(ada.get(200, &path).await.json()["upload"]["original_name"], "old.jpg");
    assert_eq!(ada.get(200, "/api/me/export").await.json()["uploads"][0]["original_name"], "old.jpg");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_repeats_of_a_person_goes_neither_into_the_log_nor_into_the_database() {
    const ECHO: &str = "Your prompt was: Change only the hair (for ada@echo.example)";
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let msg = || Some(ECHO.to_owned());
    for (code, http_status) in [(422, None), (429, None), (500, Some(500))] {
        world.control().clear_faults();
        world.fault(Fault::KieCreateAnswers { code, msg: msg(), http_status });
        ada.order_one().await;
    }
    let mut reasons = Vec::new();
    for (model, code) in [("nano-banana-edit", 400), ("4o", 451), ("kontext", 500)] {
        world.control().clear_faults();
        world.fault(Fault::KieFail { code, msg: msg() });
        // The first question meets words as well.
        world.fault(Fault::KieRecordAnswers { code: 500, msg: msg(), http_status: None }.once());
        world.db_write("UPDATE ai_tasks SET status = 'failed', updated_at = unixepoch() WHERE status = 'pending'", []);
        let upload = ada.any_upload().await;
        let order = json!({"upload_id": upload, "hairstyles": ["bob-cut"], "model": model});
        let task = ada.post_json(202, "/api/tasks", &order).await.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
        reasons.push(ada.wait_failed(&task).await["failure_reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        reasons,
        [
            "The AI provider refused this picture.",
            "The AI provider could not read the photo.",
            "The AI provider could not make this picture."
        ]
    );
    world.control().clear_faults();
    for status in [400, 403, 500] {
        world.fault(Fault::CreemApiSays { status, msg: ECHO.into() }.once());
        ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await.problem("provider_unavailable");
    }
    for trace in ["Your prompt", "echo.example", "Change only"] {
        let lines: Vec<_> = world.logs().into_iter().filter(|line| line.contains(trace)).collect();
        assert!(lines.is_empty(), "{trace} is in the log: {lines:#?}");
        let places: Vec<_> = everything(&world).into_iter().filter(|(_, value)| value.contains(trace)).collect();
        assert!(places.is_empty(), "{trace} is in {places:#?}");
    }
    // What an operator needs is there.
    assert!(world.events("task_handed_over").iter().any(|line| line["cause"] == "code 422"), "{}", world.tail());
    assert!(world.events("provider_failed").iter().any(|line| line["cause"] == "code 451"), "{}", world.tail());
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_goes_in_front_and_nobody_notices() {
    let folder = tempfile::TempDir::new().unwrap();
    let keys = |session: &str, data: &str| {
        [("session_secret".to_owned(), session.to_owned()), ("data_encryption_key".to_owned(), data.to_owned())].into()
    };
    let options = |variables| Options { variables, database: Some(folder.path().join("app.db")), ..Options::default() };
    let before = World::with(options(keys("old-session-secret", "old-data-key"))).await;
    let ada = before.sign_in("ada@example.com").await;
    let task = order_with_a_wish(&ada).await;
    ada.wait_completed(&task).await;
    let token = ada.token().unwrap();

    let after = World::with(options(keys("new-session-secret, old-session-secret", "new-data-key,old-data-key"))).await;
    let client = after.stranger();
    let with = |path: &str| client.request(Method::GET, path).bearer_auth(&token);
    assert_eq!(client.send(200, with(&format!("/api/tasks/{task}"))).await.json()["task"]["detail"], WISH);
    assert_eq!(client.send(200, with("/auth/sessions")).await.json()["sessions"][0]["ip_address"], "127.0.0.1");
    after.sign_in("grace@example.com").await;
    let kinds = after.sql_number("SELECT count(DISTINCT substr(ip_address, 1, 15)) FROM sessions WHERE ip_address IS NOT NULL");
    assert_eq!(kinds, 2, "what is sealed now is sealed with the new key");

    // Once the old secret is gone, so is what was signed with it.
    let later = World::with(options(keys("new-session-secret", "new-data-key"))).await;
    let client = later.stranger();
    client.send(401, client.request(Method::GET, "/api/me").bearer_auth(&token)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_take_everything_along() {
    let world = World::new().await;
    let (ada, task) = somebody(&world, "ada@example.com").await;
    world.sign_in("eve@example.com").await.upload("portrait.webp").await;
    let answer = ada.get(200, "/api/me/export").await;
    assert!(answer.header("content-disposition").starts_with("attachment"), "{answer}");
    let export = answer.json();
    assert_eq!(export["user"]["email"], "ada@example.com");
    assert_eq!(export["credits"], 12);
    assert_eq!((&export["tasks"][0]["task_no"], &export["tasks"][0]["detail"]), (&json!(task), &json!(WISH)));
    assert_eq!(export["moderation_verdicts"][0]["decision"], "allow");
    for (list, entries) in [
        ("identities", 1),
        ("sessions", 1),
        ("sign_ins", 1),
        ("uploads", 1),
        ("tasks", 1),
        ("orders", 1),
        ("credit_history", 3),
        ("subscriptions", 0),
    ] {
        assert_eq!(export[list].as_array().unwrap().len(), entries, "{list}: {export}");
    }
    assert!(!answer.json().to_string().contains("eve@"));
    world.stranger().get(401, "/api/me/export").await.problem("unauthenticated");
}

/// Every place where somebody is still to be found; their id itself belongs to the books.
fn traces(world: &World, who: &[&str]) -> Vec<(String, String)> {
    everything(world).into_iter().filter(|(_, value)| who.iter().any(|trace| value.contains(trace))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_is_gone_everywhere_and_the_books_stay() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Options::default() }).await;
    let (ada, task) = somebody(&world, "ada@example.com").await;
    let (grace, _) = somebody(&world, "grace.hopper@gmail.com").await;
    let (id, second) = (ada.id().await, world.sign_in("ada@example.com").await);
    let money = |world: &World| world.sql("SELECT id, amount, type, entity_type, entity_id FROM credit_records ORDER BY id");
    let (before, objects) = (money(&world), world.objects().len());
    assert_eq!(objects, 4, "a photo and a picture each");

    let answer = ada.delete(200, "/api/me").await.json();
    assert_eq!((&answer["done"], &answer["left"]), (&json!(true), &json!({"rows": 0, "files": 0, "cache_entries": 0})));
    assert_eq!(ada.token(), None, "the browser forgets");
    second.get(401, "/api/me").await.problem("unauthenticated");
    second.get(401, &format!("/api/tasks/{task}")).await;

    // Nothing of her is anywhere.
    let traces = traces(&world, &["ada@", "Ada", "Lovelace", WISH]);
    assert!(traces.is_empty(), "{traces:#?}");
    assert_eq!(world.objects().len(), 2, "{:?}", world.objects());
    assert!(world.objects().iter().all(|key| !key.contains(&id)));
    let store = Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let left: i64 = store.query_row("SELECT count(*) FROM spin_key_value WHERE key LIKE '%' || ?1", [&task], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    let sessions: i64 = store.query_row("SELECT count(*) FROM spin_key_value WHERE key LIKE 'session:%'", [], |row| row.get(0)).unwrap();
    assert_eq!(sessions, 1, "Grace's");
    for table in ["user_auth", "sessions", "signin_logs", "uploads", "idempotency_keys", "prompt_verdicts"] {
        assert_eq!(world.sql_number(&format!("SELECT count(*) FROM {table} WHERE user_id = '{id}'")), 0, "{table}");
    }
    // The books are as they were, and nobody else has lost anything.
    assert_eq!(money(&world), before);
    world.assert_books_balance();
    assert_eq!(grace.credits().await, 12);
    let kept = grace.get(200, "/api/tasks").await.json()["tasks"][0]["result_urls"][0].as_str().unwrap().to_owned();
    assert!(!grace.download(&kept).await.is_empty());

    // Coming back is beginning anew, without another welcome.
    let again = world.sign_in("ada@example.com").await;
    assert_ne!(again.id().await, id);
    assert_eq!(again.credits().await, 0, "going and coming back is not worth credits");
    // An hour later it is looked once more, and then no more.
    assert_eq!(world.sweep().await["erasures"]["looked_at"], 0);
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    assert_eq!(world.sweep().await["erasures"], json!({"looked_at": 1, "done": 1}));
    assert_eq!(world.sql_number("SELECT count(*) FROM erasures WHERE next_look_at IS NULL AND done_at IS NOT NULL"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_plan_cancels_it_first() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("pro-monthly").await;
    ada.pay(&order).await;
    ada.delete(409, "/api/me").await.problem("conflict");
    assert_eq!(ada.get(200, "/api/me").await.json()["user"]["email"], "ada@example.com", "nothing has happened");
    ada.post(200, "/api/subscription/cancel").await;
    ada.delete(200, "/api/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_will_not_give_up_now_the_sweep_removes() {
    let world = World::new().await;
    let (ada, _) = somebody(&world, "ada@example.com").await;
    world.storage_down();
    let answer = ada.delete(202, "/api/me").await.json();
    assert_eq!((&answer["erased"], &answer["done"]), (&json!(true), &json!(false)));
    assert!(traces(&world, &["ada@", WISH]).is_empty(), "the rows are gone all the same");
    ada.get(401, "/api/me").await;
    world.control().clear_faults();
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    assert_eq!(world.sweep().await["erasures"], json!({"looked_at": 1, "done": 1}));
    assert_eq!(world.objects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_the_backups_keeps_nobodys_photos() {
    let world = World::new().await;
    let (ada, _) = somebody(&world, "ada@example.com").await;
    world.fault(Fault::S3Locked { prefix: Some("backups/".into()) });
    // The first look comes as far as the note, which cannot be written a second time.
    world.fault(Fault::S3Answers { status: 503, method: Some("POST".into()), prefix: None });
    ada.delete(202, "/api/me").await;
    assert_eq!((world.backups().len(), world.objects().len()), (1, 2));
    let faults = world.control().faults();
    assert!(world.control().remove_fault(faults[1].id), "the lock stays");
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    assert_eq!(world.sweep().await["erasures"], json!({"looked_at": 1, "done": 1}));
    assert_eq!(world.objects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lock_keeps_of_somebody_fails_the_sweep_until_it_is_gone() {
    let world = World::new().await;
    let (ada, _) = somebody(&world, "ada@example.com").await;
    world.fault(Fault::S3Locked { prefix: Some("cache/".into()) });
    ada.delete(202, "/api/me").await;
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    let report = world.scheduled(503, "/internal/cleanup").await;
    assert_eq!((&report["outcome"], &report["erasures"]), (&json!("failed"), &json!({"looked_at": 1, "done": 0})));
    world.control().clear_faults();
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    assert_eq!(world.sweep().await["erasures"], json!({"looked_at": 1, "done": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_when_somebody_went_does_not_arrive() {
    let world = World::new().await;
    world.fault(Fault::KieDelay { ms: 1_500 });
    let ada = world.sign_in("ada@example.com").await;
    ada.order_one().await;
    let id = ada.id().await;
    ada.delete(200, "/api/me").await;
    // The provider finishes, its callback comes, and finds the door closed.
    let finished = async || {
        let answered = world.events("request").iter().filter(|line| line["component"] == "task-callback").count();
        if answered > 0 { Ok(()) } else { Err("no callback yet".to_owned()) }
    };
    world.until("the callback", finished).await;
    assert_eq!(world.objects(), Vec::<String>::new());
    assert_eq!(world.sql_text("SELECT status FROM ai_tasks"), "failed");
    assert_eq!(world.sql_number(&format!("SELECT credits FROM users WHERE id = '{id}'")), 3, "what was not made is paid back in the books");
    let insert = "INSERT INTO uploads (id, user_id, key, content_type, expires_at) VALUES ('u', ?1, 'cache/x', 'image/png', 99999999999)";
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.db_write(insert, [&id])));
    assert!(refused.is_err(), "a row of somebody who has gone");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_asked_of_others_when_somebody_went_leaves_no_trace() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    world.fault(Fault::CreemApiSlow { ms: 1_500 });
    let wish = ada.request(Method::POST, "/api/tasks").json(&json!({"upload_id": upload, "hairstyles": ["bob-cut"], "detail": WISH}));
    let order = ada.request(Method::POST, "/api/orders").header("idempotency-key", "going").json(&json!({"product_id": "credits-10"}));
    let go = async {
        let asked = async || match world.control().calls_to(Service::Creem).len() {
            2.. => Ok(()),
            asked => Err(format!("{asked} asked")),
        };
        world.until("both to be asked of creem", asked).await;
        ada.ask(ada.request(Method::DELETE, "/api/me")).await
    };
    let (wished, ordered, gone) = futures::join!(ada.ask(wish), ada.ask(order), go);
    assert_eq!(gone.status, 200, "{gone}");
    assert_eq!(wished.status, 401, "{wished}");
    assert!(ordered.status < 500, "{ordered}");
    // The look an hour later finds nothing, and the books are in order.
    world.control().clear_faults();
    world.db_time_passes(4_000);
    world.sweep().await;
    assert_eq!(world.sql_number("SELECT count(*) FROM erasures WHERE done_at IS NOT NULL AND next_look_at IS NULL"), 1, "{}", world.tail());
    assert_eq!(world.sql_number("SELECT count(*) FROM prompt_verdicts"), 0);
    assert_eq!(world.sql_number("SELECT count(*) FROM orders WHERE payment_url IS NOT NULL"), 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_leaves_its_place_and_its_taker_at_the_door() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let photo = photos::read("portrait-exif-rotated.jpg");
    let upload = ada.send(201, ada.upload_request("image/jpeg", photo.clone())).await.json()["uploads"][0].clone();
    let stored = std::fs::read(world.bucket_folder().join(upload["key"].as_str().unwrap())).unwrap();
    let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    assert!(holds(&photo, b"Exif") && stored.len() < photo.len());
    // The orientation alone is put back: 26 bytes of TIFF.
    assert_eq!(stored.windows(6).filter(|window| window == b"Exif\0\0").count(), 1);
    assert!(holds(&stored, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"));
    assert!(!holds(&stored, b"GPS"));
    // As a viewer shows it.
    let (width, height) = (upload["width"].as_u64().unwrap(), upload["height"].as_u64().unwrap());
    let pixels = image::load_from_memory(&stored).unwrap();
    assert_eq!((u64::from(pixels.height()), u64::from(pixels.width())), (width, height));
    assert_eq!(world.heard(Service::S3, "PUT /ai-hairstyle/cache/"), 1);
}
