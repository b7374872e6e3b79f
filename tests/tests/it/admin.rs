//! `/api/admin`: for those who run the product.

use e2e::{Options, Person, World};
use serde_json::{Value, json};

async fn world() -> (World, Person) {
    let variables = [("admin_emails".to_owned(), "root@example.com, Boss@Example.com".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let boss = world.sign_in("boss@example.com").await;
    (world, boss)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_come_in() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    for path in ["/api/admin/audit", "/api/admin/events"] {
        boss.get(200, path).await;
        ada.get(403, path).await.problem("forbidden");
        world.stranger().get(401, path).await.problem("unauthenticated");
    }
    let gift = json!({"email": "ada@example.com", "credits": 100, "key": "k"});
    ada.post_json(403, "/api/admin/gifts", &gift).await.problem("forbidden");
    world.stranger().post_json(401, "/api/admin/gifts", &gift).await.problem("unauthenticated");
    assert_eq!(ada.credits().await, 3);
    // The role does as well as the address.
    world.db_write("UPDATE users SET role = 'admin' WHERE email = 'ada@example.com'", []);
    ada.get(200, "/api/admin/audit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_in_the_settings_nobody_is_an_admin() {
    let world = World::new().await;
    world.sign_in("ada@example.com").await.get(403, "/api/admin/audit").await.problem("forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_every_rule_with_what_breaks_it() {
    let (world, boss) = world().await;
    let order = boss.begin_purchase("credits-10").await;
    boss.pay(&order).await;
    let task = boss.order_one().await;
    boss.wait_completed(&task).await;
    let report = boss.get(200, "/api/admin/audit").await.json();
    assert_eq!(report["clean"], true);
    let rules = report["rules"].as_array().unwrap();
    assert_eq!(rules.len(), audit::INVARIANTS.len() + audit::OVERDUE.len());
    assert!(rules.iter().all(|rule| rule["violations"] == 0));
    assert!(rules.iter().any(|rule| rule["id"] == "I1a" && rule["looked_at"] == 2), "{report}");

    // Somebody with the keys to the database tampers with it.
    world.db_write("DROP TRIGGER credit_lots_mirror", []);
    world.db_write("UPDATE credit_lots SET remaining = remaining - 1 WHERE id LIKE 'order:%'", []);
    let report = boss.get(200, "/api/admin/audit").await.json();
    assert_eq!(report["clean"], false);
    let broken: Vec<&Value> = report["rules"].as_array().unwrap().iter().filter(|rule| rule["violations"] != 0).collect();
    assert!(broken.iter().any(|rule| rule["id"] == "I1a" && rule["offenders"][0].as_str().unwrap().starts_with("order:")), "{broken:?}");
    assert_eq!(world.events("audit_violated").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gift_is_given_once() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let gift = json!({"email": "ada@example.com", "credits": 7, "key": "sorry-2026-11", "expires_in_days": 30, "note": "for the outage"});
    let first = boss.post_json(201, "/api/admin/gifts", &gift).await.json()["gift"].clone();
    assert_eq!((&first["amount"], &first["note"]), (&json!(7), &json!("for the outage")));
    let again = boss.post_json(200, "/api/admin/gifts", &gift).await.json()["gift"].clone();
    assert_eq!(again, first);
    let by_id = json!({"user_id": ada.id().await, "credits": 7, "key": "sorry-2026-11", "expires_in_days": 30});
    boss.post_json(200, "/api/admin/gifts", &by_id).await;
    assert_eq!(ada.credits().await, 10);
    let shouted = json!({"email": "Ada@Example.COM", "credits": 7, "key": "sorry-2026-11", "expires_in_days": 30});
    boss.post_json(200, "/api/admin/gifts", &shouted).await;
    // The key is taken.
    let longer = json!({"email": "ada@example.com", "credits": 7, "key": "sorry-2026-11", "expires_in_days": 365});
    boss.post_json(409, "/api/admin/gifts", &longer).await.problem("conflict");
    boss.post_json(409, "/api/admin/gifts", &json!({"email": "ada@example.com", "credits": 8, "key": "sorry-2026-11"}))
        .await
        .problem("conflict");
    boss.post_json(409, "/api/admin/gifts", &json!({"email": "boss@example.com", "credits": 7, "key": "sorry-2026-11"}))
        .await
        .problem("conflict");
    let lots = ada.get(200, "/api/me/credits").await.json()["lots"].clone();
    let left = lots[0]["expires_at"].as_i64().unwrap() - e2e::now();
    assert!((30 * 86_400 - 60..=30 * 86_400).contains(&left), "{lots}");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gift_that_is_wrong_is_told_what_is_wrong() {
    let (world, boss) = world().await;
    let wrong = [
        (json!({"credits": 1, "key": "k"}), vec!["user_id"]),
        (json!({"user_id": "x", "email": "ada@example.com", "credits": 1, "key": "k"}), vec!["user_id"]),
        (json!({"email": "nobody@example.com", "credits": 1, "key": "k"}), vec!["user_id"]),
        (json!({"email": "boss@example.com", "credits": 0, "key": ""}), vec!["credits", "key"]),
        (
            json!({"email": "boss@example.com", "credits": 10_001, "key": "a b", "expires_in_days": 0}),
            vec!["credits", "key", "expires_in_days"],
        ),
        (json!({"email": "boss@example.com", "credits": 1, "key": "k", "note": "x".repeat(201)}), vec!["note"]),
    ];
    for (gift, fields) in wrong {
        assert_eq!(boss.post_json(422, "/api/admin/gifts", &gift).await.wrong_fields(), fields, "{gift}");
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM credit_records WHERE entity_type = 'admin'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_shows_what_came_and_what_became_of_it() {
    let (world, boss) = world().await;
    let order = boss.begin_purchase("credits-10").await;
    boss.pay(&order).await;
    world.control().send_payment_event(json!({"id": "evt_moon", "eventType": "moon.full", "created_at": 1, "object": {}})).await;
    let listed = async |query: &str| boss.get(200, &format!("/api/admin/events{query}")).await.json()["events"].clone();
    let all = listed("").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(all[0]["payload"].is_null(), "what is in it is not for show");
    let done = listed("?status=done").await;
    assert_eq!(
        (&done[0]["type"], &done[0]["outcome"], &done[0]["deliveries"]),
        (&json!("checkout.completed"), &json!("applied"), &json!(1))
    );
    assert_eq!(listed("?status=ignored").await[0]["id"], "evt_moon");
    assert_eq!(listed("?status=received").await, json!([]));
    boss.get(422, "/api/admin/events?status=lost").await.problem("invalid_input");
}
