//! Programs as the system sees them: their memory and processor time, and how long they take to answer for the first time; and how fast the
//! machine is that they run on.

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

/// Processor time a program has used so far, where the system tells (Linux).
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows starts with the third field (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(of_ticks(ticks()? + ticks()?))
}

/// Processor time the whole machine has used so far for anything, and that others took from it (a host of virtual machines).
pub fn machine_time() -> Option<(Duration, Duration)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    // user nice system idle iowait irq softirq steal (proc_stat(5))
    let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _, _, irq, softirq, steal] = *ticks.first_chunk()?;
    Some((of_ticks(user + nice + system + irq + softirq), of_ticks(steal)))
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
}

/// Processor time that the same small piece of work takes now: what it takes more than at other times is the machine's doing.
pub fn yardstick() -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    };
    let begun = now();
    let mut random = std::hint::black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..200_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
    }
    std::hint::black_box(random);
    now().saturating_sub(begun)
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
