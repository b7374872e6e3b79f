//! Progress lines: what is being done, and how long it took.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// Does one step of a chore, saying what it is before and how long it took after. Lines go to
/// stderr, so that what a command prints as its result stays clean on stdout.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let result = work().with_context(|| format!("failed: {what}"))?;
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}
