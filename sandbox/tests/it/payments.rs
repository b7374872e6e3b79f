//! A checkout is made, paid, told about, renewed, refunded.

use std::collections::BTreeMap;

use sandbox::{Fault, FireError, PaymentEvent, signature};
use serde_json::{Value, json};
use url::Url;

use crate::{App, Bench, Received, app, client, sandbox};

async fn call(bench: &Bench, method: http::Method, path: &str, body: Value) -> (u16, Value) {
    let variables = bench.variables();
    let request = client()
        .request(method, format!("{}{path}", variables["creem_base_url"]))
        .header("x-api-key", &variables["creem_api_key"])
        .json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(bench: &Bench, path: &str) -> Value {
    call(bench, http::Method::GET, path, Value::Null).await.1
}

async fn checkout(bench: &Bench, app: &App, product: &str) -> Value {
    let order = json!({
        "product_id": product, "request_id": "job_42", "success_url": app.url.join("/callback/payment").unwrap().as_str(),
        "customer": { "email": "ada@example.com" }, "metadata": { "user_id": "u1" },
    });
    let (status, checkout) = call(bench, http::Method::POST, "/v1/checkouts", order).await;
    assert_eq!(status, 200, "{checkout}");
    checkout
}

/// The event, if its signature is right.
fn verified(bench: &Bench, heard: &Received) -> Value {
    assert_eq!(heard.path, "/webhooks/creem");
    let expected = signature::creem_webhook(&bench.variables()["creem_webhook_secret"], &heard.body);
    assert_eq!(heard.header("creem-signature"), expected);
    heard.json()
}

fn kinds(heard: &[Received]) -> Vec<String> {
    heard.iter().map(|h| h.json()["eventType"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_pack_is_paid_in_the_browser() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    bench.set_app_url(app.url.clone());
    let made = checkout(&bench, &app, "prod_credits_10").await;
    assert_eq!((&made["status"], &made["product"]), (&json!("pending"), &json!("prod_credits_10")));
    let page = made["checkout_url"].as_str().unwrap();
    assert!(client().get(page).send().await.unwrap().text().await.unwrap().contains("Pay"));
    let declined = client().post(format!("{page}/decline")).send().await.unwrap().text().await.unwrap();
    assert!(declined.contains("declined"));
    assert!(app.heard().is_empty());

    let paid = client().post(format!("{page}/pay")).send().await.unwrap();
    assert_eq!(paid.status(), 303);
    let back = Url::parse(paid.headers()["location"].to_str().unwrap()).unwrap();
    assert!(back.as_str().starts_with(app.url.join("/callback/payment").unwrap().as_str()));
    let query: Vec<(String, String)> = back.query_pairs().into_owned().collect();
    let names: Vec<&str> = query.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["request_id", "checkout_id", "order_id", "customer_id", "product_id", "signature"]);
    let signed: Vec<(&str, &str)> = query[..5].iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(query[5].1, signature::creem_return(&signed, &bench.variables()["creem_api_key"]));

    // The webhook has been tried before the buyer is sent back.
    let heard = app.heard();
    assert_eq!(kinds(&heard), ["checkout.completed"]);
    let event = verified(&bench, &heard[0]);
    let object = &event["object"];
    assert_eq!(object["request_id"], "job_42");
    assert_eq!(object["metadata"]["user_id"], "u1");
    assert_eq!(object["order"]["id"], query[2].1);
    assert_eq!((&object["order"]["amount_paid"], &object["order"]["type"]), (&json!(499), &json!("onetime")));
    assert_eq!(object["product"]["id"], "prod_credits_10");
    assert_eq!(object["customer"]["email"], "ada@example.com");
    assert!(object.get("subscription").is_none());

    let now = get(&bench, &format!("/v1/checkouts?checkout_id={}", made["id"].as_str().unwrap())).await;
    assert_eq!(now["status"], "completed");
    // A checkout is paid once.
    let again = bench.control().pay(made["id"].as_str().unwrap()).await;
    assert!(matches!(again, Err(FireError::Refused(_))));
    let transactions = get(&bench, &format!("/v1/transactions/search?order_id={}", query[2].1)).await;
    assert_eq!((&transactions["items"][0]["amount"], &transactions["pagination"]["total_records"]), (&json!(499), &json!(1)));
}

#[tokio::test]
async fn a_subscription_lives() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    bench.set_app_url(app.url.clone());
    let made = checkout(&bench, &app, "prod_pro_monthly").await;
    let control = bench.control();
    let paid = control.pay(made["id"].as_str().unwrap()).await.unwrap();
    assert!(paid.return_url.unwrap().contains("&subscription_id=sub_"));
    assert_eq!(kinds(&app.heard()), ["checkout.completed", "subscription.active", "subscription.paid"]);
    let first = verified(&bench, &app.heard()[2])["object"].clone();
    let id = first["id"].as_str().unwrap();
    assert_eq!(first["metadata"]["user_id"], "u1");
    assert_eq!(app.heard()[0].json()["object"]["subscription"]["id"], id);

    control.fire(id, PaymentEvent::Renew).await.unwrap();
    let second = app.heard()[3].json()["object"].clone();
    assert_eq!(second["current_period_start_date"], first["current_period_end_date"]);
    assert_ne!(second["last_transaction_id"], first["last_transaction_id"]);

    let (status, canceled) =
        call(&bench, http::Method::POST, &format!("/v1/subscriptions/{id}/cancel"), json!({ "mode": "scheduled" })).await;
    assert_eq!((status, &canceled["status"]), (200, &json!("scheduled_cancel")));
    app.hears(5).await;
    call(&bench, http::Method::POST, &format!("/v1/subscriptions/{id}/resume"), json!({})).await;
    app.hears(6).await;
    for event in [PaymentEvent::PastDue, PaymentEvent::Unpaid, PaymentEvent::Pause, PaymentEvent::Expire, PaymentEvent::Cancel] {
        control.fire(id, event).await.unwrap();
    }
    assert_eq!(
        kinds(&app.heard())[4..],
        [
            "subscription.scheduled_cancel",
            "subscription.update",
            "subscription.past_due",
            "subscription.unpaid",
            "subscription.paused",
            "subscription.expired",
            "subscription.canceled"
        ]
    );
    // As in the documented sample, the status of an expired one says nothing.
    assert_eq!(app.heard()[9].json()["object"]["status"], "active");
    assert_eq!(get(&bench, &format!("/v1/subscriptions?subscription_id={id}")).await["status"], "canceled");
    assert_eq!(control.subscriptions()[0].status, "canceled");
}

#[tokio::test]
async fn refunds_and_disputes_name_their_order() {
    let (bench, app) = (sandbox().await, app(&[200]).await);
    bench.control().change_settings(|s| s.creem_tax_percent = 25);
    bench.set_app_url(app.url.clone());
    let made = checkout(&bench, &app, "prod_credits_50").await;
    let control = bench.control();
    control.pay("job_42").await.unwrap_err();
    control.fire("job_42", PaymentEvent::Pay).await.unwrap();
    let order = control.checkouts()[0].order_id.clone().unwrap();
    control.fire(&order, PaymentEvent::Refund { amount: Some(1_000), status: None }).await.unwrap();
    let too_much = control.fire(&order, PaymentEvent::Refund { amount: Some(10_000), status: None }).await;
    assert!(matches!(too_much, Err(FireError::Refused(_))));
    control.fire(&order, PaymentEvent::Refund { amount: None, status: None }).await.unwrap();
    control.fire(&order, PaymentEvent::Dispute).await.unwrap();
    let heard = app.heard();
    assert_eq!(kinds(&heard)[1..], ["refund.created", "refund.created", "dispute.created"]);
    let amounts: Vec<i64> = heard[1..3].iter().map(|h| h.json()["object"]["refund_amount"].as_i64().unwrap()).collect();
    assert_eq!(amounts, [1_000, 1_498]);
    let refund = heard[1].json()["object"].clone();
    assert_eq!(refund["transaction"]["amount_paid"], 2_498);
    assert_eq!(refund["transaction"]["status"], "partialRefund");
    assert_eq!((&refund["order"]["id"], &refund["checkout"]["request_id"]), (&json!(order), &json!("job_42")));
    assert!(heard[3].json()["object"]["checkout"].get("request_id").is_none());
    assert_eq!(made["id"], heard[3].json()["object"]["checkout"]["id"]);
}

#[tokio::test]
async fn webhooks_are_repeated_until_taken_and_go_wrong_as_told() {
    let (bench, app) = (sandbox().await, app(&[500, 503, 200]).await);
    bench.set_app_url(app.url.clone());
    let control = bench.control();
    let made = checkout(&bench, &app, "prod_credits_10").await;
    control.pay(made["id"].as_str().unwrap()).await.unwrap();
    let heard = app.hears(3).await;
    assert!(heard.iter().all(|h| h.body == heard[0].body));

    control.fault(Fault::CreemWebhookReorder.once());
    let made = checkout(&bench, &app, "prod_basic_monthly").await;
    control.pay(made["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(kinds(&app.heard())[3..], ["subscription.paid", "subscription.active", "checkout.completed"]);

    control.fault(Fault::CreemWebhookDuplicate { copies: 2 }.matching("subscription.paid").times(1));
    control.fault(Fault::CreemWebhookDrop.matching("subscription.past_due"));
    let id = control.subscriptions()[0].subscription_id.clone();
    control.fire(&id, PaymentEvent::Renew).await.unwrap();
    control.fire(&id, PaymentEvent::PastDue).await.unwrap();
    assert_eq!(kinds(&app.heard())[6..], ["subscription.paid", "subscription.paid"]);
    control.fault(Fault::CreemWebhookWrongSignature.once());
    control.fire(&id, PaymentEvent::Update).await.unwrap();
    let last = app.heard()[8].clone();
    assert_ne!(last.header("creem-signature"), signature::creem_webhook(&bench.variables()["creem_webhook_secret"], &last.body));

    control.fault(Fault::CreemWebhookDelay { ms: 100 }.once());
    control.fire(&id, PaymentEvent::Update).await.unwrap();
    assert_eq!(app.heard().len(), 9);
    app.hears(10).await;
    control.send_payment_event(json!({ "id": "evt_x", "eventType": "something.new", "created_at": 1, "object": {} })).await;
    assert_eq!(verified(&bench, &app.heard()[10])["eventType"], "something.new");
}

#[tokio::test]
async fn the_api_refuses_as_the_real_one_does() {
    let bench = sandbox().await;
    let url = format!("{}/v1/products", bench.places().creem);
    assert_eq!(client().get(&url).send().await.unwrap().status(), 401);
    assert_eq!(client().get(&url).header("x-api-key", "wrong").send().await.unwrap().status(), 403);
    let (status, error) = call(&bench, http::Method::POST, "/v1/checkouts", json!({ "product_id": "prod_nothing" })).await;
    assert_eq!((status, &error["message"]), (404, &json!(["Product not found"])));
    assert_eq!(call(&bench, http::Method::POST, "/v1/checkouts", json!({})).await.0, 400);
    let both = json!({ "product_id": "prod_credits_10", "customer": { "id": "cust_1", "email": "a@b.c" } });
    assert_eq!(call(&bench, http::Method::POST, "/v1/checkouts", both).await.0, 400);
    assert_eq!(get(&bench, "/v1/products?product_id=prod_pro_yearly").await["billing_period"], "every-year");
    bench.control().fault(Fault::CreemApiAnswers { status: 429 }.once());
    assert_eq!(call(&bench, http::Method::GET, "/v1/products", Value::Null).await.0, 429);
}

#[tokio::test]
async fn prompts_are_judged_by_their_marks() {
    let bench = sandbox().await;
    let expected = BTreeMap::from([("a bob", "allow"), ("a [flag] bob", "flag"), ("[deny]", "deny")]);
    for (prompt, decision) in expected {
        let body = json!({ "prompt": prompt, "external_id": "job_1" });
        let (status, result) = call(&bench, http::Method::POST, "/v1/moderation/prompt", body).await;
        assert_eq!((status, &result["decision"]), (200, &json!(decision)));
    }
}
