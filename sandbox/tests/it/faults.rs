//! The control endpoint over HTTP.

use serde_json::{Value, json};

use crate::{Bench, client, sandbox};

async fn send(bench: &Bench, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}{path}", bench.places().control);
    let answer = client().request(method.parse().unwrap(), url).body(body.to_string()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn faults_are_set_listed_used_up_and_cleared() {
    let bench = sandbox().await;
    let fault = json!({ "fault": "creem.api_answers", "status": 503, "times": 2, "match": "/v1/products" });
    let (status, active) = send(&bench, "POST", "/control/faults", &fault).await;
    assert_eq!((status, &active[0]["fault"], &active[0]["times"]), (200, &json!("creem.api_answers"), &json!(2)));
    let ask =
        || client().get(format!("{}/v1/products", bench.places().creem)).header("x-api-key", &bench.variables()["creem_api_key"]).send();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(ask().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [503, 503, 200]);
    send(&bench, "POST", "/control/faults", &json!([{ "fault": "kie.no_callback" }, { "fault": "s3.slow", "ms": 1 }])).await;
    assert_eq!(bench.control().faults().len(), 2);
    assert_eq!(send(&bench, "DELETE", "/control/faults", &Value::Null).await.0, 204);
    assert!(bench.control().faults().is_empty());
}

#[tokio::test]
async fn a_fault_that_nobody_knows_or_that_is_misspelt_is_refused() {
    let bench = sandbox().await;
    for wrong in [
        json!({ "fault": "kie.explodes" }),
        json!({ "fault": "kie.no_callback", "tims": 1 }),
        json!({ "fault": "kie.delay", "ms": "long" }),
        json!({ "fault": "kie.delay", "ms": 1, "times": "once" }),
        json!("kie.no_callback"),
        json!([{ "fault": "kie.no_callback" }, { "fault": "kie.explodes" }]),
    ] {
        assert_eq!(send(&bench, "POST", "/control/faults", &wrong).await.0, 422, "{wrong}");
    }
    assert!(bench.control().faults().is_empty());
}

#[tokio::test]
async fn a_rate_repeats_itself_with_its_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let bench = sandbox().await;
        send(&bench, "POST", "/control/faults", &json!({ "fault": "github.token_answers", "status": 500, "rate": 0.5, "seed": 7 })).await;
        let mut run = Vec::new();
        for _ in 0..32 {
            let answer = client().post(format!("{}/login/oauth/access_token", bench.places().github)).send().await.unwrap();
            run.push(answer.status().as_u16());
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&500) && runs[0].contains(&200));
}

#[tokio::test]
async fn what_was_heard_is_shown_without_secrets() {
    let bench = sandbox().await;
    client().get(format!("{}/o/oauth2/v2/auth?client_id=x&state=secret-state", bench.places().google)).send().await.unwrap();
    let (_, calls) = send(&bench, "GET", "/control/calls?service=google", &Value::Null).await;
    assert_eq!((&calls[0]["path"], &calls[0]["status"]), (&json!("/o/oauth2/v2/auth"), &json!(401)));
    assert!(!calls.to_string().contains("secret-state"));
    let page = client().get(format!("{}/", bench.places().control)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("/o/oauth2/v2/auth") && !page.contains("secret-state"));
    assert_eq!(send(&bench, "DELETE", "/control/calls", &Value::Null).await.0, 204);
    assert!(bench.control().calls().is_empty());
}

#[tokio::test]
async fn settings_credentials_and_the_rest_have_their_routes() {
    let bench = sandbox().await;
    let (status, settings) = send(&bench, "PATCH", "/control/settings", &json!({ "kie_delay_ms": 7 })).await;
    assert_eq!((status, &settings["kie_delay_ms"], &settings["kie_picture_px"]), (200, &json!(7), &json!(160)));
    assert_eq!(send(&bench, "PATCH", "/control/settings", &json!({ "kie_delay": 7 })).await.0, 422);
    assert_eq!(send(&bench, "PUT", "/control/app-url", &json!({ "url": "http://127.0.0.1:4000" })).await.0, 204);
    let (_, state) = send(&bench, "GET", "/control", &Value::Null).await;
    assert_eq!(state["app_url"], "http://127.0.0.1:4000/");
    let (status, minted) = send(&bench, "POST", "/control/google/credential", &json!({ "email": "ada@example.com" })).await;
    assert!(status == 200 && minted["credential"].as_str().unwrap().split('.').count() == 3);
    assert_eq!(send(&bench, "POST", "/control/google/credential", &json!({})).await.0, 422);
    assert_eq!(send(&bench, "POST", "/control/creem/events", &json!({ "id": "ch_0", "event": "pay" })).await.0, 404);
    assert_eq!(send(&bench, "POST", "/control/creem/events", &json!({ "event": "pay" })).await.0, 422);
    assert_eq!(send(&bench, "POST", "/control/creem/events", &json!({ "id": "ch_0", "event": "explode" })).await.0, 422);
    assert_eq!(send(&bench, "POST", "/control/kie/balance", &json!({ "credits": 3 })).await.0, 204);
    assert_eq!(bench.control().kie_balance(), 3.0);
    assert_eq!(send(&bench, "POST", "/control/s3/age", &json!({ "prefix": "x/", "days": 30 })).await.1["aged"], 0);
    assert_eq!(send(&bench, "POST", "/control/reset", &json!({ "bucket": true })).await.0, 204);
    for path in [
        "/control/kie/tasks",
        "/control/creem/checkouts",
        "/control/creem/subscriptions",
        "/control/creem/events",
        "/control/deliveries",
        "/control/s3/objects",
    ] {
        assert_eq!(send(&bench, "GET", path, &Value::Null).await, (200, json!([])), "{path}");
    }
    assert_eq!(send(&bench, "GET", "/nothing", &Value::Null).await.0, 404);
}

#[test]
fn the_documentation_shows_every_fault_and_each_line_works() {
    let documentation = include_str!("../../../docs/sandbox.md");
    let lines = documentation.lines().filter_map(|line| line.trim().strip_prefix("fault '")?.split('\'').next());
    let mut shown = Vec::new();
    for line in lines {
        let rule = sandbox::Rule::from_json(serde_json::from_str(line).unwrap()).unwrap_or_else(|e| panic!("{line}: {e}"));
        shown.push(serde_json::to_value(&rule).unwrap()["fault"].as_str().unwrap().to_owned());
    }
    let names =
        include_str!("../../src/fault.rs").lines().filter_map(|line| line.trim().strip_prefix("#[serde(rename = \"")?.split('"').next());
    for name in names.filter(|name| name.contains('.')) {
        assert!(shown.iter().any(|s| s == name), "docs/sandbox.md does not show {name}");
    }
}
