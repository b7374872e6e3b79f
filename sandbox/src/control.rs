//! The strings behind the scenes: set faults, see what was heard, make things happen. The same for tests (typed, on
//! [`Control`]) and for people (HTTP on the base address, `docs/sandbox.md`).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::creem::{self, CheckoutView, FireError, Paid, PaymentEvent, SubscriptionView};
use crate::fault::{ActiveRule, Rule};
use crate::google::{self, Credential};
use crate::kie::TaskView;
use crate::page::{escape, page};
use crate::s3;
use crate::world::{Call, Delivery, Service, Settings, World};

/// A handle on a running sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    world: Arc<World>,
}

impl Control {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Lets something go wrong. Returns the rule's id.
    pub fn fault(&self, rule: impl Into<Rule>) -> u64 {
        self.world.faults.set(rule.into())
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> Vec<ActiveRule> {
        self.world.faults.active()
    }

    /// All well again.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Ends one fault; false when there is none of this id.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.world.faults.remove(id)
    }

    /// Every request the stand-ins have received, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.world.calls()
    }

    /// The requests one of them has received.
    #[must_use]
    pub fn calls_to(&self, service: Service) -> Vec<Call> {
        self.calls().into_iter().filter(|c| c.service == service).collect()
    }

    /// Every webhook and callback that was sent to the app, try by try.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.world.deliveries()
    }

    /// Forgets calls and deliveries, so that a test sees only its own.
    pub fn clear_calls(&self) {
        self.world.forget_what_was_heard();
    }

    #[must_use]
    pub fn settings(&self) -> Settings {
        self.world.settings()
    }

    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        self.world.change_settings(change);
    }

    /// Where webhooks and browsers go when the request itself does not say.
    pub fn set_app_url(&self, url: Option<Url>) {
        self.world.set_app_url(url);
    }

    /// The AI provider's tasks, oldest first.
    #[must_use]
    pub fn kie_tasks(&self) -> Vec<TaskView> {
        self.world.kie.tasks()
    }

    /// The account's credits at the AI provider.
    #[must_use]
    pub fn kie_balance(&self) -> f64 {
        self.world.kie.balance()
    }

    pub fn set_kie_balance(&self, credits: f64) {
        self.world.kie.set_balance(credits);
    }

    #[must_use]
    pub fn checkouts(&self) -> Vec<CheckoutView> {
        self.world.creem.checkouts()
    }

    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionView> {
        self.world.creem.subscriptions()
    }

    /// The payment events that were made, as they were (or would have been) sent.
    #[must_use]
    pub fn payment_events(&self) -> Vec<Value> {
        self.world.creem.events()
    }

    /// Pays a checkout as a buyer would. Returns after the first try of its webhooks, or after three seconds.
    pub async fn pay(&self, checkout_id: &str) -> Result<Paid, FireError> {
        creem::pay(&self.world, checkout_id, None).await
    }

    /// Makes something happen to what has this id: a checkout, order, subscription, transaction or request id.
    pub async fn fire(&self, id: &str, event: PaymentEvent) -> Result<Paid, FireError> {
        creem::fire(&self.world, id, event).await
    }

    /// Sends any event as creem would, signed, whatever is in it.
    pub async fn send_payment_event(&self, event: Value) {
        creem::send_raw(&self.world, event).await;
    }

    /// A One Tap credential.
    #[must_use]
    pub fn google_credential(&self, wish: &Credential) -> String {
        google::mint(&self.world, wish)
    }

    /// Makes the objects under a prefix look as old as this. Returns how many there are.
    pub fn age_objects(&self, prefix: &str, age: Duration) -> std::io::Result<usize> {
        s3::age(&self.world.dir, prefix, age)
    }

    /// The keys in the bucket, sorted.
    pub fn objects(&self) -> std::io::Result<Vec<String>> {
        Ok(s3::objects(&self.world.dir)?.into_iter().map(|(key, _)| key).collect())
    }

    /// Forgets faults, calls, tasks, payments and sign-ins; the bucket only if told so. Settings stay.
    pub fn reset(&self, bucket_too: bool) -> std::io::Result<()> {
        self.world.faults.clear();
        self.world.forget_what_was_heard();
        self.world.kie.forget();
        self.world.creem.forget();
        self.world.google.forget();
        self.world.github.forget();
        if bucket_too { s3::empty(&self.world.dir) } else { Ok(()) }
    }
}

pub(crate) fn router(world: &Arc<World>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/control", get(state))
        .route("/control/faults", get(list_faults).post(set_faults).delete(clear_faults))
        .route("/control/faults/{id}", delete(remove_fault))
        .route("/control/calls", get(list_calls).delete(clear_calls))
        .route("/control/deliveries", get(list_deliveries))
        .route("/control/settings", get(get_settings).patch(patch_settings).post(patch_settings))
        .route("/control/app-url", put(put_app_url).post(put_app_url))
        .route("/control/reset", post(reset))
        .route("/control/kie/tasks", get(list_tasks))
        .route("/control/kie/balance", post(set_balance))
        .route("/control/creem/checkouts", get(list_checkouts))
        .route("/control/creem/subscriptions", get(list_subscriptions))
        .route("/control/creem/events", get(list_events).post(fire))
        .route("/control/creem/send", post(send))
        .route("/control/google/credential", post(credential))
        .route("/control/s3/objects", get(list_objects))
        .route("/control/s3/age", post(age))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing at this address; see /") })
        .with_state(Control::new(Arc::clone(world)))
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

/// Reads a body without asking for a content type: `curl -d` sends none that fits.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| refuse(StatusCode::UNPROCESSABLE_ENTITY, &e.to_string()))
}

async fn state(State(control): State<Control>) -> Json<Value> {
    Json(json!({
        "places": control.world.places, "app_url": control.world.app_url().map(String::from), "settings": control.settings(),
        "faults": control.faults(), "kie_balance": control.kie_balance(), "kie_tasks": control.kie_tasks().len(),
        "checkouts": control.checkouts().len(), "subscriptions": control.subscriptions().len(),
        "calls": control.calls().len(), "deliveries": control.deliveries().len(),
    }))
}

async fn list_faults(State(control): State<Control>) -> Json<Vec<ActiveRule>> {
    Json(control.faults())
}

/// One fault or a list of them; all or none are set.
async fn set_faults(State(control): State<Control>, body: Bytes) -> Response {
    let wishes = match read::<Value>(&body) {
        Ok(Value::Array(list)) => list,
        Ok(one) => vec![one],
        Err(refused) => return refused,
    };
    match wishes.into_iter().map(Rule::from_json).collect::<Result<Vec<_>, _>>() {
        Ok(rules) => {
            for rule in rules {
                control.fault(rule);
            }
            Json(control.faults()).into_response()
        }
        Err(why) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

async fn clear_faults(State(control): State<Control>) -> StatusCode {
    control.clear_faults();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(control): State<Control>, Path(id): Path<u64>) -> StatusCode {
    if control.remove_fault(id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

#[derive(Deserialize)]
struct Wanted {
    service: Option<Service>,
}

async fn list_calls(State(control): State<Control>, Query(wanted): Query<Wanted>) -> Json<Vec<Call>> {
    Json(control.calls().into_iter().filter(|c| wanted.service.is_none_or(|s| s == c.service)).collect())
}

async fn clear_calls(State(control): State<Control>) -> StatusCode {
    control.clear_calls();
    StatusCode::NO_CONTENT
}

async fn list_deliveries(State(control): State<Control>, Query(wanted): Query<Wanted>) -> Json<Vec<Delivery>> {
    Json(control.deliveries().into_iter().filter(|d| wanted.service.is_none_or(|s| s == d.service)).collect())
}

async fn get_settings(State(control): State<Control>) -> Json<Settings> {
    Json(control.settings())
}

/// Changes the settings that are named and leaves the others.
async fn patch_settings(State(control): State<Control>, body: Bytes) -> Response {
    let changes: serde_json::Map<String, Value> = match read(&body) {
        Ok(changes) => changes,
        Err(refused) => return refused,
    };
    let mut settings = serde_json::to_value(control.settings()).unwrap_or_default();
    for (name, value) in changes {
        settings[name] = value;
    }
    match serde_json::from_value::<Settings>(settings) {
        Ok(new) => {
            control.change_settings(|settings| *settings = new);
            Json(control.settings()).into_response()
        }
        Err(e) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &e.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppUrl {
    url: Option<String>,
}

async fn put_app_url(State(control): State<Control>, body: Bytes) -> Response {
    match read::<AppUrl>(&body) {
        Ok(app) => match app.url.as_deref().map(Url::parse).transpose() {
            Ok(url) => {
                control.set_app_url(url);
                StatusCode::NO_CONTENT.into_response()
            }
            Err(e) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &e.to_string()),
        },
        Err(refused) => refused,
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reset {
    bucket: bool,
}

async fn reset(State(control): State<Control>, body: Bytes) -> Response {
    match read::<Reset>(&body) {
        Ok(wish) => match control.reset(wish.bucket) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(e) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
        },
        Err(refused) => refused,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    credits: f64,
}

async fn set_balance(State(control): State<Control>, body: Bytes) -> Response {
    match read::<Balance>(&body) {
        Ok(wish) => {
            control.set_kie_balance(wish.credits);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refused) => refused,
    }
}

async fn list_tasks(State(control): State<Control>) -> Json<Vec<TaskView>> {
    Json(control.kie_tasks())
}

async fn list_checkouts(State(control): State<Control>) -> Json<Vec<CheckoutView>> {
    Json(control.checkouts())
}

async fn list_subscriptions(State(control): State<Control>) -> Json<Vec<SubscriptionView>> {
    Json(control.subscriptions())
}

async fn list_events(State(control): State<Control>) -> Json<Vec<Value>> {
    Json(control.payment_events())
}

async fn fire(State(control): State<Control>, body: Bytes) -> Response {
    let mut wish: Value = match read(&body) {
        Ok(wish) => wish,
        Err(refused) => return refused,
    };
    let id = wish.as_object_mut().and_then(|fields| fields.remove("id"));
    let Some(id) = id.as_ref().and_then(Value::as_str) else {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "`id` is missing: a checkout, order, subscription, transaction or request id");
    };
    let event = match serde_json::from_value::<PaymentEvent>(wish) {
        Ok(event) => event,
        Err(e) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, &e.to_string()),
    };
    match control.fire(id, event).await {
        Ok(done) => Json(done).into_response(),
        Err(e @ FireError::NotFound) => refuse(StatusCode::NOT_FOUND, &e.to_string()),
        Err(e) => refuse(StatusCode::CONFLICT, &e.to_string()),
    }
}

async fn send(State(control): State<Control>, body: Bytes) -> Response {
    match read::<Value>(&body) {
        Ok(event) => {
            control.send_payment_event(event).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refused) => refused,
    }
}

async fn credential(State(control): State<Control>, body: Bytes) -> Response {
    match read::<Credential>(&body) {
        Ok(wish) if wish.email.contains('@') => Json(json!({ "credential": control.google_credential(&wish) })).into_response(),
        Ok(_) => refuse(StatusCode::UNPROCESSABLE_ENTITY, "`email` is missing"),
        Err(refused) => refused,
    }
}

async fn list_objects(State(control): State<Control>) -> Response {
    match control.objects() {
        Ok(keys) => Json(keys).into_response(),
        Err(e) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Age {
    #[serde(default)]
    prefix: String,
    days: f64,
}

async fn age(State(control): State<Control>, body: Bytes) -> Response {
    let wish = match read::<Age>(&body) {
        Ok(wish) => wish,
        Err(refused) => return refused,
    };
    let Ok(age) = Duration::try_from_secs_f64(wish.days * 86_400.0) else {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "`days` must not be negative");
    };
    match control.age_objects(&wish.prefix, age) {
        Ok(aged) => Json(json!({ "aged": aged })).into_response(),
        Err(e) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

// --- the page for people ----------------------------------------------------------------------------------------------

/// How much of the latest is shown.
const SHOWN: usize = 25;

async fn index(State(control): State<Control>) -> Html<String> {
    let places = &control.world.places;
    let links = [
        (Service::S3, "The bucket, as files in a folder", "/control/s3/objects".to_owned()),
        (Service::Kie, "The AI provider: jobs, results, callbacks", "/control/kie/tasks".to_owned()),
        (Service::Creem, "Payments: checkouts and webhooks", "/control/creem/checkouts".to_owned()),
        (Service::Google, "Sign in with Google", format!("{}/.well-known/openid-configuration", places.google)),
        (Service::Github, "Sign in with GitHub", "/control/calls?service=github".to_owned()),
    ];
    let services: String = links
        .iter()
        .map(|(service, what, link)| {
            format!("<tr><td><b>{}</b><td><code>{}</code><td>{what}<td><a href=\"{link}\">look</a>", service.name(), places.of(*service))
        })
        .collect();
    let app = control.world.app_url().map_or_else(|| "not set".to_owned(), |u| u.to_string());
    let faults: String = control
        .faults()
        .iter()
        .map(|f| format!("<tr><td>{}<td><code>{}</code>", f.id, escape(&serde_json::to_string(f).unwrap_or_default())))
        .collect();
    let faults = if faults.is_empty() { "<p>None: everything works.</p>".to_owned() } else { format!("<table>{faults}</table>") };
    let body = format!(
        "<p>Stand-ins for everything outside the product. Webhooks go to the app at <code>{}</code>.</p><table>{services}</table>\
         <h2>Faults in force</h2>{faults}<h2>Payments</h2>{}<h2>Pictures</h2>{}<h2>Sent to the app</h2>{}<h2>Received</h2>{}\
         <p class=note>As JSON: <a href=/control>/control</a>, <a href=/control/faults>/control/faults</a>, <a href=/control/calls>/control/calls</a>, \
         <a href=/control/deliveries>/control/deliveries</a>, <a href=/control/settings>/control/settings</a></p>",
        escape(&app),
        payments(&control),
        pictures(&control),
        sent(&control),
        received(&control),
    );
    page("Sandbox", &body)
}

/// The latest rows of a table, or a dash.
fn table(rows: impl DoubleEndedIterator<Item = String>) -> String {
    let rows: String = rows.rev().take(SHOWN).map(|row| format!("<tr>{row}")).collect();
    if rows.is_empty() { "<p>Nothing yet.</p>".to_owned() } else { format!("<table>{rows}</table>") }
}

fn payments(control: &Control) -> String {
    let here = control.world.places.creem.clone();
    table(control.checkouts().into_iter().map(|c| {
        let amount = format!("${}.{:02}", c.amount / 100, c.amount % 100);
        format!(
            "<td><a href=\"{here}/checkout/{0}\">{0}</a><td>{1}<td>{amount}<td>{2}",
            escape(&c.checkout_id),
            escape(&c.product_id),
            escape(&c.status)
        )
    }))
}

fn pictures(control: &Control) -> String {
    table(control.kie_tasks().into_iter().map(|t| {
        let pictures: String =
            t.result_urls.iter().map(|u| format!("<a href=\"{0}\"><img src=\"{0}\" height=64 alt=result></a> ", escape(u))).collect();
        let prompt: String = t.prompt.chars().take(80).collect();
        format!("<td>{pictures}<td>{}<td>{}<td>{}", escape(&t.model), escape(&prompt), escape(t.outcome.as_deref().unwrap_or("running")))
    }))
}

fn sent(control: &Control) -> String {
    table(control.deliveries().into_iter().map(|d| {
        let outcome = d.status.map_or_else(|| d.error.clone().unwrap_or_default(), |s| s.to_string());
        format!(
            "<td>{}<td>{}<td>{}<td>{}<td>try {}<td>{}",
            d.at.strftime("%H:%M:%S"),
            d.service.name(),
            escape(&d.what),
            escape(&d.url),
            d.attempt,
            escape(&outcome)
        )
    }))
}

fn received(control: &Control) -> String {
    table(control.calls().into_iter().map(|c| {
        let status = c.status.map_or_else(|| "...".to_owned(), |s| s.to_string());
        let ms = c.ms.map_or_else(String::new, |ms| format!("{ms} ms"));
        format!(
            "<td>{}<td>{}<td>{} <code>{}</code><td>{status}<td>{ms}",
            c.at.strftime("%H:%M:%S"),
            c.service.name(),
            escape(&c.method),
            escape(&c.path)
        )
    }))
}
