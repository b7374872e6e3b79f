//! The sandbox as a program: `ai-hairstyle-sandbox`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sandbox::{Config, Sandbox, Service, Settings};
use url::Url;

/// Stand-ins for everything outside the product, on this machine: bucket, AI provider, payments, sign-in.
#[derive(Parser)]
#[command(name = "ai-hairstyle-sandbox", version)]
struct Options {
    /// The control endpoint; the stand-ins take the next five ports. Port 0 takes any free ones.
    #[arg(long, default_value_t = sandbox::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Where the app runs: webhooks go there.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    app_url: Url,
    /// The folder of the bucket.
    #[arg(long, default_value = ".sandbox")]
    dir: PathBuf,
    /// How long the AI takes for a picture.
    #[arg(long, default_value_t = Settings::default().kie_delay_ms)]
    kie_delay_ms: u64,
    /// The longer side of the pictures, in pixels.
    #[arg(long, default_value_t = Settings::default().kie_picture_px)]
    kie_picture_px: u32,
    /// Limit new AI tasks to 20 in 10 seconds, as the real one does.
    #[arg(long)]
    kie_rate_limit: bool,
    /// How many times faster than real webhooks are repeated (really: after 30 s, 1 min, 5 min, 1 h).
    #[arg(long, default_value_t = Settings::default().creem_retry_speed)]
    creem_retry_speed: f64,
    /// Tax added to every price, in percent.
    #[arg(long, default_value_t = 0)]
    creem_tax_percent: i64,
    /// Do not show requests and webhooks.
    #[arg(long)]
    quiet: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let settings = Settings {
        kie_delay_ms: options.kie_delay_ms,
        kie_picture_px: options.kie_picture_px,
        kie_rate_limit: options.kie_rate_limit,
        creem_retry_speed: options.creem_retry_speed,
        creem_tax_percent: options.creem_tax_percent,
        ..Settings::default()
    };
    // Before anything is ready: a signal that comes early must not kill.
    let stop = stop_signal()?;
    let sandbox = Sandbox::start(Config {
        listen: options.listen,
        dir: options.dir,
        app_url: Some(options.app_url),
        settings,
        quiet: options.quiet,
        ..Config::default()
    })
    .await?;
    let mut out = std::io::stdout().lock();
    out.write_all(greeting(&sandbox).as_bytes())?;
    out.flush()?;
    drop(out);
    stop.await;
    sandbox.shutdown().await;
    Ok(())
}

/// What runs where, and how to point the app at it when its defaults do not.
fn greeting(sandbox: &Sandbox) -> String {
    let places = sandbox.places();
    let mut text = format!("control {}/\n", places.control);
    for service in Service::ALL {
        text += &format!("{:<7} {}\n", service.name(), places.of(service));
    }
    let usual = sandbox::default_variables();
    let flags: Vec<String> = sandbox
        .variables()
        .iter()
        .filter(|(name, value)| usual.get(*name) != Some(value))
        .map(|(name, value)| format!("--variable {name}={value}"))
        .collect();
    if flags.is_empty() {
        text += "the app's defaults point here\n";
    } else {
        text += &format!("start the app with:\n{}\n", flags.join(" "));
    }
    text + "sandbox ready\n"
}

/// Ends at Ctrl-C or SIGTERM. Both are watched from the moment this returns.
#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
