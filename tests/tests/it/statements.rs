//! What requests cost in the database: rows are found by an index, by triggers too, and ten times as much data costs no more steps. Every world looks at the plans of its own statements when it ends; here is what is left.

use std::collections::BTreeMap;

use e2e::statements::{MEANT, Scan, meant, reads_everything, scans, schema};
use e2e::{Options, Person, World};
use host::Cost;
use http::Method;
use sandbox::{Fault, PaymentEvent};
use serde_json::json;
use tempfile::TempDir;

/// Statements whose work grows with what is one's own, or with what a sweep has to do: how they begin, and why that is meant.
const GROWS: [(&str, &str); 3] = [
    (
        "SELECT key FROM uploads WHERE key > ?1 AND key <= ?2 AND status = 'stored'",
        "a page of at most a thousand rows, which the smaller database does not fill",
    ),
    ("SELECT json_object('last_24h'", "a day's tasks, counted for an admin once a minute at most"),
    ("SELECT json_object('users'", "a day's movements and the lots that hold something, counted for an admin once a minute at most"),
];

#[test]
fn a_scan_is_found_in_a_statement_behind_an_alias_and_in_a_trigger() {
    let folder = TempDir::new().unwrap();
    let schema = schema(&folder);
    let tables = |statement: &str| scans(&schema, statement).into_iter().map(|scan| scan.table).collect::<Vec<_>>();
    assert_eq!(tables("SELECT price FROM ai_tasks WHERE attempts = ?1"), ["ai_tasks"]);
    assert_eq!(tables("SELECT t.price FROM ai_tasks AS t WHERE t.attempts = ?1"), ["ai_tasks"]);
    assert_eq!(tables("SELECT u.name FROM users u WHERE u.name = ?1"), ["users"]);
    assert_eq!(tables("SELECT price FROM ai_tasks WHERE task_no = ?1"), Vec::<String>::new());
    assert_eq!(tables("SELECT value FROM json_each(?1)"), Vec::<String>::new());
    assert_eq!(
        tables("INSERT INTO uploads (id, user_id, key, content_type, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)"),
        Vec::<String>::new()
    );
    schema
        .execute_batch("CREATE TRIGGER t AFTER INSERT ON uploads BEGIN UPDATE users SET name = 'x' WHERE picture = NEW.key; END")
        .unwrap();
    assert_eq!(tables("INSERT INTO uploads (id, user_id, key, content_type, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)"), ["users"]);
}

/// Goes through everything that people and schedulers do.
async fn tour(world: &World, name: &str) {
    let email = format!("{name}@example.com");
    let ada = world.sign_in(&email).await;
    for path in [
        "/auth/session",
        "/auth/sessions",
        "/api/me",
        "/api/me/credits",
        "/api/me/stats",
        "/api/uploads",
        "/api/orders",
        "/api/products",
        "/health",
    ] {
        ada.get(200, path).await;
    }
    let upload = ada.upload("portrait.jpg").await;
    ada.get(200, &format!("/api/uploads/{}", upload["id"].as_str().unwrap())).await;
    ada.get(302, upload["url"].as_str().unwrap()).await;
    let body = json!({"upload_id": upload["id"], "hairstyles": ["bob-cut", "afro"]});
    let order = ada.request(Method::POST, "/api/tasks").header("idempotency-key", "once").json(&body);
    let tasks = ada.send(202, order.try_clone().unwrap()).await.json()["tasks"].clone();
    ada.send(202, order).await;
    for task in tasks.as_array().unwrap() {
        ada.wait_completed(task["task_no"].as_str().unwrap()).await;
    }
    world.fault(Fault::KieFail { code: 501, msg: None }.once());
    let failed = ada
        .post_json(202, "/api/tasks", &json!({"upload_id": upload["id"], "hairstyles": ["quiff"], "detail": "a little wild"}))
        .await
        .json();
    ada.wait_failed(failed["tasks"][0]["task_no"].as_str().unwrap()).await;
    pages(&ada, "/api/tasks", 2).await;
    pages(&ada, "/api/me/credits/history", 2).await;

    let pack = ada.begin_purchase("credits-10").await;
    let pack = ada.pay(&pack).await;
    ada.get(200, &format!("/api/orders/{}", pack["id"].as_str().unwrap())).await;
    let plan = ada.begin_purchase("pro-monthly").await;
    ada.pay(&plan).await;
    ada.get(200, "/api/subscription").await;
    world.control().fire(&pack_checkout(world, &pack), PaymentEvent::Refund { amount: None, status: None }).await.unwrap();
    world.sweep().await;
    world.db_payments_are_due();
    world.sweep().await;
    ada.get(200, "/api/me/export").await;
    ada.post(200, "/api/subscription/cancel").await;

    world.scheduled(200, "/internal/alarms").await;
    for path in [
        "/api/admin/users",
        "/api/admin/log",
        "/api/admin/tasks",
        "/api/admin/events",
        "/api/admin/cache",
        "/api/admin/overview",
        "/api/admin/alarms",
        "/api/admin/jobs",
    ] {
        ada.get(200, path).await;
    }
    let bob = world.sign_in_github(&format!("bob-of-{name}@example.com")).await;
    let id = bob.id().await;
    ada.get(200, &format!("/api/admin/users?email=bob-of-{name}@example.com")).await;
    ada.get(200, &format!("/api/admin/users/{id}")).await;
    ada.post_json(201, "/api/admin/gifts", &json!({"user_id": id, "credits": 5, "key": format!("gift-{name}")})).await;
    let gone = bob.delete(200, "/api/me").await;
    assert_eq!(gone.status, 200);
    world.db_time_passes(3_600);
    world.sweep().await;
    ada.post(204, "/auth/logout").await;
}

fn pack_checkout(world: &World, order: &serde_json::Value) -> String {
    let id = order["id"].as_str().unwrap();
    world.sql_text(&format!("SELECT checkout_id FROM orders WHERE id = '{id}'"))
}

/// A list's first page and the next one.
async fn pages(person: &Person, path: &str, limit: u32) {
    let first = person.get(200, &format!("{path}?limit={limit}")).await.json();
    let cursor = first["next_cursor"].as_str().unwrap_or_else(|| panic!("no second page of {path}: {first}"));
    person.get(200, &format!("{path}?limit={limit}&cursor={cursor}")).await;
    person.get(200, &format!("{path}?limit={limit}&offset=1")).await;
}

/// What a tour cost in a database that held so many tasks before: in a file, because a libSQL server does not say what a statement has cost it.
async fn toured(folder: &TempDir, tasks_before: u64) -> (World, BTreeMap<String, Cost>) {
    let variables = BTreeMap::from([("admin_emails".to_owned(), "ada@example.com".to_owned())]);
    let database = Some(folder.path().join(format!("after-{tasks_before}.db")));
    let world = World::with(Options { variables, database, ..Options::default() }).await;
    let (heavy, usual) = (world.sign_in("heavy@example.com").await.id().await, world.sign_in("usual@example.com").await.id().await);
    world.db_fill(tasks_before, &heavy, &usual);
    world.assert_books_balance();
    tour(&world, "ada").await;
    let seen = world.statements();
    (world, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_as_much_in_the_database_costs_no_more_steps() {
    // Both have enough to fill a page of any list.
    let folder = TempDir::new().unwrap();
    let (some, full) = futures::join!(toured(&folder, 2_000), toured(&folder, 20_000));
    let (mut wrong, mut found) = (Vec::new(), Vec::new());
    for (statement, cost) in &full.1 {
        let Some(before) = some.1.get(statement).filter(|_| !reads_everything(statement)) else { continue };
        let grown = cost.steps > before.steps * 2 + 200 || cost.scanned > before.scanned * 2 + 10;
        let reason = GROWS.iter().find(|(begins, _)| statement.starts_with(begins));
        match (grown, reason) {
            (true, None) => wrong.push(format!("{before:?} became {cost:?}: {statement}")),
            (true, Some((begins, _))) => found.push(*begins),
            (false, _) => {}
        }
    }
    assert!(wrong.is_empty(), "these cost more where there is more:\n{}", wrong.join("\n"));
    let needless: Vec<_> = GROWS.iter().filter(|(begins, _)| !found.contains(begins)).collect();
    assert!(needless.is_empty(), "these have a reason to grow and no need of it: {needless:?}");

    // The other list may not hold more than is needed either.
    let schema = schema(&folder);
    let needed: Vec<(String, Scan)> =
        full.1.keys().flat_map(|statement| scans(&schema, statement).into_iter().map(|scan| (statement.clone(), scan))).collect();
    for reason in MEANT {
        let used = needed.iter().any(|(statement, scan)| {
            meant(statement, scan).is_some_and(|found| (found.begins, found.table) == (reason.begins, reason.table))
        });
        assert!(used, "nothing scans {} any more as in: {}", reason.table, reason.begins);
    }
    some.0.assert_books_balance();
    full.0.assert_books_balance();
}
