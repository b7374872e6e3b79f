//! Runtimes and applications: what is made once, and what runs.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};
use wasmtime_wasi_http::{
    WasiBody,
    handler::{ProxyHandler, ProxyPre},
    p3::bindings::ServicePre,
};

use crate::{
    HostCalls, KvLocation, LogSink, Manifest, Routes, Schedule, Server, SqliteLocation, Statements,
    calls::{Counters, RequestContext},
    crash::{Crash, CrashPoint},
    instance::{self, Rights, Shared, State, Workers},
    key_value::Stores,
    manifest::StaticResponse,
    outbound::{AllowList, Outbound},
    routes::{Found, Target},
    schedule::Patience,
    sqlite::Database,
    variables,
};

/// A manifest whose components are compiled. Cheap to clone; starts any number of applications.
#[derive(Clone)]
pub struct Runtime(Arc<RuntimeInner>);

struct RuntimeInner {
    engine: Engine,
    manifest: Manifest,
    routes: Routes,
    components: BTreeMap<String, Arc<ProxyPre<State>>>,
}

/// How an application runs.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Databases by label.
    pub sqlite: BTreeMap<String, SqliteLocation>,
    /// Key-value stores by label.
    pub key_value: BTreeMap<String, KvLocation>,
    /// Variables given explicitly; they go before everything else.
    pub variables: BTreeMap<String, String>,
    /// Variables of providers.
    pub provided_variables: BTreeMap<String, String>,
    /// How long a client waits for an answer; then it is told 504.
    pub request_timeout: Duration,
    /// How many requests an instance serves before it is replaced.
    pub max_instance_reuse: usize,
    /// Whether answers carry `x-host-calls`.
    pub expose_counters: bool,
    /// Where the components' output and the host's events go.
    pub access_log: LogSink,
    /// Whether every request gets a line.
    pub log_requests: bool,
    /// Requests the host sends to the application itself.
    pub schedule: Vec<Schedule>,
    /// Where statements and what they cost are noted, for tests.
    pub statements: Option<Statements>,
}

impl Default for AppConfig {
    fn default() -> Self {
        Self {
            sqlite: BTreeMap::new(),
            key_value: BTreeMap::new(),
            variables: BTreeMap::new(),
            provided_variables: BTreeMap::new(),
            request_timeout: Duration::from_secs(60),
            max_instance_reuse: 128,
            expose_counters: false,
            access_log: LogSink::Stderr,
            log_requests: true,
            schedule: Vec::new(),
            statements: None,
        }
    }
}

/// A running application. Cheap to clone; its schedule ends with the last clone outside of the schedule itself.
#[derive(Clone)]
pub struct App {
    inner: Arc<AppInner>,
    // Ends the scheduled tasks when the last handle that a user holds is dropped.
    _schedule: Option<Arc<Aborter>>,
}

struct AppInner {
    runtime: Runtime,
    handlers: BTreeMap<String, ProxyHandler<Workers>>,
    shared: Arc<Shared>,
    expose_counters: bool,
    log_requests: bool,
}

#[derive(Default)]
struct Aborter(Mutex<Vec<tokio::task::AbortHandle>>);

impl Drop for Aborter {
    fn drop(&mut self) {
        for task in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Runtime {
    /// Reads a manifest and compiles its components, with a compile cache in `target/` beside the manifest.
    ///
    /// # Errors
    /// For a manifest that cannot be run, in words that say what to do.
    pub fn load(manifest: impl AsRef<Path>) -> Result<Self> {
        let path = manifest.as_ref();
        Self::load_with(path, &folder_of(path).join("target/wasmtime-cache"))
    }

    /// As [`Runtime::load`], with the compile cache in `cache`.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_with(path: &Path, cache: &Path) -> Result<Self> {
        let manifest = Manifest::load(path)?;
        let routes = Routes::of(&manifest)?;
        let engine = engine(cache)?;
        let mut linker = Linker::new(&engine);
        instance::link(&mut linker).map_err(|error| anyhow!("{error:?}"))?;
        let folder = folder_of(path);
        // Each on a thread of its own: compiling is all that start-up costs.
        let compiled: Vec<Result<(String, Arc<ProxyPre<State>>)>> = std::thread::scope(|scope| {
            let jobs: Vec<_> =
                manifest.component.keys().map(|id| scope.spawn(|| compile(&engine, &linker, &manifest, id, &folder))).collect();
            jobs.into_iter().map(|job| job.join().unwrap_or_else(|_| Err(anyhow!("compiling a component panicked")))).collect()
        });
        let components = compiled.into_iter().collect::<Result<_>>()?;
        Ok(Self(Arc::new(RuntimeInner { engine, manifest, routes, components })))
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The value that a variable of the application has with this configuration; `None`: the manifest names no such variable.
    ///
    /// # Errors
    /// For variables without a value.
    pub fn variable(&self, config: &AppConfig, name: &str) -> Result<Option<String>> {
        Ok(variables::resolve(&self.0.manifest, &config.variables, &config.provided_variables)?.remove(name))
    }

    /// Starts an application with stores of its own.
    ///
    /// # Errors
    /// For variables without a value, labels without a store and hosts that are none.
    pub async fn start(&self, config: AppConfig) -> Result<App> {
        let manifest = &self.0.manifest;
        for route in &self.0.routes.hidden {
            config.access_log.event(
                serde_json::json!({"level": "warn", "event": "route_hidden", "route": route, "why": "the same route comes again later"}),
            );
        }
        let values = variables::resolve(manifest, &config.variables, &config.provided_variables)?;
        let open = |(label, location)| match Database::open(location) {
            Ok(database) => Ok((label, database)),
            Err(error) => Err(error.context(format!("the database {label:?} cannot be used"))),
        };
        let shared = Arc::new(Shared {
            sqlite: config.sqlite.into_iter().map(open).collect::<Result<_>>()?,
            key_value: Stores::open(&config.key_value)?,
            outbound: Outbound::new(),
            log: config.access_log.clone(),
            request_timeout: config.request_timeout,
            reuse: config.max_instance_reuse,
            calls: Arc::new(Counters::default()),
            crash: CrashPoint::default(),
            statements: config.statements,
        });
        let mut handlers = BTreeMap::new();
        for (id, component) in &manifest.component {
            for label in &component.sqlite_databases {
                ensure!(
                    shared.sqlite.contains_key(label),
                    "[component.{id}] uses the database {label:?}: add [sqlite_database.{label}] to the runtime config"
                );
            }
            for label in &component.key_value_stores {
                ensure!(
                    shared.key_value.store(label).is_some(),
                    "[component.{id}] uses the key-value store {label:?}: add [key_value_store.{label}] to the runtime config"
                );
            }
            let filled = component.variables.iter().map(|(name, template)| Ok((name.clone(), variables::fill(template, &values)?)));
            let rights = Arc::new(Rights {
                id: id.as_str().into(),
                allowed_hosts: AllowList::parse(id, &component.allowed_outbound_hosts, &values)?,
                databases: component.sqlite_databases.iter().cloned().collect(),
                stores: component.key_value_stores.iter().cloned().collect(),
                variables: filled.collect::<Result<_>>().with_context(|| format!("in [component.{id}.variables]"))?,
                environment: component.environment.clone(),
                app: shared.clone(),
            });
            let pre = self.0.components.get(id).cloned().with_context(|| format!("component {id} is not compiled"))?;
            handlers.insert(id.clone(), ProxyHandler::new(Workers { engine: self.0.engine.clone(), pre, rights }));
        }
        let inner = Arc::new(AppInner {
            runtime: self.clone(),
            handlers,
            shared,
            expose_counters: config.expose_counters,
            log_requests: config.log_requests,
        });
        let aborter = Arc::new(Aborter::default());
        for entry in config.schedule {
            let app = App { inner: inner.clone(), _schedule: None };
            let task = tokio::spawn(entry.run(app, config.access_log.clone()));
            aborter.0.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
        }
        Ok(App { inner, _schedule: Some(aborter) })
    }
}

impl App {
    /// Answers a request in process, without a socket. The whole answer is read; its extensions hold [`HostCalls`].
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let request = request.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
        let (parts, body) = self.answer(request, None).await.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                self.inner.shared.log.event(serde_json::json!({"level": "error", "event": "answer_broke_off", "cause": error.to_string()}));
                return empty(StatusCode::BAD_GATEWAY).map(|_| Bytes::new());
            }
        };
        Response::from_parts(parts, bytes)
    }

    /// Opens a door at `address`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(&self, address: SocketAddr) -> Result<Server> {
        Server::open(self.clone(), address).await
    }

    /// Opens a door on a socket that listens already: for whoever has to know the address before the app starts.
    ///
    /// # Errors
    /// When the socket is of no use.
    pub fn serve_on(&self, listener: tokio::net::TcpListener) -> Result<Server> {
        Server::open_on(self.clone(), listener)
    }

    /// Host calls of all requests so far.
    #[must_use]
    pub fn call_counters(&self) -> HostCalls {
        self.inner.shared.calls.read()
    }

    /// Lets an instance crash at one of its next host calls. One crash waits at a time.
    pub fn crash(&self, crash: Crash) {
        self.inner.shared.crash.arm(crash);
    }

    /// Waits for no crash any more; answers whether the last one happened.
    pub fn crashed(&self) -> bool {
        self.inner.shared.crash.disarm()
    }

    /// Answers a request whose body streams.
    pub(crate) async fn answer(&self, mut request: Request<WasiBody>, peer: Option<SocketAddr>) -> Response<WasiBody> {
        let started = Instant::now();
        let limit = request.extensions().get::<Patience>().map_or(self.inner.shared.request_timeout, |patience| patience.0);
        let context = Arc::new(RequestContext { id: request_id(&mut request), calls: Counters::default(), limit });
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let (component, route, mut response) = match self.inner.runtime.0.routes.find(&path) {
            _ if path == "/.well-known/spin/health" => (None, None, text(StatusCode::OK, "OK")),
            None => (None, None, empty(StatusCode::NOT_FOUND)),
            Some(found) => match found.target {
                Target::Static(fixed) => (None, Some(found.route.to_owned()), static_answer(fixed)),
                Target::Component(id) => {
                    let answer = self.run(id, &found, request, peer, &context).await;
                    (Some(id.clone()), Some(found.route.to_owned()), answer)
                }
            },
        };
        let calls = context.calls.read();
        if self.inner.expose_counters
            && let Ok(value) = HeaderValue::from_str(&calls.to_string())
        {
            response.headers_mut().insert("x-host-calls", value);
        }
        response.extensions_mut().insert(calls);
        if self.inner.log_requests {
            // The path without its query: that may hold codes and signatures.
            self.inner.shared.log.event(serde_json::json!({
                "event": "access", "request_id": context.id, "component": component, "route": route, "method": method.as_str(), "path": path,
                "status": response.status().as_u16(), "ms": started.elapsed().as_secs_f64() * 1e3, "calls": calls.to_string(),
            }));
        }
        response
    }

    async fn run(
        &self,
        id: &str,
        found: &Found<'_>,
        mut request: Request<WasiBody>,
        peer: Option<SocketAddr>,
        context: &Arc<RequestContext>,
    ) -> Response<WasiBody> {
        let Some(handler) = self.inner.handlers.get(id) else { return empty(StatusCode::INTERNAL_SERVER_ERROR) };
        if let Err(error) = prepare(&mut request, found, peer) {
            self.inner
                .shared
                .log
                .event(serde_json::json!({"level": "info", "event": "bad_request", "request_id": context.id, "cause": error.to_string()}));
            return empty(StatusCode::BAD_REQUEST);
        }
        match tokio::time::timeout(context.limit, handler.handle(context.clone(), request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // A trap's backtrace is logged once, where the instance ends.
                self.inner.shared.log.event(serde_json::json!({"level": "error", "event": "component_failed", "component": id, "request_id": context.id, "cause": error.to_string()}));
                empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Err(_) => {
                self.inner.shared.log.event(
                    serde_json::json!({"level": "error", "event": "component_timed_out", "component": id, "request_id": context.id}),
                );
                empty(StatusCode::GATEWAY_TIMEOUT)
            }
        }
    }

    pub(crate) fn log(&self) -> &LogSink {
        &self.inner.shared.log
    }
}

fn folder_of(manifest: &Path) -> PathBuf {
    match manifest.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("."),
    }
}

fn engine(cache: &Path) -> Result<Engine> {
    // Reserves address space for all instances at once; where that is not to be had, each gets its own when it starts.
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(1000).total_core_instances(4000).total_memories(1000).total_tables(2000).total_stacks(1000);
    pool.max_memory_size(256 << 20).linear_memory_keep_resident(1 << 20).table_keep_resident(64 << 10);
    let config = |strategy: InstanceAllocationStrategy| -> Result<Config> {
        let mut config = Config::new();
        config.wasm_component_model(true).wasm_component_model_async(true).epoch_interruption(true);
        config.allocation_strategy(strategy);
        std::fs::create_dir_all(cache).with_context(|| format!("cannot create the compile cache {}", cache.display()))?;
        let mut caching = CacheConfig::new();
        caching.with_directory(std::path::absolute(cache)?);
        config.cache(Some(Cache::new(caching).map_err(|error| anyhow!("{error:?}"))?));
        Ok(config)
    };
    let engine = match Engine::new(&config(InstanceAllocationStrategy::Pooling(pool))?) {
        Ok(engine) => engine,
        Err(_) => Engine::new(&config(InstanceAllocationStrategy::OnDemand)?).map_err(|error| anyhow!("{error:?}"))?,
    };
    let ticking = engine.weak();
    std::thread::Builder::new().name("epoch".into()).spawn(move || {
        while let Some(engine) = ticking.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(Duration::from_millis(10));
        }
    })?;
    Ok(engine)
}

fn compile(
    engine: &Engine,
    linker: &Linker<State>,
    manifest: &Manifest,
    id: &str,
    folder: &Path,
) -> Result<(String, Arc<ProxyPre<State>>)> {
    let path = manifest.source(id, folder)?;
    ensure!(path.exists(), "{} is not there: run `cargo xtask build` first", path.display());
    let told = |error: wasmtime::Error| anyhow!("[component.{id}] {}: {error:?}", path.display());
    let component = Component::from_file(engine, &path).map_err(told)?;
    let pre = linker.instantiate_pre(&component).map_err(told)?;
    let pre = ServicePre::new(pre).map_err(told)?;
    Ok((id.to_owned(), Arc::new(ProxyPre::P3(pre))))
}

/// Makes the request what a component of Spin sees: an absolute address, and Spin's own headers after any the client sent.
fn prepare(request: &mut Request<WasiBody>, found: &Found<'_>, peer: Option<SocketAddr>) -> Result<()> {
    let path_and_query = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let host = match request.headers().get(header::HOST) {
        Some(host) => host.to_str().context("the Host header is no text")?.to_owned(),
        None => request.uri().authority().map_or("localhost", http::uri::Authority::as_str).to_owned(),
    };
    let uri = Uri::builder().scheme("http").authority(host.as_str()).path_and_query(path_and_query.as_str()).build()?;
    let full = uri.to_string();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.remove(header::CONNECTION);
    let mut add = |name: &str, value: &str| -> Result<()> {
        headers.append(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        Ok(())
    };
    add("spin-full-url", &full)?;
    add("spin-path-info", &found.rest)?;
    add("spin-matched-route", found.route)?;
    add("spin-raw-component-route", found.route)?;
    add("spin-component-route", found.route.trim_end_matches("/...").trim_end_matches("/*"))?;
    add("spin-base-path", "/")?;
    add("spin-client-addr", &peer.map_or_else(|| "127.0.0.1:0".to_owned(), |peer| peer.to_string()))?;
    for (name, value) in &found.parameters {
        add(&format!("spin-path-match-{name}"), value)?;
    }
    Ok(())
}

/// The request's own id if it is well-formed; a new one is added otherwise.
fn request_id(request: &mut Request<WasiBody>) -> String {
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let well_formed =
        |id: &&str| (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if let Some(id) = given.filter(well_formed) {
        return id.to_owned();
    }
    let id = uuid::Uuid::now_v7().to_string();
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.headers_mut().insert("x-request-id", value);
    }
    id
}

fn static_answer(fixed: &StaticResponse) -> Response<WasiBody> {
    let status = fixed.status_code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK);
    let mut response = text(status, fixed.body.as_deref().unwrap_or_default());
    for (name, value) in &fixed.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn text(status: StatusCode, text: &str) -> Response<WasiBody> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn empty(status: StatusCode) -> Response<WasiBody> {
    text(status, "")
}
