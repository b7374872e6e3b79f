//! What a request may cost in host calls: the numbers of the design, counted by the host.

use e2e::kie::Callback;
use e2e::{CRON_SECRET, Calls, Options, Person, World, photos};
use http::Method;
use sandbox::Fault;
use serde_json::json;

fn calls(kv: u64, sqlite: u64, http: u64) -> Calls {
    Calls { sqlite, kv, http }
}

fn within(what: &str, spent: Calls, most: Calls) {
    assert!(spent.kv <= most.kv && spent.sqlite <= most.sqlite && spent.http <= most.http, "{what}: {spent:?} is more than {most:?}");
}

/// What a read costs. One in sixty-four is counted for its rate limit, so the cheapest of a few is what all the others cost.
async fn read(person: &Person, path: &str) -> Calls {
    let mut cheapest = person.get(200, path).await.calls();
    for _ in 0..5 {
        let next = person.get(200, path).await.calls();
        if next.sqlite < cheapest.sqlite {
            cheapest = next;
        }
    }
    cheapest
}

#[tokio::test(flavor = "multi_thread")]
async fn knowing_who_calls_costs_one_look_into_each_store() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for path in [
        "/auth/session",
        "/api/me",
        "/api/me/credits",
        "/api/me/stats",
        "/api/tasks",
        "/api/uploads",
        "/api/orders",
        "/api/me/credits/history",
    ] {
        assert_eq!(read(&ada, path).await, calls(1, 1, 0), "{path}");
    }
    assert_eq!(ada.get(200, "/api/hairstyles").await.calls(), calls(0, 0, 0));
    assert_eq!(ada.get(200, "/api/products").await.calls(), calls(0, 1, 0));
    assert_eq!(ada.post(204, "/auth/logout").await.calls(), calls(2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_a_task_costs_two_looks_into_the_cache_and_one_into_the_database_while_it_runs() {
    let world = World::new().await;
    world.fault(Fault::KieDelay { ms: 600_000 }.once());
    let ada = world.sign_in("ada@example.com").await;
    let running = format!("/api/tasks/{}", ada.order_one().await);
    assert_eq!(read(&ada, &running).await, calls(2, 1, 0));
    let done = ada.order_one().await;
    ada.wait_completed(&done).await;
    assert_eq!(read(&ada, &format!("/api/tasks/{done}")).await, calls(2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ordering_costs_one_call_to_the_provider_for_each_picture() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    for styles in [vec!["bob-cut"], vec!["bob-cut", "afro"]] {
        let pictures = styles.len() as u64;
        let answer = ada.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": styles})).await;
        // The session, and whether the provider is being left alone; the rate limit, the charge, the outcomes with the answer.
        within("an order", answer.calls(), calls(2, 3, pictures));
        assert_eq!(answer.calls().http, pictures);
    }
    let refused = ada.post_json(402, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["afro"]})).await;
    assert_eq!(refused.calls(), calls(1, 2, 0));
    let wrong = ada.post_json(422, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["beehive"]})).await;
    assert_eq!(wrong.calls(), calls(1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_costs_one_question_one_download_and_one_copy() {
    let world = World::new().await;
    world.fault(Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    world.until_done_at_provider().await;
    let callback = Callback::about(&world, &task);
    let answer = callback.send(&world, 200).await;
    within("a callback", answer.calls(), calls(2, 3, 3));
    let again = callback.send(&world, 200).await;
    within("a callback that comes again", again.calls(), calls(0, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn buying_costs_one_call_to_the_payment_provider_and_settling_none() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let answer = ada.post_json(201, "/api/orders", &json!({"product_id": "credits-10"})).await;
    within("an order", answer.calls(), calls(3, 3, 1));
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    let back = world.control().pay(&checkout).await.unwrap().return_url.unwrap();
    let event = world.control().payment_events()[0].to_string();
    let signature = sandbox::signature::creem_webhook(&sandbox::Credentials::default().creem_webhook_secret, event.as_bytes());
    let sender = world.stranger();
    for _ in 0..2 {
        let request = sender.request(Method::POST, "/webhooks/creem").header("creem-signature", &signature).body(event.clone());
        within("a webhook", sender.send(200, request).await.calls(), calls(0, 3, 0));
    }
    within("the way back", ada.get(302, &back).await.calls(), calls(1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_figures_cost_four_statements_a_minute() {
    let variables = [("admin_emails".to_owned(), "boss@example.com".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let boss = world.sign_in("boss@example.com").await;
    // Who comes in by the address is made an admin, once.
    boss.get(200, "/api/admin/jobs").await;
    // The session, who it is and who vouches for the address; whether the figures are kept, the figures, and keeping them. (One request in some is counted.)
    within("figures", boss.get(200, "/api/admin/overview").await.calls(), calls(3, 7, 0));
    assert_eq!(read(&boss, "/api/admin/overview").await, calls(2, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_everything_costs_little_when_all_is_well() {
    let world = World::new().await;
    let scheduler = world.stranger();
    let look = async || scheduler.send(200, scheduler.request(Method::POST, "/internal/alarms").bearer_auth(CRON_SECRET)).await.calls();
    // The first one audits the books.
    look().await;
    // An outage that may be over, the cache, and five providers; the run's beginning and end, the probe, all that is read by one statement,
    // closing, telling, and cleaning twice; the bucket.
    within("a look", look().await, calls(7, 9, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_a_photo_in_costs_four_statements_and_giving_it_out_one() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let answer = ada.send(201, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    within("an upload", answer.calls(), calls(1, 4, 1));
    let url = answer.json()["uploads"][0]["url"].as_str().unwrap().to_owned();
    within("a file", ada.get(302, &url).await.calls(), calls(1, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_costs_what_the_flow_needs() {
    let world = World::new().await;
    let ada = world.stranger();
    let login = ada.get(302, "/auth/login/google?login_hint=ada@example.com").await;
    assert_eq!(login.calls(), calls(0, 1, 0));
    let consent = ada.get(302, login.header("location")).await;
    // The token and, the first time, the keys; then the state, the identity, the sign-up, the session, and whether that still lives.
    within("the first sign-in", ada.get(302, consent.header("location")).await.calls(), calls(4, 6, 2));
    let again = world.stranger();
    let back = again.begin_sign_in("google", "ada@example.com", "/").await;
    within("a sign-in", again.get(302, &back).await.calls(), calls(3, 4, 1));
}
