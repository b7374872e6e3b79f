//! `POST /webhooks/kie/{task_id}`: callbacks of the AI provider, and what finishes a task when none comes.

use e2e::World;
use e2e::kie::Callback;
use futures::future::join_all;
use sandbox::{Fault, ServedResult, Service};
use serde_json::json;

/// Requests in which the provider was asked about a task, for the default model.
fn queries(world: &World) -> usize {
    world.heard(Service::Kie, "GET /api/v1/jobs/recordInfo")
}

fn creations(world: &World) -> usize {
    world.heard(Service::Kie, "POST /api/v1/jobs/createTask")
}

fn copies_home(world: &World) -> usize {
    world.heard(Service::S3, "PUT /ai-hairstyle/result/")
}

/// A task of Ada's that the provider has finished, and whose callback was lost.
async fn finished_unheard() -> (World, e2e::Person, String) {
    let world = World::new().await;
    world.fault(Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    world.until_done_at_provider().await;
    (world, ada, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_callback_is_made_up_for_by_the_sweep() {
    let (world, ada, task) = finished_unheard().await;
    world.sweep().await;
    assert_eq!(ada.task(&task).await["status"], "processing", "it is not asked about before its time");
    world.db_tasks_are_due();
    assert_eq!(world.sweep().await["tasks"]["completed"], 1);
    assert_eq!(ada.task(&task).await["status"], "completed");
    assert_eq!(ada.credits().await, 2);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_comes_again_changes_nothing() {
    let (world, ada, task) = finished_unheard().await;
    let callback = Callback::about(&world, &task);
    assert_eq!(callback.send(&world, 200).await.json()["outcome"], "completed");
    let finished = ada.task(&task).await;
    assert_eq!(finished["status"], "completed");
    let asked = queries(&world);
    for _ in 0..3 {
        assert_eq!(callback.send(&world, 200).await.json()["outcome"], "nothing");
    }
    assert_eq!(ada.task(&task).await, finished);
    assert!(queries(&world) <= asked + 1, "a repetition is not worth a question to the provider");
    assert_eq!(copies_home(&world), 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_at_the_same_time_bring_the_picture_home_once() {
    let (world, ada, task) = finished_unheard().await;
    let callback = Callback::about(&world, &task);
    let sender = world.stranger();
    let answers = join_all((0..5).map(|_| async {
        let signature = sandbox::signature::kie_callback(&callback.key, &callback.external_id, callback.timestamp);
        let request = sender
            .request(http::Method::POST, &format!("/webhooks/kie/{}", callback.task_id))
            .header("x-webhook-timestamp", callback.timestamp)
            .header("x-webhook-signature", signature)
            .json(&callback.body);
        sender.ask(request).await
    }))
    .await;
    let completed = answers.iter().filter(|answer| answer.status == 200 && answer.json()["outcome"] == "completed").count();
    assert_eq!(completed, 1, "{answers:?}");
    for answer in &answers {
        // The others hear that it is done, or that they should come again.
        assert!(matches!(answer.status, 200 | 503), "{answer}");
    }
    assert_eq!((queries(&world), copies_home(&world)), (1, 1));
    assert_eq!(ada.task(&task).await["status"], "completed");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_from_the_provider_end_well_too() {
    let world = World::new().await;
    world.fault(Fault::KieDuplicateCallback { copies: 3 });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let answered = async || {
        let last: Vec<_> = world.control().deliveries().iter().map(|delivery| (delivery.attempt, delivery.status)).collect();
        if last.iter().filter(|(_, status)| *status == Some(200)).count() == 3 { Ok(()) } else { Err(format!("{last:?}")) }
    };
    world.until("all three callbacks to be answered with 200", answered).await;
    assert_eq!(copies_home(&world), 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_has_no_effect() {
    let (world, ada, task) = finished_unheard().await;
    let right = || Callback::about(&world, &task);
    let wrong = [
        ("another key", Callback { key: "not-the-key".into(), ..right() }),
        ("too old", Callback { timestamp: e2e::now() - 3_600, ..right() }),
        ("from the future", Callback { timestamp: e2e::now() + 3_600, ..right() }),
        ("about another task", Callback { body: json!({"data": {"taskId": "0123456789abcdef"}}), ..right() }),
        ("about two tasks", Callback { body: json!({"taskId": "other", "data": {"taskId": right().external_id}}), ..right() }),
        ("about no task", Callback { body: json!({}), ..right() }),
    ];
    for (what, callback) in wrong {
        let answer = callback.send(&world, 401).await;
        answer.problem("invalid_signature");
        assert_eq!(answer.calls(), e2e::Calls::default(), "{what}: nothing is asked for a stranger");
    }
    let unsigned = world.stranger();
    unsigned.post_json(401, &format!("/webhooks/kie/{}", right().task_id), &right().body).await.problem("invalid_signature");
    assert_eq!((queries(&world), copies_home(&world)), (0, 0));
    assert_eq!(ada.task(&task).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_callback_for_another_task_is_not_found() {
    let (world, ada, task) = finished_unheard().await;
    let second = ada.order_one().await;
    let theirs = Callback::about(&world, &second);
    let unknown = Callback { task_id: "0198c0de-0000-7000-8000-000000000000".into(), ..Callback::about(&world, &task) };
    unknown.send(&world, 404).await.problem("not_found");
    // The provider's id of one task does not open another.
    let crossed = Callback { task_id: theirs.task_id.clone(), ..Callback::about(&world, &task) };
    crossed.send(&world, 404).await.problem("not_found");
    assert_eq!(queries(&world), 0);
    assert_eq!(ada.task(&second).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_callback_says_is_not_believed() {
    let world = World::new().await;
    // It claims a success with somebody else's picture, then a failure; the provider itself knows better.
    world.fault(Fault::KieCallbackLies { urls: None, code: None }.once());
    world.fault(Fault::KieCallbackLies { urls: None, code: Some(500) }.once());
    let ada = world.sign_in("ada@example.com").await;
    for style in ["bob-cut", "afro"] {
        let task = ada.order(&[style]).await.remove(0);
        let task = ada.wait_completed(&task).await;
        let made = world.control().kie_tasks().last().unwrap().result_urls[0].clone();
        let picture = ada.download(task["result_urls"][0].as_str().unwrap()).await;
        assert_eq!(picture, world.stranger().get(200, &made).await.body, "the picture is the one the provider made for this task");
    }
    // And a lie about a failure.
    world.control().clear_faults();
    world.fault(Fault::KieFail { code: 501, msg: None });
    world.fault(Fault::KieCallbackLies { urls: None, code: Some(200) });
    let task = ada.order_one().await;
    ada.wait_failed(&task).await;
    assert_eq!(ada.credits().await, 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_the_provider_returns_the_credit() {
    let world = World::new().await;
    world.fault(Fault::KieFail { code: 400, msg: Some("Your content was flagged".into()) });
    let ada = world.sign_in("ada@example.com").await;
    let models = ["nano-banana-edit", "4o", "kontext"];
    let upload = ada.any_upload().await;
    for model in models {
        let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"], "model": model});
        let task = ada.post_json(202, "/api/tasks", &body).await.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
        let task = ada.wait_failed(&task).await;
        assert_eq!(task["failure_reason"], "The AI provider refused this picture.", "{model}");
        assert_eq!(task["result_urls"], json!([]));
        assert_eq!(ada.credits().await, 3, "{model}");
    }
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_no_picture_of_the_providers_fails_the_task_and_returns_the_credit() {
    let serves = |serves: ServedResult| Fault::KieResultIs { serves, to: None, bytes: None, status: None, ms: None };
    let foreign = |url: String| Fault::KieResultUrls { urls: vec![url] };
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let elsewhere = world.places().s3.clone();
    let wrong = [
        ("a page", serves(ServedResult::Html)),
        ("a page that claims to be a picture", serves(ServedResult::HtmlAsImage)),
        ("nothing", serves(ServedResult::Empty)),
        ("a redirect", serves(ServedResult::Redirect)),
        ("too much", serves(ServedResult::Huge)),
        ("another place", foreign(format!("{elsewhere}/ai-hairstyle/secret.png"))),
        ("an address inside", foreign("http://169.254.169.254/latest/meta-data".into())),
        ("a file", foreign("file:///etc/passwd".into())),
    ];
    for (what, fault) in wrong {
        world.control().clear_faults();
        world.fault(fault);
        let task = ada.order_one().await;
        let task = ada.wait_failed(&task).await;
        assert_eq!(task["result_urls"], json!([]), "{what}");
        assert_eq!(ada.credits().await, 3, "{what}");
    }
    assert!(!world.objects().iter().any(|key| key.starts_with("result/")), "{:?}", world.objects());
    assert_eq!(world.heard(Service::S3, "secret.png"), 0, "a foreign address is not even asked");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_breaks_off_is_fetched_again() {
    let world = World::new().await;
    world.fault(Fault::KieResultIs { serves: ServedResult::Truncated, to: None, bytes: None, status: None, ms: None }.once());
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    // The provider repeats a callback that was not answered with 200.
    let task = ada.wait_completed(&task).await;
    image::load_from_memory(&ada.download(task["result_urls"][0].as_str().unwrap()).await).unwrap();
    assert!(world.control().deliveries().iter().any(|delivery| delivery.status == Some(503)), "{:?}", world.control().deliveries());
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_comes_in_drops_holds_nobody_up() {
    let (world, ada, slow) = finished_unheard().await;
    let quick = ada.order(&["afro"]).await.remove(0);
    world.until_done_at_provider().await;
    // A byte now and then, for as long as one listens: of the first picture, whose prompt is about a bob.
    let drip = Fault::KieResultIs { serves: ServedResult::Drip, to: None, bytes: None, status: None, ms: Some(200) };
    world.fault(drip.matching("bob"));
    world.db_tasks_are_due();
    let report = world.sweep().await["tasks"].clone();
    assert_eq!((&report["looked_at"], &report["completed"], &report["failed"]), (&json!(2), &json!(1), &json!(0)), "{report}");
    assert_eq!(ada.task(&quick).await["status"], "completed");
    // It was given up, and is fetched again later.
    let claimed = world.sql_number(&format!("SELECT claimed_until FROM ai_tasks WHERE task_no = '{slow}'"));
    assert_eq!((ada.task(&slow).await["status"].clone(), claimed), (json!("processing"), 0));
    assert_eq!(world.objects().iter().filter(|key| key.starts_with("result/")).count(), 1);
    world.control().clear_faults();
    world.db_tasks_are_due();
    world.sweep().await;
    ada.wait_completed(&slow).await;
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_nobody_has_heard_of_means_running() {
    let world = World::new().await;
    world.fault(Fault::KieUnknownState { state: "PONDERING".into() });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let told = async || {
        let deliveries = world.control().deliveries();
        if deliveries.iter().any(|delivery| delivery.status == Some(200)) { Ok(()) } else { Err(format!("{deliveries:?}")) }
    };
    world.until("the callback to be answered", told).await;
    assert_eq!(ada.task(&task).await["status"], "processing");
    world.control().clear_faults();
    world.db_tasks_are_due();
    assert_eq!(world.sweep().await["tasks"]["completed"], 1);
    ada.wait_completed(&task).await;
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_cannot_take_now_it_is_given_later() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for code in [429, 402, 455] {
        world.fault(Fault::KieCreateAnswers { code, msg: None, http_status: None });
        let task = ada.order_one().await;
        assert_eq!(ada.task(&task).await["status"], "pending", "code {code}");
        let before = creations(&world);
        world.sweep().await;
        assert_eq!(creations(&world), before, "code {code}: it is not tried again before its time");
        world.control().clear_faults();
        world.db_tasks_are_due();
        assert_eq!(world.sweep().await["tasks"]["handed_over"], 1, "code {code}");
        ada.wait_completed(&task).await;
    }
    assert_eq!(ada.credits().await, 0);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_account_at_the_provider_costs_nobody_anything() {
    let world = World::new().await;
    world.control().set_kie_balance(0.0);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    assert_eq!(ada.task(&task).await["status"], "pending");
    // It stays empty until the deadline.
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 901, next_attempt_at = 0", []);
    assert_eq!(world.sweep().await["tasks"]["failed"], 1);
    ada.wait_failed(&task).await;
    assert_eq!(ada.credits().await, 3);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answer_was_lost_is_not_repeated() {
    let world = World::new().await;
    world.fault(Fault::KieCreateHangs { ms: 200, creates: false });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    assert_eq!(ada.task(&task).await["status"], "pending");
    world.control().clear_faults();
    world.sweep().await;
    assert_eq!(creations(&world), 1, "whether the provider has it is not known, and asking twice would pay twice");
    // Nothing is heard of it until its deadline.
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 901, next_attempt_at = 0, claimed_until = 0", []);
    assert_eq!(world.sweep().await["tasks"]["failed"], 1);
    ada.wait_failed(&task).await;
    assert_eq!((creations(&world), ada.credits().await), (1, 3));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answer_was_lost_is_finished_by_its_callback() {
    let world = World::new().await;
    // Time for the answer to be given up before the callback comes.
    world.control().change_settings(|settings| settings.kie_delay_ms = 800);
    world.fault(Fault::KieCreateHangs { ms: 100, creates: true });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    assert_eq!((creations(&world), ada.credits().await), (1, 2));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_comes_after_the_credit_was_returned_changes_nothing() {
    let (world, ada, task) = finished_unheard().await;
    let callback = Callback::about(&world, &task);
    world.db_write("UPDATE ai_tasks SET status = 'failed', failure_reason = 'late', updated_at = unixepoch()", []);
    assert_eq!(callback.send(&world, 200).await.json()["outcome"], "nothing");
    assert_eq!((ada.task(&task).await["status"].clone(), ada.credits().await, copies_home(&world)), (json!("failed"), 3, 0));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_finishes_fails_at_its_deadline() {
    let world = World::new().await;
    world.fault(Fault::KieDelay { ms: 600_000 });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    world.db_tasks_are_due();
    world.sweep().await;
    assert_eq!(ada.task(&task).await["status"], "processing");
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 901, next_attempt_at = 0, claimed_until = 0", []);
    assert_eq!(world.sweep().await["tasks"]["failed"], 1);
    ada.wait_failed(&task).await;
    assert_eq!(ada.credits().await, 3);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_is_ready_at_the_deadline_is_still_taken() {
    let (world, ada, task) = finished_unheard().await;
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 901, next_attempt_at = 0, claimed_until = 0", []);
    assert_eq!(world.sweep().await["tasks"]["completed"], 1);
    assert_eq!((ada.task(&task).await["status"].clone(), ada.credits().await), (json!("completed"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_never_appears_where_it_was_announced_fails_at_the_deadline() {
    let (world, ada, task) = finished_unheard().await;
    world.fault(Fault::KieResultIs { serves: ServedResult::NotFound, to: None, bytes: None, status: None, ms: None });
    Callback::about(&world, &task).send(&world, 503).await.problem("storage_unavailable");
    assert_eq!(ada.task(&task).await["status"], "processing");
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 901, next_attempt_at = 0, claimed_until = 0", []);
    assert_eq!(world.sweep().await["tasks"]["failed"], 1);
    ada.wait_failed(&task).await;
    assert_eq!(ada.credits().await, 3);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_cannot_be_asked_is_asked_again() {
    let (world, ada, task) = finished_unheard().await;
    for (code, http_status) in [(500, None), (500, Some(500)), (429, None), (401, None)] {
        world.control().clear_faults();
        world.fault(Fault::KieRecordAnswers { code, msg: None, http_status });
        let answer = Callback::about(&world, &task).send(&world, 502).await;
        answer.problem("provider_unavailable");
        assert_eq!(ada.task(&task).await["status"], "processing", "code {code}");
    }
    // A record that is not there yet is no failure either.
    world.control().clear_faults();
    world.fault(Fault::KieRecordAnswers { code: 422, msg: Some("recordInfo is null".into()), http_status: None });
    assert_eq!(Callback::about(&world, &task).send(&world, 200).await.json()["outcome"], "running");
    world.control().clear_faults();
    world.db_tasks_are_due();
    world.sweep().await;
    ada.wait_completed(&task).await;
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_somebody_is_at_is_theirs_until_their_time_is_over() {
    let (world, ada, task) = finished_unheard().await;
    let callback = Callback::about(&world, &task);
    // Somebody claimed it, and died.
    world.db_write("UPDATE ai_tasks SET claimed_until = unixepoch() + 100, next_attempt_at = 0", []);
    let answer = callback.send(&world, 503).await;
    answer.problem("service_unavailable");
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(world.sweep().await["tasks"]["looked_at"], 0);
    world.db_write("UPDATE ai_tasks SET claimed_until = unixepoch()", []);
    callback.send(&world, 200).await;
    assert_eq!(ada.task(&task).await["status"], "completed");
    assert_eq!((queries(&world), copies_home(&world)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_down_delays_a_picture_but_does_not_lose_it() {
    let (world, ada, task) = finished_unheard().await;
    world.storage_down();
    let answer = Callback::about(&world, &task).send(&world, 503).await;
    answer.problem("storage_unavailable");
    assert!(!answer.header("retry-after").is_empty(), "{answer}");
    assert_eq!(ada.task(&task).await["status"], "processing");
    world.control().clear_faults();
    world.db_tasks_are_due();
    world.sweep().await;
    ada.wait_completed(&task).await;
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_no_callback_is_refused() {
    let world = World::new().await;
    let sender = world.stranger();
    let request =
        |body: Vec<u8>| sender.request(http::Method::POST, "/webhooks/kie/any").header("content-type", "application/json").body(body);
    sender.send(401, request(b"not json".to_vec())).await.problem("invalid_signature");
    sender.send(413, request(vec![b' '; 300 * 1024])).await.problem("payload_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_key_is_exchanged_both_are_good() {
    let key = sandbox::Credentials::default().kie_webhook_hmac_key;
    let variables = [("kie_webhook_hmac_key".to_owned(), format!("new-key,{key}"))].into();
    let world = World::with(e2e::Options { variables, ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    Callback { key: "new-key".into(), ..Callback::about(&world, &task) }.send(&world, 200).await;
    Callback { key: "other-key".into(), ..Callback::about(&world, &task) }.send(&world, 401).await;
}
