//! Programs as the system sees them: their memory, and how long they take to answer for the first time.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::http::Connection;

/// Longest that a start is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Resident memory in KiB, where the system tells (Linux).
pub fn memory_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// From the start of a program to its first answer to `request`.
pub fn first_answer(mut command: Command, address: SocketAddr, request: &[u8]) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start the program")?;
    let outcome = loop {
        if let Ok(answer) = Connection::open(address).and_then(|mut connection| connection.send(request)) {
            let took = start.elapsed();
            break if answer.status == 200 { Ok(took) } else { Err(anyhow::anyhow!("{}: {}", answer.status, answer.text())) };
        }
        if let Some(status) = child.try_wait()? {
            bail!("the program ended before it answered ({status})");
        }
        if start.elapsed() > PATIENCE {
            break Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(Duration::from_micros(500));
    };
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

/// How long one request takes after so much silence.
pub fn after_silence(address: SocketAddr, request: &[u8], silence: Duration) -> Result<Duration> {
    let mut connection = Connection::open(address)?;
    thread::sleep(silence);
    let start = Instant::now();
    let answer = connection.send(request)?;
    let took = start.elapsed();
    if answer.status != 200 {
        bail!("{}: {}", answer.status, answer.text());
    }
    Ok(took)
}
