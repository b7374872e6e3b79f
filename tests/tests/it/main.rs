//! End-to-end tests: the real components on the embedded host, over HTTP, against the sandbox. The modules mirror the URL tree.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod admin;
mod auth;
mod budgets;
mod cleanup;
mod crashes;
mod deploy;
mod docs;
mod health;
mod hostile;
mod idempotency;
mod killed;
mod limits;
mod lossy;
mod manifest;
mod me;
mod orders;
mod plans;
mod polling;
mod privacy;
mod problems;
mod reconciliation;
mod refunds;
mod rights;
mod routes;
mod story;
mod tasks;
mod two_hosts;
mod uploads;
mod walk;
mod webhooks_creem;
mod webhooks_kie;
