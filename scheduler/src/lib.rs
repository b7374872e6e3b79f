//! Calls the app's sweeps when Spin's cron plugin says that it is time: `spin up -f spin-cron.toml`.
//!
//! The plugin may be older than the app's Spin, so this one knows nothing of the app but its address: it sends `POST` to each of `paths`
//! with the cron secret, all at once, and waits for their answers. What is at work already, or not due, answers so (crates/job); a tick that is
//! lost, late or doubled is no harm.

use wasip2::http::{
    outgoing_handler,
    types::{Fields, FutureIncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme},
};

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "scheduler", generate_all });

    use super::Scheduler;
    export!(Scheduler);
}

use bindings::{Error, Guest, Metadata, fermyon::spin::variables};

/// How long connecting may take, and how long a sweep may: nanoseconds.
const CONNECT: u64 = 10_000_000_000;
const ANSWER: u64 = 300_000_000_000;

struct Scheduler;

impl Guest for Scheduler {
    fn handle_cron_event(_: Metadata) -> Result<(), Error> {
        call_all().map_err(Error::Other)
    }
}

/// Calls every path, and tells of those that did not go well.
fn call_all() -> Result<(), String> {
    let (app, secrets, paths) = (variable("app_url")?, variable("cron_secret")?, variable("paths")?);
    // It may be a list while secrets are exchanged; the first is the current one.
    let secret = secrets.split(',').next().unwrap_or_default().trim();
    let calls: Vec<_> = paths.split_whitespace().map(|path| (path, begin(app.trim_end_matches('/'), path, secret))).collect();
    let failures: Vec<String> = calls
        .into_iter()
        .filter_map(|(path, call)| match call.and_then(finish) {
            Ok(status) if (200..300).contains(&status) => None,
            Ok(status) => Some(format!("{path}: status {status}")),
            Err(cause) => Some(format!("{path}: {cause}")),
        })
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    let told = failures.join("; ");
    eprintln!("{told}");
    Err(told)
}

fn variable(name: &str) -> Result<String, String> {
    // The error's text may hold what a provider of secrets said.
    variables::get(name).map_err(|_| format!("the variable {name} cannot be read"))
}

/// Sends the request; the answer comes later.
fn begin(app: &str, path: &str, secret: &str) -> Result<FutureIncomingResponse, String> {
    let (scheme, rest) = app.split_once("://").ok_or("app_url should be http(s)://host[:port]")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let (authority, base) = rest.split_once('/').map_or((rest, String::new()), |(authority, base)| (authority, format!("/{base}")));
    let headers = [("authorization".to_owned(), format!("Bearer {secret}").into_bytes()), ("content-length".to_owned(), b"0".to_vec())];
    let headers = Fields::from_list(&headers).map_err(|error| format!("headers: {error:?}"))?;
    let request = OutgoingRequest::new(headers);
    let set = request
        .set_method(&Method::Post)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(&format!("{base}{path}"))));
    set.map_err(|()| "not an address".to_owned())?;
    let options = RequestOptions::new();
    let _ = options.set_connect_timeout(Some(CONNECT));
    let _ = options.set_first_byte_timeout(Some(ANSWER));
    let body = request.body().map_err(|()| "the request has no body".to_owned())?;
    let call = outgoing_handler::handle(request, Some(options)).map_err(|error| error.to_string())?;
    OutgoingBody::finish(body, None).map_err(|error| error.to_string())?;
    Ok(call)
}

/// Waits for the answer's status.
fn finish(call: FutureIncomingResponse) -> Result<u16, String> {
    call.subscribe().block();
    let answer = call.get().and_then(Result::ok).ok_or("no answer")?;
    Ok(answer.map_err(|error| error.to_string())?.status())
}
