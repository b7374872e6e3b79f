//! `/health`: is each of the stores there?

use e2e::{Options, World};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well() {
    let world = World::new().await;
    let answer = world.stranger().get(200, "/health").await;
    assert_eq!(answer.json(), json!({"status": "ok", "database": true, "storage": true, "cache": true}));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(world.stranger().get(200, "/health/live").await.json(), json!({"status": "ok"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_down_is_named_and_the_others_are_not_blamed() {
    let world = World::new().await;
    world.storage_down();
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "degraded", "database": true, "storage": false, "cache": true}));
    world.stranger().get(200, "/health/live").await;
    world.control().clear_faults();
    world.stranger().get(200, "/health").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_to_the_bucket_is_unhealthy() {
    let variables = [("s3_secret_access_key".to_owned(), "not-the-secret".to_owned())].into();
    let world = World::with(Options { variables, ..Default::default() }).await;
    assert_eq!(world.stranger().get(503, "/health").await.json()["storage"], false);
    let reasons = world.events("store_unhealthy");
    assert_eq!(reasons[0]["store"], "storage", "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_its_schema_is_unhealthy() {
    let world = World::new().await;
    world.db_write("DROP TABLE schema_migrations", []);
    let answer = world.stranger().get(503, "/health").await;
    assert_eq!(answer.json(), json!({"status": "degraded", "database": false, "storage": true, "cache": true}));
}
