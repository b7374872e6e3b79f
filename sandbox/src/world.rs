//! What all stand-ins share: where they are, what they know, what they have heard, and what is to go wrong.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use url::Url;

use crate::credentials::Credentials;
use crate::fault::Faults;
use crate::{creem, github, google, kie};

/// One of the parties outside the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    S3,
    Kie,
    Creem,
    Google,
    Github,
}

impl Service {
    /// All of them, in the order of their ports after the base one.
    pub const ALL: [Self; 5] = [Self::S3, Self::Kie, Self::Creem, Self::Google, Self::Github];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Kie => "kie",
            Self::Creem => "creem",
            Self::Google => "google",
            Self::Github => "github",
        }
    }
}

/// Where everything runs: base URLs without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Places {
    pub control: String,
    pub s3: String,
    pub kie: String,
    pub creem: String,
    pub google: String,
    pub github: String,
}

impl Places {
    #[must_use]
    pub fn of(&self, service: Service) -> &str {
        match service {
            Service::S3 => &self.s3,
            Service::Kie => &self.kie,
            Service::Creem => &self.creem,
            Service::Google => &self.google,
            Service::Github => &self.github,
        }
    }

    /// The app's variables (named as in `spin.toml`) that point it here.
    pub(crate) fn variables(&self, credentials: &Credentials) -> BTreeMap<String, String> {
        [
            ("s3_endpoint", &self.s3),
            ("s3_region", &"auto".to_owned()),
            ("s3_bucket", &crate::s3::BUCKET.to_owned()),
            ("s3_access_key_id", &credentials.s3_access_key_id),
            ("s3_secret_access_key", &credentials.s3_secret_access_key),
            ("kie_base_url", &self.kie),
            ("kie_result_host", &self.kie),
            ("kie_api_key", &credentials.kie_api_key),
            ("kie_webhook_hmac_key", &credentials.kie_webhook_hmac_key),
            ("creem_base_url", &self.creem),
            ("creem_api_key", &credentials.creem_api_key),
            ("creem_webhook_secret", &credentials.creem_webhook_secret),
            ("google_base_url", &self.google),
            ("google_token_base_url", &self.google),
            ("google_certs_base_url", &self.google),
            ("google_client_id", &credentials.google_client_id),
            ("google_client_secret", &credentials.google_client_secret),
            ("github_base_url", &self.github),
            ("github_api_url", &self.github),
            ("github_client_id", &credentials.github_client_id),
            ("github_client_secret", &credentials.github_client_secret),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
    }
}

/// Pace and limits; may change while the sandbox runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long the AI takes for a picture.
    pub kie_delay_ms: u64,
    /// Whether creating tasks is limited to 20 in 10 seconds, as the real one does.
    pub kie_rate_limit: bool,
    /// How long a callback may take to be answered.
    pub kie_callback_timeout_ms: u64,
    /// The pauses before a callback is tried again; as many tries as there are pauses. The real ones are not documented.
    pub kie_callback_retry_ms: Vec<u64>,
    /// The longer side of the pictures it makes.
    pub kie_picture_px: u32,
    /// How many times faster than real the 30 s, 1 min, 5 min, 1 h of webhook retries pass.
    pub creem_retry_speed: f64,
    /// Tax added to every price, in percent.
    pub creem_tax_percent: i64,
    /// Whether Google's callback carries `iss` (it does since about mid-2026, undocumented).
    pub google_callback_iss: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kie_delay_ms: 800,
            kie_rate_limit: false,
            kie_callback_timeout_ms: 15_000,
            kie_callback_retry_ms: vec![500, 1_000, 2_000],
            kie_picture_px: 1024,
            creem_retry_speed: 30.0,
            creem_tax_percent: 0,
            google_callback_iss: true,
        }
    }
}

/// A request one of the stand-ins has received. Queries, bodies and all other headers are left out: they hold secrets.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    pub number: u64,
    pub at: Timestamp,
    pub service: Service,
    pub method: String,
    pub path: String,
    /// The trace it says it belongs to (W3C trace context).
    pub traceparent: Option<String>,
    /// None while it is being answered, or when it was given up.
    pub status: Option<u16>,
    pub ms: Option<u64>,
}

/// A webhook or callback that was sent to the app, one try.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    pub number: u64,
    pub at: Timestamp,
    pub service: Service,
    /// What it was about: `checkout.completed`, `success`, ...
    pub what: String,
    /// The event's or the task's id.
    pub id: String,
    /// Where it went, without its query.
    pub url: String,
    pub attempt: u32,
    /// None when nobody answered.
    pub status: Option<u16>,
    pub error: Option<String>,
}

pub(crate) struct World {
    pub(crate) places: Places,
    pub(crate) credentials: Credentials,
    pub(crate) dir: PathBuf,
    pub(crate) faults: Faults,
    pub(crate) http: reqwest::Client,
    pub(crate) kie: kie::Kie,
    pub(crate) creem: creem::Creem,
    pub(crate) google: google::Google,
    pub(crate) github: github::Github,
    settings: Mutex<Settings>,
    app_url: Mutex<Option<Url>>,
    calls: Mutex<(u64, VecDeque<Call>)>,
    deliveries: Mutex<(u64, VecDeque<Delivery>)>,
    stop: watch::Sender<bool>,
    quiet: bool,
}

/// How much is remembered of what was heard and said.
const KEPT: usize = 5_000;

impl World {
    pub(crate) fn new(
        places: Places,
        credentials: Credentials,
        dir: PathBuf,
        settings: Settings,
        products: Vec<creem::Product>,
        app_url: Option<Url>,
        quiet: bool,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            faults: Faults::default(),
            // No redirects: what the app is given must be where things are. No kept connections: an app that was
            // restarted meanwhile would look as if it had refused a webhook.
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .pool_max_idle_per_host(0)
                .connect_timeout(Duration::from_secs(5))
                .build()?,
            kie: kie::Kie::default(),
            creem: creem::Creem::new(products),
            google: google::Google::new()?,
            github: github::Github::default(),
            settings: Mutex::new(settings),
            app_url: Mutex::new(app_url),
            calls: Mutex::default(),
            deliveries: Mutex::default(),
            stop: watch::Sender::new(false),
            places,
            credentials,
            dir,
            quiet,
        }))
    }

    pub(crate) fn settings(&self) -> Settings {
        locked(&self.settings).clone()
    }

    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut locked(&self.settings));
    }

    pub(crate) fn app_url(&self) -> Option<Url> {
        locked(&self.app_url).clone()
    }

    pub(crate) fn set_app_url(&self, url: Option<Url>) {
        *locked(&self.app_url) = url;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        locked(&self.calls).1.iter().cloned().collect()
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        locked(&self.deliveries).1.iter().cloned().collect()
    }

    pub(crate) fn forget_what_was_heard(&self) {
        locked(&self.calls).1.clear();
        locked(&self.deliveries).1.clear();
    }

    /// Runs something beside the requests, until it is done or the sandbox stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.stopped();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped => {}
                () = work => {}
            }
        });
    }

    /// Ends when the sandbox stops.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // An error means the sandbox itself is gone, which is a stop as well.
            let _ = stop.wait_for(|stopped| *stopped).await;
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// One line for whoever watches the terminal.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if !self.quiet {
            eprintln!("{}", line());
        }
    }

    /// Posts to the app once and remembers how it went. True when it answered 200, the only success the providers know.
    pub(crate) async fn deliver(&self, post: Post<'_>) -> bool {
        let mut request = self.http.post(post.url.clone()).timeout(post.timeout).body(post.body);
        request = request.header("content-type", "application/json").header("user-agent", post.service.name());
        for (name, value) in post.headers {
            request = request.header(name, value);
        }
        let at = Timestamp::now();
        let (status, error) = match request.send().await {
            Ok(answer) => (Some(answer.status().as_u16()), None),
            Err(e) => (None, Some(if e.is_timeout() { "timeout".to_owned() } else { e.without_url().to_string() })),
        };
        let mut url = post.url;
        url.set_query(None);
        self.say(|| {
            let outcome = status.map_or_else(|| error.clone().unwrap_or_default(), |s| s.to_string());
            format!("{:<6} -> POST {url} {} ({}, try {}): {outcome}", post.service.name(), post.what, post.id, post.attempt)
        });
        let mut deliveries = locked(&self.deliveries);
        deliveries.0 += 1;
        let delivery = Delivery {
            number: deliveries.0,
            at,
            service: post.service,
            what: post.what.to_owned(),
            id: post.id.to_owned(),
            url: url.into(),
            attempt: post.attempt,
            status,
            error,
        };
        deliveries.1.push_back(delivery);
        if deliveries.1.len() > KEPT {
            deliveries.1.pop_front();
        }
        status == Some(200)
    }

    fn heard(&self, service: Service, method: &str, path: &str, traceparent: Option<String>) -> u64 {
        let mut calls = locked(&self.calls);
        calls.0 += 1;
        let number = calls.0;
        calls.1.push_back(Call {
            number,
            at: Timestamp::now(),
            service,
            method: method.to_owned(),
            path: path.to_owned(),
            traceparent,
            status: None,
            ms: None,
        });
        if calls.1.len() > KEPT {
            calls.1.pop_front();
        }
        number
    }

    fn answered(&self, number: u64, status: u16, ms: u64) {
        if let Some(call) = locked(&self.calls).1.iter_mut().rev().find(|c| c.number == number) {
            call.status = Some(status);
            call.ms = Some(ms);
        }
    }
}

/// A webhook or callback about to be sent.
pub(crate) struct Post<'a> {
    pub(crate) service: Service,
    pub(crate) what: &'a str,
    pub(crate) id: &'a str,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) attempt: u32,
    pub(crate) timeout: Duration,
}

/// Middleware: remembers every request a stand-in receives.
pub(crate) async fn remember(State((world, service)): State<(Arc<World>, Service)>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let number = world.heard(service, &method, &path, traceparent);
    let started = Instant::now();
    let answer = next.run(request).await;
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    world.answered(number, answer.status().as_u16(), ms);
    world.say(|| format!("{:<6} {method} {path} {} {ms} ms", service.name(), answer.status().as_u16()));
    answer
}

/// The lock, even when another thread panicked while holding it: a test's failed assertion must not spread.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id as the providers make them: unguessable letters and digits.
pub(crate) fn fresh_id(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}

/// Milliseconds since 1970, as most providers write times.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Waits as a fault demands.
pub(crate) async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
