//! A task as it goes on, told in server-sent events (docs/events.md).
//!
//! It holds as few rights as reading a task can do with: the database, key-value and what opens a session. A picture whose callback got lost is
//! brought home by others, so a stream that meets such a task ends and sends its client to `GET /api/tasks/{task_no}`, which does.

use futures::{channel::mpsc, try_join};
use http::{HeaderValue, Method, header};
use http_body::Frame;
use http_body_util::StreamBody;
use problem::Problem;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{
    http::{IntoResponse, box_body},
    http_service, wasip3,
};
use task::follow::{self, Glance};

mod stream;

static SERVICE: Service = Service {
    name: "task-events",
    settings: &["public_url", "session_secret", "data_encryption_key", "trusted_proxy", "rate_limit_per_hour"],
};

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = call.method.clone();
    match (path.as_slice(), &method) {
        (["api", "tasks", task_no, "events"], &Method::GET) => listen(call, (*task_no).to_owned()).await,
        (["api", "tasks", _, "events"], _) => Err(Problem::method_not_allowed("GET")),
        _ => Err(Problem::not_found("address")),
    }
}

/// GET /api/tasks/{task_no}/events: the task at once, then each change of it until it is final.
///
/// Who comes back and has nothing to wait for here is answered 204, which keeps a browser's `EventSource` from coming again: the end was
/// seen, or the callback is overdue and it is time to ask for the task itself.
async fn listen(call: Call, task_no: String) -> Result<Reply, Problem> {
    let seen = call.header("last-event-id").map(str::to_owned);
    let glance = look(&call, &task_no).await?;
    let etag = glance.view.etag();
    if (glance.view.is_final() && seen.as_deref() == Some(etag.as_str())) || (glance.is_overdue && seen.is_some()) {
        return Ok(reply::no_content());
    }
    let (out, events) = mpsc::channel(stream::AHEAD);
    // The task that is spawned is polled outside of this request's future: it takes the meter along.
    let work = stream::tell(call, task_no, glance, seen, out);
    match meter::current() {
        Some(meter) => wasip3::spawn(meter::scope(meter, work)),
        None => wasip3::spawn(work),
    }
    let frames = futures::StreamExt::map(events, |event| Ok::<_, std::convert::Infallible>(Frame::data(event)));
    let mut response = Reply::new(box_body(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep the events until it has a page of them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One look at a task, which counts as a read: whoever is signed out, erased or reads too much is refused here, also in the middle of a stream.
async fn look(call: &Call, task_no: &str) -> Result<Glance, Problem> {
    let (caller, glimpse) = try_join!(limit::reader(call), task::glimpse(&call.settings, task_no))?;
    follow::glance(&call.settings, &caller.user_id, task_no, glimpse, clock::now()).await
}
