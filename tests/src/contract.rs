//! What the API's description says, held against what the API answers.
//!
//! Every answer that a [`crate::Person`] gets of the app is looked up in the committed description (crate `openapi`): its address and method, its
//! status, its type, and its body by the schema. Objects are closed while they are checked: a field that is answered and not described is as wrong as
//! one that is described and not answered, so the description cannot lag behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::{Answer, root};

/// First segments of what is no part of the API: the console's pages and files.
const PAGES: [&str; 9] = ["", "gallery", "credits", "account", "admin", "assets", "docs", "robots.txt", "favicon.ico"];

struct Contract {
    document: Value,
    /// The document's schemas with every object closed.
    closed: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let text = std::fs::read_to_string(root().join("components/web/site/openapi.json")).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let mut closed = document["components"].clone();
        close(&mut closed["schemas"]);
        Contract { document, closed, validators: Mutex::default() }
    })
}

/// Lets no object have a property that is not described.
fn close(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(close);
            if map.get("type").is_some_and(|kind| kind == "object")
                && map.contains_key("properties")
                && !map.contains_key("additionalProperties")
            {
                map.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

/// Every operation as the description names it: method and path.
#[must_use]
pub fn operations() -> Vec<(String, String)> {
    let paths = contract().document["paths"].as_object().unwrap();
    let all =
        paths.iter().flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    all.collect()
}

/// Refuses an answer that is not as described.
///
/// # Panics
/// Then, with what is wrong.
pub fn check(method: &str, path: &str, answer: &Answer) {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    if PAGES.contains(&segments[0]) || path == "/openapi.json" {
        return;
    }
    let contract = contract();
    let Some(methods) = find(&contract.document, &segments) else {
        assert_eq!(answer.status, 404, "an address that is not described is answered: {answer}");
        return validate(contract, &json!({"$ref": "#/components/responses/404"}), method, answer);
    };
    let asked = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let Some(operation) = methods.get(&asked) else {
        assert!([404, 405].contains(&answer.status), "a method that is not described is answered: {answer}");
        let named = format!("#/components/responses/{}", answer.status);
        return validate(contract, &json!({"$ref": named}), method, answer);
    };
    let response = operation["responses"].get(answer.status.to_string());
    // A method that an address takes may still be refused for what is in its place: 405 is described by the address itself.
    let response = response.unwrap_or_else(|| panic!("a status that is not described: {answer}"));
    validate(contract, response, method, answer);
}

/// What the description has of an address: literals go before parameters, and a file's key is the rest of the path.
fn find<'d>(document: &'d Value, segments: &[&str]) -> Option<&'d Value> {
    let paths = document["paths"].as_object().unwrap();
    let fits = |path: &str| {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let same = |(part, segment): (&&str, &&str)| part == segment || (part.starts_with('{') && !segment.is_empty());
        let rest = path == "/files/{key}" && segments.len() > 2;
        (parts.len() == segments.len() || rest) && parts.iter().zip(segments).all(same)
    };
    let parameters = |path: &str| path.matches('{').count();
    paths.iter().filter(|(path, _)| fits(path)).min_by_key(|(path, _)| parameters(path)).map(|(_, methods)| methods)
}

fn validate(contract: &Contract, response: &Value, method: &str, answer: &Answer) {
    let response = match response.get("$ref").and_then(Value::as_str) {
        Some(to) => contract.document.pointer(to.trim_start_matches('#')).unwrap(),
        None => response,
    };
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert!(answer.body.is_empty(), "a body that is not described: {answer}");
        return;
    };
    let kind = answer.header("content-type");
    let described = content.get(kind.split(';').next().unwrap_or_default());
    let described = described.unwrap_or_else(|| panic!("a type that is not described ({kind}): {answer}"));
    if method == "HEAD" || !kind.contains("json") {
        return;
    }
    let schema = &described["schema"];
    let validator = {
        let mut known = contract.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(schema.to_string());
        Arc::clone(entry.or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = contract.closed.clone();
            Arc::new(jsonschema::validator_for(&whole).unwrap())
        }))
    };
    let body = answer.json();
    let wrong: Vec<String> = validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "not as described: {}\n{answer}", wrong.join("; "));
}
