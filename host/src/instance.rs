//! One instance of a component: its store data, the interfaces it sees, and for how long it is used.
//!
//! Instances are reused as in Spin: up to 128 requests by default, 16 at a time, gone after a second of idleness. So what is in the store
//! belongs to the instance, never to "the current request"; which request calls is told by the task at the root of the call.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use wasmtime::{
    AsContextMut, Store, StoreContextMut, StoreLimits, StoreLimitsBuilder,
    component::{
        Access, Accessor, Destination, FutureReader, GuestTaskId, HasData, Linker, Resource, ResourceTable, StreamProducer, StreamReader,
        StreamResult, VecBuffer,
    },
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    handler::{HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus},
};

use crate::{
    LogSink, Statements,
    bindings::{App as World, spin},
    calls::{Counters, InFlight, InFlightGuard, Kind, RequestContext, Tally},
    crash::{CrashPoint, Doom, Fate},
    key_value::{self, Stores},
    log::GuestOutput,
    outbound::{AllowList, Answer, Outbound, allowing_line},
    sqlite::{self, Rest},
};
use spin::{key_value::key_value as kv, sqlite::sqlite as sql, variables::variables as vars};

/// Requests an instance serves at a time.
const CONCURRENT: usize = 16;
/// How long an instance waits for the next request.
const IDLE: Duration = Duration::from_secs(1);
/// How long answers whose head is out may go on, from the latest head of an instance on: streams of events last minutes. Who answers and
/// then hangs is ended by this.
const ANSWERING: Duration = Duration::from_secs(600);
/// Most memory of an instance, in bytes.
const MEMORY: usize = 256 << 20;
/// Most connections an instance may have open.
const CONNECTIONS: usize = 256;

/// A component of a running application: its rights and what stands behind them.
pub(crate) struct Rights {
    pub(crate) id: Arc<str>,
    pub(crate) allowed_hosts: AllowList,
    pub(crate) databases: BTreeSet<String>,
    pub(crate) stores: BTreeSet<String>,
    /// The component's own variables, resolved.
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) app: Arc<Shared>,
}

/// What the components of a running application share.
pub(crate) struct Shared {
    pub(crate) sqlite: BTreeMap<String, sqlite::Database>,
    pub(crate) key_value: Stores,
    pub(crate) outbound: Outbound,
    pub(crate) log: LogSink,
    pub(crate) request_timeout: Duration,
    /// Requests an instance serves before it is replaced.
    pub(crate) reuse: usize,
    pub(crate) calls: Arc<Counters>,
    pub(crate) crash: CrashPoint,
    pub(crate) statements: Option<Statements>,
}

impl Rights {
    /// Logs a refusal with the manifest line that would allow it.
    fn refuse(&self, what: &str, key: &str, value: &str) {
        let line = format!("add {value:?} to {key} of [component.{}] in spin.toml", self.id);
        self.app
            .log
            .event(serde_json::json!({"level": "warn", "event": "not_allowed", "component": &*self.id, "what": what, "allow": line}));
    }
}

/// The data of an instance's store.
pub(crate) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    limits: StoreLimits,
    connections: usize,
}

struct Hooks {
    rights: Arc<Rights>,
    tally: Tally,
    doom: Arc<Doom>,
}

impl Hooks {
    fn fate(&self, kind: Kind) -> Fate {
        self.rights.app.crash.fate(&self.rights.id, kind, &self.doom)
    }
}

impl State {
    fn new(rights: Arc<Rights>) -> Self {
        let output = || GuestOutput::new(rights.app.log.clone(), rights.id.clone());
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(output()).stderr(output());
        for (name, value) in &rights.environment {
            wasi.env(name, value);
        }
        let tally = Tally { in_flight: InFlight::default(), total: rights.app.calls.clone() };
        Self {
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks: Hooks { rights, tally, doom: Arc::default() },
            limits: StoreLimitsBuilder::new().memory_size(MEMORY).build(),
            connections: 0,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, HttpError>> + Send> {
        self.tally.add(Kind::Http, None);
        if !self.rights.allowed_hosts.allows(request.uri()) {
            self.rights.refuse("outbound request", "allowed_outbound_hosts", &allowing_line(request.uri()));
            return Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)));
        }
        let fate = self.fate(Kind::Http);
        Box::new(fate.around(self.rights.app.outbound.clone().send(request, options)))
    }
}

/// Everything a component may import.
///
/// # Errors
/// None in practice: two definitions of one name.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    // Rust's std still asks for WASI 0.2 beside the 0.3 of the SDK.
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    World::add_to_linker::<_, Spin>(linker, |state| state)
}

/// Marks our implementation of Spin's interfaces.
struct Spin;

impl HasData for Spin {
    type Data<'a> = &'a mut State;
}

/// Counts a call for the request it belongs to. Must be the first thing a host function does: the caller's task is known only
/// before the first wait.
fn counted<T: 'static, R>(accessor: &Accessor<T, Spin>, kind: Kind, work: impl FnOnce(&mut Access<'_, T, Spin>) -> R) -> R {
    accessor.with(|mut access| {
        let task = access.as_context_mut().async_call_stack().ok().and_then(Iterator::last);
        access.get().hooks.tally.add(kind, task);
        work(&mut access)
    })
}

impl vars::Host for &mut State {}
impl<T: 'static> vars::HostWithStore<T> for Spin {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> wasmtime::Result<Result<String, vars::Error>> {
        Ok(counted(accessor, Kind::Variables, |access| {
            let rights = &access.get().hooks.rights;
            match rights.variables.get(&name) {
                Some(value) => Ok(value.clone()),
                None => {
                    rights.refuse("variable", "variables", &format!("{name} = {{{{ {name} }}}}"));
                    Err(vars::Error::Undefined(name))
                }
            }
        }))
    }
}

impl kv::Host for &mut State {}
impl kv::HostStore for &mut State {
    fn drop(&mut self, store: Resource<key_value::Store>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

fn store<T: 'static>(accessor: &Accessor<T, Spin>, store: &Resource<key_value::Store>) -> wasmtime::Result<(key_value::Store, Fate)> {
    counted(accessor, Kind::KeyValue, |access| Ok((access.get().table.get(store)?.clone(), access.get().hooks.fate(Kind::KeyValue))))
}

impl<T: 'static> kv::HostStoreWithStore<T> for Spin {
    async fn open(accessor: &Accessor<T, Self>, label: String) -> wasmtime::Result<Result<Resource<key_value::Store>, kv::Error>> {
        accessor.with(|mut access| {
            let state = access.get();
            let rights = &state.hooks.rights;
            if !rights.stores.contains(&label) {
                rights.refuse("key-value store", "key_value_stores", &label);
                return Ok(Err(kv::Error::AccessDenied));
            }
            match rights.app.key_value.store(&label) {
                Some(store) => Ok(Ok(state.table.push(store)?)),
                None => Ok(Err(kv::Error::NoSuchStore)),
            }
        })
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        this: Resource<key_value::Store>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::Error>> {
        let (store, fate) = store(accessor, &this)?;
        Ok(fate.around(store.get(key)).await)
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        this: Resource<key_value::Store>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), kv::Error>> {
        let (store, fate) = store(accessor, &this)?;
        Ok(fate.around(store.set(key, value)).await)
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        this: Resource<key_value::Store>,
        key: String,
    ) -> wasmtime::Result<Result<(), kv::Error>> {
        let (store, fate) = store(accessor, &this)?;
        Ok(fate.around(store.delete(key)).await)
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        this: Resource<key_value::Store>,
        key: String,
    ) -> wasmtime::Result<Result<bool, kv::Error>> {
        let (store, fate) = store(accessor, &this)?;
        Ok(fate.around(store.exists(key)).await)
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        this: Resource<key_value::Store>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), kv::Error>>)> {
        let (store, fate) = store(accessor, &this)?;
        let (keys, end) = match fate.around(store.keys()).await {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let end = FutureReader::new(&mut access, async move { wasmtime::error::Ok(end) })?;
            Ok((keys, end))
        })
    }
}

impl State {
    fn open_database(&mut self, label: &str) -> wasmtime::Result<Result<Resource<sqlite::Connection>, sql::Error>> {
        let rights = &self.hooks.rights;
        if !rights.databases.contains(label) {
            rights.refuse("database", "sqlite_databases", label);
            return Ok(Err(sql::Error::AccessDenied));
        }
        let Some(database) = rights.app.sqlite.get(label) else { return Ok(Err(sql::Error::NoSuchDatabase)) };
        if self.connections >= CONNECTIONS {
            return Ok(Err(sql::Error::Io("too many connections opened".into())));
        }
        let connection = self.table.push(sqlite::Connection::new(database, rights.app.statements.clone()))?;
        self.connections += 1;
        Ok(Ok(connection))
    }
}

impl sql::Host for &mut State {}
impl sql::HostConnection for &mut State {
    fn open(&mut self, label: String) -> wasmtime::Result<Result<Resource<sqlite::Connection>, sql::Error>> {
        self.hooks.tally.add(Kind::SqliteOpen, None);
        self.open_database(&label)
    }

    fn execute(
        &mut self,
        this: Resource<sqlite::Connection>,
        statement: String,
        parameters: Vec<sql::Value>,
    ) -> wasmtime::Result<Result<sql::QueryResult, sql::Error>> {
        self.hooks.tally.add(Kind::Sqlite, None);
        let shared = self.table.get(&this)?.0.clone();
        // A guest that calls the synchronous function has asked for its whole instance to wait.
        Ok(shared.execute_blocking(&statement, parameters).map(|(columns, rows)| sql::QueryResult { columns, rows }))
    }

    fn last_insert_rowid(&mut self, this: Resource<sqlite::Connection>) -> wasmtime::Result<i64> {
        Ok(self.table.get(&this)?.0.last_insert_rowid())
    }

    fn changes(&mut self, this: Resource<sqlite::Connection>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&this)?.0.changes())
    }

    fn drop(&mut self, this: Resource<sqlite::Connection>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        self.connections -= 1;
        Ok(())
    }
}

type SqlResult = (Vec<String>, StreamReader<sql::RowResult>, FutureReader<Result<(), sql::Error>>);

impl<T: 'static> sql::HostConnectionWithStore<T> for Spin {
    async fn open_async(accessor: &Accessor<T, Self>, label: String) -> wasmtime::Result<Result<Resource<sqlite::Connection>, sql::Error>> {
        counted(accessor, Kind::SqliteOpen, |access| access.get().open_database(&label))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        this: Resource<sqlite::Connection>,
        statement: String,
        parameters: Vec<sql::Value>,
    ) -> wasmtime::Result<Result<SqlResult, sql::Error>> {
        let (shared, fate) = counted(accessor, Kind::Sqlite, |access| {
            wasmtime::error::Ok((access.get().table.get(&this)?.0.clone(), access.get().hooks.fate(Kind::Sqlite)))
        })?;
        let head = fate.around(shared.execute(statement, parameters)).await;
        accessor.with(|mut access| {
            let (rows, end) = match head.rest {
                Rest::Ended(end) => {
                    let rows = StreamReader::new(&mut access, head.rows)?;
                    (rows, FutureReader::new(&mut access, async move { wasmtime::error::Ok(end) })?)
                }
                Rest::Streamed(rest, end) => {
                    let rows = StreamReader::new(&mut access, Rows { first: Some(head.rows), rest })?;
                    let end = FutureReader::new(&mut access, async move { wasmtime::error::Ok(end.await.unwrap_or(Ok(()))) })?;
                    (rows, end)
                }
            };
            Ok(Ok((head.columns, rows, end)))
        })
    }

    async fn last_insert_rowid_async(accessor: &Accessor<T, Self>, this: Resource<sqlite::Connection>) -> wasmtime::Result<i64> {
        accessor.with(|mut access| Ok(access.get().table.get(&this)?.0.last_insert_rowid()))
    }

    async fn changes_async(accessor: &Accessor<T, Self>, this: Resource<sqlite::Connection>) -> wasmtime::Result<u64> {
        accessor.with(|mut access| Ok(access.get().table.get(&this)?.0.changes()))
    }
}

/// The rows of a long result, as they are read.
struct Rows {
    first: Option<Vec<sql::RowResult>>,
    rest: tokio::sync::mpsc::Receiver<Vec<sql::RowResult>>,
}

impl<D> StreamProducer<D> for Rows {
    type Item = sql::RowResult;
    type Buffer = VecBuffer<sql::RowResult>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // A read of no items only asks whether there is something.
        if destination.remaining(store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        if let Some(rows) = self.first.take() {
            destination.set_buffer(rows.into());
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match self.rest.poll_recv(cx) {
            Poll::Ready(Some(rows)) => {
                destination.set_buffer(rows.into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(None) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Makes instances of one component of a running application.
pub(crate) struct Workers {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) pre: Arc<ProxyPre<State>>,
    pub(crate) rights: Arc<Rights>,
}

impl HandlerState for Workers {
    type StoreData = State;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiration, Worker>> {
        let state = State::new(self.rights.clone());
        let in_flight = state.hooks.tally.in_flight.clone();
        let doom = state.hooks.doom.clone();
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        // A loop in a guest yields to the others at every tick, so that its time limit can end it.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        // Longer than the client is made to wait: only an instance that hangs is ended by this.
        let patience = Arc::new(AtomicU64::new(0));
        let expiration = Expiration { usual: self.rights.app.request_timeout, patience: patience.clone(), timer: None, doom };
        Ok(Instance {
            store,
            proxy,
            view: WasiHttpView::http,
            expiration,
            state: Worker { rights: self.rights.clone(), in_flight, patience },
        })
    }
}

/// When an instance ends.
pub(crate) struct Expiration {
    /// How long a client waits.
    usual: Duration,
    /// See [`Worker`].
    patience: Arc<AtomicU64>,
    timer: Option<(Instant, Pin<Box<tokio::time::Sleep>>)>,
    doom: Arc<Doom>,
}

impl WorkerExpiration for Expiration {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, status: WorkerStatus, since: Instant) -> Poll<()> {
        if self.doom.poll(cx) {
            return Poll::Ready(());
        }
        let busy = self.usual.max(Duration::from_secs(self.patience.load(Relaxed))) + Duration::from_secs(5);
        let limit = match status {
            WorkerStatus::Idle => IDLE,
            WorkerStatus::Requests => busy,
            WorkerStatus::PostReturn => busy.max(ANSWERING),
        };
        let at = since + limit;
        match &mut self.timer {
            Some((set, sleep)) => {
                if *set != at {
                    sleep.as_mut().reset(at.into());
                    *set = at;
                }
            }
            None => self.timer = Some((at, Box::pin(tokio::time::sleep_until(at.into())))),
        }
        match &mut self.timer {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// What an instance takes on, and what is told when it ends.
pub(crate) struct Worker {
    rights: Arc<Rights>,
    in_flight: InFlight,
    /// The seconds of its most patient request so far.
    patience: Arc<AtomicU64>,
}

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = Arc<RequestContext>;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.rights.app.reuse {
            ShouldAccept::Never
        } else if concurrent >= CONCURRENT {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, State>,
        request: Arc<RequestContext>,
        task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        self.patience.fetch_max(request.limit.as_secs(), Relaxed);
        let guard: InFlightGuard = self.in_flight.enter(task, request);
        // Never resolves: the client's time limit is kept outside, because a request that expires here makes the next but one
        // wait until this instance is idle.
        Box::pin(async move {
            let _guard = guard;
            std::future::pending().await
        })
    }

    fn drop(&self, store: Store<State>, result: Result<(), wasmtime::Error>) {
        drop(store);
        if let Err(error) = result {
            let cause = format!("{error:?}");
            // What a stopping runtime leaves behind.
            if cause.contains("worker panicked") {
                return;
            }
            let event = serde_json::json!({"level": "error", "event": "trap", "component": &*self.rights.id, "requests": self.in_flight.ids(), "cause": cause});
            self.rights.app.log.event(event);
        }
    }
}
