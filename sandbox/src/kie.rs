//! The AI provider, kie.ai: the 4o image API, Flux Kontext, and the jobs ("market") API, with result files and callbacks.
//!
//! It answers HTTP 200 whatever happens and puts the code in the body, as recorded traffic of the real one shows.
//! The fake AI fetches the photo through the link it was given, so a link that does not work fails here too.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use image::ImageFormat;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use url::Url;

use crate::fault::{Fault, ServedResult};
use crate::picture::{self, Wish};
use crate::signature;
use crate::world::{Post, Service, World, fresh_id, locked, now_ms, pause};

/// The real limit of an input photo, in bytes.
const PHOTO_MAX: usize = 26_214_400;
/// New tasks in ten seconds.
const RATE: f64 = 20.0;
/// How many bytes of pictures are kept; older ones answer 404 as expired links do.
const RESULTS_KEPT: usize = 512 << 20;
/// How many tasks are remembered.
const TASKS_KEPT: usize = 20_000;
/// A picture that belongs to nobody here: what a lying callback points at.
const SOMEONE_ELSES: &str = "/results/00000000000000000000000000000000/someone-elses.png";

/// The provider's memory.
pub(crate) struct Kie {
    tasks: Mutex<Tasks>,
    results: Mutex<Results>,
    allowance: Mutex<Option<(f64, Instant)>>,
    balance: Mutex<f64>,
    /// Painting is work: no more at once than there are cores.
    hands: Arc<Semaphore>,
}

#[derive(Default)]
struct Tasks {
    by_id: HashMap<String, Task>,
    order: VecDeque<String>,
}

#[derive(Default)]
struct Results {
    /// Of all of them.
    bytes: usize,
    by_path: HashMap<String, (Bytes, ImageFormat)>,
    order: VecDeque<String>,
}

/// What a full account holds.
const FULL_BALANCE: f64 = 5_916.25;

impl Default for Kie {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            tasks: Mutex::default(),
            results: Mutex::default(),
            allowance: Mutex::default(),
            balance: Mutex::new(FULL_BALANCE),
            hands: Arc::new(Semaphore::new(cores)),
        }
    }
}

/// The three APIs a task can come from; each has its own words for the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    FourO,
    Kontext,
    Market,
}

#[derive(Debug, Clone)]
struct Task {
    id: String,
    family: Family,
    model: String,
    prompt: String,
    photos: Vec<String>,
    callback: Option<Url>,
    /// `paramJson` or `param`, ready to be shown.
    param: String,
    wish: Wish,
    variants: u32,
    created_ms: i64,
    due_ms: i64,
    completed_ms: Option<i64>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
enum Outcome {
    Made(Vec<String>),
    Failed { code: i64, msg: String },
}

/// A task as tests and people may see it.
#[derive(Debug, Clone, Serialize)]
pub struct TaskView {
    pub task_id: String,
    pub family: Family,
    pub model: String,
    pub prompt: String,
    /// Without their queries: those are signed.
    pub photo_urls: Vec<String>,
    pub callback_url: Option<String>,
    pub created_at: Timestamp,
    /// None while it runs; then `success` or the failure's code.
    pub outcome: Option<String>,
    pub result_urls: Vec<String>,
}

impl Kie {
    pub(crate) fn tasks(&self) -> Vec<TaskView> {
        let tasks = locked(&self.tasks);
        tasks.order.iter().filter_map(|id| tasks.by_id.get(id)).map(Task::view).collect()
    }

    pub(crate) fn balance(&self) -> f64 {
        *locked(&self.balance)
    }

    pub(crate) fn set_balance(&self, credits: f64) {
        *locked(&self.balance) = credits;
    }

    pub(crate) fn forget(&self) {
        *locked(&self.tasks) = Tasks::default();
        *locked(&self.results) = Results::default();
        *locked(&self.allowance) = None;
        self.set_balance(FULL_BALANCE);
    }

    fn task(&self, id: &str) -> Option<Task> {
        locked(&self.tasks).by_id.get(id).cloned()
    }

    fn add(&self, task: Task) {
        let mut tasks = locked(&self.tasks);
        tasks.order.push_back(task.id.clone());
        tasks.by_id.insert(task.id.clone(), task);
        if tasks.order.len() > TASKS_KEPT
            && let Some(oldest) = tasks.order.pop_front()
        {
            tasks.by_id.remove(&oldest);
        }
    }

    fn keep_result(&self, path: String, bytes: Bytes, format: ImageFormat) {
        let mut results = locked(&self.results);
        results.order.push_back(path.clone());
        results.bytes += bytes.len();
        results.by_path.insert(path, (bytes, format));
        while results.bytes > RESULTS_KEPT
            && let Some(oldest) = results.order.pop_front()
        {
            results.bytes -= results.by_path.remove(&oldest).map_or(0, |(bytes, _)| bytes.len());
        }
    }

    /// Takes one from the allowance of 20 new tasks in 10 seconds.
    fn may_create(&self) -> bool {
        let mut allowance = locked(&self.allowance);
        let now = Instant::now();
        let (left, since) = allowance.unwrap_or((RATE, now));
        let left = (left + now.duration_since(since).as_secs_f64() * RATE / 10.0).min(RATE);
        let may = left >= 1.0;
        *allowance = Some((if may { left - 1.0 } else { left }, now));
        may
    }
}

impl Task {
    fn view(&self) -> TaskView {
        let without_query = |url: &str| url.split('?').next().unwrap_or_default().to_owned();
        TaskView {
            task_id: self.id.clone(),
            family: self.family,
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            photo_urls: self.photos.iter().map(|u| without_query(u)).collect(),
            callback_url: self.callback.as_ref().map(|u| without_query(u.as_str())),
            created_at: Timestamp::from_millisecond(self.created_ms).unwrap_or_default(),
            outcome: self.outcome.as_ref().map(|outcome| match outcome {
                Outcome::Made(_) => "success".to_owned(),
                Outcome::Failed { code, .. } => code.to_string(),
            }),
            result_urls: self.made().to_vec(),
        }
    }

    fn made(&self) -> &[String] {
        match &self.outcome {
            Some(Outcome::Made(urls)) => urls,
            _ => &[],
        }
    }

    /// Credits a success costs.
    fn price(&self) -> f64 {
        match (self.family, self.model.as_str()) {
            (Family::FourO, _) => 6.0,
            (Family::Kontext, "flux-kontext-max") => 10.0,
            (Family::Market, "nano-banana-pro") => 18.0,
            (Family::Kontext, _) => 5.0,
            (Family::Market, _) => 4.0,
        }
    }
}

pub(crate) fn router(world: &Arc<World>) -> Router {
    Router::new()
        .route("/api/v1/gpt4o-image/generate", post(generate_4o))
        .route("/api/v1/gpt4o-image/record-info", get(record_4o))
        .route("/api/v1/gpt4o-image/download-url", post(download_url))
        .route("/api/v1/flux/kontext/generate", post(generate_kontext))
        .route("/api/v1/flux/kontext/record-info", get(record_kontext))
        .route("/api/v1/jobs/createTask", post(create_job))
        .route("/api/v1/jobs/recordInfo", get(record_job))
        .route("/api/v1/playground/createTask", post(create_job))
        .route("/api/v1/playground/recordInfo", get(record_job))
        .route("/api/v1/chat/credit", get(credit))
        .route("/results/{task}/{file}", get(result_file))
        .fallback(|| async { answer(404, "Not Found", Value::Null) })
        .method_not_allowed_fallback(|| async { answer(404, "Not Found", Value::Null) })
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(Arc::clone(world))
}

/// An answer as kie gives it: HTTP 200, the truth in `code`.
fn answer(code: i64, msg: &str, data: Value) -> Response {
    let body = json!({ "code": code, "msg": msg, "data": data }).to_string();
    ([(header::CONTENT_TYPE, "application/json;charset=UTF-8")], body).into_response()
}

fn authorized(world: &World, headers: &HeaderMap) -> Result<(), Response> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    if given == Some(world.credentials.kie_api_key.as_str()) {
        Ok(())
    } else {
        Err(answer(401, "You do not have access permissions", Value::Null))
    }
}

async fn credit(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    match authorized(&world, &headers) {
        Ok(()) => answer(200, "success", json!(world.kie.balance())),
        Err(refused) => refused,
    }
}

// --- creating ---------------------------------------------------------------------------------------------------------

/// What the three create calls find in a body, each in its own words. The error is the 422's message.
struct Request {
    family: Family,
    model: String,
    prompt: String,
    photos: Vec<String>,
    callback: Option<String>,
    aspect: Option<String>,
    format: ImageFormat,
    variants: u32,
    param: String,
}

type Parsed = Result<Request, (i64, String)>;

fn refuse<T>(msg: impl Into<String>) -> Result<T, (i64, String)> {
    Err((422, msg.into()))
}

async fn generate_4o(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    create(&world, &headers, &body, "/api/v1/gpt4o-image/generate", parse_4o).await
}

async fn generate_kontext(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    create(&world, &headers, &body, "/api/v1/flux/kontext/generate", parse_kontext).await
}

async fn create_job(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    create(&world, &headers, &body, "/api/v1/jobs/createTask", parse_job).await
}

async fn create(world: &Arc<World>, headers: &HeaderMap, body: &[u8], path: &str, parse: fn(&Map<String, Value>) -> Parsed) -> Response {
    if let Err(refused) = authorized(world, headers) {
        return refused;
    }
    let json = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("application/json"));
    let fields = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) if json => fields,
        _ => return answer(400, "The request body is not JSON", Value::Null),
    };
    let request = match parse(&fields) {
        Ok(request) => request,
        Err((code, msg)) => return answer(code, &msg, Value::Null),
    };
    let subject = format!("POST {path}\n{}", request.prompt);
    let told = world.faults.strike(&subject, |fault| match fault {
        Fault::KieCreateAnswers { code, msg, http_status } => Some((*code, msg.clone(), *http_status)),
        _ => None,
    });
    if let Some((code, msg, http_status)) = told {
        return scripted(code, msg, http_status);
    }
    if world.settings().kie_rate_limit && !world.kie.may_create() {
        return answer(429, TOO_OFTEN, Value::Null);
    }
    let callback = match request.callback.as_deref().map(Url::parse).transpose() {
        Ok(callback) => callback.filter(|url| matches!(url.scheme(), "http" | "https")),
        Err(_) => return answer(422, "callBackUrl is not a valid URL", Value::Null),
    };
    let settings = world.settings();
    let delay = world.faults.strike(&subject, |fault| match fault {
        Fault::KieDelay { ms } => Some(*ms),
        _ => None,
    });
    let delay = delay.unwrap_or(settings.kie_delay_ms);
    let created_ms = now_ms();
    let task = Task {
        id: fresh_id(""),
        family: request.family,
        model: request.model,
        wish: Wish {
            prompt: request.prompt.clone(),
            aspect: request.aspect.as_deref().and_then(shape),
            format: request.format,
            px: settings.kie_picture_px,
            variant: 0,
        },
        prompt: request.prompt,
        photos: request.photos,
        callback,
        param: request.param,
        variants: request.variants,
        created_ms,
        due_ms: created_ms.saturating_add(i64::try_from(delay).unwrap_or(i64::MAX)),
        completed_ms: None,
        outcome: None,
    };
    if world.kie.balance() < task.price() {
        return answer(402, NO_CREDITS, Value::Null);
    }
    let hangs = world.faults.strike(&subject, |fault| match fault {
        Fault::KieCreateHangs { ms, creates } => Some((*ms, *creates)),
        _ => None,
    });
    let id = task.id.clone();
    let family = task.family;
    if hangs.is_none_or(|(_, creates)| creates) {
        world.kie.add(task);
        world.spawn(work(Arc::clone(world), id.clone(), subject, delay));
    }
    if let Some((ms, _)) = hangs {
        pause(ms).await;
        return broken_off();
    }
    match family {
        Family::Market => answer(200, "success", json!({ "taskId": id, "recordId": id })),
        _ => answer(200, "success", json!({ "taskId": id })),
    }
}

const TOO_OFTEN: &str = "Your call frequency is too high. Please try again later.";
const NO_CREDITS: &str = "Credits insufficient. The current account balance is not enough to start this task. Please top up.";

/// An answer somebody set, with the real one's words where known.
fn scripted(code: i64, msg: Option<String>, http_status: Option<u16>) -> Response {
    let usual = match code {
        401 => "You do not have access permissions",
        402 => NO_CREDITS,
        422 => "The record does not exist",
        429 => TOO_OFTEN,
        455 => "The service is under maintenance. Please try again later.",
        505 => "This feature is currently disabled.",
        550 => "Connection denied: the queue is full.",
        _ => "Server Error - Please try again later.",
    };
    let mut response = answer(code, msg.as_deref().unwrap_or(usual), Value::Null);
    if let Some(status) = http_status.and_then(|s| StatusCode::from_u16(s).ok()) {
        *response.status_mut() = status;
    }
    response
}

/// No answer at all: the connection breaks.
fn broken_off() -> Response {
    let cut = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut by the sandbox"))]);
    ([(header::CONTENT_LENGTH, "1000")], Body::from_stream(cut)).into_response()
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
}

fn links(fields: &Map<String, Value>, name: &str, most: usize) -> Result<Vec<String>, (i64, String)> {
    let Some(value) = fields.get(name).filter(|v| !v.is_null()) else {
        return Ok(Vec::new());
    };
    let Some(list) = value.as_array() else {
        return refuse(format!("{name} must be a list of URLs"));
    };
    if list.len() > most {
        return refuse(format!("{name} holds at most {most} URLs"));
    }
    list.iter().map(|v| link(v.as_str().unwrap_or_default(), name)).collect()
}

fn link(value: &str, name: &str) -> Result<String, (i64, String)> {
    match Url::parse(value) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(value.to_owned()),
        _ => refuse(format!("{name} is not a valid URL")),
    }
}

fn one_of(value: Option<String>, name: &str, known: &[&str]) -> Result<Option<String>, (i64, String)> {
    match value {
        Some(value) if !known.contains(&value.as_str()) => refuse(format!("{name} must be one of {}", known.join(", "))),
        value => Ok(value),
    }
}

/// `3:2` as numbers; `auto` and nothing keep the photo's shape.
fn shape(aspect: &str) -> Option<(u32, u32)> {
    let (across, down) = aspect.split_once(':')?;
    Some((across.parse().ok()?, down.parse().ok()?))
}

fn parse_4o(fields: &Map<String, Value>) -> Parsed {
    let mut photos = links(fields, "filesUrl", 5)?;
    if let Some(single) = text(fields, "fileUrl") {
        photos.push(link(&single, "fileUrl")?);
    }
    let prompt = text(fields, "prompt");
    if prompt.is_none() && photos.is_empty() {
        return refuse("prompt is required when filesUrl is empty");
    }
    let Some(size) = text(fields, "size") else {
        return refuse("size is required");
    };
    let size = one_of(Some(size), "size", &["1:1", "3:2", "2:3"])?;
    let variants = match fields.get("nVariants").filter(|v| !v.is_null()) {
        None => 1,
        Some(v) => match v.as_u64().or_else(|| v.as_str().and_then(|t| t.parse().ok())) {
            Some(1) => 1,
            Some(2) => 2,
            Some(4) => 4,
            _ => return refuse("nVariants must be 1, 2 or 4"),
        },
    };
    Ok(Request {
        family: Family::FourO,
        model: "gpt4o-image".into(),
        prompt: prompt.unwrap_or_default(),
        photos,
        callback: text(fields, "callBackUrl"),
        aspect: size,
        format: ImageFormat::Png,
        variants,
        param: Value::Object(fields.clone()).to_string(),
    })
}

fn parse_kontext(fields: &Map<String, Value>) -> Parsed {
    let Some(prompt) = text(fields, "prompt") else {
        return refuse("prompt is required");
    };
    let photo = text(fields, "inputImage").map(|url| link(&url, "inputImage")).transpose()?;
    let aspect = one_of(text(fields, "aspectRatio"), "aspectRatio", &["21:9", "16:9", "4:3", "1:1", "3:4", "9:16"])?;
    let format = one_of(text(fields, "outputFormat"), "outputFormat", &["jpeg", "png"])?;
    let model = one_of(text(fields, "model"), "model", &["flux-kontext-pro", "flux-kontext-max"])?;
    let tolerance = fields.get("safetyTolerance").and_then(Value::as_i64).unwrap_or(2);
    let most = if photo.is_some() { 2 } else { 6 };
    if !(0..=most).contains(&tolerance) {
        return Err((500, format!("safetyTolerance must be between 0 and {most}")));
    }
    Ok(Request {
        family: Family::Kontext,
        model: model.unwrap_or_else(|| "flux-kontext-pro".into()),
        prompt,
        // In edit mode the photo's own shape is kept when none is asked for.
        aspect: aspect.or_else(|| photo.is_none().then(|| "16:9".into())),
        photos: photo.into_iter().collect(),
        callback: text(fields, "callBackUrl"),
        format: if format.as_deref() == Some("png") { ImageFormat::Png } else { ImageFormat::Jpeg },
        variants: 1,
        param: Value::Object(fields.clone()).to_string(),
    })
}

/// What a model of the jobs API takes. Field names differ from model to model.
struct Model {
    name: &'static str,
    prompt_max: usize,
    photos: &'static [&'static str],
    photos_max: usize,
    photo_needed: bool,
    formats: &'static [&'static str],
    aspect_default: &'static str,
}

const MODELS: [Model; 7] = [
    model("google/nano-banana", 5_000, &[], 0, false, &["png", "jpeg"], "1:1"),
    model("google/nano-banana-edit", 5_000, &["image_urls"], 10, true, &["png", "jpeg"], "1:1"),
    model("nano-banana-pro", 10_000, &["image_input"], 8, false, &["png", "jpg"], "1:1"),
    model("nano-banana-2", 20_000, &["image_input"], 14, false, &["jpg", "png"], "auto"),
    model("nano-banana-2-lite", 20_000, &["image_urls"], 10, false, &["jpg", "jpeg", "png"], "auto"),
    model("gpt-image-2-text-to-image", 20_000, &[], 0, false, &["png", "jpg", "jpeg"], "auto"),
    // The name of its photo field is not documented anywhere we know: all likely ones are taken.
    model("gpt-image-2-image-to-image", 20_000, &["input_urls", "image_urls", "image_input"], 16, true, &["png", "jpg", "jpeg"], "auto"),
];

const fn model(
    name: &'static str,
    prompt_max: usize,
    photos: &'static [&'static str],
    photos_max: usize,
    photo_needed: bool,
    formats: &'static [&'static str],
    aspect_default: &'static str,
) -> Model {
    Model { name, prompt_max, photos, photos_max, photo_needed, formats, aspect_default }
}

const ASPECTS: [&str; 15] = ["1:1", "9:16", "16:9", "3:4", "4:3", "3:2", "2:3", "5:4", "4:5", "21:9", "auto", "1:4", "4:1", "1:8", "8:1"];

fn parse_job(fields: &Map<String, Value>) -> Parsed {
    let Some(name) = text(fields, "model") else {
        return refuse("model is required");
    };
    let Some(model) = MODELS.iter().find(|m| m.name == name) else {
        return refuse("The model name you specified is not supported. Please verify it.");
    };
    let Some(input) = fields.get("input").and_then(Value::as_object) else {
        return refuse("input is required");
    };
    let Some(prompt) = text(input, "prompt") else {
        return refuse("prompt is required");
    };
    if prompt.chars().count() > model.prompt_max {
        return refuse(format!("prompt must be at most {} characters", model.prompt_max));
    }
    let mut photos = Vec::new();
    for field in model.photos {
        photos.extend(links(input, field, model.photos_max)?);
    }
    if model.photo_needed && photos.is_empty() {
        return refuse(format!("{} is required", model.photos[0]));
    }
    let format = one_of(text(input, "output_format"), "output_format", model.formats)?;
    let aspect = text(input, "aspect_ratio").or_else(|| text(input, "image_size"));
    let aspect = one_of(aspect, "aspect_ratio", &ASPECTS)?.unwrap_or_else(|| model.aspect_default.into());
    let callback = text(fields, "callBackUrl");
    // Recorded traffic: the input is a JSON text inside the JSON text.
    let mut param = json!({ "input": Value::Object(input.clone()).to_string(), "model": name });
    if let Some(callback) = &callback {
        param["callBackUrl"] = json!(callback);
    }
    Ok(Request {
        family: Family::Market,
        model: name,
        prompt,
        photos,
        callback,
        aspect: Some(aspect),
        format: match format.as_deref().unwrap_or(model.formats[0]) {
            "png" => ImageFormat::Png,
            _ => ImageFormat::Jpeg,
        },
        variants: 1,
        param: param.to_string(),
    })
}

// --- working ----------------------------------------------------------------------------------------------------------

/// The life of a task: fetch the photo, paint, wait until it has taken as long as it should, tell the caller.
async fn work(world: Arc<World>, id: String, subject: String, delay: u64) {
    let started = Instant::now();
    let Some(task) = world.kie.task(&id) else {
        return;
    };
    let failure = world.faults.strike(&subject, |fault| match fault {
        Fault::KieFail { code, msg } => Some((*code, msg.clone())),
        _ => None,
    });
    let mut outcome = match failure {
        Some((code, msg)) => Outcome::Failed { code, msg: msg.unwrap_or_else(|| failure_text(task.family, code).to_owned()) },
        None => match make(&world, &task).await {
            Ok(urls) => Outcome::Made(urls),
            Err((code, msg)) => Outcome::Failed { code, msg },
        },
    };
    if let Outcome::Made(urls) = &mut outcome {
        let others = world.faults.strike(&subject, |fault| match fault {
            Fault::KieResultUrls { urls } => Some(urls.clone()),
            _ => None,
        });
        if let Some(others) = others {
            *urls = others;
        }
    }
    tokio::time::sleep(Duration::from_millis(delay).saturating_sub(started.elapsed())).await;
    let finished = {
        let mut tasks = locked(&world.kie.tasks);
        let Some(task) = tasks.by_id.get_mut(&id) else {
            return;
        };
        task.completed_ms = Some(now_ms());
        task.outcome = Some(outcome);
        task.clone()
    };
    if matches!(finished.outcome, Some(Outcome::Made(_))) {
        *locked(&world.kie.balance) -= finished.price();
    }
    call_back(&world, &finished, &subject).await;
}

async fn make(world: &World, task: &Task) -> Result<Vec<String>, (i64, String)> {
    let mut photo = None;
    for url in &task.photos {
        let bytes = fetch(world, url).await.map_err(|()| (451, failure_text(task.family, 451).to_owned()))?;
        photo.get_or_insert(bytes);
    }
    let mut urls = Vec::new();
    for variant in 0..task.variants {
        let wish = Wish { variant, ..task.wish.clone() };
        let format = wish.format;
        let photo = photo.clone();
        let _hand = Arc::clone(&world.kie.hands).acquire_owned().await;
        let painted = tokio::task::spawn_blocking(move || picture::paint(photo.as_deref(), &wish)).await;
        let picture = match painted {
            Ok(Ok(picture)) => picture,
            Ok(Err(_)) => {
                return Err((400, "We couldn't process the provided image file (code=invalid_image_format)".into()));
            }
            Err(_) => return Err((500, failure_text(task.family, 500).to_owned())),
        };
        let end = if format == ImageFormat::Png { "png" } else { "jpg" };
        let path = format!("/results/{}/{}.{end}", task.id, fresh_id(""));
        world.kie.keep_result(path.clone(), picture.into(), format);
        urls.push(format!("{}{path}", world.places.kie));
    }
    Ok(urls)
}

/// Fetches a photo as the provider does: no redirects, no more than its limit.
async fn fetch(world: &World, url: &str) -> Result<Bytes, ()> {
    let answer = world.http.get(url).timeout(Duration::from_secs(20)).send().await.map_err(drop)?;
    if answer.status() != StatusCode::OK {
        return Err(());
    }
    let mut photo = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        photo.extend_from_slice(&chunk.map_err(drop)?);
        if photo.len() > PHOTO_MAX {
            return Err(());
        }
    }
    Ok(photo.into())
}

fn failure_text(family: Family, code: i64) -> &'static str {
    match (family, code) {
        (Family::Kontext, 400) => "Your prompt was flagged by Website as violating content policies.",
        (_, 400) => "Your content was flagged by OpenAI as violating content policies",
        (_, 451) => "Failed to fetch the image. Kindly verify any access limits set by you or your service provider.",
        (_, 501) => "Image generation task failed",
        (Family::Kontext, _) => "Internal Error, Please try again later.",
        (Family::FourO, _) => "Failed to generate image",
        (Family::Market, _) => "Internal server error",
    }
}

// --- calling back -----------------------------------------------------------------------------------------------------

async fn call_back(world: &World, task: &Task, subject: &str) {
    let Some(url) = task.callback.clone() else {
        return;
    };
    if world.faults.strikes(subject, &Fault::KieNoCallback) {
        return;
    }
    let late = world.faults.strike(subject, |fault| match fault {
        Fault::KieLateCallback { ms } => Some(*ms),
        _ => None,
    });
    if let Some(ms) = late {
        pause(ms).await;
    }
    let mut told = task.clone();
    let lies = world.faults.strike(subject, |fault| match fault {
        Fault::KieCallbackLies { urls, code } => Some((urls.clone(), *code)),
        _ => None,
    });
    if let Some((urls, code)) = lies {
        told.outcome = Some(match code {
            Some(code) if code != 200 => Outcome::Failed { code, msg: failure_text(task.family, code).to_owned() },
            _ => Outcome::Made(urls.unwrap_or_else(|| vec![format!("{}{SOMEONE_ELSES}", world.places.kie)])),
        });
    }
    let signed_as = world.faults.strike(subject, |fault| match fault {
        Fault::KieWrongSignature => Some(Signed::Wrongly),
        Fault::KieNoSignature => Some(Signed::NotAtAll),
        Fault::KieOldSignature { seconds } => Some(Signed::Ago(*seconds)),
        _ => None,
    });
    let copies = world.faults.strike(subject, |fault| match fault {
        Fault::KieDuplicateCallback { copies } => Some(*copies),
        _ => None,
    });
    let body = callback_body(world, &told).to_string();
    let what = match told.outcome {
        Some(Outcome::Made(_)) => "success",
        _ => "failure",
    };
    let signed_as = signed_as.unwrap_or(Signed::Rightly);
    let deliveries = (0..copies.unwrap_or(1)).map(|_| deliver(world, &task.id, &url, what, &body, signed_as));
    futures::future::join_all(deliveries).await;
}

#[derive(Clone, Copy)]
enum Signed {
    Rightly,
    Wrongly,
    NotAtAll,
    Ago(i64),
}

/// One callback with its repeats.
async fn deliver(world: &World, id: &str, url: &Url, what: &str, body: &str, signed_as: Signed) {
    let settings = world.settings();
    let pauses = std::iter::once(0).chain(settings.kie_callback_retry_ms.iter().copied());
    for (attempt, ms) in (1..).zip(pauses) {
        pause(ms).await;
        let delivered = world
            .deliver(Post {
                service: Service::Kie,
                what,
                id,
                url: url.clone(),
                headers: signature_headers(&world.credentials.kie_webhook_hmac_key, id, signed_as),
                body: body.to_owned(),
                attempt,
                timeout: Duration::from_millis(settings.kie_callback_timeout_ms),
            })
            .await;
        if delivered {
            return;
        }
    }
}

fn signature_headers(key: &str, id: &str, signed_as: Signed) -> Vec<(&'static str, String)> {
    let (key, seconds_ago) = match signed_as {
        Signed::NotAtAll => return Vec::new(),
        _ if key.is_empty() => return Vec::new(),
        Signed::Rightly => (key, 0),
        Signed::Wrongly => ("not-the-key", 0),
        Signed::Ago(seconds) => (key, seconds),
    };
    let timestamp = Timestamp::now().as_second() - seconds_ago;
    vec![("x-webhook-timestamp", timestamp.to_string()), ("x-webhook-signature", signature::kie_callback(key, id, timestamp))]
}

fn callback_body(world: &World, task: &Task) -> Value {
    let (code, msg) = match &task.outcome {
        Some(Outcome::Failed { code, msg }) => (*code, msg.as_str()),
        _ => (200, "success"),
    };
    match task.family {
        Family::FourO => {
            let info = if code == 200 { json!({ "result_urls": task.made() }) } else { Value::Null };
            json!({ "code": code, "msg": msg, "data": { "taskId": task.id, "info": info } })
        }
        Family::Kontext => {
            let msg = if code == 200 { "BFL image generated successfully." } else { msg };
            let result = task.made().first().map_or("", String::as_str);
            let origin = if code == 200 { task.photos.first().map_or(result, String::as_str) } else { "" };
            let info = json!({ "originImageUrl": origin, "resultImageUrl": result });
            json!({ "code": code, "msg": msg, "data": { "taskId": task.id, "info": info } })
        }
        Family::Market => {
            let mut data = job_data(task);
            // Callback codes of this API are few; the task's own code is in `failCode`.
            let (outer, msg) = match code {
                200 => (200, "Playground task completed successfully."),
                400 => (400, "Playground task failed."),
                500 => (500, "Playground task failed."),
                _ => (501, "Playground task failed."),
            };
            data["consumeCredits"] = json!(if code == 200 { task.price() as i64 } else { 0 });
            data["remainedCredits"] = json!(world.kie.balance());
            data["updateTime"] = data["completeTime"].clone();
            json!({ "code": outer, "msg": msg, "data": data })
        }
    }
}

// --- asking -----------------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "taskId", default)]
    task_id: String,
}

async fn record_4o(State(world): State<Arc<World>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    record(&world, &headers, &asked.task_id, Family::FourO, "/api/v1/gpt4o-image/record-info").await
}

async fn record_kontext(State(world): State<Arc<World>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    record(&world, &headers, &asked.task_id, Family::Kontext, "/api/v1/flux/kontext/record-info").await
}

async fn record_job(State(world): State<Arc<World>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    record(&world, &headers, &asked.task_id, Family::Market, "/api/v1/jobs/recordInfo").await
}

async fn record(world: &World, headers: &HeaderMap, id: &str, family: Family, path: &str) -> Response {
    if let Err(refused) = authorized(world, headers) {
        return refused;
    }
    let task = world.kie.task(id).filter(|t| t.family == family);
    let subject = format!("GET {path}\n{}", task.as_ref().map_or("", |t| t.prompt.as_str()));
    let slow = world.faults.strike(&subject, |fault| match fault {
        Fault::KieRecordSlow { ms } => Some(*ms),
        _ => None,
    });
    if let Some(ms) = slow {
        pause(ms).await;
    }
    let told = world.faults.strike(&subject, |fault| match fault {
        Fault::KieRecordAnswers { code, msg, http_status } => Some((*code, msg.clone(), *http_status)),
        _ => None,
    });
    if let Some((code, msg, http_status)) = told {
        return scripted(code, msg, http_status);
    }
    let Some(task) = task else {
        let msg = match family {
            Family::Market => "recordInfo is null",
            _ => "The record does not exist",
        };
        return answer(422, msg, Value::Null);
    };
    let strange = world.faults.strike(&subject, |fault| match fault {
        Fault::KieUnknownState { state } => Some(state.clone()),
        _ => None,
    });
    let mut data = match family {
        Family::FourO => data_4o(&task),
        Family::Kontext => data_kontext(&task),
        Family::Market => job_data(&task),
    };
    if let Some(strange) = strange {
        match family {
            Family::FourO => {
                data["status"] = json!(strange);
                data["successFlag"] = json!(0);
                data["response"] = Value::Null;
            }
            Family::Kontext => {
                data["successFlag"] = json!(9);
                data["response"] = Value::Null;
            }
            Family::Market => {
                data["state"] = json!(strange);
                data["resultJson"] = json!("");
            }
        }
    }
    answer(200, "success", data)
}

/// How far a running task is, 0 to 0.99.
fn progress(task: &Task) -> f64 {
    let whole = (task.due_ms - task.created_ms).max(1) as f64;
    ((now_ms() - task.created_ms) as f64 / whole).clamp(0.0, 0.99)
}

fn data_4o(task: &Task) -> Value {
    let (status, flag, progress, response) = match &task.outcome {
        None => ("GENERATING", 0, format!("{:.2}", progress(task)), Value::Null),
        Some(Outcome::Made(urls)) => ("SUCCESS", 1, "1.00".to_owned(), json!({ "resultUrls": urls })),
        Some(Outcome::Failed { .. }) => ("GENERATE_FAILED", 2, "0.00".to_owned(), Value::Null),
    };
    let (error_code, error_message) = failure(task);
    json!({
        "taskId": task.id, "paramJson": task.param, "completeTime": task.completed_ms, "response": response,
        "successFlag": flag, "status": status, "errorCode": error_code, "errorMessage": error_message,
        "createTime": task.created_ms, "progress": progress,
    })
}

fn data_kontext(task: &Task) -> Value {
    let (flag, response) = match &task.outcome {
        None => (0, Value::Null),
        Some(Outcome::Made(urls)) => {
            let origin = task.photos.first().or_else(|| urls.first());
            (1, json!({ "originImageUrl": origin, "resultImageUrl": urls.first() }))
        }
        Some(Outcome::Failed { .. }) => (3, Value::Null),
    };
    let (error_code, error_message) = failure(task);
    // This API writes its times as text without a zone.
    let time = |ms: i64| Timestamp::from_millisecond(ms).map(|t| t.strftime("%Y-%m-%dT%H:%M:%S").to_string()).ok();
    json!({
        "taskId": task.id, "paramJson": task.param, "completeTime": task.completed_ms.and_then(time), "response": response,
        "successFlag": flag, "errorCode": error_code, "errorMessage": error_message, "createTime": time(task.created_ms),
    })
}

fn job_data(task: &Task) -> Value {
    let state = match &task.outcome {
        None if progress(task) < 0.15 => "waiting",
        None if progress(task) < 0.3 => "queuing",
        None => "generating",
        Some(Outcome::Made(_)) => "success",
        Some(Outcome::Failed { .. }) => "fail",
    };
    let result = match &task.outcome {
        Some(Outcome::Made(urls)) => json!({ "resultUrls": urls }).to_string(),
        _ => String::new(),
    };
    let (code, msg) = match &task.outcome {
        Some(Outcome::Failed { code, msg }) => (json!(code.to_string()), json!(msg)),
        _ => (Value::Null, Value::Null),
    };
    json!({
        "taskId": task.id, "model": task.model, "state": state, "param": task.param, "resultJson": result,
        "failCode": code, "failMsg": msg,
        "costTime": task.completed_ms.map(|done| (done - task.created_ms + 500) / 1000),
        "createTime": task.created_ms, "completeTime": task.completed_ms,
        "creditsConsumed": task.completed_ms.map(|_| if task.made().is_empty() { 0 } else { task.price() as i64 }),
    })
}

fn failure(task: &Task) -> (Value, &str) {
    match &task.outcome {
        Some(Outcome::Failed { code, msg }) => (json!(code), msg),
        _ => (Value::Null, ""),
    }
}

async fn download_url(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refused) = authorized(&world, &headers) {
        return refused;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(&body) else {
        return answer(400, "The request body is not JSON", Value::Null);
    };
    let (Some(id), Some(url)) = (text(&fields, "taskId"), text(&fields, "url")) else {
        return answer(422, "taskId and url are required", Value::Null);
    };
    match world.kie.task(&id) {
        None => answer(422, "record is null", Value::Null),
        Some(task) if matches!(task.outcome, None | Some(Outcome::Failed { .. })) => {
            answer(422, "record status is not success", Value::Null)
        }
        Some(task) if !task.made().contains(&url) => answer(422, "record result data is blank", Value::Null),
        // A plain text, good for twenty minutes, as recorded.
        Some(_) => answer(200, "success", json!(format!("{url}?X-Amz-Expires=1200"))),
    }
}

// --- result files -----------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Redirected {
    /// Set on the address a redirect points to, so that following it would work: only not following is right.
    #[serde(default)]
    redirected: Option<String>,
}

async fn result_file(
    State(world): State<Arc<World>>,
    Path((id, file)): Path<(String, String)>,
    Query(redirected): Query<Redirected>,
) -> Response {
    let path = format!("/results/{id}/{file}");
    if path == SOMEONE_ELSES {
        let sheet = Wish { prompt: "someone else's".into(), aspect: None, format: ImageFormat::Png, px: 64, variant: 0 };
        return picture::paint(None, &sheet)
            .map_or_else(|_| StatusCode::NOT_FOUND.into_response(), |p| file_of(p.into(), ImageFormat::Png));
    }
    let prompt = world.kie.task(&id).map(|t| t.prompt).unwrap_or_default();
    let subject = format!("GET {path}\n{prompt}");
    let stored = locked(&world.kie.results).by_path.get(&path).cloned();
    let fault = if redirected.redirected.is_some() {
        None
    } else {
        world.faults.strike(&subject, |fault| match fault {
            Fault::KieResultIs { serves, to, bytes, status, ms } => Some((*serves, to.clone(), *bytes, *status, *ms)),
            _ => None,
        })
    };
    let not_found = || (StatusCode::NOT_FOUND, Html("<html><body><h1>404 Not Found</h1></body></html>")).into_response();
    let Some((serves, to, bytes, status, ms)) = fault else {
        return stored.map_or_else(not_found, |(bytes, format)| file_of(bytes, format));
    };
    const WEB_PAGE: &str = "<!doctype html><html><body><h1>Please enable JavaScript to continue</h1></body></html>";
    match serves {
        ServedResult::Html => Html(WEB_PAGE).into_response(),
        ServedResult::HtmlAsImage => ([(header::CONTENT_TYPE, "image/png")], WEB_PAGE).into_response(),
        ServedResult::NotFound => not_found(),
        ServedResult::Empty => ([(header::CONTENT_TYPE, "image/png")], Body::empty()).into_response(),
        ServedResult::Status => {
            let status = status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Html("<html><body>As told by the sandbox.</body></html>")).into_response()
        }
        ServedResult::Redirect => {
            let to = to.unwrap_or_else(|| format!("{}{path}?redirected=1", world.places.kie));
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)]).into_response()
        }
        ServedResult::Huge => huge(bytes.unwrap_or(64 << 20)),
        ServedResult::Truncated => {
            let Some((bytes, _)) = stored else {
                return not_found();
            };
            let length = bytes.len().to_string();
            let half = bytes.slice(..bytes.len() / 2);
            // The half has to be on its way before the connection breaks, or the caller sees no answer at all.
            let cut = futures::stream::iter([Ok(half)]).chain(futures::stream::once(async {
                pause(20).await;
                Err(std::io::Error::other("cut by the sandbox"))
            }));
            let headers = [(header::CONTENT_TYPE, "image/png".to_owned()), (header::CONTENT_LENGTH, length)];
            (headers, Body::from_stream(cut)).into_response()
        }
        ServedResult::Drip => {
            let Some((bytes, _)) = stored else {
                return not_found();
            };
            let length = bytes.len().to_string();
            let ms = ms.unwrap_or(250);
            // Its head at once: what is fetched is a picture.
            let first = bytes.slice(..bytes.len().min(64));
            let rest = bytes.slice(first.len()..);
            let rest = futures::stream::iter(0..rest.len()).then(move |at| {
                let byte = rest.slice(at..=at);
                async move {
                    pause(ms).await;
                    Ok::<_, std::io::Error>(byte)
                }
            });
            let headers = [(header::CONTENT_TYPE, "image/png".to_owned()), (header::CONTENT_LENGTH, length)];
            (headers, Body::from_stream(futures::stream::iter([Ok(first)]).chain(rest))).into_response()
        }
        ServedResult::Slow => {
            pause(ms.unwrap_or(5_000)).await;
            stored.map_or_else(not_found, |(bytes, format)| file_of(bytes, format))
        }
    }
}

fn file_of(bytes: Bytes, format: ImageFormat) -> Response {
    let kind = if format == ImageFormat::Png { "image/png" } else { "image/jpeg" };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=1209600")], bytes).into_response()
}

/// Something that begins as a picture and does not end soon; its length is not told.
fn huge(bytes: u64) -> Response {
    const CHUNK: usize = 64 * 1024;
    let begin = Bytes::from_static(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x40\0\0\0\x40\0\x08\x02\0\0\0");
    let zeros = Bytes::from_static(&[0; CHUNK]);
    let chunks = bytes / CHUNK as u64;
    let rest = futures::stream::iter(0..chunks).map(move |_| Ok::<_, std::io::Error>(zeros.clone()));
    let whole = futures::stream::iter([Ok(begin)]).chain(rest);
    ([(header::CONTENT_TYPE, "image/png")], Body::from_stream(whole)).into_response()
}
