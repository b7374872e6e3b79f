//! `POST /webhooks/creem`: signed payment events.
//!
//! An event is kept before anything is done about it, and marked done after its effect, which is itself idempotent. So a crash
//! anywhere leaves either an event that the next delivery applies, or an effect that the next delivery finds done.

use http::Method;
use order::Settled;
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
    let event = Event::verify(call.settings.text("creem_webhook_secret")?, &call.headers, &body)?;
    let now = clock::now();
    if order::receive(&event, &String::from_utf8_lossy(&body), now).await? {
        return reply::ok(&json!({"outcome": "duplicate"}));
    }
    let outcome = match event.kind.as_str() {
        "checkout.completed" => match order::settle(&order::checkout_of(&event)?, now).await? {
            // Money without an order stays in the inbox, open, for a person to look at.
            Settled::Unmatched => "unmatched",
            settled => {
                let outcome = match settled {
                    Settled::Now => "settled",
                    Settled::Before => "settled before",
                    Settled::NotPaid | Settled::Unmatched => "not paid",
                };
                order::file(&event.id, "done", outcome, now).await?;
                outcome
            }
        },
        // Kept with its payload and left open, for the day its effect is built.
        _ => "kept",
    };
    let level = if outcome == "unmatched" { "error" } else { "info" };
    eprintln!("{}", json!({"level": level, "event": "payment_event", "id": event.id, "type": event.kind, "outcome": outcome}));
    reply::ok(&json!({"outcome": outcome}))
}
