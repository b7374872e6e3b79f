//! `/api/tasks` and the catalogue: ordering, watching and cancelling pictures.

use e2e::{Person, World};
use futures::future::join_all;
use http::Method;
use sandbox::{Fault, Service};
use serde_json::{Value, json};

/// A person with a photo.
async fn ada(world: &World) -> (Person, String) {
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    (ada, upload)
}

async fn assert_nothing_happened(world: &World, person: &Person, what: &str) {
    assert_eq!(person.credits().await, 3, "{what}");
    assert_eq!(world.sql_number("SELECT count(*) FROM ai_tasks"), 0, "{what}");
    assert_eq!(world.control().calls_to(Service::Kie).len(), 0, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_open_to_everybody() {
    let world = World::new().await;
    let stranger = world.stranger();
    let answer = stranger.get(200, "/api/hairstyles").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=3600");
    let hairstyles = answer.json()["hairstyles"].as_array().unwrap().clone();
    assert!(hairstyles.len() > 20);
    assert!(hairstyles.iter().all(|style| style["prompt"].is_null()), "our words to the provider are ours");
    let models: Vec<_> = answer.json()["models"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(models, ["nano-banana-edit", "4o", "kontext"]);
    let colors = stranger.get(200, "/api/hair-colors").await.json()["hair_colors"].as_array().unwrap().clone();
    assert_eq!(colors[0]["id"], "keep-original");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hairstyle_color_and_model_of_the_catalogue_can_be_ordered() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    world.db_gift("test", 100, e2e::now(), None);
    world.fault(Fault::KieDelay { ms: 600_000 });
    let catalogue = ada.get(200, "/api/hairstyles").await.json();
    let ids = |list: &Value| list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for styles in ids(&catalogue["hairstyles"]).chunks(8) {
        ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": styles})).await;
    }
    for color in ids(&ada.get(200, "/api/hair-colors").await.json()["hair_colors"]) {
        ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["afro"], "hair_color": color})).await;
    }
    for model in ids(&catalogue["models"]) {
        let task = ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["afro"], "model": model})).await.json();
        assert_eq!(task["tasks"][0]["status"], "processing", "the provider takes it: {task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_wrong_is_told_what_is_wrong_and_costs_nothing() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    let eve = world.sign_in("eve@example.com").await;
    let eves = eve.upload("portrait.png").await["id"].as_str().unwrap().to_owned();
    let nine = ["bob-cut", "long-bob", "pixie-cut", "shag-cut", "curtain-bangs", "blunt-bangs", "beach-waves", "afro", "quiff"];
    let wrong = [
        ("an unknown hairstyle", json!({"upload_id": upload, "hairstyles": ["bob-cut", "beehive"]}), "hairstyles[1]"),
        ("no hairstyle", json!({"upload_id": upload, "hairstyles": []}), "hairstyles"),
        ("nine hairstyles", json!({"upload_id": upload, "hairstyles": nine}), "hairstyles"),
        ("the same hairstyle twice", json!({"upload_id": upload, "hairstyles": ["bob-cut", "bob-cut"]}), "hairstyles[1]"),
        ("an unknown colour", json!({"upload_id": upload, "hairstyles": ["bob-cut"], "hair_color": "plaid"}), "hair_color"),
        ("an unknown model", json!({"upload_id": upload, "hairstyles": ["bob-cut"], "model": "gpt-9"}), "model"),
        ("a long wish", json!({"upload_id": upload, "hairstyles": ["bob-cut"], "detail": "x".repeat(201)}), "detail"),
        ("a wish in two lines", json!({"upload_id": upload, "hairstyles": ["bob-cut"], "detail": "a\nb"}), "detail"),
        ("somebody else's photo", json!({"upload_id": eves, "hairstyles": ["bob-cut"]}), "upload_id"),
        ("a photo that is not there", json!({"upload_id": "0198c0de", "hairstyles": ["bob-cut"]}), "upload_id"),
        ("an unknown field", json!({"upload_id": upload, "hairstyles": ["bob-cut"], "price": 0}), "body"),
        ("a missing field", json!({"hairstyles": ["bob-cut"]}), "body"),
        ("another type", json!({"upload_id": upload, "hairstyles": "bob-cut"}), "body"),
        ("a list", json!([]), "body"),
    ];
    for (what, body, field) in wrong {
        let answer = ada.ask(ada.request(Method::POST, "/api/tasks").json(&body)).await;
        assert_eq!(answer.status, 422, "{what}: {answer}");
        assert_eq!(answer.wrong_fields(), [field], "{what}");
        assert_nothing_happened(&world, &ada, what).await;
    }
    let raw = |content_type: &'static str, body: &'static str| {
        ada.request(Method::POST, "/api/tasks").header("content-type", content_type).body(body)
    };
    ada.send(422, raw("application/json", "{\"upload_id\":")).await.problem("invalid_input");
    ada.send(422, raw("application/json", "")).await.problem("invalid_input");
    ada.send(415, raw("text/plain", "{}")).await.problem("unsupported_media_type");
    ada.send(415, ada.request(Method::POST, "/api/tasks")).await.problem("unsupported_media_type");
    let long = ada.request(Method::POST, "/api/tasks").header("content-type", "application/json").body(" ".repeat(70 * 1024));
    ada.send(413, long).await.problem("payload_too_large");
    assert_nothing_happened(&world, &ada, "bodies that are no JSON").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_mistakes_are_told_at_once() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    let body = json!({"upload_id": upload, "hairstyles": ["beehive"], "hair_color": "plaid", "model": "x"});
    assert_eq!(ada.post_json(422, "/api/tasks", &body).await.wrong_fields(), ["hairstyles[0]", "hair_color", "model"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_that_has_expired_or_was_deleted_cannot_be_ordered_from() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"]});
    world.db_write("UPDATE uploads SET expires_at = unixepoch()", []);
    assert_eq!(ada.post_json(422, "/api/tasks", &body).await.wrong_fields(), ["upload_id"]);
    let deleted = ada.upload("portrait.jpg").await["id"].as_str().unwrap().to_owned();
    ada.delete(204, &format!("/api/uploads/{deleted}")).await;
    assert_eq!(
        ada.post_json(422, "/api/tasks", &json!({"upload_id": deleted, "hairstyles": ["bob-cut"]})).await.wrong_fields(),
        ["upload_id"]
    );
    assert_nothing_happened(&world, &ada, "photos that are gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_orders_at_once_for_one_credit_one_is_taken() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    world.db_leave_credits(&ada.id().await, 1);
    assert_eq!(ada.credits().await, 1);
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"]});
    let answers = join_all((0..50).map(|_| ada.ask(ada.request(Method::POST, "/api/tasks").json(&body)))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![202], vec![402; 49]].concat(), "{}", world.tail());
    for answer in answers.iter().filter(|answer| answer.status == 402) {
        answer.problem("insufficient_credits");
    }
    assert_eq!((ada.credits().await, world.control().kie_tasks().len()), (0, 1));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_beyond_the_balance_is_refused_whole() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut", "afro", "quiff", "mullet"]});
    ada.post_json(402, "/api/tasks", &body).await.problem("insufficient_credits");
    assert_nothing_happened(&world, &ada, "four pictures for three credits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_is_told_what_was_ordered() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"], "hair_color": "copper", "detail": "with \"volume\""});
    ada.post_json(202, "/api/tasks", &body).await;
    let [asked] = &world.control().kie_tasks()[..] else { panic!("one task") };
    for words in ["chin-length bob", "bright copper", "with 'volume'"] {
        assert!(asked.prompt.contains(words), "{words}: {}", asked.prompt);
    }
    let key = world.sql_text("SELECT key FROM uploads");
    assert_eq!(asked.photo_urls, [format!("{}/ai-hairstyle/{key}", world.places().s3)]);
    let task = world.sql_text("SELECT id FROM ai_tasks");
    assert_eq!(asked.callback_url, Some(format!("{}webhooks/kie/{task}", world.address())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_refuses_is_not_paid_for() {
    let world = World::new().await;
    let (ada, upload) = ada(&world).await;
    world.fault(Fault::KieCreateAnswers { code: 422, msg: Some("prompt is not acceptable".into()), http_status: None });
    let answer = ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["bob-cut"]})).await.json();
    assert_eq!((&answer["tasks"][0]["status"], &answer["credits"]), (&json!("failed"), &json!({"spent": 0, "balance": 3})));
    assert_eq!(ada.credits().await, 3);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_pictures_only_those_that_fail_are_paid_back() {
    let world = World::new().await;
    let (ada, _) = ada(&world).await;
    world.fault(Fault::KieFail { code: 501, msg: None }.matching("afro"));
    let tasks = ada.order(&["bob-cut", "afro", "quiff"]).await;
    ada.wait_completed(&tasks[0]).await;
    ada.wait_failed(&tasks[1]).await;
    ada.wait_completed(&tasks[2]).await;
    assert_eq!(ada.credits().await, 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_says_when_to_come_back_and_a_final_one_does_not_change() {
    let world = World::new().await;
    let (ada, _) = ada(&world).await;
    world.fault(Fault::KieDelay { ms: 600_000 }.once());
    let running = ada.order_one().await;
    let answer = ada.get(200, &format!("/api/tasks/{running}")).await;
    assert_eq!(answer.header("retry-after"), "2");
    let task = answer.json()["task"].clone();
    assert_eq!(task["status"], "processing");
    let progress = task["progress"].as_f64().unwrap();
    assert!((0.05..1.0).contains(&progress), "{progress}");

    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let path = format!("/api/tasks/{task}");
    let answer = ada.get(200, &path).await;
    assert_eq!(answer.header("retry-after"), "");
    let tag = answer.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{answer}");
    let known = ada.send(304, ada.request(Method::GET, &path).header("if-none-match", &tag)).await;
    assert_eq!((known.header("etag"), known.body.len()), (tag.as_str(), 0));
    ada.send(200, ada.request(Method::GET, &path).header("if-none-match", "\"other\"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_or_proxy_may_know_several_versions_of_a_task() {
    let world = World::new().await;
    let (ada, _) = ada(&world).await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let path = format!("/api/tasks/{task}");
    let tag = ada.get(200, &path).await.header("etag").to_owned();
    // RFC 9110, 13.1.2: a list, compared weakly, or anything at all. A proxy that compresses makes a tag weak.
    for known in [format!("\"other\", {tag}"), format!("W/{tag}"), "*".to_owned()] {
        ada.send(304, ada.request(Method::GET, &path).header("if-none-match", known)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_may_be_ready_before_its_siblings_are_handed_over() {
    let world = World::new().await;
    world.control().change_settings(|settings| settings.kie_delay_ms = 0);
    world.fault(Fault::KieCreateHangs { ms: 1_500, creates: false }.matching("afro"));
    let (ada, upload) = ada(&world).await;
    let answer = ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["bob-cut", "afro"]})).await.json();
    // The first picture came home while the request that ordered it was still waiting for the second answer.
    assert_eq!((&answer["tasks"][0]["status"], &answer["tasks"][1]["status"]), (&json!("completed"), &json!("pending")), "{answer}");
    ada.wait_completed(answer["tasks"][0]["task_no"].as_str().unwrap()).await;
    assert_eq!(ada.credits().await, 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_its_way_to_the_provider_cannot_be_cancelled() {
    let world = World::new().await;
    world.fault(Fault::KieCreateHangs { ms: 1_500, creates: true });
    let (ada, upload) = ada(&world).await;
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"]});
    let order = ada.post_json(202, "/api/tasks", &body);
    let cancel = async {
        let stored = async || {
            let rows = world.sql("SELECT task_no FROM ai_tasks");
            rows.first().map(|row| row[0].as_str().unwrap().to_owned()).ok_or_else(|| "no task".to_owned())
        };
        let task = world.until("the task to be stored", stored).await;
        ada.post(409, &format!("/api/tasks/{task}/cancel")).await.problem("conflict");
        task
    };
    let (_, task) = futures::join!(order, cancel);
    ada.wait_completed(&task).await;
    assert_eq!(ada.credits().await, 2);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_the_provider_has_not_got_can_be_cancelled() {
    let world = World::new().await;
    let (ada, _) = ada(&world).await;
    world.fault(Fault::KieCreateAnswers { code: 429, msg: None, http_status: None });
    let task = ada.order_one().await;
    assert_eq!(ada.credits().await, 2);
    let path = format!("/api/tasks/{task}/cancel");
    let cancelled = ada.post(200, &path).await.json()["task"].clone();
    assert_eq!((&cancelled["status"], &cancelled["failure_reason"]), (&json!("failed"), &json!("cancelled")));
    assert_eq!(ada.credits().await, 3);
    ada.post(409, &path).await.problem("conflict");
    // It is not handed over afterwards.
    world.control().clear_faults();
    world.db_tasks_are_due();
    world.sweep().await;
    assert_eq!((world.control().kie_tasks().len(), ada.credits().await), (0, 3));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_under_way_or_over_cannot_be_cancelled() {
    let world = World::new().await;
    let (ada, _) = ada(&world).await;
    world.fault(Fault::KieDelay { ms: 600_000 }.once());
    let running = ada.order_one().await;
    ada.post(409, &format!("/api/tasks/{running}/cancel")).await.problem("conflict");
    assert_eq!(ada.task(&running).await["status"], "processing");
    let done = ada.order_one().await;
    ada.wait_completed(&done).await;
    ada.post(409, &format!("/api/tasks/{done}/cancel")).await.problem("conflict");
    ada.post(404, "/api/tasks/TASK_1_abcdef/cancel").await.problem("not_found");
    assert_eq!(ada.credits().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let (ada, _) = ada(&world).await;
    let tasks = ada.order(&["bob-cut", "afro", "quiff"]).await;
    for task in &tasks {
        ada.wait_completed(task).await;
    }
    let numbers = |answer: Value| {
        answer["tasks"].as_array().unwrap().iter().map(|task| task["task_no"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let newest_first: Vec<_> = tasks.iter().rev().cloned().collect();
    assert_eq!(numbers(ada.get(200, "/api/tasks").await.json()), newest_first);
    assert_eq!(numbers(ada.get(200, "/api/tasks?limit=1&offset=1").await.json()), newest_first[1..2]);
    assert_eq!(numbers(ada.get(200, "/api/tasks?offset=3").await.json()), Vec::<String>::new());
}

async fn with_words(person: &Person, words: &str) -> e2e::Answer {
    let upload = person.any_upload().await;
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"], "detail": words});
    person.ask(person.request(Method::POST, "/api/tasks").json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_own_words_are_checked_before_anything_is_charged() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let allowed = with_words(&ada, "a little shorter").await;
    assert_eq!(allowed.status, 202, "{allowed}");
    for words in ["something [deny] this", "something [flag] that"] {
        let answer = with_words(&ada, words).await;
        assert_eq!((answer.status, answer.wrong_fields()), (422, vec!["detail".to_owned()]), "{answer}");
    }
    assert_eq!(ada.credits().await, 2);
    assert_eq!(world.control().kie_tasks().len(), 1);
    // The verdicts are kept, the words are not.
    let verdicts = world.sql("SELECT decision, provider_id FROM prompt_verdicts ORDER BY id");
    let decisions: Vec<_> = verdicts.iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(decisions, ["allow", "deny", "flag"]);
    let noted = world.sql_text("SELECT input_params ->> 'moderation' FROM ai_tasks");
    assert_eq!(noted, verdicts[0][1].as_str().unwrap());
    assert_eq!(world.events("prompt_refused").len(), 2);
    // Without words there is nothing to ask.
    let asked = world.heard(sandbox::Service::Creem, "/v1/moderation/prompt");
    ada.order_one().await;
    assert_eq!(world.heard(sandbox::Service::Creem, "/v1/moderation/prompt"), asked);
    assert_eq!(asked, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_verdict_nothing_is_made_and_nothing_is_charged() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for fault in [Fault::CreemApiAnswers { status: 500 }, Fault::CreemApiAnswers { status: 403 }, Fault::CreemApiSlow { ms: 60_000 }] {
        world.control().clear_faults();
        world.fault(fault.clone());
        let answer = with_words(&ada, "a little shorter").await;
        assert_eq!(answer.status, 502, "{fault:?}: {answer}");
        answer.problem("provider_unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
    world.control().clear_faults();
    // It answers, and says nothing, or something that nobody has heard of.
    for decision in [None, Some(""), Some("ALLOW"), Some("probably"), Some("allow, said ada@example.com")] {
        world.control().clear_faults();
        world.fault(Fault::CreemModerationDecides { decision: decision.map(str::to_owned) });
        let answer = with_words(&ada, "a little shorter").await;
        assert_eq!((answer.status, answer.wrong_fields()), (422, vec!["detail".to_owned()]), "{decision:?}: {answer}");
    }
    world.control().clear_faults();
    let kept = world.sql("SELECT group_concat(decision) FROM (SELECT decision FROM prompt_verdicts ORDER BY id)");
    assert_eq!(kept[0][0], "none,other,other,other,other", "what it says is kept in words of ours");
    assert_eq!(ada.credits().await, 3);
    assert_eq!(world.sql_number("SELECT count(*) FROM ai_tasks"), 0);
    // Orders without words do not depend on it.
    ada.order_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_shows_its_photo_for_as_long_as_that_is_kept() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let order = json!({"upload_id": upload["id"], "hairstyles": ["bob-cut"]});
    let ordered = ada.post_json(202, "/api/tasks", &order).await.json()["tasks"][0].clone();
    assert_eq!(ordered["source_url"], upload["url"], "{ordered}");
    world.fault(Fault::KieDelay { ms: 600_000 });
    let running = ada.post_json(202, "/api/tasks", &order).await.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
    let done = ada.wait_completed(ordered["task_no"].as_str().unwrap()).await;
    assert_eq!(done["source_url"], upload["url"]);
    assert!(!ada.download(done["source_url"].as_str().unwrap()).await.is_empty());
    let with_photo = ada.get(200, &format!("/api/tasks/{running}")).await;
    assert_eq!(with_photo.json()["task"]["source_url"], upload["url"]);
    ada.delete(204, &format!("/api/uploads/{}", upload["id"].as_str().unwrap())).await;
    let without = ada.get(200, &format!("/api/tasks/{running}")).await;
    assert_eq!(without.json()["task"]["source_url"], Value::Null);
    assert_ne!(without.header("etag"), with_photo.header("etag"));
    for task in ada.get(200, "/api/tasks").await.json()["tasks"].as_array().unwrap() {
        assert_eq!(task["source_url"], Value::Null, "{task}");
    }
}
