//! A picture is asked for, made, asked about, called back and fetched, in the words of all three APIs.

use sandbox::{Fault, ServedResult, signature};
use serde_json::{Value, json};

use crate::{App, Bench, app, client, eventually, sandbox};

const PHOTO: &[u8] = include_bytes!("../../testdata/portrait.jpg");

/// Somewhere the photo can be fetched from.
async fn photo_place() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/photo.jpg?signed=yes", listener.local_addr().unwrap());
    let redirect = axum::response::Redirect::permanent("/photo.jpg");
    let router = axum::Router::new()
        .route("/photo.jpg", axum::routing::get(|| async { PHOTO }))
        .route("/moved.jpg", axum::routing::get(|| async { redirect }))
        .route("/text.jpg", axum::routing::get(|| async { "no picture" }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn post(bench: &Bench, path: &str, body: Value) -> Value {
    let variables = bench.variables();
    let answer = client()
        .post(format!("{}{path}", variables["kie_base_url"]))
        .bearer_auth(&variables["kie_api_key"])
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn ask(bench: &Bench, path: &str, id: &str) -> Value {
    let variables = bench.variables();
    let url = format!("{}{path}?taskId={id}", variables["kie_base_url"]);
    client().get(url).bearer_auth(&variables["kie_api_key"]).send().await.unwrap().json().await.unwrap()
}

/// Asks until the picture is done.
async fn done(bench: &Bench, path: &str, id: &str) -> Value {
    for _ in 0..500 {
        let record = ask(bench, path, id).await;
        let data = &record["data"];
        if data["successFlag"].as_i64().is_some_and(|f| f > 0) || matches!(data["state"].as_str(), Some("success" | "fail")) {
            return data.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the task did not end");
}

const GENERATE: &str = "/api/v1/gpt4o-image/generate";
const RECORD: &str = "/api/v1/gpt4o-image/record-info";

async fn order_4o(bench: &Bench, app: &App, prompt: &str) -> String {
    let photo = photo_place().await;
    let callback = app.url.join("/webhooks/kie/1").unwrap();
    let order = json!({ "prompt": prompt, "size": "1:1", "filesUrl": [photo], "callBackUrl": callback.as_str() });
    let answer = post(bench, GENERATE, order).await;
    assert_eq!(answer["code"], 200, "{answer}");
    answer["data"]["taskId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_4o_picture_is_made_and_called_back_with_a_signature() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    bench.control().fault(Fault::KieDelay { ms: 300 }.once());
    let id = order_4o(&bench, &app, "a bob cut, red").await;
    let running = ask(&bench, RECORD, &id).await["data"].clone();
    assert_eq!(running["status"], "GENERATING");
    assert!(running["progress"].is_string() && running["response"].is_null());

    let heard = app.hears(1).await.remove(0);
    assert_eq!(heard.path, "/webhooks/kie/1");
    let timestamp: i64 = heard.header("x-webhook-timestamp").parse().unwrap();
    let key = &bench.variables()["kie_webhook_hmac_key"];
    assert_eq!(heard.header("x-webhook-signature"), signature::kie_callback(key, &id, timestamp));
    assert_eq!(heard.json()["data"]["taskId"], id);

    let data = done(&bench, RECORD, &id).await;
    assert_eq!((&data["status"], &data["successFlag"], &data["progress"]), (&json!("SUCCESS"), &json!(1), &json!("1.00")));
    let url = data["response"]["resultUrls"][0].as_str().unwrap();
    assert_eq!(heard.json()["data"]["info"]["result_urls"][0], url);
    assert!(url.starts_with(&bench.variables()["kie_result_host"]));
    let picture = client().get(url).send().await.unwrap();
    assert_eq!(picture.headers()["content-type"], "image/png");
    let picture = picture.bytes().await.unwrap();
    let picture = image::load_from_memory(&picture).unwrap();
    assert_eq!(picture.width(), picture.height());

    let parameters: Value = serde_json::from_str(data["paramJson"].as_str().unwrap()).unwrap();
    assert_eq!(parameters["prompt"], "a bob cut, red");
    let link = post(&bench, "/api/v1/gpt4o-image/download-url", json!({ "taskId": id, "url": url })).await;
    assert!(link["data"].as_str().unwrap().starts_with(url));
    assert_eq!(bench.control().kie_balance(), 5_910.25);
}

#[tokio::test]
async fn a_kontext_picture_is_made() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    let order = json!({ "prompt": "curls", "inputImage": photo_place().await, "outputFormat": "jpeg", "callBackUrl": app.url.as_str() });
    let answer = post(&bench, "/api/v1/flux/kontext/generate", order).await;
    let id = answer["data"]["taskId"].as_str().unwrap();
    let data = done(&bench, "/api/v1/flux/kontext/record-info", id).await;
    assert_eq!(data["successFlag"], 1);
    assert!(data["completeTime"].is_string() && data.get("status").is_none());
    let url = data["response"]["resultImageUrl"].as_str().unwrap();
    assert_eq!(client().get(url).send().await.unwrap().headers()["content-type"], "image/jpeg");
    assert_eq!(app.hears(1).await[0].json()["data"]["info"]["resultImageUrl"], url);
    // A task of one API is unknown to the others.
    assert_eq!(ask(&bench, RECORD, id).await["code"], 422);
}

#[tokio::test]
async fn a_market_job_is_done() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    let input = json!({ "prompt": "curls", "image_urls": [photo_place().await], "output_format": "png", "aspect_ratio": "auto" });
    let order = json!({ "model": "google/nano-banana-edit", "callBackUrl": app.url.as_str(), "input": input });
    let answer = post(&bench, "/api/v1/jobs/createTask", order).await;
    assert_eq!(answer["data"]["taskId"], answer["data"]["recordId"]);
    let data = done(&bench, "/api/v1/jobs/recordInfo", answer["data"]["taskId"].as_str().unwrap()).await;
    assert_eq!(data["state"], "success");
    let result: Value = serde_json::from_str(data["resultJson"].as_str().unwrap()).unwrap();
    assert_eq!(client().get(result["resultUrls"][0].as_str().unwrap()).send().await.unwrap().status(), 200);
    let param: Value = serde_json::from_str(data["param"].as_str().unwrap()).unwrap();
    let inner: Value = serde_json::from_str(param["input"].as_str().unwrap()).unwrap();
    assert_eq!(inner["prompt"], "curls");
    let heard = app.hears(1).await[0].json();
    assert_eq!((&heard["code"], &heard["data"]["state"]), (&json!(200), &json!("success")));
}

#[tokio::test]
async fn orders_are_checked_as_the_real_one_does() {
    let bench = sandbox().await;
    let answer = client().post(format!("{}{GENERATE}", bench.places().kie)).bearer_auth("wrong").json(&json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], 401);
    for (path, order) in [
        (GENERATE, json!({ "prompt": "x" })),
        (GENERATE, json!({ "size": "1:1" })),
        (GENERATE, json!({ "prompt": "x", "size": "5:4" })),
        (GENERATE, json!({ "prompt": "x", "size": "1:1", "filesUrl": ["not a url"] })),
        (GENERATE, json!({ "prompt": "x", "size": "1:1", "nVariants": 3 })),
        ("/api/v1/flux/kontext/generate", json!({ "inputImage": "http://127.0.0.1/x.jpg" })),
        ("/api/v1/jobs/createTask", json!({ "model": "unheard/of", "input": { "prompt": "x" } })),
        ("/api/v1/jobs/createTask", json!({ "model": "google/nano-banana-edit", "input": { "prompt": "x" } })),
        ("/api/v1/jobs/createTask", json!({ "model": "nano-banana-pro", "input": { "prompt": "x", "output_format": "jpeg" } })),
    ] {
        assert_eq!(post(&bench, path, order.clone()).await["code"], 422, "{path} {order}");
    }
    assert_eq!(ask(&bench, RECORD, "nothing").await["msg"], "The record does not exist");
    bench.control().change_settings(|s| s.kie_rate_limit = true);
    let mut codes = Vec::new();
    for _ in 0..21 {
        codes.push(post(&bench, GENERATE, json!({ "prompt": "x", "size": "1:1" })).await["code"].as_i64().unwrap());
    }
    assert_eq!(codes.iter().filter(|c| **c == 429).count(), 1);
    bench.control().set_kie_balance(1.0);
    bench.control().change_settings(|s| s.kie_rate_limit = false);
    assert_eq!(post(&bench, GENERATE, json!({ "prompt": "x", "size": "1:1" })).await["code"], 402);
}

#[tokio::test]
async fn a_photo_that_cannot_be_had_fails_the_task() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    let photo = photo_place().await;
    let missing = photo.replace("photo.jpg", "missing.jpg");
    let moved = photo.replace("photo.jpg", "moved.jpg");
    let text = photo.replace("photo.jpg", "text.jpg");
    for (url, code) in [(missing, 451), (moved, 451), (text, 400)] {
        let order = json!({ "prompt": "x", "size": "1:1", "filesUrl": [url], "callBackUrl": app.url.as_str() });
        let answer = post(&bench, GENERATE, order).await;
        let data = done(&bench, RECORD, answer["data"]["taskId"].as_str().unwrap()).await;
        assert_eq!((&data["successFlag"], &data["errorCode"]), (&json!(2), &json!(code)));
    }
    let codes: Vec<i64> = app.hears(3).await.iter().map(|h| h.json()["code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [451, 451, 400]);
    assert_eq!(bench.control().kie_balance(), 5_916.25);
}

#[tokio::test]
async fn a_refused_callback_is_tried_again_three_times_at_most() {
    let (bench, healing, deaf) = (sandbox().await, app(&[500, 500, 200]).await, app(&[500]).await);
    order_4o(&bench, &healing, "heals").await;
    healing.hears(3).await;
    order_4o(&bench, &deaf, "never").await;
    deaf.hears(4).await;
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!((healing.heard().len(), deaf.heard().len()), (3, 4));
    let tries: Vec<u32> = bench
        .control()
        .deliveries()
        .iter()
        .filter(|d| d.url == deaf.url.join("/webhooks/kie/1").unwrap().as_str())
        .map(|d| d.attempt)
        .collect();
    assert_eq!(tries, [1, 2, 3, 4]);
}

#[tokio::test]
async fn callbacks_go_wrong_as_told() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    let control = bench.control();
    let key = bench.variables()["kie_webhook_hmac_key"].clone();
    let rightly = |h: &crate::Received| {
        let id = h.json()["data"]["taskId"].as_str().unwrap().to_owned();
        h.header("x-webhook-signature") == signature::kie_callback(&key, &id, h.header("x-webhook-timestamp").parse().unwrap_or(0))
    };
    control.fault(Fault::KieWrongSignature.matching("wrong"));
    control.fault(Fault::KieNoSignature.matching("bare"));
    control.fault(Fault::KieDuplicateCallback { copies: 3 }.matching("thrice"));
    control.fault(Fault::KieNoCallback.matching("silent"));
    control.fault(Fault::KieCallbackLies { urls: None, code: None }.matching("lies"));

    order_4o(&bench, &app, "wrong").await;
    assert!(!rightly(&app.hears(1).await[0]));
    order_4o(&bench, &app, "bare").await;
    assert_eq!(app.hears(2).await[1].header("x-webhook-signature"), "");
    order_4o(&bench, &app, "thrice").await;
    assert!(app.hears(5).await[2..].iter().all(rightly));
    let id = order_4o(&bench, &app, "lies").await;
    let told = app.hears(6).await[5].json()["data"]["info"]["result_urls"][0].clone();
    let truth = done(&bench, RECORD, &id).await["response"]["resultUrls"][0].clone();
    assert_ne!(told, truth);
    assert_eq!(client().get(told.as_str().unwrap()).send().await.unwrap().status(), 200);
    let id = order_4o(&bench, &app, "silent").await;
    done(&bench, RECORD, &id).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(app.heard().len(), 6);
}

#[tokio::test]
async fn answers_and_results_go_wrong_as_told() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    let control = bench.control();
    control.fault(Fault::KieCreateAnswers { code: 429, msg: None, http_status: None }.once());
    let order = json!({ "prompt": "x", "size": "1:1" });
    assert_eq!(post(&bench, GENERATE, order.clone()).await["code"], 429);
    control.fault(Fault::KieCreateHangs { ms: 20, creates: true }.once());
    let variables = bench.variables();
    let lost = client().post(format!("{}{GENERATE}", variables["kie_base_url"])).bearer_auth(&variables["kie_api_key"]).json(&order);
    let answer = match lost.send().await {
        Ok(answer) => answer.bytes().await,
        Err(e) => Err(e),
    };
    assert!(answer.is_err());
    assert_eq!(control.kie_tasks().len(), 1);

    control.fault(Fault::KieFail { code: 501, msg: None }.once());
    let id = order_4o(&bench, &app, "fails").await;
    assert_eq!(done(&bench, RECORD, &id).await["errorCode"], 501);

    let id = order_4o(&bench, &app, "works").await;
    let data = done(&bench, RECORD, &id).await;
    control.fault(Fault::KieUnknownState { state: "PONDERING".into() }.once());
    assert_eq!(ask(&bench, RECORD, &id).await["data"]["status"], "PONDERING");
    control.fault(Fault::KieRecordAnswers { code: 500, msg: None, http_status: Some(500) }.once());
    assert_eq!(ask(&bench, RECORD, &id).await["code"], 500);

    let url = data["response"]["resultUrls"][0].as_str().unwrap();
    let result_is = |serves| Fault::KieResultIs { serves, to: None, bytes: Some(1 << 20), status: None, ms: None }.once();
    let fetch = || client().get(url).send();
    control.fault(result_is(ServedResult::Html));
    assert_eq!(fetch().await.unwrap().headers()["content-type"], "text/html; charset=utf-8");
    control.fault(result_is(ServedResult::NotFound));
    assert_eq!(fetch().await.unwrap().status(), 404);
    control.fault(result_is(ServedResult::Redirect));
    let redirect = fetch().await.unwrap();
    assert_eq!(redirect.status(), 301);
    assert_eq!(client().get(redirect.headers()["location"].to_str().unwrap()).send().await.unwrap().status(), 200);
    control.fault(result_is(ServedResult::Huge));
    let huge = fetch().await.unwrap();
    assert!(huge.content_length().is_none());
    assert!(huge.bytes().await.unwrap().len() > 1 << 20);
    control.fault(result_is(ServedResult::Truncated));
    assert!(fetch().await.unwrap().bytes().await.is_err());
    assert!(image::load_from_memory(&fetch().await.unwrap().bytes().await.unwrap()).is_ok());
    eventually(|| control.faults().is_empty().then_some(())).await;
}
