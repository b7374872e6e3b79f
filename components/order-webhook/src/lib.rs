//! `POST /webhooks/creem`: signed payment events.
//!
//! An event is kept before anything is done about it; its effect and its filing are one statement. Whatever is kept is answered with
//! 200, understood or not: what could not be applied yet is tried again by the sweep, and repeating it is of no use.

use http::Method;
use order::inbox::{self, Outcome};
use payment::Event;
use problem::Problem;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};

static SERVICE: Service = Service { name: "order-webhook", settings: &["public_url", "creem_webhook_secret"] };

/// Longest event, in bytes. Real ones are a few KiB.
const CAP: usize = 256 * 1024;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    match call.method {
        Method::POST => event(call).await,
        _ => Err(Problem::method_not_allowed("POST")),
    }
}

async fn event(mut call: Call) -> Result<Reply, Problem> {
    let body = call.bytes(CAP).await?;
    let event = Event::verify(call.settings.list("creem_webhook_secret")?, &call.headers, &body)?;
    let outcome = inbox::receive(&event, &Event::kept(&body)?, clock::now()).await?;
    let level = if outcome == Outcome::Open { "error" } else { "info" };
    meter::log(json!({"level": level, "event": "payment_event", "id": event.id, "type": event.kind, "outcome": outcome.word()}));
    reply::ok(&json!({"outcome": outcome.word()}))
}
