//! The description of the API (OpenAPI 3.1), made of the types that are serialised.
//!
//! Schemas come from the types of the shared crates and of [`wire`], by `utoipa`; what a type cannot say is in [`finish`]; which address answers
//! with which of them is the table in [`paths`]. The committed copy, `components/web/site/openapi.json`, is served by the component `web` and is what the end-to-end suite
//! holds every answer to.

use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, schema::Schema},
};

mod finish;
mod paths;
pub mod wire;

/// Where the committed copy lies, from the root of the repository.
pub const COPY: &str = "components/web/site/openapi.json";

/// The schemas that operations name, with all they are made of.
#[derive(Default)]
struct Schemas(Map<String, Value>);

impl Schemas {
    /// What a request brings.
    fn taken<T: ToSchema>(&mut self) -> Value {
        self.add::<T>(finish::taken)
    }

    /// What an answer holds.
    fn given<T: ToSchema>(&mut self) -> Value {
        self.add::<T>(finish::given)
    }

    fn add<T: ToSchema>(&mut self, finish: fn(&str, &mut Value)) -> Value {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            if !self.0.contains_key(&name) {
                let mut schema = written(&schema);
                finish(&name, &mut schema);
                self.0.insert(name, schema);
            }
        }
        json!({"$ref": format!("#/components/schemas/{}", T::name())})
    }
}

fn written(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// The whole description.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    schemas.given::<wire::Problem>();
    let paths = paths::all(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ai-hairstyle",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The backend of an AI hairstyle photo product.",
            "description": "People sign in, upload a photo, choose hairstyles and pay with credits; an AI provider makes the pictures.\n\nJSON in and out. \
                Times are Unix seconds, money is in the currency's smallest unit. Errors are problem details (RFC 9457) with a stable `code`; what belongs \
                to somebody else is 404. A request may bring its own `x-request-id`, and every answer of a component carries one; that there is nothing at an \
                address is also said without any. Where a component does not come to its answer, the server's own 400, 500 or 504 has no body. What is read with GET \
                answers HEAD too, but for steps of signing in and paying, and what streams: `/auth/login/{provider}`, `/auth/callback/{provider}`, `/auth/google/nonce`, \
                `/callback/payment`, `/api/me/export` and `/api/tasks/{task_no}/events` take GET alone. What is described stays: fields, values and operations are added, and neither removed nor given another meaning.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": paths::TAGS.iter().map(|(name, description)| json!({"name": name, "description": description})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": "__session",
                    "description": "The session of a browser. On https its name is `__Host-session`. Requests that change something must come from our own pages."},
                "bearer": {"type": "http", "scheme": "bearer", "description": "The session's token."},
                "scheduler": {"type": "http", "scheme": "bearer", "description": "The variable `cron_secret`."},
                "kie": {"type": "apiKey", "in": "header", "name": "X-Webhook-Signature",
                    "description": "The AI provider's: Base64 of the HMAC-SHA256 over task id and `X-Webhook-Timestamp`, under `kie_webhook_hmac_key`."},
                "creem": {"type": "apiKey", "in": "header", "name": "creem-signature",
                    "description": "The payment provider's: hex of the HMAC-SHA256 over the body, under `creem_webhook_secret`."},
            },
            "parameters": paths::parameters(),
            "headers": paths::headers(),
            "responses": paths::problems(),
        },
    })
}

/// The description as the committed copy has it.
#[must_use]
pub fn text() -> String {
    format!("{:#}\n", document())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_copy_is_what_the_types_say() {
        let copy = std::fs::read_to_string(format!("{}/../{}", env!("CARGO_MANIFEST_DIR"), super::COPY)).unwrap_or_default();
        assert!(copy == super::text(), "the API's description has changed: run `cargo xtask openapi` and commit it");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &serde_json::Value, document: &serde_json::Value) {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(serde_json::Value::String(to)) = map.get("$ref") {
                        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
                    }
                    map.values().for_each(|value| walk(value, document));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, document)),
                _ => {}
            }
        }
        let document = super::document();
        walk(&document, &document);
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document = super::document();
        let paths = document["paths"].as_object().expect("an object").values();
        let all: Vec<&str> = paths
            .flat_map(|methods| methods.as_object().expect("an object").values())
            .map(|operation| operation["operationId"].as_str().expect("a name"))
            .collect();
        let different: std::collections::BTreeSet<&&str> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

    #[test]
    fn what_is_said_about_a_field_is_said_about_one_that_exists() {
        let document = super::document();
        for (schema, field) in super::finish::named() {
            let at = format!("/components/schemas/{schema}/properties/{field}");
            assert!(document.pointer(&at).is_some(), "{schema} has no {field}");
        }
    }
}
