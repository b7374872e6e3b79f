//! The least a component can do: what the platform itself costs, as the measure for everything else.

use spin_sdk::{
    http::{FullBody, IntoResponse, Request},
    http_service,
};

#[http_service]
async fn handle(_: Request) -> impl IntoResponse {
    let body = FullBody::new(bytes::Bytes::from_static(b"hello"));
    // Stated, because an answer without it leaves Spin in two packets.
    http::Response::builder().header("content-length", "5").header("content-type", "text/plain").body(body)
}
