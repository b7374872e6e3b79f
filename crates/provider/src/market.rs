//! The market's jobs API, the provider's current one.

use serde_json::{Value, json};

use crate::{Api, Picture, Reason, Record, urls_in};

pub(crate) struct Market;

impl Api for Market {
    fn name(&self) -> &'static str {
        "kie_market"
    }

    fn create(&self, picture: &Picture<'_>) -> (&'static str, Value) {
        let body = json!({
            "model": "google/nano-banana-edit",
            "callBackUrl": picture.callback_url,
            "input": {
                "prompt": picture.prompt,
                "image_urls": [picture.photo_url],
                "output_format": "png",
                "aspect_ratio": "auto",
            },
        });
        ("/api/v1/jobs/createTask", body)
    }

    fn record_path(&self, external_id: &str) -> String {
        format!("/api/v1/jobs/recordInfo?{}", outbound::form(&[("taskId", external_id)]))
    }

    fn read(&self, data: &Value) -> Record {
        match data["state"].as_str() {
            Some("success") => Record::Succeeded(urls_in(&data["resultJson"])),
            Some("fail") => Record::Failed(Reason::read(&data["failCode"])),
            _ => Record::Running,
        }
    }
}
