//! What the API's description says, held against what the API answers.
//!
//! Every answer that a [`crate::Person`] gets of the app is looked up in the committed description (crate `openapi`): its address and method, its
//! status, its type, the headers it must have, and its body by the schema. Objects are closed while they are checked: a field that is answered and
//! not described is as wrong as one that is described and not answered, so the description cannot lag behind. A request that was accepted has to be
//! described as well: its query, and its body if that is JSON.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use reqwest::{Request, Url};
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

/// Refuses an answer that is not as described. Answers the operation that describes it, if it is one.
///
/// # Panics
/// Then, with what is wrong.
fn check(method: &str, path: &str, answer: &Answer) -> Option<&'static Value> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    if PAGES.contains(&segments[0]) || path == "/openapi.json" {
        return None;
    }
    // Nobody of ours was asked, or was left: the host has answered for itself.
    let unsigned = answer.header("x-request-id").is_empty() && answer.body.is_empty();
    if unsigned && [400, 404, 500, 502, 504].contains(&answer.status) {
        return None;
    }
    let contract = contract();
    let Some(methods) = find(&contract.document, &segments) else {
        assert_eq!(answer.status, 404, "an address that is not described is answered: {answer}");
        contract.validate(&json!({"$ref": "#/components/responses/404"}), method, answer);
        return None;
    };
    let asked = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let Some(operation) = methods.get(&asked) else {
        assert!([404, 405].contains(&answer.status), "a method that is not described is answered: {answer}");
        let named = format!("#/components/responses/{}", answer.status);
        contract.validate(&json!({"$ref": named}), method, answer);
        return None;
    };
    let response = operation["responses"].get(answer.status.to_string());
    // A method that an address takes may still be refused for what is in its place: 405 is described by the address itself.
    let response = response.unwrap_or_else(|| panic!("a status that is not described: {answer}"));
    contract.validate(response, method, answer);
    Some(operation)
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

/// A request as it was sent.
pub struct Asked {
    method: String,
    url: Url,
    /// JSON only.
    body: Option<Vec<u8>>,
}

impl Asked {
    /// Remembers a request that is about to be sent.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let is_json = request.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let body = request.body().and_then(reqwest::Body::as_bytes).filter(|_| is_json);
        Self { method: request.method().to_string(), url: request.url().clone(), body: body.map(<[u8]>::to_vec) }
    }
}

/// Refuses an answer that is not as described, also in its head, and one that accepts what is not described.
///
/// # Panics
/// Then, with what is wrong.
pub fn check_exchange(asked: &Asked, answer: &Answer) {
    let operation = check(&asked.method, asked.url.path(), answer);
    let Some(operation) = operation.filter(|_| !answer.header("x-request-id").is_empty()) else { return };
    let contract = contract();
    let response = contract.resolved(&operation["responses"][answer.status.to_string()]);
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let must = contract.resolved(header)["required"] == true;
        assert!(!must || !answer.header(name).is_empty(), "without {name}, which is described: {answer}");
    }
    if (200..300).contains(&answer.status) {
        contract.accepted(operation, asked, answer);
    }
}

impl Contract {
    /// What a value is, or what its reference leads to.
    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        let to = value.get("$ref").and_then(Value::as_str);
        to.map_or(value, |to| self.document.pointer(to.trim_start_matches('#')).unwrap())
    }

    /// Refuses a body, or a type of one, that is not as a response describes it.
    fn validate(&self, response: &Value, method: &str, answer: &Answer) {
        let Some(content) = self.resolved(response).get("content").and_then(Value::as_object) else {
            assert!(answer.body.is_empty(), "a body that is not described: {answer}");
            return;
        };
        let kind = answer.header("content-type");
        let described = content.get(kind.split(';').next().unwrap_or_default());
        let described = described.unwrap_or_else(|| panic!("a type that is not described ({kind}): {answer}"));
        if method == "HEAD" || !kind.contains("json") {
            return;
        }
        let wrong = self.wrong(&described["schema"], &answer.json());
        assert!(wrong.is_empty(), "not as described: {wrong}\n{answer}");
    }

    /// Refuses what was accepted and is not described.
    fn accepted(&self, operation: &Value, asked: &Asked, answer: &Answer) {
        let parameters: Vec<&Value> = operation["parameters"].as_array().unwrap().iter().map(|one| self.resolved(one)).collect();
        for (name, _) in asked.url.query_pairs() {
            let known = parameters.iter().any(|parameter| parameter["in"] == "query" && parameter["name"] == *name);
            assert!(known, "`{name}` in the query is not described: {answer}");
        }
        let Some(body) = &asked.body else { return };
        let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") else { return };
        let wrong = self.wrong(schema, &serde_json::from_slice(body).unwrap());
        assert!(wrong.is_empty(), "what was sent is not as described, and was accepted: {wrong}\n{answer}");
    }

    /// What is wrong with a value by a schema; empty when all is well.
    fn wrong(&self, schema: &Value, value: &Value) -> String {
        let validator = {
            let mut known = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = known.entry(schema.to_string());
            Arc::clone(entry.or_insert_with(|| {
                let mut whole = schema.clone();
                whole["components"] = self.closed.clone();
                Arc::new(jsonschema::validator_for(&whole).unwrap())
            }))
        };
        let wrong: Vec<String> = validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        wrong.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn refused(method: &str, path: &str, status: u16, kind: &str, body: &Value) -> Option<String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = Answer::made(format!("{method} {path}"), status, kind, body);
        let outcome = catch_unwind(|| check(method, path, &answer));
        outcome.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    }

    fn problem(status: u16, code: &str) -> Value {
        json!({"type": "about:blank", "title": "t", "status": status, "detail": "d", "code": code, "request_id": "r"})
    }

    #[test]
    fn what_is_as_described_passes() {
        let json = "application/json";
        assert_eq!(refused("GET", "/health", 200, json, &json!({"status": "ok", "database": true, "storage": true, "cache": true})), None);
        assert_eq!(refused("GET", "/files/cache/u/1_a.jpg", 302, "", &Value::Null), None);
        assert_eq!(refused("DELETE", "/health", 405, "application/problem+json", &problem(405, "method_not_allowed")), None);
        assert_eq!(refused("GET", "/nothing/here", 404, "application/problem+json", &problem(404, "not_found")), None);
        assert_eq!(refused("GET", "/gallery/x", 200, "text/html", &Value::Null), None, "a page is no part of it");
    }

    #[test]
    fn what_is_not_as_described_is_refused() {
        let json = "application/json";
        let cases = [
            (
                "GET",
                "/health",
                200,
                json,
                json!({"status": "ok", "database": true, "storage": true, "cache": true, "more": 1}),
                "not as described",
            ),
            ("GET", "/health", 200, json, json!({"status": "ok", "database": true, "storage": true}), "not as described"),
            ("GET", "/health", 200, json, json!({"status": "ok", "database": "yes", "storage": true, "cache": true}), "not as described"),
            ("GET", "/health", 200, "text/plain", json!("ok"), "a type that is not described"),
            ("GET", "/health", 418, json, json!({}), "a status that is not described"),
            ("DELETE", "/health", 200, json, json!({}), "a method that is not described"),
            ("GET", "/api/secret", 200, json, json!({}), "an address that is not described"),
            ("POST", "/auth/logout", 204, json, json!({"surprise": true}), "a body that is not described"),
            ("GET", "/api/me", 401, "application/problem+json", problem(401, "no_such_code"), "not as described"),
        ];
        for (method, path, status, kind, body, why) in cases {
            let told = refused(method, path, status, kind, &body).unwrap_or_else(|| panic!("{method} {path} {status} passes: {body}"));
            assert!(told.contains(why), "{told}");
        }
    }
}
