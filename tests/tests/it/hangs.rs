//! Stores that take a call and never answer it. A host need not have a limit of its own (Spin's Redis and libSQL have none), so the components
//! have: nobody waits for ever.

use e2e::World;
use host::Moment;

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_hangs_is_done_without() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    ada.task(&task).await;
    // The first call is the question for the session.
    world.crash_at("tasks", 1, Moment::Never);
    let answer = ada.get(200, &format!("/api/tasks/{task}")).await;
    assert!(world.crashed());
    assert_eq!(answer.json()["task"]["status"], "completed");
    assert!(answer.calls().sqlite > 0, "the session is asked of the database: {answer}");
    let failed = world.events("cache_failed");
    assert!(failed.iter().any(|line| line["cause"].as_str().unwrap().contains("no answer in time")), "{failed:?}");
    // What has just hung is not waited for again, by the host that has met it; where there are two, they take turns.
    let next = [ada.get(200, &format!("/api/tasks/{task}")).await.calls(), ada.get(200, &format!("/api/tasks/{task}")).await.calls()];
    assert!(next.iter().any(|calls| calls.kv == 0), "{next:?}");
    world
        .until("the cache to be asked again", async || {
            let calls = ada.get(200, &format!("/api/tasks/{task}")).await.calls();
            if calls.kv > 0 { Ok(()) } else { Err(format!("{calls:?}")) }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_told_and_the_next_one_is_answered() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.get(200, "/api/me/credits").await;
    // The first call is the question for the session, the second the database.
    world.crash_at("account", 2, Moment::Never);
    let answer = ada.ask(ada.request(http::Method::GET, "/api/me/credits")).await;
    assert!(world.crashed());
    assert_eq!(answer.status, 503, "{answer}");
    answer.problem("service_unavailable");
    assert_eq!(ada.credits().await, 3);
}
