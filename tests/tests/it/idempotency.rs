//! `Idempotency-Key`: a request sent twice does its work once.

use e2e::{Answer, Person, World, photos};
use futures::future::join_all;
use http::Method;
use sandbox::{Fault, Service};
use serde_json::{Value, json};

async fn send(person: &Person, expected: u16, path: &str, key: &str, body: &Value) -> Answer {
    person.send(expected, person.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

async fn pictures(person: &Person, hairstyles: &[&str]) -> Value {
    json!({"upload_id": person.any_upload().await, "hairstyles": hairstyles})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_pictures_sent_again_gets_the_same_answer_and_costs_nothing() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut", "quiff"]).await;
    let first = send(&ada, 202, "/api/tasks", "key-1", &body).await;
    assert!(!replayed(&first));
    for _ in 0..3 {
        let again = send(&ada, 202, "/api/tasks", "key-1", &body).await;
        assert!(replayed(&again));
        assert_eq!(again.json(), first.json());
    }
    assert_eq!((ada.credits().await, world.heard(Service::Kie, "POST")), (1, 2));
    // Another key is another order.
    let other = send(&ada, 202, "/api/tasks", "key-2", &pictures(&ada, &["bob-cut"]).await).await;
    assert!(!replayed(&other));
    assert_eq!(ada.credits().await, 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_for_another_request() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut"]).await;
    send(&ada, 202, "/api/tasks", "key", &body).await;
    send(&ada, 409, "/api/tasks", "key", &pictures(&ada, &["quiff"]).await).await.problem("idempotency_key_reused");
    assert_eq!(ada.credits().await, 2);
    // But it is for another endpoint and for another person.
    send(&ada, 201, "/api/orders", "key", &json!({"product_id": "credits-10"})).await;
    let eve = world.sign_in("eve@example.com").await;
    let answer = send(&eve, 202, "/api/tasks", "key", &pictures(&eve, &["quiff"]).await).await;
    assert!(!replayed(&answer));
    assert_eq!((ada.credits().await, eve.credits().await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_do_the_work_once_and_get_one_answer() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut"]).await;
    let answers = join_all((0..20).map(|_| send(&ada, 202, "/api/tasks", "twins", &body))).await;
    assert!(answers.iter().all(|answer| answer.json() == answers[0].json()));
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    assert_eq!((ada.credits().await, world.heard(Service::Kie, "POST")), (2, 1));
    let buy = json!({"product_id": "credits-10"});
    let answers = join_all((0..20).map(|_| send(&ada, 201, "/api/orders", "twins", &buy))).await;
    assert!(answers.iter().all(|answer| answer.json() == answers[0].json()));
    assert_eq!((world.sql_number("SELECT count(*) FROM orders"), world.control().checkouts().len()), (1, 1));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_frees_its_key() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.db_leave_credits(&ada.id().await, 0);
    let body = pictures(&ada, &["bob-cut"]).await;
    send(&ada, 402, "/api/tasks", "key", &body).await.problem("insufficient_credits");
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    assert!(!replayed(&send(&ada, 202, "/api/tasks", "key", &body).await));
    assert_eq!(ada.credits().await, 9);
    // A provider that was down, too.
    world.fault(Fault::CreemApiAnswers { status: 500 }.once());
    let buy = json!({"product_id": "credits-10"});
    send(&ada, 502, "/api/orders", "key", &buy).await.problem("provider_unavailable");
    assert_eq!(send(&ada, 201, "/api/orders", "key", &buy).await.json()["order"]["status"], "pending");
}

/// What a power cut leaves: the work done, or a part of it, and no answer kept.
fn cut_off(world: &World) {
    world.db_write("UPDATE idempotency_keys SET status = NULL, body = NULL, claimed_until = 0", []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_crash_is_found_not_repeated() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut", "quiff"]).await;
    let numbers =
        |answer: &Answer| answer.json()["tasks"].as_array().unwrap().iter().map(|task| task["task_no"].clone()).collect::<Vec<_>>();
    let first = send(&ada, 202, "/api/tasks", "key", &body).await;
    cut_off(&world);
    let second = send(&ada, 202, "/api/tasks", "key", &body).await;
    assert_eq!(numbers(&first), numbers(&second));
    assert_eq!((ada.credits().await, world.heard(Service::Kie, "POST")), (1, 2));
    assert!(replayed(&send(&ada, 202, "/api/tasks", "key", &body).await));
    // Even if the photo has gone meanwhile, and the last credit.
    world.db_write("UPDATE uploads SET expires_at = unixepoch()", []);
    cut_off(&world);
    let third = send(&ada, 202, "/api/tasks", "key", &body).await;
    assert_eq!((numbers(&first), ada.credits().await), (numbers(&third), 1));

    let buy = json!({"product_id": "credits-10"});
    let first = send(&ada, 201, "/api/orders", "key", &buy).await;
    cut_off(&world);
    assert_eq!(send(&ada, 201, "/api/orders", "key", &buy).await.json(), first.json());
    // Cut off before the checkout was made: it is made now, for the same order.
    world.db_write("UPDATE orders SET checkout_id = NULL, payment_id = NULL, payment_url = NULL", []);
    cut_off(&world);
    let third = send(&ada, 201, "/api/orders", "key", &buy).await.json();
    assert_eq!(third["order"]["id"], first.json()["order"]["id"]);
    ada.pay(&third["order"]).await;
    assert_eq!((ada.credits().await, world.sql_number("SELECT count(*) FROM orders")), (11, 1));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_first_is_still_at_work_another_body_is_refused_at_once() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut"]).await;
    send(&ada, 202, "/api/tasks", "key", &body).await;
    world.db_write("UPDATE idempotency_keys SET status = NULL, body = NULL, claimed_until = unixepoch() + 100", []);
    send(&ada, 409, "/api/tasks", "key", &pictures(&ada, &["quiff"]).await).await.problem("idempotency_key_reused");
    // The same body waits for an answer; here none comes.
    let answer = send(&ada, 409, "/api/tasks", "key", &body).await;
    answer.problem("conflict");
    assert_eq!((answer.header("retry-after"), ada.credits().await), ("5", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_sent_again_is_kept_once() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = async |expected: u16, photo: &str| {
        let request = ada.upload_request(photos::content_type(photo), photos::read(photo)).header("idempotency-key", "photo");
        ada.send(expected, request).await
    };
    let first = upload(201, "portrait.jpg").await;
    let again = upload(201, "portrait.jpg").await;
    assert!(replayed(&again) && !replayed(&first));
    assert_eq!(again.json(), first.json());
    upload(409, "portrait.png").await.problem("idempotency_key_reused");
    // As a form it is the same photo, whatever the frame around it.
    for boundary in ["first", "second"] {
        let mut body = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n").into_bytes();
        body.extend(photos::read("portrait.jpg"));
        body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
        let request = ada.request(Method::POST, "/api/uploads").header("content-type", format!("multipart/form-data; boundary={boundary}"));
        let answer = ada.send(201, request.header("idempotency-key", "photo").body(body)).await;
        assert!(replayed(&answer));
    }
    assert_eq!((world.objects().len(), world.sql_number("SELECT count(*) FROM uploads")), (1, 1));
    // What is refused frees the key.
    let text = async || ada.upload_request("image/png", "no photo").header("idempotency-key", "text");
    ada.send(415, text().await).await.problem("unsupported_media_type");
    let photo = ada.upload_request("image/png", photos::read("portrait.png")).header("idempotency-key", "text");
    assert!(!replayed(&ada.send(201, photo).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_cancelled_once() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("basic-monthly").await;
    ada.pay(&order).await;
    let cancel = async || ada.send(200, ada.request(Method::POST, "/api/subscription/cancel").header("idempotency-key", "bye")).await;
    let (first, second) = (cancel().await, cancel().await);
    assert!(!replayed(&first) && replayed(&second));
    assert_eq!((first.json(), world.heard(Service::Creem, "/cancel")), (second.json(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_told_so() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut"]).await;
    for key in ["", "two words", &"x".repeat(256)] {
        let answer = send(&ada, 422, "/api/tasks", key, &body).await;
        assert_eq!(answer.wrong_fields(), ["Idempotency-Key"]);
    }
    assert_eq!((ada.credits().await, world.sql_number("SELECT count(*) FROM idempotency_keys")), (3, 0));
    send(&ada, 202, "/api/tasks", &"x".repeat(255), &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_a_key_is_forgotten() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut"]).await;
    send(&ada, 202, "/api/tasks", "key", &body).await;
    world.db_write("UPDATE idempotency_keys SET expires_at = unixepoch()", []);
    // Before the sweep has been here as well as after.
    assert!(!replayed(&send(&ada, 202, "/api/tasks", "key", &body).await));
    assert_eq!(ada.credits().await, 1);
    world.db_write("UPDATE idempotency_keys SET expires_at = unixepoch()", []);
    assert_eq!(world.sweep().await["database"]["expired_keys"], 1);
    assert_eq!(world.sql_number("SELECT count(*) FROM idempotency_keys"), 0);
}

/// With a key an order of pictures makes two statements more; without one, none.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_costs_two_statements() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let body = pictures(&ada, &["bob-cut"]).await;
    let with = send(&ada, 202, "/api/tasks", "key", &body).await.calls();
    let again = send(&ada, 202, "/api/tasks", "key", &body).await.calls();
    let without = ada.post_json(202, "/api/tasks", &body).await.calls();
    assert_eq!((without.sqlite, with.sqlite, again.sqlite), (3, 5, 2));
    assert_eq!((without.http, with.http, again.http), (1, 1, 0));
}
