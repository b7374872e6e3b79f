//! What an operator can see: one line for each request with what it cost, the calls it made outside, and the trace they belong to.

use e2e::kie::Callback;
use e2e::{Answer, Calls, World, photos};
use http::Method;
use sandbox::{Fault, Service};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The line about a request.
fn line(world: &World, answer: &Answer) -> Value {
    let id = answer.header("x-request-id");
    let lines: Vec<_> = world.events("request").into_iter().filter(|line| line["request_id"] == id).collect();
    assert_eq!(lines.len(), 1, "{answer}{}", world.tail());
    lines[0].clone()
}

/// What its line says it cost, which should be what the host counted.
fn counted(world: &World, answer: &Answer) -> Value {
    let line = line(world, answer);
    let number = |name: &str| line[name].as_u64().unwrap();
    assert_eq!(Calls { sqlite: number("sqlite"), kv: number("kv"), http: number("http") }, answer.calls(), "{line} {answer}");
    let services = line["services"].as_object().unwrap();
    assert_eq!(services.values().map(|cost| cost["calls"].as_u64().unwrap()).sum::<u64>(), number("http"), "{line}");
    // The header tells the client the same numbers, and no names.
    let timing = answer.header("server-timing");
    for (name, field) in [("db", "sqlite"), ("kv", "kv"), ("out", "http")] {
        let part = timing.split(", ").find(|part| part.starts_with(&format!("{name};dur=")));
        let told = part.map_or(0, |part| part.split("desc=\"").nth(1).unwrap().trim_end_matches('"').parse().unwrap());
        assert_eq!(told, number(field), "{timing}");
    }
    // Waiting is part of the whole, whatever went side by side.
    for field in ["sqlite_ms", "kv_ms", "http_ms"] {
        assert!(line[field].as_f64().unwrap() <= line["ms"].as_f64().unwrap() + 0.2, "{line}");
    }
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_s_line_counts_what_the_host_counts() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for path in [
        "/api/me",
        "/api/me/credits",
        "/api/tasks",
        "/api/uploads",
        "/api/orders",
        "/api/products",
        "/auth/session",
        "/health",
        "/api/hairstyles",
    ] {
        let line = counted(&world, &ada.get(200, path).await);
        assert_eq!((&line["level"], &line["method"], &line["status"]), (&json!("info"), &json!("GET"), &json!(200)));
        assert!(line["at"].as_i64().unwrap() / 1_000 - e2e::now() < 60 && line["component"].is_string(), "{line}");
    }
    let line = counted(&world, &ada.send(201, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await);
    assert_eq!((&line["services"]["storage"]["calls"], &line["user"]), (&json!(1), &json!(ada.id().await)));

    // Several pictures are handed over side by side.
    let upload = ada.any_upload().await;
    world.fault(Fault::KieNoCallback);
    let answer = ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["bob-cut", "afro"]})).await;
    let line = counted(&world, &answer);
    assert_eq!((&line["services"]["kie"]["calls"], &line["route"], &line["path"]), (&json!(2), &json!("/api/tasks"), &json!("/api/tasks")));
    world.until_done_at_provider().await;
    let task = answer.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
    let line = counted(&world, &Callback::about(&world, &task).send(&world, 200).await);
    let services: Vec<_> = line["services"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(services, ["kie", "kie_result", "storage"]);
    assert_eq!(
        (&line["route"], &line["path"], &line["user"]),
        (&json!("/webhooks/kie/:task_id"), &json!("/webhooks/kie/*"), &json!(ada.id().await))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_share_an_instance_are_told_apart() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let stranger = world.stranger();
    let both = (0..24).map(|number| {
        let (ada, stranger) = (&ada, &stranger);
        async move { if number % 2 == 0 { ada.get(200, "/api/tasks").await } else { stranger.get(401, "/api/tasks/TASK_1").await } }
    });
    for answer in futures::future::join_all(both).await {
        let line = counted(&world, &answer);
        assert_eq!(line["user"].is_null(), answer.status == 401, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_why_in_its_line_and_counts_that_too() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.storage_down();
    let answer = ada.send(503, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    let line = counted(&world, &answer);
    assert_eq!(
        (&line["level"], &line["code"], &line["route"]),
        (&json!("error"), &json!("storage_unavailable"), &json!("/api/uploads/..."))
    );
    assert!(line["cause"].as_str().unwrap().contains("503"), "{line}");
    assert_eq!(world.sql_number("SELECT errors FROM request_errors WHERE component = 'upload'"), 1);
    // Each try of the call has its own line.
    let id = answer.header("x-request-id");
    let calls: Vec<_> =
        world.events("outbound_call").into_iter().filter(|line| line["request_id"] == id && line["method"] == "PUT").collect();
    assert_eq!(calls.iter().map(|call| call["attempt"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(calls.iter().all(|call| call["trace_id"] == line["trace_id"] && call["bytes_sent"].as_u64().unwrap() > 1_000), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_carried_on_to_everybody_who_is_called() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    let before = (world.control().calls_to(Service::Kie).len(), world.control().calls_to(Service::S3).len());
    let traced = |request: reqwest::RequestBuilder| {
        request.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).header("tracestate", "vendor=x")
    };
    let order = ada.request(Method::POST, "/api/tasks").json(&json!({"upload_id": upload, "hairstyles": ["bob-cut"]}));
    let answer = ada.send(202, traced(order)).await;
    let line = line(&world, &answer);
    assert_eq!((&line["trace_id"], &line["parent_id"]), (&json!(TRACE), &json!(PARENT)));
    let span = line["span_id"].as_str().unwrap();
    assert!(span.len() == 16 && span != PARENT, "{line}");
    let asked = &world.control().calls_to(Service::Kie)[before.0];
    assert_eq!(asked.traceparent.as_deref(), Some(format!("00-{TRACE}-{span}-01").as_str()), "{asked:?}");

    // Signed requests to the bucket carry it too, and are as good as before.
    ada.send(201, traced(ada.upload_request("image/jpeg", photos::read("portrait.jpg")))).await;
    let stored = &world.control().calls_to(Service::S3)[before.1..];
    assert!(
        stored.iter().any(|call| call.method == "PUT"
            && call.status == Some(200)
            && call.traceparent.as_deref().unwrap_or_default().contains(TRACE)),
        "{stored:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_trace_or_with_a_strange_one_a_new_one_begins() {
    let world = World::new().await;
    let stranger = world.stranger();
    let mut seen = std::collections::BTreeSet::new();
    for strange in [
        "",
        "00-0-0-00",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        let answer = stranger.send(200, stranger.request(Method::GET, "/api/hairstyles").header("traceparent", strange)).await;
        let line = line(&world, &answer);
        assert_eq!(line["parent_id"], Value::Null, "{strange}");
        let trace = line["trace_id"].as_str().unwrap().to_owned();
        assert!(trace.len() == 32 && trace != TRACE, "{line}");
        assert!(seen.insert(trace), "{line}");
    }
    assert_eq!(seen.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_request_names_it() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let lines: Vec<Value> = world.logs().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ours: Vec<_> = lines.iter().filter(|line| line["event"] != "access").collect();
    assert!(
        ours.iter().any(|line| line["event"] == "task_handed_over") && ours.iter().any(|line| line["event"] == "outbound_call"),
        "{ours:?}"
    );
    for line in ours {
        assert!(line["request_id"].is_string() && line["trace_id"].is_string() && line["at"].is_i64(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_is_followed_in_the_log() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemApiAnswers { status: 503 });
    let buy = async || ada.ask(ada.request(Method::POST, "/api/orders").json(&json!({"product_id": "credits-10"}))).await.status;
    for _ in 0..5 {
        assert_eq!(buy().await, 502);
    }
    world.control().clear_faults();
    // Half a minute later.
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let state = json!({"expires_at": e2e::now() + 600, "value": {"failures": 5, "closed_until": e2e::now() - 1}}).to_string().into_bytes();
    store.execute("UPDATE spin_key_value SET value = ?1 WHERE key = 'breaker:creem'", [state]).unwrap();
    assert_eq!(buy().await, 201);
    for event in ["provider_left_alone", "provider_tried_again", "provider_works_again"] {
        let told = world.events(event);
        assert_eq!(told.len(), 1, "{event}: {told:?}");
        assert_eq!(told[0]["provider"], "creem");
    }
}
