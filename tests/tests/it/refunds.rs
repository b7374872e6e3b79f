//! Refunds and disputes: the credits follow the money.

use e2e::{Options, Person, World};
use sandbox::{Fault, PaymentEvent};
use serde_json::json;

/// A world without credits for signing up: what there is was paid for.
async fn world() -> World {
    World::with(Options { variables: [("signup_credits".to_owned(), "0".to_owned())].into(), ..Options::default() }).await
}

/// Somebody who has bought ten credits for 499 cents, and the order.
async fn buyer(world: &World) -> (Person, String) {
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    assert_eq!(ada.credits().await, 10);
    (ada, order["id"].as_str().unwrap().to_owned())
}

fn refund(amount: Option<i64>) -> PaymentEvent {
    PaymentEvent::Refund { amount, status: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_refund_takes_the_credits_back_once() {
    let world = world().await;
    let (ada, order) = buyer(&world).await;
    world.control().fire(&order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    let shown = ada.get(200, &format!("/api/orders/{order}")).await.json()["order"].clone();
    assert_eq!((&shown["status"], &shown["refunded_amount"]), (&json!("refunded"), &json!(499)));
    world.control().fire(&order, PaymentEvent::Resend).await.unwrap();
    // The same refund under another event's id.
    let mut again = world.control().payment_events().pop().unwrap();
    again["id"] = json!("evt_again");
    world.control().send_payment_event(again).await;
    assert_eq!(ada.credits().await, 0);
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
    let history = ada.get(200, "/api/me/credits/history?limit=1").await.json()["history"][0].clone();
    assert_eq!((&history["type"], &history["amount"]), (&json!("refund"), &json!(-10)));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_refunds_take_their_share() {
    let world = world().await;
    let (ada, order) = buyer(&world).await;
    // 100 of 499 cents: two of ten credits, in the buyer's favour.
    world.control().fire(&order, refund(Some(100))).await.unwrap();
    assert_eq!(ada.credits().await, 8);
    assert_eq!(ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["status"], "completed");
    world.control().fire(&order, refund(Some(150))).await.unwrap();
    assert_eq!(ada.credits().await, 5);
    // The first one's event comes again after the second's.
    let mut old = world.control().payment_events().into_iter().find(|event| event["eventType"] == "refund.created").unwrap();
    old["id"] = json!("evt_old");
    world.control().send_payment_event(old).await;
    assert_eq!(ada.credits().await, 5);
    world.control().fire(&order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    assert_eq!(ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["status"], "refunded");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_cannot_be_taken_but_what_comes_back_of_it_is() {
    let world = world().await;
    let (ada, order) = buyer(&world).await;
    // One of the five is still at the provider.
    ada.order(&["bob-cut", "pixie-cut", "buzz-cut", "quiff"]).await;
    world.fault(Fault::KieDelay { ms: 60_000 });
    let running = ada.order_one().await;
    assert_eq!(ada.credits().await, 5);
    world.control().fire(&order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    // It fails: its credit was refunded in money already.
    world.db_write("UPDATE ai_tasks SET status = 'failed', failure_reason = 'test', updated_at = unixepoch(), completed_at = unixepoch() WHERE task_no = ?1", [&running]);
    assert_eq!(ada.credits().await, 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_comes_before_its_payment_waits_for_it() {
    let world = world().await;
    world.fault(Fault::CreemWebhookDrop.once());
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    world.control().pay(&checkout).await.unwrap();
    world.control().fire(&checkout, refund(Some(250))).await.unwrap();
    assert_eq!(world.sql_text("SELECT status FROM payment_events"), "received");
    assert_eq!(ada.credits().await, 0);
    // The lost payment is asked for, then the refund fits.
    world.db_payments_are_due();
    let report = world.sweep().await["payments"].clone();
    assert_eq!((&report["settled"], &report["applied"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(ada.credits().await, 5);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_takes_credits_when_its_money_has_gone() {
    let world = world().await;
    let (ada, order) = buyer(&world).await;
    world.control().fire(&order, PaymentEvent::Refund { amount: Some(499), status: Some("pending".into()) }).await.unwrap();
    assert_eq!(ada.credits().await, 10);
    world.fault(Fault::CreemWebhookDrop);
    world.control().fire(&order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 10);
    // Nobody told; the comparison with creem's payments finds it.
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_holds_the_credits_back_until_it_is_over() {
    let world = world().await;
    let (ada, order) = buyer(&world).await;
    ada.order_one().await;
    assert_eq!(ada.credits().await, 9);
    world.control().fire(&order, PaymentEvent::Dispute).await.unwrap();
    world.control().fire(&order, PaymentEvent::Resend).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    assert_eq!(ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["disputed"], true);
    // Won: no event tells of it.
    world.control().fire(&order, PaymentEvent::DisputeWon).await.unwrap();
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 0, "within a day the provider may not show a dispute yet");
    world.db_write("UPDATE orders SET disputed_at = disputed_at - 90000", []);
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 9);
    // And a refund afterwards takes what it would have taken without all that.
    world.control().fire(&order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_that_is_lost_after_a_refund_counts_once() {
    let world = world().await;
    let (ada, order) = buyer(&world).await;
    world.control().fire(&order, refund(Some(250))).await.unwrap();
    assert_eq!(ada.credits().await, 5);
    world.control().fire(&order, PaymentEvent::Dispute).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    world.control().fire(&order, PaymentEvent::DisputeLost).await.unwrap();
    world.db_write("UPDATE orders SET disputed_at = disputed_at - 90000", []);
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refunded_plan_grants_no_further_month() {
    let world = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("basic-yearly").await;
    ada.pay(&order).await;
    assert_eq!(ada.credits().await, 25);
    let order = order["id"].as_str().unwrap();
    // Half a year's money: months to come first, so this one stays.
    world.control().fire(order, refund(Some(4_995))).await.unwrap();
    assert_eq!(ada.credits().await, 25);
    for month in 1..12 {
        world.db_write("UPDATE subscription_months SET due_at = ?1 WHERE n = ?2", (e2e::now(), month));
    }
    assert_eq!(world.sweep().await["payments"]["months"], 11);
    assert_eq!(world.sql_number("SELECT sum(amount) FROM credit_lots WHERE id LIKE 'period:%'"), 150);
    world.control().fire(order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    assert_eq!(ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["status"], "refunded");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_s_refund_is_a_share_of_what_was_paid_with_its_tax() {
    let world = world().await;
    world.control().change_settings(|settings| settings.creem_tax_percent = 25);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("basic-monthly").await;
    ada.pay(&order).await;
    let order = order["id"].as_str().unwrap();
    // 999 cents and 249 of tax.
    world.control().fire(order, refund(Some(624))).await.unwrap();
    assert_eq!(ada.credits().await, 13);
    world.control().fire(order, refund(Some(375))).await.unwrap();
    assert_eq!(ada.credits().await, 5, "the list's price has gone back, but not all that was paid");
    assert_eq!(ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["status"], "completed");
    world.control().fire(order, refund(None)).await.unwrap();
    assert_eq!(ada.credits().await, 0);
    assert_eq!(ada.get(200, &format!("/api/orders/{order}")).await.json()["order"]["status"], "refunded");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_money_went_back_before_its_payment_was_told_of_gives_nothing() {
    for back in [refund(None), PaymentEvent::Dispute] {
        let world = world().await;
        let ada = world.sign_in("ada@example.com").await;
        ada.begin_purchase("basic-yearly").await;
        let checkout = world.control().checkouts()[0].checkout_id.clone();
        world.fault(Fault::CreemWebhookDrop);
        world.control().pay(&checkout).await.unwrap();
        world.control().clear_faults();
        let events = world.control().payment_events();
        let tell = async |kind: &str| {
            let event = events.iter().find(|event| event["eventType"] == kind).unwrap();
            world.control().send_payment_event(event.clone()).await;
        };
        tell("checkout.completed").await;
        world.control().fire(&checkout, back).await.unwrap();
        tell("subscription.paid").await;
        assert_eq!(ada.credits().await, 0);
        assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
        world.db_payments_are_due();
        world.sweep().await;
        assert_eq!(ada.credits().await, 0);
        world.assert_books_balance();
    }
}
