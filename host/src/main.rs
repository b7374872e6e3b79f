//! `ai-hairstyle-host`: runs a Spin application here.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use host::{AppConfig, LogSink, Runtime, RuntimeConfig, Schedule};

/// What a scheduler calls; each of them says itself whether it is due (docs/scheduling.md).
const SCHEDULED: &[&str] = &[
    // One a line.
    "/internal/cleanup",
    "/internal/tasks",
    "/internal/reconcile",
    "/internal/backup",
    "/internal/alarms",
];

/// Runs the components of a spin.toml as Spin does, for local use.
#[derive(Parser)]
struct Options {
    /// The application.
    #[arg(long, default_value = "spin.toml")]
    manifest: PathBuf,
    /// Where its stores are.
    #[arg(long, default_value = "runtime-config.toml")]
    runtime_config: PathBuf,
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// name=value, or name=@file; may be given again.
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Call what a scheduler calls (POST /internal/...) with the variable cron_secret this often, e.g. 300s.
    #[arg(long, value_parser = duration)]
    sweep_every: Option<Duration>,
    /// Where compiled components are kept.
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// How long a client waits for an answer.
    #[arg(long, default_value = "60s", value_parser = duration)]
    request_timeout: Duration,
    /// How many requests an instance serves before it is replaced; Spin has an option of this name.
    #[arg(long, default_value_t = 128)]
    max_instance_reuse_count: usize,
    /// Tell the host calls of each request in the header x-host-calls.
    #[arg(long)]
    expose_counters: bool,
    /// No line per request beside those of the components.
    #[arg(long)]
    no_access_log: bool,
    /// No line per request, no output of components.
    #[arg(long)]
    quiet: bool,
}

/// How long a call of the schedule may take.
const PATIENCE: Duration = Duration::from_secs(3_600);

fn main() -> Result<()> {
    few_heaps();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(Options::parse()))
}

/// Lets all threads share two heaps.
///
/// glibc gives threads heaps of their own, eight for each core. Statements run on blocking threads that come and go, and what one of them
/// takes another one gives back, so each of those heaps grows to its own peak and keeps what it has: memory that rises for minutes under a steady
/// load. Called before there is any other thread.
fn few_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers, and refuses those that it does not know.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives the system back what compiling took: twice what the app needs, and the heaps would keep it for as long as it runs.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number, and touches only memory that nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}

async fn run(options: Options) -> Result<()> {
    let stores = RuntimeConfig::load(&options.runtime_config)?;
    let runtime = match &options.cache_dir {
        Some(cache) => Runtime::load_with(&options.manifest, cache)?,
        None => Runtime::load(&options.manifest)?,
    };
    give_back();
    let variables = options.variables.iter().map(|given| variable(given)).collect::<Result<BTreeMap<_, _>>>()?;
    let mut config = AppConfig {
        sqlite: stores.sqlite,
        key_value: stores.key_value,
        variables,
        provided_variables: stores.variables,
        request_timeout: options.request_timeout,
        max_instance_reuse: options.max_instance_reuse_count,
        expose_counters: options.expose_counters,
        access_log: if options.quiet { LogSink::None } else { LogSink::Stderr },
        log_requests: !options.quiet && !options.no_access_log,
        schedule: Vec::new(),
        statements: None,
    };
    if let Some(every) = options.sweep_every {
        let secret = runtime.variable(&config, "cron_secret")?.context("--sweep-every needs the variable cron_secret in the manifest")?;
        // It may be a list while secrets are exchanged; the first is the current one.
        let secret = secret.split(',').next().unwrap_or_default().trim();
        config.schedule.extend(SCHEDULED.iter().map(|path| Schedule {
            every,
            method: http::Method::POST,
            path: (*path).into(),
            headers: vec![("authorization".into(), format!("Bearer {secret}"))],
            timeout: PATIENCE,
        }));
    }
    let app = runtime.start(config).await?;
    let server = app.serve(options.listen).await?;
    println!("listening on http://{}", server.addr());
    stopped().await?;
    server.shutdown().await;
    Ok(())
}

async fn stopped() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn variable(given: &str) -> Result<(String, String)> {
    let Some((name, value)) = given.split_once('=') else { bail!("--variable {given}: write name=value") };
    let value = match value.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("--variable {name}: cannot read {path}"))?.trim_end().to_owned()
        }
        None => value.to_owned(),
    };
    Ok((name.to_owned(), value))
}

/// `90s`, `5m`, `1h`, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text}: write e.g. 300s, 5m or 1h"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3_600)),
        _ => Err(format!("{text}: write e.g. 300s, 5m or 1h")),
    }
}
