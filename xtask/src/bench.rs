//! How fast the product is, side by side with a component that does nothing on the same host: what is lost
//! between the two is ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::build;
use crate::children::{Children, Ending};
use crate::command::root;
use crate::http::{Answer, Connection, request};
use crate::migrate::migrate_file;
use crate::ports::{SANDBOX_PORTS, reserve};
use crate::state::{self, State};
use crate::step::step;
use crate::up;

/// The profile that the host is measured in.
const PROFILE: &str = "native";

const WARM_UP: Duration = Duration::from_secs(1);

/// Enough for every task that can be started while measuring.
const CREDITS: &str = "1000000";

#[derive(Args)]
pub struct Options {
    /// How long each route is measured
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How many clients ask at the same time, each over one kept connection
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

/// One line of the result.
struct Measured {
    what: &'static str,
    per_second: f64,
    p50: Duration,
    p99: Duration,
    host_calls: String,
}

pub fn bench(options: &Options) -> Result<Option<Ending>> {
    build::build_to_run(true)?;
    up::build_native(true, PROFILE)?;

    let folder = tempfile::tempdir().context("cannot create a folder for the data of the run")?;
    let state = State::take(folder.path(), false)?;
    step("migrating a new database", || migrate_file(&state::database(&state.runtime_config)?))?;

    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut children = Children::new(false)?;
    let sandbox = reserve(any, SANDBOX_PORTS, "the sandbox", "")?;
    let app = reserve(any, 1, "the app", "")?;
    let mut command = up::sandbox_command(sandbox, &format!("http://{app}"), &state.sandbox());
    // Pictures are not to be made while requests are counted: one machine does it all.
    command.args(["--quiet", "--kie-delay-ms", "3600000"]);
    if let Some(ending) = step("starting the sandbox", || up::start_sandbox(&mut children, &mut command))? {
        return Ok(Some(ending));
    }
    let mut command = up::host_command(PROFILE, &root().join("spin.toml"), &state.runtime_config, app);
    command.arg("--expose-counters");
    command.args(["--variable", &format!("public_url=http://{app}")]);
    command.args(["--variable", &format!("signup_credits={CREDITS}")]);
    // Counted as always, never reached.
    command.args(["--variable", &format!("rate_limit_per_hour={CREDITS}")]);
    command.args(["--variable", "daily_picture_limit=0"]);
    for (name, value) in up::sandbox_variables(sandbox) {
        command.args(["--variable", &format!("{name}={value}")]);
    }
    if let Some(ending) = step("starting the app", || up::start_host(&mut children, "app", &mut command))? {
        return Ok(Some(ending));
    }
    // Another process, so that the app's threads and caches are not in its way.
    let hello = reserve(any, 1, "hello", "")?;
    let manifest = root().join("bench/hello/spin.toml");
    let mut command = up::host_command(PROFILE, &manifest, &state.runtime_config, hello);
    command.arg("--expose-counters");
    if let Some(ending) = step("starting hello", || up::start_host(&mut children, "hello", &mut command))? {
        return Ok(Some(ending));
    }

    let mut lines = vec![measure(options, "hello", hello, &request("GET", "/", &[], b""), 200)?];
    let cookie = step("signing in", || sign_in(app))?;
    let cookie = format!("cookie: {cookie}");
    let json = "content-type: application/json".to_owned();
    let session = request("GET", "/auth/session", std::slice::from_ref(&cookie), b"");
    let (new_task, task_no) = step("uploading a photo and starting a task", || start_task(app, &cookie, &json))?;
    let show_task = request("GET", &format!("/api/tasks/{task_no}"), std::slice::from_ref(&cookie), b"");
    let routes: [(&'static str, &[u8], u16); 3] =
        [("GET /auth/session", &session, 200), ("GET /api/tasks/{task_no}", &show_task, 200), ("POST /api/tasks", &new_task, 202)];
    for (what, request, expected) in routes {
        if let Some(ending) = children.glance()? {
            return Ok(Some(ending));
        }
        lines.push(measure(options, what, app, request, expected)?);
    }
    show(options, &lines);
    Ok(None)
}

fn measure(options: &Options, what: &'static str, address: SocketAddr, request: &[u8], expected: u16) -> Result<Measured> {
    let time = Duration::from_secs(options.seconds);
    step(&format!("measuring {what}"), || {
        let start = Barrier::new(options.connections);
        let outcomes: Vec<Result<(Vec<Duration>, String)>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..options.connections).map(|_| scope.spawn(|| ask(address, request, expected, time, &start))).collect();
            clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))).collect()
        });
        let mut times = Vec::new();
        let mut host_calls = String::new();
        for outcome in outcomes {
            let (its_times, its_calls) = outcome?;
            times.extend(its_times);
            host_calls = its_calls;
        }
        times.sort_unstable();
        if times.is_empty() {
            bail!("not one answer in {} s", options.seconds);
        }
        Ok(Measured {
            what,
            per_second: times.len() as f64 / time.as_secs_f64(),
            p50: percentile(&times, 50),
            p99: percentile(&times, 99),
            host_calls,
        })
    })
}

/// One client: asks again and again, and notes how long each answer took.
fn ask(address: SocketAddr, request: &[u8], expected: u16, time: Duration, start: &Barrier) -> Result<(Vec<Duration>, String)> {
    let connection = Connection::open(address);
    // All wait for all, even for one that failed: otherwise the others would wait forever.
    start.wait();
    let mut connection = connection?;
    let begun = Instant::now();
    let mut times = Vec::new();
    loop {
        let sent = Instant::now();
        let answer = connection.send(request)?;
        let received = Instant::now();
        if answer.status != expected {
            bail!("{} instead of {expected}: {}", answer.status, answer.text());
        }
        if received >= begun + WARM_UP + time {
            return Ok((times, answer.header("x-host-calls").unwrap_or("-").to_owned()));
        }
        if sent >= begun + WARM_UP {
            times.push(received - sent);
        }
    }
}

/// Of sorted times.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

fn show(options: &Options, lines: &[Measured]) {
    let ceiling = lines.first().map_or(1.0, |hello| hello.per_second);
    println!();
    println!("{} connections, {} s each, all on this one machine", options.connections, options.seconds);
    println!("{:<26} {:>11} {:>9} {:>9} {:>9}  host calls", "", "requests/s", "p50 ms", "p99 ms", "of hello");
    for line in lines {
        println!(
            "{:<26} {:>11.0} {:>9.2} {:>9.2} {:>8.0}%  {}",
            line.what,
            line.per_second,
            line.p50.as_secs_f64() * 1000.0,
            line.p99.as_secs_f64() * 1000.0,
            line.per_second / ceiling * 100.0,
            line.host_calls,
        );
    }
}

/// Signs in through the sandbox's Google, as a browser would; returns the cookies as they are sent.
fn sign_in(app: SocketAddr) -> Result<String> {
    let mut cookies = BTreeMap::new();
    let mut address = app;
    let mut path = "/auth/login/google?login_hint=bench@example.com&redirect_to=/auth/session".to_owned();
    for _ in 0..8 {
        let mut headers = Vec::new();
        if address == app && !cookies.is_empty() {
            headers.push(format!("cookie: {}", joined(&cookies)));
        }
        headers.push("accept: */*".to_owned());
        let answer = Connection::open(address)?.send(&request("GET", &path, &headers, b""))?;
        if address == app {
            for cookie in answer.headers("set-cookie") {
                let pair = cookie.split(';').next().unwrap_or_default();
                if let Some((name, value)) = pair.split_once('=') {
                    cookies.insert(name.trim().to_owned(), value.trim().to_owned());
                }
            }
        }
        if answer.status == 200 && address == app {
            return Ok(joined(&cookies));
        }
        let Some(location) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else {
            bail!("{path} answered {}: {}", answer.status, answer.text());
        };
        if let Some(rest) = location.strip_prefix("http://") {
            let (authority, rest) = rest.split_once('/').unwrap_or((rest, ""));
            address = authority.parse().with_context(|| format!("{path} leads to {location}, away from this machine"))?;
            path = format!("/{rest}");
        } else if location.starts_with('/') {
            path = location.to_owned();
        } else {
            bail!("{path} leads to {location}, away from this machine");
        }
    }
    bail!("signing in leads in circles")
}

fn joined(cookies: &BTreeMap<String, String>) -> String {
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

/// Starts a first task; returns the request that starts more like it, and the task's number.
fn start_task(app: SocketAddr, cookie: &str, json: &str) -> Result<(Vec<u8>, String)> {
    let mut connection = Connection::open(app)?;
    let headers = [cookie.to_owned(), "content-type: image/png".to_owned()];
    let answer = connection.send(&request("POST", "/api/uploads", &headers, &photo(512)))?;
    let upload = text_at(&answer, 201, "/uploads/0/id")?;
    let body = serde_json::json!({ "upload_id": upload, "hairstyles": ["bob-cut"], "model": "nano-banana-edit" });
    let headers = [cookie.to_owned(), json.to_owned()];
    let request = request("POST", "/api/tasks", &headers, body.to_string().as_bytes());
    let answer = connection.send(&request)?;
    let task_no = text_at(&answer, 202, "/tasks/0/task_no")?;
    Ok((request, task_no))
}

fn text_at(answer: &Answer, expected: u16, pointer: &str) -> Result<String> {
    if answer.status != expected {
        bail!("{} instead of {expected}: {}", answer.status, answer.text());
    }
    let body: Value = serde_json::from_slice(&answer.body)?;
    let value = body.pointer(pointer).with_context(|| format!("no {pointer} in {body}"))?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// A square grey picture as PNG, not compressed.
fn photo(side: u32) -> Vec<u8> {
    // Each row: no filter, then a shade for each pixel.
    let rows: Vec<u8> = (0..side).flat_map(|y| std::iter::once(0).chain((0..side).map(move |x| (x ^ y) as u8))).collect();
    let mut data = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = rows.chunks(0xffff).collect();
    for (index, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        data.push(u8::from(index + 1 == blocks.len()));
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(&(!length).to_le_bytes());
        data.extend_from_slice(block);
    }
    let (a, b) = rows.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    data.extend_from_slice(&((b << 16) | a).to_be_bytes());

    let mut header = Vec::new();
    header.extend_from_slice(&side.to_be_bytes());
    header.extend_from_slice(&side.to_be_bytes());
    // Eight bits of grey, and the only methods there are.
    header.extend_from_slice(&[8, 0, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [(b"IHDR", header.as_slice()), (b"IDAT", data.as_slice()), (b"IEND", &[])] {
        png.extend_from_slice(&(content.len() as u32).to_be_bytes());
        let start = png.len();
        png.extend_from_slice(kind);
        png.extend_from_slice(content);
        let sum = crc32(&png[start..]);
        png.extend_from_slice(&sum.to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    });
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
