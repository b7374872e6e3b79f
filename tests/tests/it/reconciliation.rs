//! `POST /internal/reconcile`: whatever message was lost, the books come right without a human.

use e2e::{Person, World};
use futures::future::join_all;
use http::Method;
use sandbox::{Fault, PaymentEvent, Service};
use serde_json::{Value, json};

/// Somebody buys a pack and a plan and never comes back; the plan is renewed; half of the pack's money goes back.
async fn a_life(world: &World) -> Person {
    let ada = world.sign_in("ada@example.com").await;
    let control = world.control();
    let pack = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    control.fire(&pack, PaymentEvent::Pay).await.unwrap();
    let plan = ada.begin_purchase("pro-monthly").await["id"].as_str().unwrap().to_owned();
    control.fire(&plan, PaymentEvent::Pay).await.unwrap();
    let subscription = control.subscriptions()[0].subscription_id.clone();
    control.fire(&subscription, PaymentEvent::Renew).await.unwrap();
    control.fire(&subscription, PaymentEvent::Renew).await.unwrap();
    control.fire(&pack, PaymentEvent::Refund { amount: Some(250), status: None }).await.unwrap();
    control.fire(&subscription, PaymentEvent::ScheduleCancel).await.unwrap();
    ada
}

/// Somebody who bought a pack more than a day ago; nobody told us that it is paid.
async fn paid_unheard_a_day_ago(world: &World) -> Person {
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    world.control().fire(&order, PaymentEvent::Pay).await.unwrap();
    world.db_write("UPDATE orders SET created_at = created_at - 90000", []);
    ada
}

/// The books, without ids and times.
fn books(world: &World) -> Vec<Vec<Value>> {
    let ledger = world.sql("SELECT type, amount, entity_type, expires_at IS NULL FROM credit_records ORDER BY 1, 2, 3");
    let orders = world.sql("SELECT product_id, status, refunded_amount, amount_paid FROM orders ORDER BY 1");
    let plans = world.sql("SELECT plan_type, status, provider_status, billing_cycle FROM subscriptions");
    [ledger, orders, plans].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_webhooks_turned_off_the_books_end_up_the_same() {
    let heard = World::new().await;
    let unheard = World::new().await;
    unheard.fault(Fault::CreemWebhookDrop);
    let (ada, eve) = (a_life(&heard).await, a_life(&unheard).await);
    assert_eq!((ada.credits().await, eve.credits().await), (3 + 10 + 3 * 60 - 5, 3));
    for _ in 0..3 {
        unheard.db_payments_are_due();
        unheard.sweep().await;
    }
    assert_eq!(unheard.sql_number("SELECT count(*) FROM payment_events"), 0);
    assert_eq!(books(&unheard), books(&heard));
    assert_eq!(ada.credits().await, eve.credits().await);
    // Asking again changes nothing, in either world.
    for world in [&heard, &unheard] {
        let before = books(world);
        world.db_payments_are_due();
        world.sweep().await;
        assert_eq!(books(world), before);
        world.assert_books_balance();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_nobody_pays_expires_after_a_day() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    world.db_payments_are_due();
    world.sweep().await;
    let status = async || ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["status"].as_str().unwrap().to_owned();
    assert_eq!(status().await, "pending");
    world.db_write("UPDATE orders SET created_at = created_at - 90000", []);
    world.db_payments_are_due();
    // As long as creem cannot be asked, it may have been paid.
    world.fault(Fault::CreemApiAnswers { status: 500 });
    world.sweep().await;
    assert_eq!(status().await, "pending");
    world.control().clear_faults();
    world.db_payments_are_due();
    assert_eq!(world.sweep().await["payments"]["expired"], 1);
    assert_eq!(status().await, "expired");
    // The page was still open somewhere.
    world.control().fire(&order, PaymentEvent::Pay).await.unwrap();
    assert_eq!((status().await.as_str(), ada.credits().await), ("expired", 13));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_given_up_and_paid_unheard_is_found() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    world.db_write("UPDATE orders SET created_at = created_at - 90000", []);
    world.db_payments_are_due();
    assert_eq!(world.sweep().await["payments"]["expired"], 1);
    world.control().fire(&order, PaymentEvent::Pay).await.unwrap();
    world.sweep().await;
    assert_eq!(ada.credits().await, 3, "a day later is soon enough");
    for _ in 0..2 {
        world.db_payments_are_due();
        world.sweep().await;
        assert_eq!(ada.credits().await, 13);
    }
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_not_given_up_because_our_key_is_refused() {
    let world = World::new().await;
    let ada = paid_unheard_a_day_ago(&world).await;
    for status in [401, 403, 429, 400] {
        world.db_payments_are_due();
        world.fault(Fault::CreemApiAnswers { status });
        world.sweep().await;
        let waits = "SELECT status = 'pending' AND next_look_at BETWEEN unixepoch() AND unixepoch() + 3600 FROM orders";
        assert_eq!(world.sql_number(waits), 1, "{status}{}", world.tail());
        world.control().clear_faults();
    }
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_checkout_is_unknown_expires_and_is_looked_for_again() {
    let world = World::new().await;
    let ada = paid_unheard_a_day_ago(&world).await;
    world.db_payments_are_due();
    // As it answers to a key of its other environment.
    world.fault(Fault::CreemApiAnswers { status: 404 });
    assert_eq!(world.sweep().await["payments"]["expired"], 1);
    assert_eq!(world.sql_number("SELECT next_look_at BETWEEN unixepoch() AND unixepoch() + 86400 FROM orders"), 1);
    world.control().clear_faults();
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_not_answered_is_asked_again_within_the_hour() {
    let world = World::new().await;
    a_life(&world).await;
    // The last look at everything: an order given up long ago, one paid long ago, and a plan that is over.
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    world.db_write("UPDATE orders SET status = 'expired' WHERE status = 'pending'", []);
    world.db_write("UPDATE orders SET created_at = created_at - 200 * 86400, paid_at = paid_at - 200 * 86400, looks = 5", []);
    world.db_write("UPDATE subscriptions SET status = 'expired', expires_at = 1, looks = 5", []);
    let soon = "SELECT (SELECT count(*) FROM orders WHERE next_look_at BETWEEN unixepoch() AND unixepoch() + 3600) \
                     + (SELECT count(*) FROM subscriptions WHERE next_look_at BETWEEN unixepoch() AND unixepoch() + 3600)";
    world.db_payments_are_due();
    let due = world.sql_number(
        "SELECT (SELECT count(*) FROM orders WHERE next_look_at = 0) + (SELECT count(*) FROM subscriptions WHERE next_look_at = 0)",
    );
    assert!(due >= 3, "{due}");
    world.fault(Fault::CreemApiAnswers { status: 403 });
    world.sweep().await;
    assert_eq!(world.sql_number(soon), due, "{}", world.tail());
    world.control().clear_faults();
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(world.sql_number("SELECT count(*) FROM orders WHERE next_look_at IS NOT NULL"), 0, "answered, it was the last look");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_is_answered_a_sweep_asks_one_batch_of_each_kind() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    let more = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) \
                INSERT INTO orders (id, user_id, amount, credits, product_id, checkout_id, next_look_at, created_at, updated_at) \
                SELECT 'more-' || i, user_id, amount, credits, product_id, 'ch_more_' || i, 0, created_at, updated_at FROM orders, n";
    world.db_write(more, []);
    world.db_write("UPDATE orders SET created_at = created_at - 90000, next_look_at = 0", []);
    world.fault(Fault::CreemApiAnswers { status: 403 });
    assert_eq!(world.sweep().await["payments"]["orders"], 20);
    assert_eq!(world.sql_number("SELECT count(*) FROM orders WHERE looks > 0"), 20);
    // Where only some go unanswered it goes on.
    world.control().clear_faults();
    world.fault(Fault::CreemApiAnswers { status: 403 }.times(5));
    world.db_payments_are_due();
    assert_eq!(world.sweep().await["payments"]["orders"], 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_cut_off_before_its_checkout_expires() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    world.db_write("UPDATE orders SET checkout_id = NULL, payment_url = NULL, created_at = created_at - 90000", []);
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.get(200, "/api/orders").await.json()["orders"][0]["status"], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_is_asked_ever_more_rarely() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    world.sweep().await;
    assert_eq!(world.heard(Service::Creem, "GET /v1/checkouts"), 0, "two minutes are the buyer's");
    let mut waits = Vec::new();
    for _ in 0..8 {
        world.db_payments_are_due();
        world.sweep().await;
        // To the nearest minute: a second may pass between the sweep and this look.
        waits.push((world.sql_number("SELECT next_look_at - unixepoch() FROM orders") + 30) / 60);
    }
    assert_eq!(world.heard(Service::Creem, "GET /v1/checkouts"), 8);
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64, 64]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_at_once_ask_once_and_settle_once() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    world.control().fire(&order, PaymentEvent::Pay).await.unwrap();
    world.db_payments_are_due();
    join_all((0..6).map(|_| world.sweep())).await;
    assert_eq!(world.heard(Service::Creem, "GET /v1/checkouts"), 1);
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_kept_and_not_applied_is_applied_by_the_sweep() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    world.control().fire(&order, PaymentEvent::Pay).await.unwrap();
    let event = world.control().payment_events().remove(0);
    // It was kept, and then the power went; nobody repeats it, and asking does not help either.
    let sql = "INSERT INTO payment_events (id, type, payload, next_attempt_at) VALUES (?1, 'checkout.completed', ?2, 0)";
    world.db_write(sql, (event["id"].as_str().unwrap(), event.to_string()));
    world.fault(Fault::CreemApiAnswers { status: 500 });
    assert_eq!(world.sweep().await["payments"]["applied"], 1);
    assert_eq!(ada.credits().await, 13);
    assert_eq!(world.sql_text("SELECT status FROM payment_events"), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_scheduler_may_ask_for_it() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for secret in ["", "wrong", e2e::SESSION_SECRET] {
        ada.send(401, ada.request(Method::POST, "/internal/reconcile").bearer_auth(secret)).await.problem("unauthenticated");
    }
    ada.post(401, "/internal/reconcile").await.problem("unauthenticated");
    assert_eq!(world.sweep().await["payments"]["orders"], json!(0));
}
