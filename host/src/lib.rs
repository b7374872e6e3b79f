//! The embedded host: runs the components of a `spin.toml` as Spin 4.1 does, for local use and tests. Production is Spin.
//!
//! [`Runtime`] is what is made once (manifest read, components compiled), [`App`] is one running application with its own
//! stores, [`Server`] is its door. What the manifest asks for and this host does not support is refused by name.
//!
//! It enforces what Spin enforces: a component reaches the databases, stores, variables and hosts that its manifest names, and
//! nothing else; a refusal is logged with the line that would allow it.

mod app;
mod calls;
mod crash;
mod instance;
mod key_value;
mod libsql;
mod log;
mod manifest;
mod outbound;
mod redis;
mod routes;
mod runtime_config;
mod schedule;
mod serve;
mod sqlite;
mod statements;
mod variables;

mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use app::{App, AppConfig, Runtime};
pub use calls::HostCalls;
pub use crash::{Crash, Moment};
pub use key_value::KvLocation;
pub use log::LogSink;
pub use manifest::Manifest;
pub use routes::{Found, Routes};
pub use runtime_config::RuntimeConfig;
pub use schedule::Schedule;
pub use serve::Server;
pub use sqlite::SqliteLocation;
pub use statements::{Cost, Statements};
