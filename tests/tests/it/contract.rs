//! The API's description: every address is in it and nothing else, and a public validator has no objection. That every answer is as described is
//! checked wherever the suite gets one (`e2e::contract`).

use std::collections::BTreeSet;

use e2e::{World, contract, root};

use crate::routes::ENDPOINTS;

/// With every parameter's name left out.
fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') || part == "evt_1" { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_endpoint_is_described_and_nothing_else() {
    let provider = |path: &str| path.replace("/google", "/{}").replace("/github", "/{}");
    let is_page = |path: &str| {
        !["/api", "/auth", "/files", "/webhooks", "/internal", "/health", "/callback"].iter().any(|start| path.starts_with(start))
    };
    let own = ["/auth/google", "/auth/google/nonce"];
    let answered: BTreeSet<(String, String)> = ENDPOINTS
        .iter()
        .filter(|(_, path, ..)| !is_page(path))
        .map(|(method, path, ..)| ((*method).to_owned(), shape(&if own.contains(path) { (*path).to_owned() } else { provider(path) })))
        .collect();
    let described: BTreeSet<(String, String)> = contract::operations().into_iter().map(|(method, path)| (method, shape(&path))).collect();
    assert_eq!(described, answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_as_it_was_written() {
    let world = World::new().await;
    let answer = world.stranger().get(200, "/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.body.as_ref(), std::fs::read(root().join("components/web/site/openapi.json")).unwrap());
}
