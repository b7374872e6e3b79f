//! The world the end-to-end tests live in: the real components on the embedded host, the sandbox around them, and people who use them.
//!
//! A [`World`] is fresh for every test: its own database, bucket, ports and log. A [`Person`] is a browser with its own cookies.
//! Everything speaks HTTP, except the helpers named `db_*`, which reach into the database to do what only time or an accident does.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use reqwest::RequestBuilder;
use reqwest::cookie::{CookieStore as _, Jar};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Params};
use sandbox::{Control, Fault, Sandbox, Service};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

mod answer;
pub mod contract;
pub mod hosts;
pub mod kie;
pub mod photos;
pub mod statements;

use contract::Asked;
use hosts::{Balancer, Database, Host, Process};

pub use answer::{Answer, Calls};

/// How long a test waits for something that should take a fraction of a second; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The secrets of a world that are not the sandbox's: no placeholders, so that they can be looked for in the log.
pub const SESSION_SECRET: &str = "e2e-session-secret-7c1b";
/// See [`SESSION_SECRET`].
pub const DATA_KEY: &str = "e2e-data-key-5f20";
/// See [`SESSION_SECRET`].
pub const CRON_SECRET: &str = "e2e-cron-secret-94d0";

/// What a scheduler calls.
pub const SWEEPS: &[&str] = &[
    // One a line.
    "/internal/cleanup",
    "/internal/tasks",
    "/internal/reconcile",
    "/internal/backup",
    "/internal/alarms",
];

/// The workspace's folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The product's manifest.
#[must_use]
pub fn manifest() -> toml::Table {
    std::fs::read_to_string(root().join("spin.toml")).unwrap().parse().unwrap()
}

/// Loads an application. Its components are compiled here, so a test that uses the product as it is takes [`product`].
#[must_use]
pub fn load(manifest: &Path) -> host::Runtime {
    let table: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
    for (name, component) in table["component"].as_table().unwrap() {
        let source = component["source"].as_str().unwrap();
        let path = manifest.parent().unwrap().join(source);
        assert!(path.is_file(), "the component {name} is not built ({source} is missing): run `cargo xtask build` first");
    }
    // Wherever the manifest lies, what was compiled once is not compiled again.
    let cache = root().join("target/wasmtime-cache");
    host::Runtime::load_with(manifest, &cache).unwrap_or_else(|error| panic!("{} cannot be loaded: {error:#}", manifest.display()))
}

/// The product, compiled once for all tests of this process.
#[must_use]
pub fn product() -> host::Runtime {
    static PRODUCT: OnceLock<host::Runtime> = OnceLock::new();
    PRODUCT.get_or_init(|| load(&root().join("spin.toml"))).clone()
}

/// The product with another manifest: `change` gets the parsed `spin.toml`.
#[must_use]
pub fn product_with(change: impl FnOnce(&mut toml::Table)) -> host::Runtime {
    let mut table = manifest();
    for (_, component) in table["component"].as_table_mut().unwrap() {
        // The copy lies elsewhere, the components do not.
        let source = root().join(component["source"].as_str().unwrap());
        component["source"] = source.display().to_string().into();
    }
    change(&mut table);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("spin.toml");
    std::fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
    load(&path)
}

/// What is unusual about a world.
#[derive(Default)]
pub struct Options {
    /// Another application than the product as it is.
    pub runtime: Option<host::Runtime>,
    /// Where the app believes people reach it; the address it listens on otherwise.
    pub public_url: Option<String>,
    /// Variables that win over the usual ones.
    pub variables: BTreeMap<String, String>,
    /// The keys both sides know.
    pub credentials: Option<sandbox::Credentials>,
    /// Where key-value entries are; in memory otherwise.
    pub key_value: Option<host::KvLocation>,
    /// A database that outlives the world; made and migrated if it is not there.
    pub database: Option<PathBuf>,
    /// How long a client waits for an answer; as long as usual otherwise.
    pub request_timeout: Option<Duration>,
    /// What the host calls by itself.
    pub schedule: Vec<host::Schedule>,
    /// Two hosts on a libSQL server and a Redis that they share. Where there are none to be had, the world cannot be made: ask
    /// [`hosts::programs`] first.
    pub two_hosts: bool,
    /// The host's own program with these further words on its command line, instead of the host in this process. It can be killed.
    pub processes: Option<&'static [&'static str]>,
}

/// A fresh product with a fresh outside. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    sandbox: Sandbox,
    hosts: Vec<Host>,
    /// Where each host listens; the world's address is the balancer's when there are two.
    addresses: Vec<Url>,
    _balancer: Option<Balancer>,
    address: Url,
    database: Database,
    shared: Mutex<Option<servers::Shared>>,
    logs: Arc<Mutex<Vec<String>>>,
    statements: host::Statements,
    // The last field: files go when nobody uses them any more.
    folder: TempDir,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            statements::refuse_scans(&self.statements.seen());
        }
    }
}

impl World {
    /// The product as it is.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// The product with something unusual about it.
    pub async fn with(options: Options) -> Self {
        let runtime = match options.runtime {
            Some(runtime) => runtime,
            // Compiling takes seconds the first time, and must not hold up what else runs here.
            None => tokio::task::spawn_blocking(product).await.unwrap(),
        };
        let folder = TempDir::new().unwrap();
        let two_hosts = options.two_hosts || hosts::shared_everywhere();
        let shared = two_hosts.then(|| {
            hosts::start_shared(&folder.path().join("libsql")).unwrap_or_else(|why| panic!("two hosts need shared stores: {why}"))
        });
        let database = match (&shared, options.database) {
            (Some(shared), None) => Database::Server(shared.sqld.client()),
            (_, file) => Database::File(file.unwrap_or_else(|| folder.path().join("app.db"))),
        };
        if let Database::File(file) = &database
            && !file.exists()
        {
            std::fs::write(file, migrated()).unwrap();
        }

        // The app has to know its address before it starts, so its door is there before it.
        let door = free_port();
        let listen: SocketAddr = door.local_addr().unwrap();
        let address = Url::parse(&format!("http://{listen}")).unwrap();
        let sandbox = Sandbox::start(sandbox::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            dir: folder.path().join("bucket"),
            app_url: Some(address.clone()),
            credentials: options.credentials.unwrap_or_default(),
            settings: sandbox::Settings {
                kie_delay_ms: 50,
                kie_picture_px: 96,
                kie_callback_retry_ms: vec![100, 200, 400],
                // Only what a test sends counts: creem's repeats would come after 30 s at the earliest.
                creem_retry_speed: 1.0,
                ..sandbox::Settings::default()
            },
            ..sandbox::Config::default()
        })
        .await
        .unwrap();

        let mut variables = sandbox.variables();
        let public_url = options.public_url.unwrap_or_else(|| format!("http://{listen}"));
        let own = [
            ("public_url", public_url.as_str()),
            ("session_secret", SESSION_SECRET),
            ("cron_secret", CRON_SECRET),
            ("data_encryption_key", DATA_KEY),
        ];
        variables.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.extend(options.variables);
        let logs = Arc::new(Mutex::new(Vec::new()));
        let statements = host::Statements::default();
        let sqlite = match (&database, &shared) {
            (Database::Server(_), Some(shared)) => host::SqliteLocation::Libsql { url: shared.sqld.url(), token: String::new() },
            (Database::File(file), _) => host::SqliteLocation::File(file.clone()),
            (Database::Server(_), None) => unreachable!("a server is one of the shared stores"),
        };
        let key_value = options.key_value.unwrap_or_else(|| match &shared {
            Some(shared) => host::KvLocation::Redis { url: shared.redis.url() },
            None if options.processes.is_some() => host::KvLocation::File(folder.path().join("key-value.db")),
            None => host::KvLocation::Memory,
        });
        let (doors, balanced) = if two_hosts { (vec![free_port(), free_port()], Some(door)) } else { (vec![door], None) };
        let listening: Vec<SocketAddr> = doors.iter().map(|door| door.local_addr().unwrap()).collect();
        let balancer = balanced.map(|door| Balancer::start(door, listening.clone()));
        let mut hosts = Vec::new();
        for door in doors {
            hosts.push(match options.processes {
                None => {
                    let app = runtime
                        .start(host::AppConfig {
                            sqlite: BTreeMap::from([("default".to_owned(), sqlite.clone())]),
                            key_value: BTreeMap::from([("default".to_owned(), key_value.clone())]),
                            variables: variables.clone(),
                            expose_counters: true,
                            access_log: host::LogSink::Capture(Arc::clone(&logs)),
                            request_timeout: options.request_timeout.unwrap_or(host::AppConfig::default().request_timeout),
                            schedule: options.schedule.clone(),
                            statements: Some(statements.clone()),
                            ..Default::default()
                        })
                        .await
                        .unwrap();
                    door.set_nonblocking(true).unwrap();
                    let server = app.serve_on(tokio::net::TcpListener::from_std(door).unwrap()).unwrap();
                    Host::Here { app, _server: server }
                }
                Some(more) => {
                    let config = folder.path().join("runtime-config.toml");
                    std::fs::write(&config, runtime_config(&sqlite, &key_value)).unwrap();
                    let listen = door.local_addr().unwrap();
                    drop(door);
                    Host::Process(Process::start(listen, &config, &variables, more, Arc::clone(&logs)))
                }
            });
        }
        let addresses = listening.iter().map(|listen| Url::parse(&format!("http://{listen}")).unwrap()).collect();
        let shared = Mutex::new(shared);
        Self(Arc::new(Inner { sandbox, hosts, addresses, _balancer: balancer, address, database, shared, logs, statements, folder }))
    }

    /// Where one of the hosts listens.
    #[must_use]
    pub fn host(&self, number: usize) -> &Url {
        &self.0.addresses[number]
    }

    /// Ends a host that is a process at once, whatever it is doing.
    pub fn kill(&self, number: usize) {
        match &self.0.hosts[number] {
            Host::Process(process) => process.kill(),
            Host::Here { .. } => panic!("a host in this process cannot be killed"),
        }
    }

    /// Starts a host again that was killed.
    pub fn resume(&self, number: usize) {
        match &self.0.hosts[number] {
            Host::Process(process) => process.resume(),
            Host::Here { .. } => panic!("a host in this process cannot be killed"),
        }
    }

    /// Does something to the stores that two hosts share.
    pub fn with_shared<T>(&self, act: impl FnOnce(&mut servers::Shared) -> T) -> T {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        act(shared.as_mut().expect("this world has no shared stores"))
    }

    /// Where the app really listens.
    #[must_use]
    pub fn address(&self) -> &Url {
        &self.0.address
    }

    /// The strings behind the scenes of everything outside.
    #[must_use]
    pub fn control(&self) -> Control {
        self.0.sandbox.control()
    }

    /// Where the stand-ins are.
    #[must_use]
    pub fn places(&self) -> &sandbox::Places {
        self.0.sandbox.places()
    }

    /// Lets something outside go wrong from now on.
    pub fn fault(&self, rule: impl Into<sandbox::Rule>) {
        self.control().fault(rule);
    }

    /// Lets the power go at the n-th host call of a component from now on (on each host, if there are two).
    pub fn crash_at(&self, component: &str, call: u64, moment: host::Moment) {
        self.host_may_answer(500);
        for app in self.apps() {
            app.crash(host::Crash { component: Some(component.to_owned()), call, moment });
        }
    }

    /// Whether it went; if not, it stays on.
    #[must_use]
    pub fn crashed(&self) -> bool {
        // All are asked: asking is what disarms them.
        self.apps().filter(|app| app.crashed()).count() > 0
    }

    fn apps(&self) -> impl Iterator<Item = &host::App> {
        self.0.hosts.iter().filter_map(|host| if let Host::Here { app, .. } = host { Some(app) } else { None })
    }

    /// Host calls of all requests so far, those of streams that are still open included.
    #[must_use]
    pub fn host_calls(&self) -> Calls {
        self.apps().map(|app| app.call_counters()).fold(Calls::default(), |sum, app| Calls {
            sqlite: sum.sqlite + app.sqlite,
            kv: sum.kv + app.kv,
            http: sum.http + app.http,
        })
    }

    /// Lets the bucket answer 503 to everything.
    pub fn storage_down(&self) {
        self.fault(Fault::S3Answers { status: 503, method: None, prefix: None });
    }

    /// The keys in the bucket, but for what is about backups.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        self.control().objects().unwrap().into_iter().filter(|key| !key.starts_with("backups/")).collect()
    }

    /// The keys of what is about backups.
    #[must_use]
    pub fn backups(&self) -> Vec<String> {
        self.control().objects().unwrap().into_iter().filter(|key| key.starts_with("backups/")).collect()
    }

    /// The database's file. A libSQL server's own may be read and locked beside it, not written to.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        match &self.0.database {
            Database::File(file) => file.clone(),
            Database::Server(_) => self.with_shared(|shared| shared.sqld.file()),
        }
    }

    /// The folder of the bucket's objects.
    #[must_use]
    pub fn bucket_folder(&self) -> PathBuf {
        self.0.folder.path().join("bucket").join(sandbox::BUCKET)
    }

    /// How many requests an outside service has received whose `METHOD /path` contains `text`.
    #[must_use]
    pub fn heard(&self, service: Service, text: &str) -> usize {
        self.control().calls_to(service).iter().filter(|call| format!("{} {}", call.method, call.path).contains(text)).count()
    }

    /// A browser that nobody has signed in with.
    #[must_use]
    pub fn stranger(&self) -> Person {
        let jar = Arc::new(Jar::default());
        // With two hosts each request takes a new connection, and so the next host.
        let kept = if self.0.addresses.len() > 1 { 0 } else { usize::MAX };
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(kept)
            .redirect(reqwest::redirect::Policy::none())
            .cookie_provider(Arc::clone(&jar))
            .no_proxy()
            .timeout(Duration::from_secs(90))
            .build()
            .unwrap();
        Person { world: self.clone(), client, jar, upload: Arc::default() }
    }

    /// Somebody who has just signed in with Google.
    pub async fn sign_in(&self, email: &str) -> Person {
        let person = self.stranger();
        let answer = person.sign_in_with("google", email, "/").await;
        assert_eq!((answer.status, answer.header("location")), (302, "/"), "sign-in of {email}: {answer}{}", self.tail());
        person
    }

    /// Somebody who has just signed in with GitHub.
    pub async fn sign_in_github(&self, email: &str) -> Person {
        let person = self.stranger();
        let answer = person.sign_in_with("github", email, "/").await;
        assert_eq!((answer.status, answer.header("location")), (302, "/"), "sign-in of {email}: {answer}{}", self.tail());
        person
    }

    /// Calls all sweeps as a scheduler does and answers their reports in one. What is at work already is not waited for.
    pub async fn sweep(&self) -> Value {
        let mut report = json!({});
        // A backup and a look at the alarms finish nothing: tests that are about them call them.
        for path in SWEEPS.iter().filter(|path| !["/internal/backup", "/internal/alarms"].contains(path)) {
            report.as_object_mut().unwrap().extend(self.scheduled(200, path).await.as_object().unwrap().clone());
        }
        report
    }

    /// Calls one of the [`SWEEPS`] as a scheduler does.
    pub async fn scheduled(&self, expected: u16, path: &str) -> Value {
        let stranger = self.stranger();
        stranger.send(expected, stranger.request(Method::POST, path).bearer_auth(CRON_SECRET)).await.json()
    }

    /// Everything the app has logged.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log's JSON lines of one kind.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.logs();
        let json = lines.iter().filter_map(|line| serde_json::from_str::<Value>(&line[line.find('{')?..]).ok());
        json.filter(|line| line["event"] == event).collect()
    }

    /// The end of the log, for messages about what failed.
    #[must_use]
    pub fn tail(&self) -> String {
        let logs = self.logs();
        let mut text = String::from("\n--- the log's last lines ---\n");
        for line in &logs[logs.len().saturating_sub(25)..] {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Waits until the AI provider is done with all that it was asked for.
    pub async fn until_done_at_provider(&self) {
        let done = async || {
            let tasks = self.control().kie_tasks();
            if !tasks.is_empty() && tasks.iter().all(|task| task.outcome.is_some()) { Ok(()) } else { Err(format!("{tasks:?}")) }
        };
        self.until("the provider to finish", done).await;
    }

    /// Asks until `look` answers something.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = match look().await {
                Ok(found) => return found,
                Err(last) => last,
            };
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}; last seen: {last}{}", self.tail());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Reads the database: rows of columns as JSON values.
    #[must_use]
    pub fn sql(&self, query: &str) -> Vec<Vec<Value>> {
        let file = match &self.0.database {
            Database::File(file) => file,
            Database::Server(client) => {
                let rows = self.patiently(|| client.run(query, &[]));
                let json = |value| match value {
                    hrana::Value::Null => Value::Null,
                    hrana::Value::Integer(number) => json!(number),
                    hrana::Value::Real(number) => json!(number),
                    hrana::Value::Text(text) => json!(text),
                    hrana::Value::Blob(bytes) => json!(String::from_utf8_lossy(&bytes)),
                };
                return rows.into_iter().map(|row| row.into_iter().map(json).collect()).collect();
            }
        };
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        let mut statement = connection.prepare(query).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns)
                .map(|at| {
                    Ok(match row.get_ref(at)? {
                        ValueRef::Null => Value::Null,
                        ValueRef::Integer(number) => json!(number),
                        ValueRef::Real(number) => json!(number),
                        ValueRef::Text(text) | ValueRef::Blob(text) => json!(String::from_utf8_lossy(text)),
                    })
                })
                .collect()
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The one number a query answers.
    #[must_use]
    pub fn sql_number(&self, query: &str) -> i64 {
        self.sql(query)[0][0].as_i64().unwrap_or_else(|| panic!("no number: {query}"))
    }

    /// The one text a query answers.
    #[must_use]
    pub fn sql_text(&self, query: &str) -> String {
        self.sql(query)[0][0].as_str().unwrap_or_else(|| panic!("no text: {query}")).to_owned()
    }

    /// The statements that the components have run, with what the dearest run of each has cost.
    #[must_use]
    pub fn statements(&self) -> BTreeMap<String, host::Cost> {
        self.0.statements.seen()
    }

    /// Fills the database with so many completed tasks and what belongs to them; see `books::fill`.
    pub fn db_fill(&self, tasks: u64, heavy: &str, usual: &str) {
        assert!(matches!(self.0.database, Database::File(_)), "only a file is filled so");
        let mut connection = Connection::open(self.database()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        books::fill(&mut connection, tasks, heavy, usual, now()).unwrap();
    }

    /// Writes to the database behind the app's back, and answers how many rows that changed.
    pub fn db_write(&self, statement: &str, parameters: impl Params) -> usize {
        let file = match &self.0.database {
            Database::File(file) => file,
            Database::Server(client) => {
                let written = hosts::written_out(statement, parameters);
                let changed = self.patiently(|| client.change(&written, &[]));
                return usize::try_from(changed).unwrap();
            }
        };
        let connection = Connection::open(file).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        connection.execute(statement, parameters).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// A server waits for a lock for a moment only, and its watchdog may be starting it again; a test waits longer.
    fn patiently<T>(&self, mut act: impl FnMut() -> Result<T, hrana::Error>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match act() {
                Ok(done) => return done,
                Err(hrana::Error::Sql(text) | hrana::Error::Unreachable(text))
                    if ["locked", "Connection refused"].iter().any(|passing| text.contains(passing)) && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("{error}{}", self.tail()),
            }
        }
    }

    /// Lets nobody else write to the database until the answer is dropped. A libSQL server's own file is taken from it: a transaction of a
    /// client it would end after five seconds.
    #[must_use]
    pub fn db_hold_the_pen(&self) -> Box<dyn std::any::Any> {
        let connection = Connection::open(self.database()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Box::new(connection)
    }

    /// Lets the time come for every unfinished task to be looked at again.
    pub fn db_tasks_are_due(&self) {
        self.db_write("UPDATE ai_tasks SET next_attempt_at = 0, claimed_until = 0 WHERE status IN ('pending', 'processing')", []);
    }

    /// Lets so many seconds pass for everything unfinished: claims, retries and deadlines come nearer.
    pub fn db_time_passes(&self, seconds: i64) {
        let tasks = "UPDATE ai_tasks SET created_at = created_at - ?1, next_attempt_at = next_attempt_at - ?1, claimed_until = claimed_until - ?1 \
                     WHERE status IN ('pending', 'processing')";
        self.db_write(tasks, [seconds]);
        self.db_write(
            "UPDATE uploads SET created_at = created_at - ?1, claimed_until = claimed_until - ?1 WHERE status = 'pending'",
            [seconds],
        );
        self.db_write("UPDATE idempotency_keys SET claimed_until = claimed_until - ?1", [seconds]);
        self.db_write("UPDATE erasures SET next_look_at = next_look_at - ?1", [seconds]);
        self.db_write("UPDATE job_runs SET started_at = started_at - ?1", [seconds]);
        self.db_write("UPDATE job_runs SET leased_until = leased_until - ?1 WHERE outcome = 'running'", [seconds]);
    }

    /// Lets the time come for every order, subscription and open event to be looked at again.
    pub fn db_payments_are_due(&self) {
        self.db_write("UPDATE orders SET next_look_at = 0 WHERE next_look_at IS NOT NULL", []);
        self.db_write("UPDATE subscriptions SET next_look_at = 0 WHERE next_look_at IS NOT NULL", []);
        self.db_write("UPDATE payment_events SET next_attempt_at = 0 WHERE status = 'received'", []);
    }

    /// Takes credits from somebody until this many are left.
    pub fn db_leave_credits(&self, user: &str, left: i64) {
        let upload = json!({"hairstyle": "bob-cut", "model": "4o", "prompt": "", "upload_id": "", "upload_key": "", "upload_url": "", "width": 1, "height": 1});
        let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, external_provider, price, next_attempt_at, claimed_until) \
                   SELECT 'spent', 'TASK_spent', id, ?2, 'kie_4o', credits - ?3, 99999999999, 99999999999 FROM users WHERE id = ?1 AND credits > ?3";
        self.db_write(sql, (user, upload.to_string(), left));
    }

    /// An act of the admins' log, as if an admin had done it.
    pub fn db_act(&self, action: &str, subject: &str, detail: &Value, at: i64) {
        let last = self.sql("SELECT seq, hash FROM admin_log ORDER BY seq DESC LIMIT 1").pop();
        let (seq, previous) = last.map_or((1, String::new()), |row| (row[0].as_i64().unwrap() + 1, row[1].as_str().unwrap().to_owned()));
        let mut act = audit::log::Act {
            seq,
            at,
            admin_id: "test".into(),
            action: action.into(),
            subject: subject.into(),
            detail: detail.to_string(),
            previous,
            hash: String::new(),
        };
        act.hash = act.hash();
        let sql = format!("INSERT INTO admin_log ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", audit::log::COLUMNS);
        self.db_write(&sql, (act.seq, act.at, act.admin_id, act.action, act.subject, act.detail, act.previous, act.hash));
    }

    /// Credits for the only user there is, given at this time and good for so many seconds.
    pub fn db_gift(&self, key: &str, credits: i64, at: i64, lasts: Option<i64>) {
        let user = self.sql_text("SELECT id FROM users");
        self.db_act("gift", &user, &json!({"key": key, "credits": credits, "lasts": lasts}), at);
    }

    /// Whether every rule about money holds: see the invariants in ARCHITECTURE.md.
    pub fn assert_books_balance(&self) {
        let wrong: Vec<_> = audit::INVARIANTS
            .iter()
            .map(|invariant| (invariant.id, self.sql(invariant.offenders)))
            .filter(|(_, offenders)| !offenders.is_empty())
            .collect();
        assert!(wrong.is_empty(), "the books do not balance: {wrong:?}{}", self.tail());
    }
}

/// A browser.
#[derive(Clone)]
pub struct Person {
    pub world: World,
    client: reqwest::Client,
    jar: Arc<Jar>,
    /// The photo that is ordered from when a test does not care which.
    upload: Arc<tokio::sync::Mutex<Option<String>>>,
}

impl Person {
    /// A request to the app, or to anywhere when `path` is a whole URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.world.address().join(path).unwrap())
    }

    /// Sends a request whatever comes of it.
    pub async fn ask(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let asked = format!("{} {}", request.method(), request.url().path());
        let is_ours = request.url().origin() == self.world.address().origin();
        let sent = is_ours.then(|| Asked::of(&request));
        let answer = match self.client.execute(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("{asked}: no answer: {error:?}{}", self.world.tail()),
        };
        let answer = Answer::read(asked, answer).await;
        if let Some(sent) = sent {
            contract::check_exchange(&sent, &answer);
        }
        answer
    }

    /// Sends a request that should be answered with this status.
    pub async fn send(&self, expected: u16, request: RequestBuilder) -> Answer {
        let answer = self.ask(request).await;
        assert_eq!(answer.status, expected, "{answer}{}", self.world.tail());
        answer
    }

    pub async fn get(&self, expected: u16, path: &str) -> Answer {
        self.send(expected, self.request(Method::GET, path)).await
    }

    pub async fn post(&self, expected: u16, path: &str) -> Answer {
        self.send(expected, self.request(Method::POST, path)).await
    }

    pub async fn post_json(&self, expected: u16, path: &str, body: &Value) -> Answer {
        self.send(expected, self.request(Method::POST, path).json(body)).await
    }

    pub async fn delete(&self, expected: u16, path: &str) -> Answer {
        self.send(expected, self.request(Method::DELETE, path)).await
    }

    /// The session token in the browser's cookies.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        self.cookie("__session")
    }

    /// A cookie the app has set.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.jar.cookies(self.world.address())?;
        let found = cookies.to_str().ok()?.split("; ").find_map(|cookie| cookie.strip_prefix(&format!("{name}="))?.to_owned().into());
        found.filter(|value: &String| !value.is_empty())
    }

    /// Goes to the sign-in page and says who it is; answers where the provider sends the browser: back to the app, with a code.
    pub async fn begin_sign_in(&self, provider: &str, email: &str, redirect_to: &str) -> String {
        let mut login = self.world.address().join(&format!("/auth/login/{provider}")).unwrap();
        login.query_pairs_mut().append_pair("redirect_to", redirect_to).append_pair("login_hint", email);
        let answer = self.get(302, login.as_str()).await;
        let consent = self.get(302, answer.header("location")).await;
        consent.header("location").to_owned()
    }

    /// The whole way through the provider; answers what the app says at the end of it.
    pub async fn sign_in_with(&self, provider: &str, email: &str, redirect_to: &str) -> Answer {
        let back = self.begin_sign_in(provider, email, redirect_to).await;
        self.ask(self.request(Method::GET, &back)).await
    }

    /// What Google's button has to be given in this browser.
    pub async fn one_tap_nonce(&self) -> String {
        self.get(200, "/auth/google/nonce").await.json()["nonce"].as_str().unwrap().to_owned()
    }

    /// Signs in with a credential as Google's button gives it.
    pub async fn one_tap(&self, expected: u16, wish: sandbox::Credential) -> Answer {
        let nonce = Some(self.one_tap_nonce().await);
        let credential = self.world.control().google_credential(&sandbox::Credential { nonce, ..wish });
        self.post_json(expected, "/auth/google", &json!({"credential": credential})).await
    }

    /// One's id.
    pub async fn id(&self) -> String {
        self.get(200, "/api/me").await.json()["user"]["id"].as_str().unwrap().to_owned()
    }

    /// What one can spend.
    pub async fn credits(&self) -> i64 {
        self.get(200, "/api/me/credits").await.json()["balance"].as_i64().unwrap()
    }

    /// Uploads one of the test photos as a raw body, and answers the upload.
    pub async fn upload(&self, photo: &str) -> Value {
        let answer = self.send(201, self.upload_request(photos::content_type(photo), photos::read(photo))).await;
        let uploads = answer.json()["uploads"].as_array().unwrap().clone();
        assert_eq!(uploads.len(), 1, "{answer}");
        uploads[0].clone()
    }

    /// A raw upload.
    pub fn upload_request(&self, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, "/api/uploads").header("content-type", content_type).body(body)
    }

    /// A raw upload over a plain connection that listens while it still sends, and answers the whole text that came back. Most
    /// clients send everything first; when they are refused before that, they find the connection closed and miss the reason.
    pub async fn push(&self, content_type: &str, body: Vec<u8>) -> String {
        let address = self.world.address();
        let host = format!("{}:{}", address.host_str().unwrap(), address.port().unwrap());
        let head = format!(
            "POST /api/uploads HTTP/1.1\r\nhost: {host}\r\ncookie: __session={}\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.token().unwrap(),
            body.len()
        );
        let (mut reading, mut writing) = TcpStream::connect(&host).await.unwrap().into_split();
        let send = async {
            writing.write_all(head.as_bytes()).await.unwrap();
            // Refused half way: what counts is the answer.
            let _ = writing.write_all(&body).await;
        };
        let hear = async {
            let mut answer = Vec::new();
            // A reset after the answer is how the other side says that it reads no further.
            let _ = reading.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::time::timeout(PATIENCE, async { futures::join!(send, hear).1 })
            .await
            .unwrap_or_else(|_| panic!("no answer{}", self.world.tail()))
    }

    /// Uploads a photo unless this person has done so, and answers its id.
    pub async fn any_upload(&self) -> String {
        let mut upload = self.upload.lock().await;
        if upload.is_none() {
            *upload = Some(self.upload("portrait.jpg").await["id"].as_str().unwrap().to_owned());
        }
        upload.clone().unwrap()
    }

    /// Orders pictures of any photo, and answers the tasks' numbers.
    pub async fn order(&self, hairstyles: &[&str]) -> Vec<String> {
        let upload = self.any_upload().await;
        let answer = self.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": hairstyles})).await;
        let tasks = answer.json()["tasks"].as_array().unwrap().clone();
        assert_eq!(tasks.len(), hairstyles.len(), "{answer}");
        tasks.iter().map(|task| task["task_no"].as_str().unwrap().to_owned()).collect()
    }

    /// Orders one picture and answers the task's number.
    pub async fn order_one(&self) -> String {
        self.order(&["bob-cut"]).await.remove(0)
    }

    /// How a task stands.
    pub async fn task(&self, task_no: &str) -> Value {
        self.get(200, &format!("/api/tasks/{task_no}")).await.json()["task"].clone()
    }

    /// Looks at a task until it is completed or failed.
    pub async fn wait_final(&self, task_no: &str) -> Value {
        let look = async || {
            let task = self.task(task_no).await;
            if task["status"] == "completed" || task["status"] == "failed" { Ok(task) } else { Err(task.to_string()) }
        };
        self.world.until(&format!("the end of {task_no}"), look).await
    }

    /// [`Person::wait_final`] of a task that should succeed.
    pub async fn wait_completed(&self, task_no: &str) -> Value {
        let task = self.wait_final(task_no).await;
        assert_eq!(task["status"], "completed", "{task}{}", self.world.tail());
        task
    }

    /// [`Person::wait_final`] of a task that should fail.
    pub async fn wait_failed(&self, task_no: &str) -> Value {
        let task = self.wait_final(task_no).await;
        assert_eq!(task["status"], "failed", "{task}{}", self.world.tail());
        task
    }

    /// Fetches a file of one's own: through the redirect to the bucket.
    pub async fn download(&self, url: &str) -> Bytes {
        let answer = self.get(302, url).await;
        // The link alone is enough: the bucket knows no cookies.
        let bucket = self.world.stranger();
        bucket.get(200, answer.header("location")).await.body
    }

    /// Begins to buy something, and answers the order.
    pub async fn begin_purchase(&self, product: &str) -> Value {
        self.post_json(201, "/api/orders", &json!({"product_id": product})).await.json()["order"].clone()
    }

    /// Pays an order on the payment provider's page and follows the way back to the app; answers the order.
    pub async fn pay(&self, order: &Value) -> Value {
        let page = order["payment_url"].as_str().unwrap();
        self.get(200, page).await;
        let paid = self.send(303, self.request(Method::POST, &format!("{page}/pay")).form_body("email=buyer%40example.com")).await;
        let back = self.get(302, paid.header("location")).await;
        self.get(200, back.header("location")).await.json()["order"].clone()
    }
}

trait FormBody {
    fn form_body(self, text: &'static str) -> Self;
}

impl FormBody for RequestBuilder {
    fn form_body(self, text: &'static str) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded").body(text)
    }
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys that are no placeholders: with those the app refuses to run where strangers can reach it.
#[must_use]
pub fn real_credentials() -> sandbox::Credentials {
    let real = |name: &str| format!("real-{name}");
    sandbox::Credentials {
        s3_access_key_id: real("s3-key"),
        s3_secret_access_key: real("s3-secret"),
        kie_api_key: real("kie-key"),
        kie_webhook_hmac_key: real("kie-hmac"),
        creem_api_key: real("creem-key"),
        creem_webhook_secret: real("creem-webhook"),
        google_client_id: real("google-client"),
        google_client_secret: real("google-secret"),
        github_client_id: real("github-client"),
        github_client_secret: real("github-secret"),
    }
}

/// Unix seconds.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Where a host that is a process finds the stores.
fn runtime_config(sqlite: &host::SqliteLocation, key_value: &host::KvLocation) -> String {
    let mut table = toml::Table::new();
    let mut store = |kind: &str, keys: &[(&str, String)]| {
        let mut store = toml::Table::new();
        for (key, value) in keys {
            store.insert((*key).to_owned(), value.clone().into());
        }
        table.insert(kind.to_owned(), toml::Table::from_iter([("default".to_owned(), store.into())]).into());
    };
    match sqlite {
        host::SqliteLocation::File(path) => store("sqlite_database", &[("type", "spin".into()), ("path", path.display().to_string())]),
        host::SqliteLocation::Libsql { url, token } => {
            store("sqlite_database", &[("type", "libsql".into()), ("url", url.clone()), ("token", token.clone())]);
        }
    }
    match key_value {
        host::KvLocation::Memory => store("key_value_store", &[("type", "spin".into())]),
        host::KvLocation::File(path) => store("key_value_store", &[("type", "spin".into()), ("path", path.display().to_string())]),
        host::KvLocation::Redis { url } => store("key_value_store", &[("type", "redis".into()), ("url", url.clone())]),
    }
    table.to_string()
}

/// An empty database with the product's schema. Migrated once: every world starts from a copy.
fn migrated() -> &'static [u8] {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("template.db");
        migrations::apply(&path, &root().join("migrations")).unwrap();
        let connection = Connection::open(&path).unwrap();
        // What lies beside the file is not copied.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        connection.close().unwrap();
        std::fs::read(path).unwrap()
    })
}

/// A port below those the system gives to outgoing connections, so that none of ours can take it between choosing and listening.
fn free_port() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 97).unwrap() * 100;
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
    panic!("no port from 20000 to 29999 is free");
}
