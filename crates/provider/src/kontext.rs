//! The Flux Kontext API (older, still served).

use serde_json::{Value, json};

use crate::{Api, Picture, Reason, Record};

pub(crate) struct Kontext;

impl Api for Kontext {
    fn name(&self) -> &'static str {
        "kie_kontext"
    }

    fn create(&self, picture: &Picture<'_>) -> (&'static str, Value) {
        // No aspect ratio: in edit mode the photo's own is kept.
        let body = json!({
            "prompt": picture.prompt,
            "inputImage": picture.photo_url,
            "model": "flux-kontext-pro",
            "outputFormat": "png",
            "enableTranslation": false,
            "callBackUrl": picture.callback_url,
        });
        ("/api/v1/flux/kontext/generate", body)
    }

    fn record_path(&self, external_id: &str) -> String {
        format!("/api/v1/flux/kontext/record-info?{}", outbound::form(&[("taskId", external_id)]))
    }

    fn read(&self, data: &Value) -> Record {
        match data["successFlag"].as_i64() {
            Some(1) => {
                let parsed;
                let response = match &data["response"] {
                    Value::String(text) => {
                        parsed = serde_json::from_str(text).unwrap_or(Value::Null);
                        &parsed
                    }
                    other => other,
                };
                let url = response["resultImageUrl"].as_str().filter(|url| !url.is_empty());
                Record::Succeeded(url.map(str::to_owned).into_iter().collect())
            }
            Some(flag) if flag >= 2 => Record::Failed(Reason::read(&data["errorCode"])),
            _ => Record::Running,
        }
    }
}
