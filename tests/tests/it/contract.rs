//! The API's description: every address is in it and nothing else, and a public validator has no objection. That every answer is as described is
//! checked wherever the suite gets one (`e2e::contract`).

use std::collections::BTreeSet;

use e2e::{World, contract, root};
use servers::description::{Generator, Validator};

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

#[test]
fn a_public_validator_has_no_objection() {
    match Validator::get(&root().join("target")) {
        Ok(validator) => validator.look(&root().join("components/web/site/openapi.json")).unwrap(),
        Err(why) => println!("skipped: {why}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_made_of_it_compiles_and_the_program_in_the_docs_runs_with_it() {
    let generator = match Generator::get(&root().join("target")) {
        Ok(generator) => generator,
        Err(why) => return println!("skipped: {why}"),
    };
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let program = text.split("```ts\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    let program = program
        .replace("http://127.0.0.1:3000", world.address().as_str().trim_end_matches('/'))
        .replace("<token>", &ada.token().unwrap())
        .replace("<upload>", &upload);
    let description = root().join("components/web/site/openapi.json");
    let written = tokio::task::block_in_place(|| generator.try_out(&description, &program)).unwrap();
    assert!(written.starts_with("1 credits left\nTASK"), "{written}");
    // What an eager client could get wrong is found when it is compiled.
    let wrong = program.replace("order.data.credits.balance", "order.data.credits.balanze");
    let refusal = tokio::task::block_in_place(|| generator.try_out(&description, &wrong)).unwrap_err();
    assert!(refusal.contains("balanze"), "{refusal}");
}
