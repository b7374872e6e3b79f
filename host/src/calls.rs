//! Host calls, counted per request. Every call of a component passes [`Tally::add`]: the one place to watch or disturb them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use wasmtime::component::GuestTaskId;

/// The kinds of host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    SqliteOpen,
    KeyValue,
    Variables,
    Http,
}

/// How many host calls a request made. Opening a connection happens once per instance and is counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCalls {
    /// Statements.
    pub sqlite: u64,
    /// Connections opened.
    pub sqlite_opens: u64,
    /// Gets, sets, deletes, exists and listings.
    pub kv: u64,
    pub variables: u64,
    /// Outbound requests.
    pub http: u64,
}

impl std::fmt::Display for HostCalls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sqlite, sqlite_opens, kv, variables, http } = self;
        write!(out, "sqlite={sqlite} kv={kv} http={http} variables={variables} sqlite_opens={sqlite_opens}")
    }
}

/// Counters of one request, or of a whole application.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; 5]);

impl Counters {
    fn add(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> HostCalls {
        let read = |kind: Kind| self.0[kind as usize].load(Relaxed);
        HostCalls {
            sqlite: read(Kind::Sqlite),
            sqlite_opens: read(Kind::SqliteOpen),
            kv: read(Kind::KeyValue),
            variables: read(Kind::Variables),
            http: read(Kind::Http),
        }
    }
}

/// One request on its way through a component.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(crate) id: String,
    pub(crate) calls: Counters,
    /// How long an answer is waited for.
    pub(crate) limit: std::time::Duration,
}

/// The requests that an instance is serving at this moment.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<GuestTaskId, Arc<RequestContext>>>>);

impl InFlight {
    /// Notes a request until the guard is dropped.
    pub(crate) fn enter(&self, task: GuestTaskId, request: Arc<RequestContext>) -> InFlightGuard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task, request);
        InFlightGuard { all: self.clone(), task }
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|request| request.id.clone()).collect()
    }

    /// The request of a task; without one (the call came from where no task can be told), the only request there is.
    fn of(&self, task: Option<GuestTaskId>) -> Option<Arc<RequestContext>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match task {
            Some(task) => all.get(&task).cloned(),
            None if all.len() == 1 => all.values().next().cloned(),
            None => None,
        }
    }
}

pub(crate) struct InFlightGuard {
    all: InFlight,
    task: GuestTaskId,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.task);
    }
}

/// Counts the calls of one instance, for its requests and for the application.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) in_flight: InFlight,
    pub(crate) total: Arc<Counters>,
}

impl Tally {
    pub(crate) fn add(&self, kind: Kind, task: Option<GuestTaskId>) {
        self.total.add(kind);
        if let Some(request) = self.in_flight.of(task) {
            request.calls.add(kind);
        }
    }
}
