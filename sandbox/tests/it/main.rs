//! The sandbox as the app meets it: over HTTP, with the clients and the checks an app uses.
#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

mod bucket;
mod faults;
mod payments;
mod pictures;
mod settings;
mod sign_in;
mod signatures;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use http::{HeaderMap, StatusCode};
use sandbox::{Config, Sandbox, Settings};
use serde_json::Value;
use url::Url;

/// A sandbox of one test, with a bucket of its own, fast.
struct Bench {
    sandbox: Sandbox,
    _dir: tempfile::TempDir,
}

async fn sandbox() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        kie_delay_ms: 50,
        kie_callback_retry_ms: vec![10, 20, 30],
        kie_picture_px: 160,
        creem_retry_speed: 1_000.0,
        ..Settings::default()
    };
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), dir: dir.path().to_owned(), settings, ..Config::default() };
    Bench { sandbox: Sandbox::start(config).await.unwrap(), _dir: dir }
}

impl std::ops::Deref for Bench {
    type Target = Sandbox;
    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// Something the app was sent.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// A stand-in for the app: keeps what it is sent and answers as told (the last answer goes on).
#[derive(Clone)]
struct App {
    url: Url,
    heard: Arc<Mutex<Vec<Received>>>,
}

type Ears = (Arc<Mutex<Vec<Received>>>, Arc<Mutex<Vec<u16>>>);

async fn app(answers: &[u16]) -> App {
    async fn hear(State((heard, answers)): State<Ears>, OriginalUri(uri): OriginalUri, headers: HeaderMap, body: Bytes) -> StatusCode {
        heard.lock().unwrap().push(Received { path: uri.path().to_owned(), headers, body });
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers.first().copied().unwrap_or(200) };
        StatusCode::from_u16(answer).unwrap()
    }
    let heard = Arc::<Mutex<Vec<Received>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let router = Router::new().fallback(hear).with_state((Arc::clone(&heard), Arc::new(Mutex::new(answers.to_vec()))));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    App { url, heard }
}

impl App {
    fn heard(&self) -> Vec<Received> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has been sent this much.
    async fn hears(&self, count: usize) -> Vec<Received> {
        eventually(|| Some(self.heard()).filter(|h| h.len() >= count)).await
    }
}

/// Waits for something to become true, for five seconds.
async fn eventually<T>(mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = check() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within five seconds");
}

/// A browser that goes nowhere by itself.
fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}
