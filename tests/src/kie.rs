//! Callbacks of the AI provider that a test sends itself.

use http::Method;
use serde_json::{Value, json};

use crate::{Answer, World, now};

/// A callback about one task.
pub struct Callback {
    /// Our id of the task: the end of the callback's address.
    pub task_id: String,
    /// The provider's.
    pub external_id: String,
    /// What the signature is made with.
    pub key: String,
    /// When it was signed.
    pub timestamp: i64,
    pub body: Value,
}

impl Callback {
    /// A callback that is right in every respect, about the task with this number.
    #[must_use]
    pub fn about(world: &World, task_no: &str) -> Self {
        let row = world.sql(&format!("SELECT id, external_task_id FROM ai_tasks WHERE task_no = '{task_no}'")).remove(0);
        let [task_id, external_id] = [0, 1].map(|at| row[at].as_str().unwrap_or_default().to_owned());
        let body = json!({"code": 200, "msg": "success", "data": {"taskId": external_id, "state": "success"}});
        let key = sandbox::Credentials::default().kie_webhook_hmac_key;
        Self { task_id, external_id, key, timestamp: now(), body }
    }

    pub async fn send(&self, world: &World, expected: u16) -> Answer {
        let signature = sandbox::signature::kie_callback(&self.key, &self.external_id, self.timestamp);
        let sender = world.stranger();
        let request = sender
            .request(Method::POST, &format!("/webhooks/kie/{}", self.task_id))
            .header("x-webhook-timestamp", self.timestamp)
            .header("x-webhook-signature", signature)
            .json(&self.body);
        sender.send(expected, request).await
    }
}
