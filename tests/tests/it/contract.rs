//! The API's description: every address is in it and nothing else, and a public validator has no objection. That every answer is as described is
//! checked wherever the suite gets one (`e2e::contract`).

use std::collections::BTreeSet;

use e2e::{World, contract, root};
use servers::description::{Generator, Validator};

use crate::routes::ENDPOINTS;

const DESCRIPTION: &str = "components/web/site/openapi.json";

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
    assert_eq!(answer.body.as_ref(), std::fs::read(root().join(DESCRIPTION)).unwrap());
}

#[test]
fn a_public_validator_has_no_objection() {
    let validator = match Validator::get(&root().join("target")) {
        Ok(validator) => validator,
        Err(why) => return println!("skipped: {why}"),
    };
    validator.check(&root().join(DESCRIPTION)).unwrap_or_else(|objection| panic!("{objection}"));
    // It does look.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.json");
    let text = std::fs::read_to_string(root().join(DESCRIPTION)).unwrap();
    std::fs::write(&broken, text.replacen("\"in\": \"path\"", "\"in\": \"somewhere\"", 1)).unwrap();
    validator.check(&broken).unwrap_err();
}

/// Uses the types as a client does. What is marked has to be refused by the compiler.
const CLIENT: &str = r#"
import type { components, operations, paths } from "./api";

type Order = operations["orderPictures"]["requestBody"]["content"]["application/json"];
export const order: Order = { upload_id: "u", hairstyles: ["bob-cut"], hair_color: null };
// @ts-expect-error A picture needs a photo.
export const nothing: Order = { hairstyles: ["bob-cut"] };

type Pictures = paths["/api/tasks"]["get"]["responses"][200]["content"]["application/json"];
export const prices = (page: Pictures): number[] => page.tasks.map((task) => task.price);
// @ts-expect-error Who asks for what is not there is told so.
export const wrong = (page: Pictures) => page.pictures;

export function advice({ code }: components["schemas"]["Problem"]): string {
  return code === "insufficient_credits" ? "Buy some." : "Try again.";
}
"#;

#[test]
fn a_client_is_made_of_it() {
    match Generator::get(&root().join("target")) {
        Ok(generator) => generator.compile(&root().join(DESCRIPTION), CLIENT).unwrap_or_else(|why| panic!("{why}")),
        Err(why) => println!("skipped: {why}"),
    }
}
