//! What the app of a world runs on: one host or two, here or as processes, and the stores they share.
//!
//! With `E2E_STORES=shared` every world has two hosts on a libSQL server and a Redis of its own. Between them and their clients stands a
//! balancer that hands each connection to the next host; the clients keep no connections then, so that each request meets the
//! other host. (A world that asks for a file of its own - `Options::database`, `Options::key_value` - keeps it, and both hosts share the file.)

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, Params};
use servers::{Programs, Shared};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::{PATIENCE, root};

/// Whether every world of this run has two hosts on shared stores.
#[must_use]
pub fn shared_everywhere() -> bool {
    std::env::var("E2E_STORES").is_ok_and(|stores| stores == "shared")
}

/// The programs of the shared stores, fetched once; or why they cannot be had here.
///
/// # Errors
/// What is missing.
pub fn programs() -> Result<&'static Programs, String> {
    static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();
    PROGRAMS.get_or_init(|| Programs::get(&root().join("target"))).as_ref().map_err(Clone::clone)
}

/// Starts a libSQL server with the product's schema, and an empty Redis. Migrated once: every server starts from a copy.
///
/// # Errors
/// What is missing.
pub fn start_shared(folder: &Path) -> Result<Shared, String> {
    static TEMPLATE: OnceLock<Result<TempDir, String>> = OnceLock::new();
    let programs = programs()?;
    let make = || {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let server = programs.start_sqld(folder.path())?;
        migrations::apply_to_server(&server.client(), &root().join("migrations")).map_err(|error| error.to_string())?;
        server.stop();
        Ok(folder)
    };
    let template = TEMPLATE.get_or_init(make).as_ref().map_err(Clone::clone)?;
    copy(template.path(), folder).map_err(|error| error.to_string())?;
    Shared::start(programs, folder)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Where the helpers `db_*` find the database.
pub(crate) enum Database {
    File(PathBuf),
    Server(hrana::Client),
}

/// A statement with its parameters written into it: what is sent to a server. It is not run.
pub(crate) fn written_out(statement: &str, parameters: impl Params) -> String {
    if !statement.contains('?') {
        return statement.to_owned();
    }
    static SCHEMA: OnceLock<Mutex<Connection>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::apply_to(&mut connection, &root().join("migrations")).unwrap();
        Mutex::new(connection)
    });
    let schema = schema.lock().unwrap_or_else(PoisonError::into_inner);
    let mut prepared = schema.prepare(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    let rows = prepared.query(parameters).unwrap_or_else(|error| panic!("{statement}: {error}"));
    rows.as_ref().and_then(rusqlite::Statement::expanded_sql).unwrap_or_else(|| panic!("{statement}: cannot be written out"))
}

/// One that runs the app.
pub(crate) enum Host {
    Here {
        app: host::App,
        /// Dropped with the world: then the app stops.
        _server: host::Server,
    },
    Process(Process),
}

/// The host's own program.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    logs: Arc<Mutex<Vec<String>>>,
    child: Mutex<Option<Child>>,
}

impl Process {
    pub(crate) fn start(
        address: SocketAddr,
        runtime_config: &Path,
        variables: &BTreeMap<String, String>,
        more: &[&str],
        logs: Arc<Mutex<Vec<String>>>,
    ) -> Self {
        let shown = |path: PathBuf| path.display().to_string();
        let mut arguments =
            vec!["--manifest".into(), shown(root().join("spin.toml")), "--runtime-config".into(), shown(runtime_config.into())];
        arguments.extend(["--listen".into(), address.to_string(), "--cache-dir".into(), shown(root().join("target/wasmtime-cache"))]);
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        arguments.extend(variables.iter().map(|(name, value)| format!("--variable={name}={value}")));
        let process = Self { address, arguments, logs, child: Mutex::default() };
        process.resume();
        process
    }

    /// Starts it, again, at its address.
    pub(crate) fn resume(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut child = self.spawn();
        while std::net::TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                // Its port may be taken for a moment: a program that another test is just starting holds copies of all our sockets until it
                // is loaded, also of the one that kept this port.
                assert!(Instant::now() < deadline, "the host ended with {status}: {:?}", self.logs());
                std::thread::sleep(std::time::Duration::from_millis(100));
                child = self.spawn();
            }
            assert!(Instant::now() < deadline, "the host does not listen on {}", self.address);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    fn spawn(&self) -> Child {
        let mut child = Command::new(program())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("the host does not start: {error}"));
        let (stderr, logs) = (child.stderr.take().unwrap(), self.logs.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                logs.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        child
    }

    fn logs(&self) -> MutexGuard<'_, Vec<String>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The host's program, beside the tests' own.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("ai-hairstyle-host");
    assert!(program.is_file(), "{} is missing: run `cargo build --bin ai-hairstyle-host` first", program.display());
    program
}

/// Hands each connection to the next host that takes it, byte by byte. Ends when it is dropped.
pub(crate) struct Balancer(tokio::task::JoinHandle<()>);

impl Balancer {
    pub(crate) fn start(listener: std::net::TcpListener, hosts: Vec<SocketAddr>) -> Self {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let next = AtomicUsize::new(0);
        Self(tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { continue };
                let first = next.fetch_add(1, Ordering::Relaxed);
                let hosts = hosts.clone();
                tokio::spawn(async move {
                    let _ = client.set_nodelay(true);
                    for turn in 0..hosts.len() {
                        // One that is down is passed over.
                        let Ok(mut host) = TcpStream::connect(hosts[(first + turn) % hosts.len()]).await else { continue };
                        let _ = host.set_nodelay(true);
                        pass_on(&mut client, &mut host).await;
                        return;
                    }
                });
            }
        }))
    }
}

/// Passes bytes both ways until the host has said all. One that answers and hangs up before it has heard all is heard to the end, too, and the
/// client is listened to a little longer, or it would lose the answer.
async fn pass_on(client: &mut TcpStream, host: &mut TcpStream) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_host, mut to_host) = host.split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_host).await;
        let _ = to_host.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_host, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    let mut nowhere = tokio::io::sink();
    let rest = tokio::io::copy(&mut from_client, &mut nowhere);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), rest).await;
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
