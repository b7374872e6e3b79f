//! The programs of a run: apps with their sandboxes, hello, and the native twin.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::children::{Children, Ending};
use crate::command::root;
use crate::http::{self, request};
use crate::ports::{SANDBOX_PORTS, reserve};
use crate::state::State;
use crate::step::step;
use crate::up;

/// The profile that native programs are measured in.
pub const PROFILE: &str = "native";

/// The secrets the twin has to share; the placeholders of spin.toml.
const SESSION_SECRET: &str = "bench-session-secret";
const DATA_KEY: &str = "bench-data-key";

/// Somebody has ended the run.
#[derive(Debug)]
pub struct Stopped(pub Ending);

impl fmt::Display for Stopped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ended by {:?}", self.0)
    }
}

impl std::error::Error for Stopped {}

/// What runs. All of it ends when this is dropped.
pub struct Stage {
    children: Children,
    folder: TempDir,
    started: usize,
}

/// An app that runs.
pub struct App {
    pub address: SocketAddr,
    pub sandbox: SocketAddr,
    state: State,
    root: PathBuf,
}

impl App {
    /// A connection of our own to its database.
    pub fn database(&self) -> Result<Connection> {
        let database = Connection::open(self.database_path())?;
        database.busy_timeout(std::time::Duration::from_secs(30))?;
        database.pragma_update(None, "foreign_keys", true)?;
        Ok(database)
    }

    pub fn database_path(&self) -> PathBuf {
        self.state.folder.join("ai-hairstyle.db")
    }

    /// The command that starts this app once more, elsewhere.
    pub fn again(&self, listen: SocketAddr) -> Command {
        command(&self.root, &self.state, listen, self.sandbox)
    }
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn go_on(ending: Option<Ending>) -> Result<()> {
    match ending {
        None => Ok(()),
        Some(ending) => Err(Stopped(ending).into()),
    }
}

fn command(root: &Path, state: &State, listen: SocketAddr, sandbox: SocketAddr) -> Command {
    let mut command = up::host_command_of(root, PROFILE, &root.join("spin.toml"), &state.runtime_config, listen);
    // Spin writes no line of its own for each request; the components' lines are written, as there.
    command.args(["--expose-counters", "--no-access-log"]);
    let own = [
        ("public_url", format!("http://{listen}")),
        ("session_secret", SESSION_SECRET.into()),
        ("data_encryption_key", DATA_KEY.into()),
        // Counted as always, never reached.
        ("rate_limit_per_hour", "100000000".into()),
        ("daily_picture_limit", "0".into()),
    ];
    let all = own.into_iter().chain(up::sandbox_variables(sandbox));
    for (name, value) in all {
        command.args(["--variable", &format!("{name}={value}")]);
    }
    command
}

impl Stage {
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder for the data of the run")?;
        Ok(Self { children: Children::new(false)?, folder, started: 0 })
    }

    /// Starts the app of a checkout, with a database and a sandbox of its own.
    pub fn app(&mut self, name: &'static str, root: &Path, kie_delay_ms: u64) -> Result<App> {
        self.started += 1;
        let folder = self.folder.path().join(format!("{}-{name}", self.started));
        let state = State::take(&folder, false)?;
        let database = folder.join("ai-hairstyle.db");
        migrations::apply(&database, &root.join("migrations")).with_context(|| format!("cannot migrate {}", database.display()))?;
        let sandbox = reserve(any(), SANDBOX_PORTS, "the sandbox", "")?;
        let address = reserve(any(), 1, "the app", "")?;
        let mut sandbox_command = up::sandbox_command(PROFILE, sandbox, &format!("http://{address}"), &state.sandbox());
        // Small pictures: it is not the stand-in that is measured.
        sandbox_command.args(["--quiet", "--kie-delay-ms", &kie_delay_ms.to_string(), "--kie-picture-px", "64"]);
        go_on(step("starting a sandbox", || up::start_sandbox(&mut self.children, &mut sandbox_command))?)?;
        fill_the_account(sandbox)?;
        let mut command = command(root, &state, address, sandbox);
        let log = folder.join("log");
        go_on(step("starting the app", || up::start_host_logging(&mut self.children, name, &mut command, &log))?)?;
        Ok(App { address, sandbox, state, root: root.to_owned() })
    }

    /// Starts hello in a process of its own, so that the app's threads and caches are not in its way.
    pub fn hello(&mut self, app: &App) -> Result<SocketAddr> {
        let address = reserve(any(), 1, "hello", "")?;
        let mut command = hello_command(app, address);
        let log = self.folder.path().join("hello-log");
        go_on(step("starting hello", || up::start_host_logging(&mut self.children, "hello", &mut command, &log))?)?;
        Ok(address)
    }

    /// Starts the native twin on the app's files.
    pub fn twin(&mut self, app: &App) -> Result<SocketAddr> {
        let address = reserve(any(), 1, "the twin", "")?;
        let log = self.folder.path().join("twin-log");
        go_on(step("starting the twin", || up::start_host_logging(&mut self.children, "twin", &mut twin_command(app, address), &log))?)?;
        Ok(address)
    }

    /// Whether everything still runs, and nobody has asked to end it.
    pub fn check(&mut self) -> Result<()> {
        go_on(self.children.glance()?)
    }

    pub fn pid(&self, name: &str) -> Result<u32> {
        self.children.pid(name).with_context(|| format!("{name} does not run"))
    }
}

/// The AI's account holds enough for some 1,500 pictures; after those every order would wait for somebody to pay.
fn fill_the_account(sandbox: SocketAddr) -> Result<()> {
    let wish = request("POST", "/control/kie/balance", &["content-type: application/json".to_owned()], br#"{"credits": 1e9}"#);
    let answer = http::Connection::open(sandbox)?.send(&wish)?;
    if answer.status != 204 {
        bail!("the sandbox takes no credits: {} {}", answer.status, answer.text());
    }
    Ok(())
}

pub fn hello_command(app: &App, listen: SocketAddr) -> Command {
    let mut command = up::host_command(PROFILE, &root().join("bench/hello/spin.toml"), &app.state.runtime_config, listen);
    command.args(["--expose-counters", "--no-access-log"]);
    command
}

pub fn twin_command(app: &App, listen: SocketAddr) -> Command {
    let mut command = up::twin_command(PROFILE, listen);
    command.arg("--database").arg(app.database_path()).arg("--key-value").arg(app.state.folder.join("key-value.db"));
    command.args(["--public-url", &format!("http://{}", app.address)]);
    command.args(["--session-secret", SESSION_SECRET, "--data-encryption-key", DATA_KEY]);
    command
}
