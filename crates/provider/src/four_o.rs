//! The 4o image API (older, still served).

use serde_json::{Value, json};

use crate::{Api, Picture, Reason, Record, urls_in};

pub(crate) struct FourO;

impl Api for FourO {
    fn name(&self) -> &'static str {
        "kie_4o"
    }

    fn create(&self, picture: &Picture<'_>) -> (&'static str, Value) {
        // It knows three shapes; the nearest to the photo's keeps the most of it.
        let size = match (picture.width * 10).checked_div(picture.height) {
            Some(ratio) if ratio >= 12 => "3:2",
            Some(ratio) if ratio <= 8 => "2:3",
            _ => "1:1",
        };
        // One variant is its default, and all we keep: asking for more would be paying for what is thrown away.
        let body = json!({
            "filesUrl": [picture.photo_url],
            "prompt": picture.prompt,
            "size": size,
            "callBackUrl": picture.callback_url,
        });
        ("/api/v1/gpt4o-image/generate", body)
    }

    fn record_path(&self, external_id: &str) -> String {
        format!("/api/v1/gpt4o-image/record-info?{}", outbound::form(&[("taskId", external_id)]))
    }

    fn read(&self, data: &Value) -> Record {
        match (data["successFlag"].as_i64(), data["status"].as_str()) {
            (Some(1), _) | (None, Some("SUCCESS")) => Record::Succeeded(urls_in(&data["response"])),
            (Some(flag), _) if flag >= 2 => Record::Failed(Reason::read(&data["errorCode"])),
            (None, Some("CREATE_TASK_FAILED" | "GENERATE_FAILED")) => Record::Failed(Reason::read(&data["errorCode"])),
            _ => Record::Running,
        }
    }
}
