//! `/api/me`: one's own data.

use e2e::{Options, World};
use rusqlite::Connection;
use sandbox::Fault;
use serde_json::{Value, json};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_shows_who_one_is_and_no_more() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let me = ada.get(200, "/api/me").await.json();
    assert_eq!((&me["user"]["email"], &me["credits"]), (&json!("ada@example.com"), &json!(3)));
    let fields: Vec<_> = me["user"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["created_at", "email", "id", "name", "picture", "role"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_holds_an_id_and_who_that_is_is_asked_each_time() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let id = ada.id().await;
    world.db_write("UPDATE users SET name = 'Countess', picture = NULL WHERE id = ?1", [&id]);
    world.db_act("role", &id, &json!({"role": "admin"}), e2e::now());
    for path in ["/api/me", "/auth/session"] {
        let user = ada.get(200, path).await.json()["user"].clone();
        assert_eq!((&user["name"], &user["role"], &user["picture"]), (&json!("Countess"), &json!("admin"), &Value::Null), "{path}");
    }
    let keys = seal::Keys::from_settings(&config::Settings::from_values([("data_encryption_key", e2e::DATA_KEY)])).unwrap();
    let store = Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let (place, entry): (String, String) = store
        .query_row("SELECT key, CAST(value AS TEXT) FROM spin_key_value WHERE key LIKE 'session:%'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let entry: Value = serde_json::from_str(&entry).unwrap();
    let kept: Value = keys.open_json(&place, entry["value"].as_str().unwrap()).unwrap();
    assert_eq!(kept, json!({"user_id": id, "resting_until": 0}), "nothing else about the user");
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_show_their_lots_and_what_expires_next() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let soon = e2e::now() + 3_600;
    let now = e2e::now();
    world.db_gift("soon", 2, now, Some(soon - now));
    world.db_gift("late", 4, now, Some(soon + 60 - now));
    world.db_gift("over", 8, now - 60, Some(59));
    let credits = ada.get(200, "/api/me/credits").await.json();
    assert_eq!(credits["balance"], 9, "what has expired does not count: {credits}");
    let lots: Vec<_> = credits["lots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lot| (lot["id"].as_str().unwrap().to_owned(), lot["remaining"].as_i64().unwrap()))
        .collect();
    assert_eq!(lots[..2], [("gift:soon".to_owned(), 2), ("gift:late".to_owned(), 4)]);
    assert_eq!((credits["expires_next"]["id"].clone(), credits["expires_next"]["expires_at"].clone()), (json!("gift:soon"), json!(soon)));
    // They are spent in that order.
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    assert_eq!(ada.get(200, "/api/me/credits").await.json()["expires_next"]["remaining"], 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_and_the_figures_tell_what_happened() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::KieFail { code: 501, msg: None }.matching("afro"));
    let tasks = ada.order(&["bob-cut", "afro"]).await;
    ada.wait_completed(&tasks[0]).await;
    ada.wait_failed(&tasks[1]).await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    let history = ada.get(200, "/api/me/credits/history").await.json()["history"].clone();
    let told: Vec<_> =
        history.as_array().unwrap().iter().map(|row| (row["type"].as_str().unwrap(), row["amount"].as_i64().unwrap())).collect();
    assert_eq!(told, [("purchase", 10), ("refund", 1), ("consumption", -1), ("consumption", -1), ("gift", 3)]);
    assert_eq!(history.as_array().unwrap().iter().map(|row| row["amount"].as_i64().unwrap()).sum::<i64>(), ada.credits().await);
    assert_eq!(ada.get(200, "/api/me/credits/history?limit=1&offset=1").await.json()["history"][0]["type"], "refund");
    let stats = ada.get(200, "/api/me/stats").await.json();
    assert_eq!(stats, json!({"total_tasks": 2, "completed_tasks": 1, "failed_tasks": 1, "credits_used": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_figures_are_zero() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    assert_eq!(
        ada.get(200, "/api/me/stats").await.json(),
        json!({"total_tasks": 0, "completed_tasks": 0, "failed_tasks": 0, "credits_used": 0})
    );
    assert_eq!(ada.get(200, "/api/me/credits").await.json()["expires_next"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_without_missing_or_repeating_anything() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for _ in 0..3 {
        ada.upload("portrait.webp").await;
        ada.begin_purchase("credits-10").await;
    }
    for task in ada.order(&["bob-cut", "afro", "quiff"]).await {
        ada.wait_completed(&task).await;
    }
    for (path, list) in
        [("/api/uploads", "uploads"), ("/api/orders", "orders"), ("/api/tasks", "tasks"), ("/api/me/credits/history", "history")]
    {
        let all = ada.get(200, &format!("{path}?limit=100")).await.json();
        assert_eq!(all["next_cursor"], json!(null), "{path}");
        let all = all[list].as_array().unwrap().clone();
        assert!(all.len() >= 3, "{path}");
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        for turn in 0.. {
            let page = ada.get(200, &format!("{path}?limit=1{cursor}")).await.json();
            paged.extend(page[list].as_array().unwrap().clone());
            if turn == 0 && list == "uploads" {
                // What is new meanwhile moves nothing.
                ada.upload("portrait.webp").await;
            }
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(paged, all, "{path}");
    }
    for wrong in ["x", "%00", "AAAA", &"A".repeat(300)] {
        ada.get(422, &format!("/api/tasks?cursor={wrong}")).await.problem("invalid_input");
    }
    let cursor = ada.get(200, "/api/tasks?limit=1").await.json()["next_cursor"].as_str().unwrap().to_owned();
    ada.get(422, &format!("/api/tasks?limit=1&offset=1&cursor={cursor}")).await.problem("invalid_input");
    ada.get(422, &format!("/api/me/credits/history?cursor={cursor}")).await.problem("invalid_input");
}
