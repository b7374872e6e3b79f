//! Reading a task whose callback got lost: the reader makes up for it.

use e2e::World;
use futures::future::join_all;
use sandbox::{Fault, Service};

/// A finished picture nobody told about.
async fn unheard() -> (World, e2e::Person, String) {
    let world = World::new().await;
    world.fault(Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let finished = async || {
        let done = world.control().kie_tasks().iter().all(|task| task.outcome.is_some());
        if done { Ok(()) } else { Err("at work".to_owned()) }
    };
    world.until("the provider", finished).await;
    (world, ada, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_callback_is_made_up_for_by_reading() {
    let (world, ada, task) = unheard().await;
    assert_eq!(ada.task(&task).await["status"], "processing");
    assert_eq!(world.heard(Service::Kie, "record"), 0, "half a minute is the callback's");
    world.db_tasks_are_due();
    let read = ada.task(&task).await;
    assert_eq!(read["status"], "completed", "{read}{}", world.tail());
    assert!(!ada.download(read["result_urls"][0].as_str().unwrap()).await.is_empty());
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_fetch_it_once() {
    let (world, ada, task) = unheard().await;
    world.db_tasks_are_due();
    join_all((0..20).map(|_| ada.task(&task))).await;
    assert_eq!(ada.task(&task).await["status"], "completed");
    assert_eq!(world.heard(Service::S3, "PUT /ai-hairstyle/result"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_again_and_again_does_not_make_us_ask_again_and_again() {
    let world = World::new().await;
    world.fault(Fault::KieDelay { ms: 60_000 });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    world.db_tasks_are_due();
    let (first, waits) = (world.control().calls_to(Service::Kie).len(), "SELECT next_attempt_at - unixepoch() FROM ai_tasks");
    for _ in 0..5 {
        assert_eq!(ada.task(&task).await["status"], "processing");
    }
    assert_eq!(world.control().calls_to(Service::Kie).len(), first + 1);
    let wait = world.sql_number(waits);
    world.db_tasks_are_due();
    ada.task(&task).await;
    assert!(world.sql_number(waits) > wait, "the next wait is longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_asked_about_in_vain_is_left_to_the_sweep() {
    let (world, ada, task) = unheard().await;
    world.db_write("UPDATE ai_tasks SET attempts = 8", []);
    world.db_tasks_are_due();
    assert_eq!(ada.task(&task).await["status"], "processing");
    assert_eq!(world.heard(Service::Kie, "record"), 0);
    world.sweep().await;
    assert_eq!(ada.task(&task).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_does_not_keep_a_task_from_being_read() {
    let (world, ada, task) = unheard().await;
    world.fault(Fault::KieRecordAnswers { code: 500, msg: None, http_status: Some(500) });
    world.db_tasks_are_due();
    assert_eq!(ada.task(&task).await["status"], "processing");
    assert_eq!(world.events("task_look_failed").len(), 1, "{}", world.tail());
    world.control().clear_faults();
    world.db_tasks_are_due();
    assert_eq!(ada.task(&task).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_nobody_told_about_is_found_and_paid_back() {
    let world = World::new().await;
    world.fault(Fault::KieNoCallback);
    world.fault(Fault::KieFail { code: 501, msg: None });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let failed = async || {
        world.db_tasks_are_due();
        let task = ada.task(&task).await;
        if task["status"] == "failed" { Ok(()) } else { Err(task.to_string()) }
    };
    world.until("the failure", failed).await;
    assert_eq!(ada.credits().await, 3);
    world.assert_books_balance();
}
