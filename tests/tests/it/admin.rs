//! `/api/admin`: for those who run the product.

use e2e::{Options, Person, World};
use sandbox::Credential;
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
    for path in ["audit", "events", "users", "tasks", "cache", "log", "overview", "alarms", "jobs"].map(|name| format!("/api/admin/{name}"))
    {
        let path = path.as_str();
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
    assert_eq!(rules.len(), audit::INVARIANTS.len() + audit::OVERDUE.len() + 1);
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

#[tokio::test(flavor = "multi_thread")]
async fn people_are_found_and_given_roles() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let id = ada.id().await;
    let found = boss.get(200, "/api/admin/users?email=Ada%40example.com").await.json()["users"].clone();
    assert_eq!((&found[0]["id"], &found[0]["credits"], &found[0]["role"]), (&json!(id), &json!(3), &json!("user")));
    let all = boss.get(200, "/api/admin/users?limit=1").await.json();
    let rest = boss.get(200, &format!("/api/admin/users?limit=1&cursor={}", all["next_cursor"].as_str().unwrap())).await.json();
    assert_ne!(all["users"][0]["id"], rest["users"][0]["id"]);
    let person = boss.get(200, &format!("/api/admin/users/{id}")).await.json();
    assert_eq!((&person["stats"]["total_tasks"], &person["identities"][0]["provider"]), (&json!(0), &json!("google")));
    boss.get(404, "/api/admin/users/nobody").await.problem("not_found");

    let role =
        async |expected: u16, role: &str| boss.post_json(expected, &format!("/api/admin/users/{id}/role"), &json!({"role": role})).await;
    role(422, "emperor").await.problem("invalid_input");
    ada.get(403, "/api/admin/audit").await;
    assert_eq!(role(200, "admin").await.json()["user"]["role"], "admin");
    ada.get(200, "/api/admin/audit").await;
    role(200, "user").await;
    role(200, "user").await;
    ada.get(403, "/api/admin/audit").await.problem("forbidden");
    boss.post_json(404, "/api/admin/users/nobody/role", &json!({"role": "admin"})).await.problem("not_found");
    let acts = world.sql_number("SELECT count(*) FROM admin_log WHERE action = 'role' AND admin_id <> 'admin_emails'");
    assert_eq!(acts, 2, "what changes nothing is no act");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_seen_without_what_they_are_about() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["bob-cut", "afro"], "detail": "shorter"})).await;
    let listed = boss.get(200, &format!("/api/admin/tasks?user_id={}", ada.id().await)).await.json();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 2);
    assert_eq!(listed["tasks"][0]["email"], "ada@example.com");
    assert!(!listed.to_string().contains("shorter") && !listed.to_string().contains("bob"), "{listed}");
    assert_eq!(boss.get(200, "/api/admin/tasks?user_id=nobody").await.json()["tasks"], json!([]));
    boss.get(422, "/api/admin/tasks?status=lost").await.problem("invalid_input");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_counted_and_emptied_and_nobody_notices() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let counted = boss.get(200, "/api/admin/cache").await.json();
    assert_eq!((&counted["keys_by_prefix"]["session"], &counted["keys_by_prefix"]["task:result"]), (&json!(2), &json!(1)), "{counted}");
    let total = counted["total_keys"].as_u64().unwrap();
    boss.post_json(422, "/api/admin/cache/invalidate", &json!({"prefix": ""})).await.problem("invalid_input");
    assert_eq!(boss.post_json(200, "/api/admin/cache/invalidate", &json!({"prefix": "task:result:"})).await.json()["deleted"], 1);
    assert_eq!(boss.post_json(200, "/api/admin/cache/invalidate", &json!({"prefix": "session:"})).await.json()["deleted"], 2);
    assert_eq!(ada.task(&task).await["status"], "completed");
    assert!(boss.get(200, "/api/admin/cache").await.json()["total_keys"].as_u64().unwrap() <= total);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_event_is_tried_again_when_an_admin_says_so() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    // A refund that comes before anything it could be about.
    world
        .control()
        .send_payment_event(json!({"id": "evt_early", "eventType": "refund.created", "created_at": 1, "object": {"id": "ref_1"}}))
        .await;
    // However many others are due before it.
    let others = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60) \
                  INSERT INTO payment_events (id, type, payload, received_at) SELECT 'evt_' || x, 'refund.created', '{}', x FROM n";
    world.db_write(others, []);
    let event = boss.post(200, "/api/admin/events/evt_early/replay").await.json()["event"].clone();
    assert_eq!((&event["status"], &event["attempts"]), (&json!("received"), &json!(1)));
    boss.post(404, "/api/admin/events/evt_none/replay").await.problem("not_found");
    ada.post(403, "/api/admin/events/evt_early/replay").await.problem("forbidden");
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    let done = world.sql_text("SELECT id FROM payment_events WHERE status = 'done'");
    boss.post(409, &format!("/api/admin/events/{done}/replay")).await.problem("conflict");
    assert_eq!(ada.credits().await, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admins_do_is_written_down_and_cannot_be_rewritten() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let id = ada.id().await;
    let gift = |number: usize| json!({"user_id": id, "credits": 1, "key": format!("gift-{number}")});
    // Many at once: each finds its place in the chain.
    // (The first look of an admin by address is the first act.)
    let answers =
        futures::future::join_all((0..12).map(|number| boss.ask(boss.request(http::Method::POST, "/api/admin/gifts").json(&gift(number)))))
            .await;
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    boss.post_json(200, "/api/admin/gifts", &gift(0)).await;
    boss.post_json(200, &format!("/api/admin/users/{id}/role"), &json!({"role": "admin"})).await;
    boss.post_json(200, "/api/admin/cache/invalidate", &json!({"prefix": "config:"})).await;
    assert_eq!(ada.credits().await, 15);
    let log = boss.get(200, "/api/admin/log?limit=2").await.json();
    assert_eq!((&log["log"][0]["action"], &log["log"][1]["detail"]["role"]), (&json!("invalidate"), &json!("admin")));
    assert_eq!(log["log"][0]["admin_id"], boss.id().await);
    let next = boss.get(200, &format!("/api/admin/log?limit=100&cursor={}", log["next_cursor"].as_str().unwrap())).await.json();
    let earlier = next["log"].as_array().unwrap();
    assert_eq!(earlier.len(), 13);
    assert_eq!((&earlier[12]["action"], &earlier[12]["admin_id"]), (&json!("role"), &json!("admin_emails")), "made an admin once");
    // Whom it is about can be read without looking up ids; the settings have no address.
    assert_eq!((&earlier[0]["admin_email"], &earlier[0]["subject_email"]), (&json!("boss@example.com"), &json!("ada@example.com")));
    assert_eq!((&earlier[12]["admin_email"], &earlier[12]["subject_email"]), (&Value::Null, &json!("boss@example.com")));
    // The operator's log holds each hash.
    let told: Vec<Value> = world.events("admin_act");
    assert_eq!(told.len(), 15);
    assert!(told.iter().any(|line| line["hash"] == log["log"][0]["hash"]));
    let report = boss.get(200, "/api/admin/audit").await.json();
    assert_eq!((&report["clean"], &rule(&report, "L1")["head"]), (&json!(true), &log["log"][0]["hash"]));

    // Somebody with the keys to the database.
    world.db_write("DROP TRIGGER admin_log_no_update", []);
    world.db_write("UPDATE admin_log SET at = at + 1 WHERE seq = 5", []);
    let report = boss.get(200, "/api/admin/audit").await.json();
    let chain = rule(&report, "L1");
    assert_eq!((&report["clean"], &chain["offenders"], &chain["looked_at"]), (&json!(false), &json!(["5"]), &json!(15)));
}

fn rule(report: &Value, id: &str) -> Value {
    report["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == id).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_or_all_of_it_is_noticed() {
    let (world, boss) = world().await;
    let ada = world.sign_in("ada@example.com").await.id().await;
    let gift = |number: usize| json!({"user_id": ada, "credits": 1, "key": format!("gift-{number}")});
    for number in 0..2 {
        boss.post_json(201, "/api/admin/gifts", &gift(number)).await;
    }
    let broken = async || {
        let report = boss.get(200, "/api/admin/audit").await.json();
        let ids = report["rules"].as_array().unwrap().iter().filter(|rule| rule["violations"] != 0).map(|rule| rule["id"].clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(broken().await, Vec::<Value>::new());
    world.db_write("DROP TRIGGER admin_log_no_delete", []);
    world.db_write("DELETE FROM admin_log WHERE seq = 3", []);
    assert_eq!(broken().await, ["I7c"], "the gift is in the books, and nobody gave it");
    world.db_write("DELETE FROM admin_log", []);
    assert_eq!(broken().await, ["I7c", "I7d"]);
}

/// A world where this address is an admin's, on a database that may have been there before.
async fn with_admins(emails: &str, database: &std::path::Path) -> World {
    let variables = [("admin_emails".to_owned(), emails.to_owned())].into();
    World::with(Options { variables, database: Some(database.to_owned()), ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_makes_an_admin_only_where_who_vouches_for_it_runs_the_mailbox() {
    let variables = [("admin_emails".to_owned(), "octo@example.com, desk@company.example, grace.hopper@gmail.com".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    // GitHub checked the address, perhaps long ago.
    world.sign_in_github("octo@example.com").await.get(403, "/api/admin/audit").await.problem("forbidden");
    // So did Google, of an account that somebody made with an address of another house.
    let desk = |hd: &str| Credential { email: "desk@company.example".into(), hd: Some(hd.into()), ..Credential::default() };
    let person = world.stranger();
    for hd in ["", "other.example", "example"] {
        person.one_tap(200, desk(hd)).await;
        person.get(403, "/api/admin/audit").await.problem("forbidden");
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM admin_log"), 0);
    // Of its own house Google knows, and of its own mailboxes.
    person.one_tap(200, desk("company.example")).await;
    person.get(200, "/api/admin/audit").await;
    let grace = world.sign_in("grace.hopper@gmail.com").await;
    grace.get(200, "/api/admin/audit").await;
    let acts = world.sql("SELECT admin_id, action, subject, detail ->> 'role' FROM admin_log ORDER BY seq");
    assert_eq!(acts[1], [json!("admin_emails"), json!("role"), json!(grace.id().await), json!("admin")]);
    assert_eq!(acts.len(), 2);
    // The next time Google no longer says so: the word of the last sign-in counts.
    person.one_tap(200, desk("")).await;
    person.get(403, "/api/admin/audit").await.problem("forbidden");
    assert_eq!(world.sql_text("SELECT detail ->> 'role' FROM admin_log ORDER BY seq DESC LIMIT 1"), "user");
    assert_eq!(grace.get(200, "/api/admin/audit").await.json()["clean"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_out_of_the_settings_is_an_admin_no_more() {
    let folder = tempfile::TempDir::new().unwrap();
    let database = folder.path().join("app.db");
    let world = with_admins("boss@example.com,root@example.com", &database).await;
    let boss = world.sign_in("boss@example.com").await;
    let ada = world.sign_in("ada@example.com").await;
    boss.post_json(200, &format!("/api/admin/users/{}/role", ada.id().await), &json!({"role": "admin"})).await;

    let later = with_admins("root@example.com", &database).await;
    let boss = later.sign_in("boss@example.com").await;
    boss.get(403, "/api/admin/audit").await.problem("forbidden");
    boss.get(403, "/api/admin/audit").await.problem("forbidden");
    let ada = later.sign_in("ada@example.com").await;
    assert_eq!(ada.get(200, "/api/admin/audit").await.json()["clean"], true, "who was made one by an admin stays one");
    let acts = later.sql("SELECT admin_id, detail ->> 'role' FROM admin_log WHERE admin_id = 'admin_emails' ORDER BY seq");
    assert_eq!(acts, [[json!("admin_emails"), json!("admin")], [json!("admin_emails"), json!("user")]]);
}
