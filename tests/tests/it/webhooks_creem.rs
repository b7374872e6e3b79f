//! `POST /webhooks/creem`: payment events.

use e2e::{Answer, Person, World};
use futures::future::join_all;
use http::Method;
use sandbox::{Credentials, Fault, PaymentEvent};
use serde_json::{Value, json};

async fn deliver(world: &World, expected: u16, event: &Value) -> Answer {
    let body = event.to_string();
    let signature = sandbox::signature::creem_webhook(&Credentials::default().creem_webhook_secret, body.as_bytes());
    send(world, expected, body, Some(&signature)).await
}

async fn send(world: &World, expected: u16, body: String, signature: Option<&str>) -> Answer {
    let sender = world.stranger();
    let request = sender.request(Method::POST, "/webhooks/creem").header("content-type", "application/json").body(body);
    let request = match signature {
        Some(signature) => request.header("creem-signature", signature),
        None => request,
    };
    sender.send(expected, request).await
}

/// Ada has ordered and paid; the event about it was made and never came.
async fn paid_unheard() -> (World, Person, Value, String) {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    let back = world.control().pay(&checkout).await.unwrap().return_url.unwrap();
    let event = world.control().payment_events().remove(0);
    assert_eq!(event["eventType"], "checkout.completed");
    assert_eq!(ada.credits().await, 3);
    (world, ada, event, back)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_event_settles_its_order_without_the_buyer_coming_back() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    world.control().pay(&checkout).await.unwrap();
    let order = ada.get(200, &format!("/api/orders/{}", order["id"].as_str().unwrap())).await.json()["order"].clone();
    assert_eq!((&order["status"], ada.credits().await), (&json!("completed"), 13));
    assert_eq!(world.control().deliveries().last().unwrap().status, Some(200));
    let lots = ada.get(200, "/api/me/credits").await.json()["lots"].as_array().unwrap().clone();
    assert!(lots.iter().any(|lot| lot["type"] == "purchase" && lot["remaining"] == 10), "{lots:?}");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_again_grants_nothing_more() {
    let (world, ada, event, _) = paid_unheard().await;
    assert_eq!(deliver(&world, 200, &event).await.json()["outcome"], "applied");
    for _ in 0..3 {
        assert_eq!(deliver(&world, 200, &event).await.json()["outcome"], "duplicate");
    }
    assert_eq!(ada.credits().await, 13);
    assert_eq!(world.sql("SELECT status, deliveries, outcome FROM payment_events"), [[json!("done"), json!(4), json!("applied")]]);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_and_the_buyer_at_the_same_time_grant_once() {
    let (world, ada, event, back) = paid_unheard().await;
    let webhooks = join_all((0..20).map(|_| deliver(&world, 200, &event)));
    let returns = join_all((0..20).map(|_| ada.get(302, &back)));
    futures::join!(webhooks, returns);
    assert_eq!(ada.credits().await, 13);
    assert_eq!(world.sql_number("SELECT count(*) FROM credit_records WHERE entity_type = 'order'"), 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_own_duplicates_grant_once() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDuplicate { copies: 5 });
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    assert_eq!(ada.credits().await, 13);
    world.control().fire(order["id"].as_str().unwrap(), PaymentEvent::Resend).await.unwrap();
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_cut_off_is_finished_by_its_next_delivery() {
    let (world, ada, event, _) = paid_unheard().await;
    // It was kept, and then the power went.
    let sql = "INSERT INTO payment_events (id, type, payload) VALUES (?1, 'checkout.completed', ?2)";
    world.db_write(sql, (event["id"].as_str().unwrap(), event.to_string()));
    assert_eq!(deliver(&world, 200, &event).await.json()["outcome"], "applied");
    assert_eq!(ada.credits().await, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_link_to_its_checkout_was_lost_is_settled_all_the_same() {
    let (world, ada, event, _) = paid_unheard().await;
    world.db_write("UPDATE orders SET checkout_id = NULL, payment_id = NULL", []);
    assert_eq!(deliver(&world, 200, &event).await.json()["outcome"], "applied");
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pays_twice_gets_twice() {
    let (world, ada, event, _) = paid_unheard().await;
    let mut other = event.clone();
    other["id"] = json!("evt_other");
    other["object"]["id"] = json!("ch_other");
    other["object"]["order"]["id"] = json!("ord_other");
    other["object"]["order"]["transaction"] = json!("tran_other");
    // Two checkouts were made for one order (the answer to the first was lost), and both were paid.
    for event in [&other, &event, &other, &event] {
        deliver(&world, 200, event).await;
    }
    assert_eq!((ada.credits().await, world.sql_number("SELECT count(*) FROM orders WHERE status = 'completed'")), (23, 2));
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
    world.assert_books_balance();
}

/// The checkout was made, its answer was lost, the order was given up - and then somebody pays at the provider all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_given_up_and_paid_after_all_is_granted() {
    let world = World::new().await;
    world.fault(Fault::CreemCheckoutAnswerLost.once());
    let ada = world.sign_in("ada@example.com").await;
    ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    world.control().pay(&checkout).await.unwrap();
    assert_eq!(ada.credits().await, 13);
    let orders = ada.get(200, "/api/orders").await.json()["orders"].clone();
    let mut statuses: Vec<_> = orders.as_array().unwrap().iter().map(|order| order["status"].as_str().unwrap().to_owned()).collect();
    statuses.sort();
    // What was given up stays so; the payment has an order of its own.
    assert_eq!(statuses, ["cancelled", "completed"]);
    world.control().fire(&checkout, PaymentEvent::Resend).await.unwrap();
    assert_eq!((ada.credits().await, world.sql_number("SELECT count(*) FROM orders")), (13, 2));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_signature_an_event_is_nothing() {
    let (world, ada, event, _) = paid_unheard().await;
    let body = event.to_string();
    let of = |secret: &str, body: &str| sandbox::signature::creem_webhook(secret, body.as_bytes());
    let secret = Credentials::default().creem_webhook_secret;
    let right = of(&secret, &body);
    for signature in [
        None,
        Some(""),
        Some("abc"),
        Some("zz"),
        Some(of("not-the-secret", &body).as_str()),
        Some(&right[..62]),
        Some(of(&secret, "{}").as_str()),
    ] {
        let answer = send(&world, 401, body.clone(), signature).await;
        answer.problem("invalid_signature");
        assert_eq!(answer.calls(), e2e::Calls::default());
    }
    // Not one byte of it may be another.
    send(&world, 401, body.replace("prod_credits_10", "prod_credits_50"), Some(&right)).await.problem("invalid_signature");
    assert_eq!((world.sql_number("SELECT count(*) FROM payment_events"), ada.credits().await), (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_about_another_product_or_no_payment_grants_nothing() {
    let (world, ada, event, _) = paid_unheard().await;
    let altered = |id: &str, change: &dyn Fn(&mut Value)| {
        let mut event = event.clone();
        event["id"] = json!(id);
        change(&mut event["object"]);
        event
    };
    let wrong = [
        (altered("evt_product", &|object| object["product"]["id"] = json!("prod_credits_200")), "open"),
        (altered("evt_unpaid", &|object| object["order"]["status"] = json!("pending")), "ignored"),
        (altered("evt_orderless", &|object| object["order"] = Value::Null), "ignored"),
        (altered("evt_stranger", &|object| object["request_id"] = json!("0198c0de-0000-7000-8000-000000000000")), "open"),
        (altered("evt_nameless", &|object| object["request_id"] = Value::Null), "open"),
    ];
    for (event, outcome) in &wrong {
        assert_eq!(deliver(&world, 200, event).await.json()["outcome"], *outcome, "{}", event["id"]);
        assert_eq!(ada.credits().await, 3, "{}", event["id"]);
    }
    // The true one still counts.
    deliver(&world, 200, &event).await;
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_nobody_has_heard_of_is_kept() {
    let world = World::new().await;
    let event = json!({"id": "evt_new", "eventType": "moon.full", "created_at": 1, "object": {"id": "moon"}});
    assert_eq!(deliver(&world, 200, &event).await.json()["outcome"], "ignored");
    let kept = world.sql("SELECT id, type, status, payload FROM payment_events").remove(0);
    assert_eq!(kept[..3], [json!("evt_new"), json!("moon.full"), json!("ignored")]);
    assert_eq!(serde_json::from_str::<Value>(kept[3].as_str().unwrap()).unwrap(), event);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_body_that_is_no_event_is_refused() {
    let world = World::new().await;
    deliver(&world, 422, &json!({"hello": "world"})).await.problem("invalid_input");
    // One of a kind we know that we cannot read stays open, for the day we can.
    let unreadable = deliver(&world, 200, &json!({"id": "evt_1", "eventType": "checkout.completed", "object": "nonsense"})).await;
    assert_eq!(unreadable.json()["outcome"], "open");
    assert_eq!(world.sql_text("SELECT status FROM payment_events"), "received");
    send(&world, 413, " ".repeat(300 * 1024), Some("abc")).await.problem("payload_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_secret_is_exchanged_both_are_good() {
    let secret = sandbox::Credentials::default().creem_webhook_secret;
    for (secrets, expected) in
        [(format!("whsec_new,{secret}"), 200), (format!("{secret}, whsec_old"), 200), ("whsec_new".into(), 401), (",".into(), 401)]
    {
        let variables = [("creem_webhook_secret".to_owned(), secrets.clone())].into();
        let world = World::with(e2e::Options { variables, ..Default::default() }).await;
        let event = json!({"id": "evt_1", "eventType": "moon.full", "created_at": 1, "object": {}}).to_string();
        let signature = sandbox::signature::creem_webhook(&secret, event.as_bytes());
        let sender = world.stranger();
        let answer = sender.ask(sender.request(Method::POST, "/webhooks/creem").header("creem-signature", signature).body(event)).await;
        assert_eq!(answer.status, expected, "{secrets}: {answer}");
        assert_eq!(world.sql_number("SELECT count(*) FROM payment_events"), i64::from(expected == 200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_kept_without_its_buyers_name_and_address() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    let kept = world.sql_text("SELECT payload FROM payment_events");
    assert!(kept.contains("cust_") && !kept.contains('@'), "{kept}");
}
