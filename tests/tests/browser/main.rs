//! The console as people meet it: in a real browser, by clicking and typing, against the real components and the sandbox.
//!
//! Each test is a story. Where there is no browser, it says so and passes; `cargo xtask test` gets one first.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod account;
mod admin;
mod driver;
mod everybody;
mod money;
mod page;
mod photos;
mod story;
mod studio_faults;
mod truth;
