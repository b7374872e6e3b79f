//! How fast the product is, side by side with a component that does nothing on the same host and with the same read as a native program.
//!
//! A shared machine is never the same twice. So everything is measured in one run, in many short rounds in which each target has its
//! turn, and the median of the rounds counts. What may be believed are the ratios.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::build;
use crate::children::Ending;
use crate::command::root;
use crate::http::{Connection, request};
use crate::step::step;
use crate::up;

mod load;
mod people;
mod process;
mod report;
mod sizes;
mod soak;
mod stage;
mod webhook;

use load::{Ask, Clients};
use people::Person;
use report::{Line, Round, Start};
use stage::{App, PROFILE, Stage, Stopped};
use webhook::Payments;

/// Of each round, for a target to get going.
const WARM_UP: Duration = Duration::from_millis(200);
/// The AI is to make no pictures while requests are counted: one machine does it all.
const NEVER: u64 = 3_600_000;

#[derive(Args)]
pub struct Options {
    /// How often each target has its turn; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long a turn is, in milliseconds
    #[arg(long, default_value_t = 700)]
    turn_ms: u64,
    /// How many clients ask at the same time, each over one kept connection
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Only the targets whose name holds this, beside hello
    #[arg(long)]
    only: Option<String>,
    /// Write the result into this file, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure another checkout of this repository in the same rounds; its components and its host (profile `native`) must be built
    #[arg(long, value_name = "FOLDER")]
    beside: Option<PathBuf>,
    /// Instead: the main reads and the order on databases of rising size
    #[arg(long, value_name = "TASKS", value_delimiter = ',', num_args = 0.., default_missing_value = "1000,10000,100000,1000000")]
    sizes: Option<Vec<u64>>,
    /// Instead: so many minutes of mixed traffic at 80 % of what is possible
    #[arg(long, value_name = "MINUTES")]
    soak_minutes: Option<u64>,
    /// Requests per second of the soak; measured first when it is not given
    #[arg(long, requires = "soak_minutes")]
    soak_rate: Option<f64>,
    /// Measure what is built
    #[arg(long)]
    no_build: bool,
}

pub fn bench(options: &Options) -> Result<Option<Ending>> {
    if !options.no_build {
        build::build_to_run(true)?;
        up::build_native(true, PROFILE)?;
        up::build_twin(PROFILE)?;
    }
    let outcome = match (&options.sizes, options.soak_minutes) {
        (Some(sizes), _) => sizes::bench(options, sizes),
        (None, Some(minutes)) => soak::bench(options, minutes),
        (None, None) => endpoints(options),
    };
    match outcome {
        Ok(()) => Ok(None),
        Err(error) => match error.downcast::<Stopped>() {
            Ok(Stopped(ending)) => Ok(Some(ending)),
            Err(error) => Err(error),
        },
    }
}

/// Something to measure.
struct Target {
    name: String,
    address: SocketAddr,
    expected: u16,
    ask: Box<dyn FnMut() -> Rc<Vec<u8>>>,
    rounds: Vec<Round>,
}

impl Target {
    fn new(name: impl Into<String>, address: SocketAddr, expected: u16, bytes: Vec<u8>) -> Self {
        let bytes = Rc::new(bytes);
        Self::making(name, address, expected, move || bytes.clone())
    }

    /// One whose requests differ.
    fn making(name: impl Into<String>, address: SocketAddr, expected: u16, ask: impl FnMut() -> Rc<Vec<u8>> + 'static) -> Self {
        Self { name: name.into(), address, expected, ask: Box::new(ask), rounds: Vec::new() }
    }

    fn turn(&mut self, options: &Options) -> Result<()> {
        let time = Duration::from_millis(options.turn_ms);
        let mut clients = Clients::connect(self.address, options.connections)?;
        let mut times = Vec::new();
        let mut host_calls = None;
        let begun = std::time::Instant::now();
        let expected = self.expected;
        let next = |_| Ok(Ask { bytes: (self.ask)() });
        clients.drive(WARM_UP + time, None, next, |_, heard| {
            heard.expect(expected)?;
            let received = begun.elapsed();
            if received >= WARM_UP && received < WARM_UP + time {
                times.push(heard.took);
            }
            // The last one's: the first had an instance to set up.
            if let Some(calls) = heard.header("x-host-calls")
                && host_calls.as_deref() != Some(calls)
            {
                host_calls = Some(calls.to_owned());
            }
            Ok(())
        })?;
        self.rounds.push(Round::of(times, time, host_calls));
        Ok(())
    }
}

/// Lets every target have its turns, in another order each time.
fn rounds(options: &Options, stage: &mut Stage, targets: &mut [Target]) -> Result<()> {
    for round in 0..options.rounds {
        step(&format!("round {} of {}", round + 1, options.rounds), || {
            let number = targets.len();
            for at in 0..number {
                stage.check()?;
                targets[(at + round * 5) % number].turn(options)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn endpoints(options: &Options) -> Result<()> {
    let mut stage = Stage::new()?;
    let app = stage.app("app", root(), NEVER)?;
    let hello = stage.hello(&app)?;
    let twin = stage.twin(&app)?;
    let other = options.beside.as_ref().map(|folder| stage.app("beside", &std::path::absolute(folder)?, NEVER)).transpose()?;

    let mut targets = vec![Target::new(HELLO, hello, 200, request("GET", "/", &[], b""))];
    let (mine, running, session) = step("signing in, uploading, ordering", || of_app(&app, twin))?;
    targets.extend(mine);
    if let Some(other) = &other {
        let (theirs, ..) = step("the same at the other checkout", || of_app(other, twin))?;
        targets.extend(theirs.into_iter().filter(|target| target.address == other.address).map(|mut target| {
            target.name = format!("{} (beside)", target.name);
            target
        }));
    }
    if let Some(only) = &options.only {
        targets.retain(|target| target.name == HELLO || target.name.contains(only.as_str()));
    }
    // Once, unmeasured: the first instance of each component.
    for target in &mut targets {
        let answer = Connection::open(target.address)?.send(&(target.ask)())?;
        if answer.status != target.expected {
            bail!("{}: {} instead of {}: {}", target.name, answer.status, target.expected, answer.text());
        }
    }
    if options.only.is_none() {
        same_answer(app.address, twin, &running)?;
    }
    let before = memory(&stage)?;
    rounds(options, &mut stage, &mut targets)?;
    let after = memory(&stage)?;

    let starts = if options.only.is_none() { starts(&app, &session)? } else { Vec::new() };
    let lines: Vec<Line> = targets.iter().map(|target| Line::of(&target.name, &target.rounds)).collect();
    let report =
        report::Report { connections: options.connections, rounds: options.rounds, turn_ms: options.turn_ms, lines, before, after, starts };
    print!("{}", report.table());
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    Ok(())
}

const HELLO: &str = "hello (component)";
const TWIN: &str = "twin: GET task, running";

/// What is measured of an app; the read of the running task; the read of the session.
fn of_app(app: &App, twin: SocketAddr) -> Result<(Vec<Target>, Vec<u8>, Vec<u8>)> {
    let person = Person::sign_in(app.address, "bench")?;
    let database = app.database()?;
    webhook::give(&database, &person.id, 4)?;
    let (_, running) = person.order_one()?;
    let fault = r#"{"fault":"kie.delay","ms":10,"times":1}"#;
    let answer = Connection::open(app.sandbox)?.send(&request(
        "POST",
        "/control/faults",
        &["content-type: application/json".into()],
        fault.as_bytes(),
    ))?;
    if answer.status >= 300 {
        bail!("the sandbox does not take a fault: {} {}", answer.status, answer.text());
    }
    let (_, done) = person.order_one()?;
    person.wait_completed(&done)?;
    // Whoever orders and uploads is somebody else than whoever reads: what one has does not grow while it is read.
    let busy = Person::sign_in(app.address, "busy")?;
    webhook::give(&database, &busy.id, 4)?;
    let (upload, _) = busy.order_one()?;
    let mut payments = Payments::prepare(&database, 20_000)?;
    let (running, done) = (person.get(&format!("/api/tasks/{running}")), person.get(&format!("/api/tasks/{done}")));
    let session = person.get("/auth/session");
    let to = app.address;
    let targets = vec![
        Target::new("twin: hello", twin, 200, request("GET", "/hello", &[], b"")),
        Target::new(TWIN, twin, 200, running.clone()),
        Target::new("twin: GET task, final", twin, 200, done.clone()),
        Target::new("GET /health/live", to, 200, request("GET", "/health/live", &[], b"")),
        Target::new("GET /api/hairstyles", to, 200, request("GET", "/api/hairstyles", &[], b"")),
        Target::new("GET /auth/session", to, 200, session.clone()),
        Target::new("GET /api/tasks/{no}, running", to, 200, running.clone()),
        Target::new("GET /api/tasks/{no}, final", to, 200, done),
        Target::new("GET /api/tasks", to, 200, person.get("/api/tasks")),
        Target::new("GET /api/me/credits", to, 200, person.get("/api/me/credits")),
        Target::new("POST /api/tasks", to, 202, busy.order(&upload)),
        Target::new("POST /api/uploads, 162 KiB", to, 201, busy.upload()?),
        Target::making("POST /webhooks/creem", to, 200, move || Rc::new(payments.next())),
    ];
    Ok((targets, running, session))
}

/// A twin that answers something else would be no measure.
fn same_answer(app: SocketAddr, twin: SocketAddr, request: &[u8]) -> Result<()> {
    let ask = |address| -> Result<serde_json::Value> { Ok(serde_json::from_slice(&Connection::open(address)?.send(request)?.body)?) };
    let (mut ours, mut its) = (ask(app)?, ask(twin)?);
    for answer in [&mut ours, &mut its] {
        // A second may lie between the two.
        answer["task"]["progress"] = serde_json::Value::Null;
    }
    if ours != its {
        bail!("the twin answers something else: {its} instead of {ours}");
    }
    Ok(())
}

/// Resident memory of the programs, in KiB.
fn memory(stage: &Stage) -> Result<Vec<(&'static str, Option<u64>)>> {
    ["app", "hello", "twin"].into_iter().map(|name| Ok((name, process::memory_kib(stage.pid(name)?)))).collect()
}

/// How long the first answers take.
fn starts(app: &App, session: &[u8]) -> Result<Vec<Start>> {
    const TIMES: usize = 5;
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let several =
        |work: &dyn Fn() -> Result<Duration>| -> Result<Duration> { Ok(median((0..TIMES).map(|_| work()).collect::<Result<_>>()?)) };
    let port = || crate::ports::reserve(([127, 0, 0, 1], 0).into(), 1, "a program", "");
    let (root_, live) = (request("GET", "/", &[], b""), request("GET", "/health/live", &[], b""));
    step("measuring first answers", || {
        let app_starts = |cold: bool| -> Result<Duration> {
            let listen = port()?;
            let mut command = app.again(listen);
            let cache = tempfile::tempdir()?;
            if cold {
                command.arg("--cache-dir").arg(cache.path());
            }
            process::first_answer(command, listen, &live)
        };
        let hello_starts = || -> Result<Duration> {
            let listen = port()?;
            process::first_answer(stage::hello_command(app, listen), listen, &root_)
        };
        let twin_starts = || -> Result<Duration> {
            let listen = port()?;
            process::first_answer(stage::twin_command(app, listen), listen, &request("GET", "/hello", &[], b""))
        };
        // An instance is let go after a second of idleness.
        let silence = Duration::from_millis(1_500);
        Ok(vec![
            Start { what: "app, start to first answer, compiled before", took: several(&|| app_starts(false))? },
            Start { what: "app, start to first answer, compiled anew", took: app_starts(true)? },
            Start { what: "hello, start to first answer", took: several(&hello_starts)? },
            Start { what: "twin, start to first answer", took: several(&twin_starts)? },
            Start { what: "GET /auth/session after silence", took: several(&|| process::after_silence(app.address, session, silence))? },
            Start { what: "GET /health/live after silence", took: several(&|| process::after_silence(app.address, &live, silence))? },
        ])
    })
}
