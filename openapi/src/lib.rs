//! The description of the API (OpenAPI 3.1), made of the types that are serialised.
//!
//! Schemas come from the types of the shared crates and of [`wire`], by `utoipa`; which address answers with which of them is the table in
//! [`paths`]. The committed copy, `components/web/site/openapi.json`, is served by the component `web` and is what the end-to-end suite
//! holds every answer to.

use serde_json::{Map, Value, json};
use utoipa::{ToSchema, openapi::{RefOr, schema::Schema}};

mod paths;
pub mod wire;

/// Where the committed copy lies, from the root of the repository.
pub const COPY: &str = "components/web/site/openapi.json";

/// The schemas that operations name, with all they are made of.
#[derive(Default)]
struct Schemas(Map<String, Value>);

impl Schemas {
    fn of<T: ToSchema>(&mut self) -> Value {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            self.0.entry(name).or_insert_with(|| written(&schema));
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
    schemas.of::<wire::Problem>();
    let paths = paths::all(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ai-hairstyle",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The backend of an AI hairstyle photo product.",
            "description": "People sign in, upload a photo, choose hairstyles and pay with credits; an AI provider makes the pictures.\n\nJSON in and out. \
                Times are Unix seconds, money is in the currency's smallest unit. Errors are problem details (RFC 9457) with a stable `code`; what belongs \
                to somebody else is 404. A request may bring its own `x-request-id`; every answer carries one. What is described stays: fields are added, and \
                neither removed nor given another meaning.",
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
                "kieSignature": {"type": "apiKey", "in": "header", "name": "x-webhook-signature",
                    "description": "Base64 of the HMAC-SHA256 of the task's id at the provider, a dot, and `x-webhook-timestamp`; the key is the variable `kie_webhook_hmac_key`."},
                "creemSignature": {"type": "apiKey", "in": "header", "name": "creem-signature",
                    "description": "The HMAC-SHA256 of the body, in hexadecimal digits; the key is the variable `creem_webhook_secret`."},
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
}
