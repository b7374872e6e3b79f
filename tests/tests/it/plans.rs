//! Plans: bought once, paid each period, granting credits each month.

use e2e::{Person, World};
use sandbox::{Fault, PaymentEvent, Service};
use serde_json::{Value, json};

/// Somebody who has just paid for a plan, and the subscription at creem.
async fn subscriber(world: &World, product: &str) -> (Person, String) {
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase(product).await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    world.control().pay(&checkout).await.unwrap();
    let subscription = world.control().subscriptions()[0].subscription_id.clone();
    (ada, subscription)
}

async fn plan(person: &Person) -> Value {
    person.get(200, "/api/subscription").await.json()["subscription"].clone()
}

/// The purchased lots: (credits, seconds they last).
async fn months(person: &Person) -> Vec<(i64, i64)> {
    let lots = person.get(200, "/api/me/credits").await.json()["lots"].as_array().unwrap().clone();
    let of_plan = lots.iter().filter(|lot| lot["type"] == "purchase");
    of_plan.map(|lot| (lot["remaining"].as_i64().unwrap(), lot["expires_at"].as_i64().unwrap() - e2e::now())).collect()
}

const DAY: i64 = 86_400;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_and_grants_its_first_month() {
    let world = World::new().await;
    let (ada, _) = subscriber(&world, "pro-monthly").await;
    let plan = plan(&ada).await;
    assert_eq!(
        [&plan["plan_type"], &plan["billing_cycle"], &plan["status"], &plan["credits"], &plan["frozen"], &plan["ends_with_period"]],
        [&json!("pro"), &json!("monthly"), &json!("active"), &json!(60), &json!(false), &json!(false)]
    );
    assert_eq!(ada.credits().await, 63);
    let months = months(&ada).await;
    assert!(months.len() == 1 && months[0].0 == 60 && (27 * DAY..=31 * DAY).contains(&months[0].1), "{months:?}");
    // A plan's credits go with its month, so they are spent before those that stay.
    ada.order_one().await;
    assert_eq!(self::months(&ada).await[0].0, 59);
    let orders = ada.get(200, "/api/orders").await.json()["orders"].clone();
    assert_eq!((&orders[0]["status"], orders.as_array().unwrap().len()), (&json!("completed"), 1));
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status = 'done'"), 3);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_a_plan_has_none() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    assert_eq!(plan(&ada).await, Value::Null);
    ada.post(404, "/api/subscription/cancel").await.problem("not_found");
    world.stranger().get(401, "/api/subscription").await.problem("unauthenticated");
    world.stranger().post(401, "/api/subscription/cancel").await.problem("unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_alone_brings_the_plan() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("basic-yearly").await;
    assert_eq!(ada.pay(&order).await["status"], "completed");
    assert_eq!((plan(&ada).await["billing_cycle"].clone(), ada.credits().await), (json!("yearly"), 28));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_grants_the_next_month_once() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "pro-monthly").await;
    world.control().fire(&subscription, PaymentEvent::Renew).await.unwrap();
    assert_eq!(ada.credits().await, 123);
    world.control().fire(&subscription, PaymentEvent::Resend).await.unwrap();
    // The same payment under another event's id.
    let mut again = world.control().payment_events().pop().unwrap();
    again["id"] = json!("evt_again");
    world.control().send_payment_event(again).await;
    assert_eq!(ada.credits().await, 123);
    assert_eq!(world.sql_text("SELECT status FROM payment_events WHERE id = 'evt_again'"), "done");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_the_wrong_order_end_the_same() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookReorder);
    let (ada, _) = subscriber(&world, "pro-monthly").await;
    world.sweep().await;
    assert_eq!((plan(&ada).await["status"].clone(), ada.credits().await), (json!("active"), 63));
    let orders = ada.get(200, "/api/orders").await.json()["orders"].clone();
    assert_eq!(orders[0]["status"], "completed");
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
    world.assert_books_balance();
}

/// Each event of creem's table, in one life.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_subscription_does_what_it_says() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "pro-monthly").await;
    let look = async |event: PaymentEvent| {
        world.control().fire(&subscription, event).await.unwrap();
        let plan = plan(&ada).await;
        (plan["status"].as_str().unwrap().to_owned(), plan["frozen"] == true, plan["ends_with_period"] == true)
    };
    let state = |status: &str, frozen: bool, ends: bool| (status.to_owned(), frozen, ends);
    assert_eq!(look(PaymentEvent::Update).await, state("active", false, false));
    assert_eq!(look(PaymentEvent::PastDue).await, state("active", true, false));
    assert_eq!(look(PaymentEvent::Unpaid).await, state("active", true, false));
    assert_eq!(ada.credits().await, 63, "a payment that fails grants nothing");
    assert_eq!(look(PaymentEvent::Renew).await, state("active", false, false));
    assert_eq!(ada.credits().await, 123);
    assert_eq!(look(PaymentEvent::ScheduleCancel).await, state("active", false, true));
    assert_eq!(look(PaymentEvent::Resume).await, state("active", false, false));
    assert_eq!(look(PaymentEvent::Pause).await, state("active", true, false));
    assert_eq!(look(PaymentEvent::Resume).await, state("active", false, false));
    assert_eq!(look(PaymentEvent::Trial).await, state("active", false, false));
    assert_eq!(look(PaymentEvent::Expire).await, state("expired", false, false));
    // "Retries may still succeed."
    assert_eq!(look(PaymentEvent::Renew).await, state("active", false, false));
    assert_eq!(ada.credits().await, 183);
    assert_eq!(look(PaymentEvent::Cancel).await, state("cancelled", false, false));
    let ended = plan(&ada).await;
    assert!(ended["cancelled_at"].is_i64() && ended["expires_at"].as_i64().unwrap() > e2e::now(), "{ended}");
    assert_eq!(ada.credits().await, 183, "what is paid stays until it expires");
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_news_do_not_undo_newer_ones() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "pro-monthly").await;
    world.fault(Fault::CreemWebhookDrop.once());
    world.control().fire(&subscription, PaymentEvent::PastDue).await.unwrap();
    let late = world.control().payment_events().pop().unwrap();
    assert_eq!(late["eventType"], "subscription.past_due");
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    world.control().fire(&subscription, PaymentEvent::Renew).await.unwrap();
    world.control().send_payment_event(late).await;
    assert_eq!((plan(&ada).await["frozen"].clone(), ada.credits().await), (json!(false), 123));
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yearly_plan_grants_one_month_at_a_time() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "basic-yearly").await;
    assert_eq!(ada.credits().await, 28);
    let first = months(&ada).await;
    assert!(first.len() == 1 && first[0].1 <= 31 * DAY, "a month's credits last a month: {first:?}");
    assert_eq!(world.sweep().await["payments"]["months"], 0);
    // The second month begins.
    world.db_write("UPDATE subscription_months SET due_at = ?1 WHERE n = 1", [e2e::now()]);
    assert_eq!(world.sweep().await["payments"]["months"], 1);
    assert_eq!(world.sweep().await["payments"]["months"], 0);
    assert_eq!(ada.credits().await, 53);
    // Frozen, the third does not come; afterwards it does.
    world.control().fire(&subscription, PaymentEvent::PastDue).await.unwrap();
    world.db_write("UPDATE subscription_months SET due_at = ?1 WHERE n = 2", [e2e::now()]);
    assert_eq!(world.sweep().await["payments"]["months"], 0);
    assert_eq!(ada.credits().await, 53);
    world.control().fire(&subscription, PaymentEvent::Update).await.unwrap();
    world.db_write("UPDATE subscriptions SET provider_status = 'active'", []);
    assert_eq!(world.sweep().await["payments"]["months"], 1);
    assert_eq!(ada.credits().await, 78);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_has_one_plan_at_a_time() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "basic-monthly").await;
    ada.post_json(409, "/api/orders", &json!({"product_id": "pro-monthly"})).await.problem("conflict");
    ada.begin_purchase("credits-10").await;
    world.control().fire(&subscription, PaymentEvent::Cancel).await.unwrap();
    ada.begin_purchase("pro-monthly").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_cancelled_at_the_end_of_what_is_paid() {
    let world = World::new().await;
    let (ada, _) = subscriber(&world, "pro-monthly").await;
    world.fault(Fault::CreemApiAnswers { status: 500 }.once());
    ada.post(502, "/api/subscription/cancel").await.problem("provider_unavailable");
    assert_eq!(plan(&ada).await["ends_with_period"], false);
    for _ in 0..2 {
        let plan = ada.post(200, "/api/subscription/cancel").await.json()["subscription"].clone();
        assert_eq!((&plan["status"], &plan["ends_with_period"]), (&json!("active"), &json!(true)));
        assert_eq!(plan["next_billing_at"], Value::Null);
    }
    let asked = world.heard(Service::Creem, "/cancel");
    assert_eq!(asked, 2, "the one that failed and the one that did not");
    assert_eq!(ada.credits().await, 63);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_within_a_period_grants_the_difference() {
    let world = World::new().await;
    let (ada, _) = subscriber(&world, "basic-monthly").await;
    let paid = world.control().payment_events().into_iter().find(|event| event["eventType"] == "subscription.paid").unwrap();
    let mut upgrade = paid.clone();
    upgrade["id"] = json!("evt_upgrade");
    upgrade["object"]["product"]["id"] = json!("prod_premium_monthly");
    upgrade["object"]["last_transaction_id"] = json!("tran_upgrade");
    for _ in 0..2 {
        world.control().send_payment_event(upgrade.clone()).await;
    }
    assert_eq!((plan(&ada).await["plan_type"].clone(), ada.credits().await), (json!("premium"), 203));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_an_unknown_product_stay_open() {
    let world = World::new().await;
    let (ada, _) = subscriber(&world, "basic-monthly").await;
    let mut event = world.control().payment_events().into_iter().find(|event| event["eventType"] == "subscription.paid").unwrap();
    event["id"] = json!("evt_strange");
    event["object"]["product"]["id"] = json!("prod_moon");
    event["object"]["last_transaction_id"] = json!("tran_moon");
    world.control().send_payment_event(event).await;
    assert_eq!(world.sql_text("SELECT status FROM payment_events WHERE id = 'evt_strange'"), "received");
    assert_eq!(ada.credits().await, 28);
    // Once the operator sells it, the sweep applies what was kept.
    world.db_write("UPDATE products SET provider_product_id = 'prod_moon' WHERE id = 'premium-monthly'", []);
    world.db_payments_are_due();
    assert_eq!(world.sweep().await["payments"]["applied"], 1);
    assert_eq!(ada.credits().await, 203);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_paid_two_plans_can_end_both() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    // Two pages are open before either is paid.
    for product in ["basic-monthly", "pro-monthly"] {
        ada.begin_purchase(product).await;
    }
    for checkout in world.control().checkouts() {
        world.control().pay(&checkout.checkout_id).await.unwrap();
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM subscriptions WHERE status = 'active'"), 2);
    for ended in 1..=2 {
        ada.post(200, "/api/subscription/cancel").await;
        assert_eq!(world.sql_number("SELECT count(*) FROM subscriptions WHERE provider_status = 'scheduled_cancel'"), ended);
    }
    assert_eq!(plan(&ada).await["ends_with_period"], true);
    assert_eq!(ada.credits().await, 3 + 25 + 60);
    assert_eq!(ada.delete(200, "/api/me").await.json()["done"], true);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_paid_after_its_owner_has_gone_is_not_paid_again() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("pro-monthly").await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    ada.delete(200, "/api/me").await;
    world.control().pay(&checkout).await.unwrap();
    assert_eq!(world.sql_text("SELECT provider_status FROM subscriptions"), "active");
    world.sweep().await;
    assert_eq!(world.heard(Service::Creem, "/cancel"), 1);
    assert_eq!(world.sql_text("SELECT provider_status FROM subscriptions"), "scheduled_cancel");
    assert_eq!(world.events("plan_of_nobody_cancelled").len(), 1);
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(world.heard(Service::Creem, "/cancel"), 1, "once");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_told_without_its_number_is_looked_up() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "pro-monthly").await;
    world.sweep().await;
    world.fault(Fault::CreemWebhookDrop.once());
    world.control().fire(&subscription, PaymentEvent::Renew).await.unwrap();
    let mut paid = world.control().payment_events().pop().unwrap();
    assert_eq!(paid["eventType"], "subscription.paid");
    paid["object"].as_object_mut().unwrap().remove("last_transaction_id").unwrap();
    world.control().send_payment_event(paid).await;
    assert_eq!(ada.credits().await, 63);
    world.sweep().await;
    assert_eq!(ada.credits().await, 123);
    // It is the payment that money goes back of.
    world.control().fire(&subscription, PaymentEvent::Refund { amount: None, status: None }).await.unwrap();
    assert_eq!(ada.credits().await, 63);
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status <> 'done'"), 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_nobody_told_of_is_of_the_plan_that_was_paid_and_not_of_the_one_since() {
    let world = World::new().await;
    let (ada, subscription) = subscriber(&world, "premium-monthly").await;
    world.fault(Fault::CreemWebhookDrop);
    world.control().fire(&subscription, PaymentEvent::Renew).await.unwrap();
    world.control().clear_faults();
    let mut downgrade = world.control().payment_events().into_iter().find(|event| event["eventType"] == "subscription.active").unwrap();
    downgrade["id"] = json!("evt_downgrade");
    downgrade["eventType"] = json!("subscription.update");
    downgrade["object"]["product"]["id"] = json!("prod_basic_monthly");
    downgrade["object"]["updated_at"] = json!((e2e::now() + 5) * 1_000);
    world.control().send_payment_event(downgrade).await;
    assert_eq!(plan(&ada).await["plan_type"], "basic");
    world.db_payments_are_due();
    world.sweep().await;
    assert_eq!(ada.credits().await, 3 + 2 * 200);
    world.assert_books_balance();
}
