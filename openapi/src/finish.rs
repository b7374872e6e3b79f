//! What the types do not say: which members of an answer may be missing, and which words a text may be.
//!
//! The words are those of the schema's own constraints (`migrations/`), which every answer of the end-to-end suite is checked against.

use serde_json::{Value, json};

/// Members that are left out rather than null (`skip_serializing_if`). All others are always there.
const MAY_BE_MISSING: [(&str, &str); 7] = [
    ("Problem", "request_id"),
    ("Problem", "errors"),
    ("Product", "plan_type"),
    ("Product", "billing_cycle"),
    ("Rule", "head"),
    ("Report", "run"),
    ("Report", "ms"),
];

const TASK: &[&str] = &["pending", "processing", "completed", "failed"];
const ORDER: &[&str] = &["pending", "paid", "processing", "completed", "refunding", "refunded", "cancelled", "expired"];
const PLAN: &[&str] = &["active", "cancelled", "expired"];
const PLAN_TYPE: &[&str] = &["basic", "pro", "premium"];
const CYCLE: &[&str] = &["monthly", "yearly"];
const ROLE: &[&str] = &["user", "admin"];
const CREDITS: &[&str] = &["purchase", "gift", "consumption", "refund"];
const ADAPTER: &[&str] = &["kie_4o", "kie_kontext", "kie_market"];
const RUN: &[&str] = &["running", "done", "failed", "cut_off"];

/// Texts that are one of a few words.
const WORDS: [(&str, &str, &[&str]); 35] = [
    ("Act", "action", &["gift", "role", "replay", "invalidate"]),
    ("EventHeard", "outcome", &["applied", "duplicate", "ignored", "open"]),
    ("ExportedOrder", "status", ORDER),
    ("ExportedSubscription", "status", PLAN),
    ("ExportedSubscription", "plan_type", PLAN_TYPE),
    ("ExportedSubscription", "billing_cycle", CYCLE),
    ("Hairstyle", "group", &["long", "short", "any"]),
    ("Health", "status", &["ok", "degraded", "down"]),
    ("Identity", "provider", &["google", "github"]),
    ("Intended", "content_type", &["image/jpeg", "image/png", "image/webp"]),
    ("JobRun", "outcome", RUN),
    ("LastRun", "outcome", RUN),
    ("Live", "status", &["ok"]),
    ("Lot", "type", CREDITS),
    ("Model", "provider", ADAPTER),
    ("Movement", "type", CREDITS),
    ("Movement", "entity_type", &["order", "task", "admin", "signup", "subscription"]),
    ("Order", "status", ORDER),
    ("PaymentEvent", "status", &["received", "done", "ignored"]),
    ("Plan", "plan_type", PLAN_TYPE),
    ("Plan", "billing_cycle", CYCLE),
    ("Plan", "status", PLAN),
    ("Problem", "type", &["about:blank"]),
    ("Product", "kind", &["pack", "plan"]),
    ("Product", "plan_type", PLAN_TYPE),
    ("Product", "billing_cycle", CYCLE),
    ("Put", "method", &["PUT"]),
    ("Report", "outcome", &["done", "failed", "already_running", "not_due"]),
    ("Role", "role", ROLE),
    ("Task", "status", TASK),
    ("TaskDay", "status", TASK),
    ("TaskHeard", "outcome", &["completed", "failed", "running", "nothing"]),
    ("TaskRow", "status", TASK),
    ("TaskRow", "external_provider", ADAPTER),
    ("User", "role", ROLE),
];

/// Finishes the schema of what a request brings.
pub fn taken(name: &str, schema: &mut Value) {
    words(name, schema);
    // All bodies are read so: what is not known is refused, or would be forgotten.
    if schema["properties"].is_object() {
        schema["additionalProperties"] = false.into();
    }
}

/// Finishes the schema of what an answer holds. It stays open: what is added later must not trouble a client of today.
pub fn given(name: &str, schema: &mut Value) {
    words(name, schema);
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut required = Vec::new();
    for (member, of) in properties {
        if !MAY_BE_MISSING.contains(&(name, member.as_str())) {
            required.push(member.as_str().into());
        } else if (name, member.as_str()) == ("Rule", "head") {
            // Not there for most rules, and null while the log is empty.
        } else if let Some(kinds) = of.get_mut("type").and_then(Value::as_array_mut) {
            kinds.retain(|kind| kind != "null");
        }
    }
    schema["required"] = Value::Array(required);
}

fn words(name: &str, schema: &mut Value) {
    for (_, member, words) in WORDS.iter().filter(|(of, ..)| *of == name) {
        let of = &mut schema["properties"][*member];
        let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
        let missing = MAY_BE_MISSING.contains(&(name, *member));
        if !missing && of["type"].as_array().is_some_and(|kinds| kinds.contains(&json!("null"))) {
            all.push(Value::Null);
        }
        of["enum"] = Value::Array(all);
    }
}

/// Every schema and member that is named here.
#[cfg(test)]
pub fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
    MAY_BE_MISSING.into_iter().chain(WORDS.into_iter().map(|(schema, member, _)| (schema, member)))
}
