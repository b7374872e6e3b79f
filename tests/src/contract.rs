//! What the API's description says, held against what the API answers.
//!
//! Every answer that a [`crate::Person`] gets of the app is looked up in the committed description (crate `openapi`): its address and method, its
//! status, its type, the headers it must have, and its body by the schema. Objects are closed while they are checked: a field that is answered and
//! not described is as wrong as one that is described and not answered, so the description cannot lag behind. A request that was accepted has to be
//! described as well: its query with the values in it, and its body if that is JSON.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use reqwest::{Request, Url};
use serde_json::{Value, json};

use crate::{Answer, World, root};

/// First segments of what is no part of the API: the console's pages and files.
const PAGES: [&str; 9] = ["", "gallery", "credits", "account", "admin", "assets", "docs", "robots.txt", "favicon.ico"];

/// What a host may answer for itself, by the addresses of worlds whose tests said so.
static HOSTS_OWN: Mutex<BTreeSet<(String, u16)>> = Mutex::new(BTreeSet::new());

impl World {
    /// Expects an answer of the host's own from now on: of this status, without a body and without an id.
    pub fn host_may_answer(&self, status: u16) {
        HOSTS_OWN.lock().unwrap_or_else(PoisonError::into_inner).insert((self.address().authority().to_owned(), status));
    }
}

/// Whether nobody of ours was asked, or was left, and that was to be expected.
fn is_hosts_own(asked: &Url, answer: &Answer) -> bool {
    let unsigned = answer.header("x-request-id").is_empty() && answer.body.is_empty();
    let expected = || {
        let said = HOSTS_OWN.lock().unwrap_or_else(PoisonError::into_inner);
        said.contains(&(asked.authority().to_owned(), answer.status))
    };
    unsigned && expected()
}

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
    if is_hosts_own(&asked.url, answer) {
        return;
    }
    if let Some(operation) = check(&asked.method, asked.url.path(), answer)
        && (200..400).contains(&answer.status)
    {
        contract().accepted(operation, asked, answer);
    }
}

/// [`check_exchange`] of an answer whose body is still to come: a stream.
///
/// # Panics
/// As there.
pub async fn check_head(asked: &Asked, response: &reqwest::Response) {
    let mut head = http::Response::new(Vec::new());
    *head.status_mut() = response.status();
    *head.headers_mut() = response.headers().clone();
    check_exchange(asked, &Answer::read(format!("{} {}", asked.method, asked.url.path()), head.into()).await);
}

impl Contract {
    /// What a value is, or what its reference leads to.
    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        let to = value.get("$ref").and_then(Value::as_str);
        to.map_or(value, |to| self.document.pointer(to.trim_start_matches('#')).unwrap())
    }

    /// Refuses a body, or a type of one, that is not as a response describes it, and a head that lacks something.
    fn validate(&self, response: &Value, method: &str, answer: &Answer) {
        let response = self.resolved(response);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let must = self.resolved(header)["required"] == true;
            assert!(!must || !answer.header(name).is_empty(), "without {name}, which is described: {answer}");
        }
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
        let wrong = self.wrong(&described["schema"], &answer.json());
        assert!(wrong.is_empty(), "not as described: {wrong}\n{answer}");
    }

    /// Refuses what was accepted and is not described.
    fn accepted(&self, operation: &Value, asked: &Asked, answer: &Answer) {
        let parameters: Vec<&Value> = operation["parameters"].as_array().unwrap().iter().map(|one| self.resolved(one)).collect();
        for (name, value) in asked.url.query_pairs() {
            let Some(parameter) = parameters.iter().find(|parameter| parameter["in"] == "query" && parameter["name"] == *name) else {
                // What leads a browser on comes back from others, who add words of their own.
                assert!((300..400).contains(&answer.status), "`{name}` in the query is not described: {answer}");
                continue;
            };
            let number = (parameter["schema"]["type"] == "integer").then(|| value.parse::<i64>().ok()).flatten();
            let wrong = self.wrong(&parameter["schema"], &number.map_or_else(|| json!(value), |number| json!(number)));
            assert!(wrong.is_empty(), "`{name}={value}` in the query is not as described, and was accepted: {wrong}\n{answer}");
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
        refused_with(&["x-request-id", "ratelimit", "location", "set-cookie", "allow"], method, path, status, kind, body)
    }

    fn refused_with(headers: &[&'static str], method: &str, path: &str, status: u16, kind: &str, body: &Value) -> Option<String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut answer = Answer::made(format!("{method} {path}"), status, kind, body);
        for name in headers {
            answer.headers.insert(*name, "x".parse().unwrap());
        }
        let url = Url::parse("http://contract.test").unwrap().join(path).unwrap();
        let outcome = catch_unwind(|| check_exchange(&Asked { method: method.to_owned(), url, body: None }, &answer));
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
        assert_eq!(refused("GET", "/files/cache/u/1_a.jpg?download=1", 302, "", &Value::Null), None);
        assert_eq!(refused("POST", "/auth/logout?all=true", 204, "", &Value::Null), None);
        assert_eq!(refused("GET", "/api/tasks/TASK_1/events", 200, "text/event-stream", &Value::Null), None);
        let paged = json!({"uploads": [], "limit": 5, "offset": 0, "next_cursor": null});
        assert_eq!(refused("GET", "/api/uploads?limit=5", 200, json, &paged), None);
        assert_eq!(refused("GET", "/callback/payment?checkout_id=ch_1&signature=theirs", 302, "", &Value::Null), None);
        let nowhere = problem(404, "not_found");
        assert_eq!(refused_with(&[], "GET", "/nothing", 404, "application/problem+json", &nowhere), None, "nobody of ours was asked");
    }

    #[test]
    fn what_is_asked_is_held_to_the_description_down_to_its_values() {
        let paged = json!({"uploads": [], "limit": 5, "offset": 0, "next_cursor": null});
        for (method, path, status, body) in [
            ("POST", "/auth/logout?all=1", 204, &Value::Null),
            ("POST", "/auth/logout?everywhere=true", 204, &Value::Null),
            ("GET", "/files/cache/u/1_a.jpg?download=yes", 302, &Value::Null),
            ("GET", "/api/uploads?limit=101", 200, &paged),
            ("GET", "/api/uploads?limit=many", 200, &paged),
        ] {
            let told = refused(method, path, status, "application/json", body).unwrap_or_else(|| panic!("{path} passes"));
            assert!(told.contains("in the query is not"), "{told}");
        }
    }

    #[test]
    fn a_head_that_lacks_something_is_refused() {
        for (headers, method, status, body, lacks) in [
            (&["location", "set-cookie"][..], "GET", 302, Value::Null, "x-request-id"),
            (&["x-request-id", "set-cookie"], "GET", 302, Value::Null, "location"),
            (&["x-request-id"], "POST", 405, problem(405, "method_not_allowed"), "allow"),
        ] {
            let told = refused_with(headers, method, "/auth/login/google", status, "application/problem+json", &body).unwrap();
            assert!(told.contains(&format!("without {lacks}")), "{told}");
        }
        let told = refused_with(&[], "GET", "/api/tasks/TASK_1/events", 200, "text/event-stream", &Value::Null).unwrap();
        assert!(told.contains("without x-request-id"), "{told}");
    }

    #[test]
    fn the_host_answers_for_itself_only_where_that_is_expected() {
        for status in [400, 404, 500, 502, 504] {
            assert!(refused_with(&[], "GET", "/api/me", status, "", &Value::Null).is_some(), "{status}");
        }
        HOSTS_OWN.lock().unwrap().insert(("contract.test".to_owned(), 408));
        assert_eq!(refused_with(&[], "GET", "/api/me", 408, "", &Value::Null), None);
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
