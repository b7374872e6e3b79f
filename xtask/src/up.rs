//! Running the whole product on this machine: the app in the embedded host, beside the sandbox.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::build;
use crate::children::{Children, Ending};
use crate::command::{cargo, root, run};
use crate::migrate::migrate_file;
use crate::ports::{SANDBOX_PORTS, reachable, reserve};
use crate::state::{self, State};
use crate::step::step;

const SANDBOX_READY: &str = "sandbox ready";
const HOST_READY: &str = "listening on http://";

/// The first start compiles every component to machine code, which a busy machine takes its time for.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// Which of the sandbox's ports the app's variables point at by default.
const SANDBOX_LISTEN: &str = "127.0.0.1:3100";

/// One of the people that the sandbox's Google offers; it vouches for everybody at example.com.
const SANDBOX_ADMIN: &str = "admin@example.com";

#[derive(Args)]
pub struct Options {
    /// Where the app listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The folder of all data, relative to the root of the repository
    #[arg(long, default_value = state::DEFAULT_FOLDER)]
    state_dir: PathBuf,
    /// Empty the state folder first
    #[arg(long)]
    fresh: bool,
    /// Run the app alone; give it the addresses of what it uses with --variable
    #[arg(long)]
    no_sandbox: bool,
    /// Where the sandbox listens, and on the five ports after it; port 0 takes free ones
    #[arg(long, default_value = SANDBOX_LISTEN)]
    sandbox_listen: SocketAddr,
    /// How often the app's sweep runs
    #[arg(long, default_value = "300s")]
    sweep_every: String,
    /// A variable of spin.toml, as in `signup_credits=10`; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    variables: Vec<String>,
}

/// Runs everything until it is told to end.
pub fn up(options: &Options) -> Result<Ending> {
    if let Some(wrong) = options.variables.iter().find(|variable| !variable.contains('=')) {
        bail!("--variable {wrong} has no value; write it as NAME=VALUE");
    }
    // All that can be refused at once is refused before the minutes of a first build.
    let listen = reserve(options.listen, 1, "the app", "--listen")?;
    let sandbox = match options.no_sandbox {
        true => None,
        false => Some(reserve(options.sandbox_listen, SANDBOX_PORTS, "the sandbox", "--sandbox-listen")?),
    };
    let state = State::take(&options.state_dir, options.fresh)?;

    build::build_to_run(false)?;
    build_native(sandbox.is_some(), "dev")?;
    // A database elsewhere is somebody else's to migrate.
    match state::database(&state.runtime_config) {
        Ok(database) => step("migrating the database", || migrate_file(&database))?,
        Err(refusal) => eprintln!("    not migrating: {refusal:#}"),
    }

    let public_url = format!("http://{}", reachable(listen));
    let mut children = Children::new(true)?;
    if let Some(sandbox) = sandbox {
        let mut command = sandbox_command("dev", sandbox, &public_url, &state.sandbox());
        if let Some(ending) = step("starting the sandbox", || start_sandbox(&mut children, &mut command))? {
            return Ok(ending);
        }
    }
    let mut variables = options.variables.clone();
    add_default(&mut variables, "public_url", public_url.clone());
    if let Some(sandbox) = sandbox.filter(|sandbox| sandbox.to_string() != SANDBOX_LISTEN) {
        for (name, value) in sandbox_variables(sandbox) {
            add_default(&mut variables, name, value);
        }
    }
    if sandbox.is_some() {
        add_default(&mut variables, "admin_emails", SANDBOX_ADMIN.into());
    }
    let admin = sandbox.is_some() && variables.iter().any(|variable| *variable == format!("admin_emails={SANDBOX_ADMIN}"));
    let mut command = host_command("dev", &root().join("spin.toml"), &state.runtime_config, listen);
    command.args(["--sweep-every", &options.sweep_every]);
    for variable in &variables {
        command.args(["--variable", variable]);
    }
    if let Some(ending) = step("starting the app", || start_host(&mut children, "app", &mut command))? {
        return Ok(ending);
    }
    print!("{}", greeting(&public_url, sandbox, admin, &state.folder));
    let ending = children.wait()?;
    eprintln!("ending");
    children.stop();
    Ok(ending)
}

/// Runs the sandbox alone, with these words of its own command line, in place of this program.
pub fn sandbox_alone(words: &[String]) -> Result<ExitCode> {
    build_program("sandbox", SANDBOX, "dev")?;
    let mut command = Command::new(program("dev", SANDBOX));
    command.current_dir(root()).args(words);
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    Err(error).context("cannot start the sandbox")
}

/// The native program that speed is measured against.
pub fn build_twin(profile: &str) -> Result<()> {
    step("building the native twin", || compile(TWIN, profile))
}

pub fn build_native(with_sandbox: bool, profile: &str) -> Result<()> {
    step("building the embedded host (the first time takes minutes)", || compile(HOST, profile))?;
    if with_sandbox {
        build_program("sandbox", SANDBOX, profile)?;
    }
    Ok(())
}

pub fn build_program(what: &str, name: &str, profile: &str) -> Result<()> {
    step(&format!("building the {what}"), || compile(name, profile))
}

/// Without a package named, cargo takes the dependencies as the tests do, so that neither command makes the other compile them again.
fn compile(program: &str, profile: &str) -> Result<()> {
    run(cargo().current_dir(root()).args(["build", "--profile", profile, "--bin", program]))
}

const HOST: &str = "ai-hairstyle-host";
const SANDBOX: &str = "ai-hairstyle-sandbox";
const TWIN: &str = "ai-hairstyle-twin";

pub fn program(profile: &str, name: &str) -> PathBuf {
    program_of(root(), profile, name)
}

fn program_of(root: &Path, profile: &str, name: &str) -> PathBuf {
    let folder = if profile == "dev" { "debug" } else { profile };
    root.join("target").join(folder).join(name)
}

pub fn start_sandbox(children: &mut Children, command: &mut Command) -> Result<Option<Ending>> {
    children.start("sandbox", command, SANDBOX_READY, READY_LIMIT)
}

/// The same with its log in a file: whoever reads it takes no part in what is measured.
pub fn start_host_logging(children: &mut Children, name: &'static str, command: &mut Command, log: &Path) -> Result<Option<Ending>> {
    let log = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    children.start_with(name, command, HOST_READY, READY_LIMIT, log.into())
}

pub fn start_host(children: &mut Children, name: &'static str, command: &mut Command) -> Result<Option<Ending>> {
    children.start(name, command, HOST_READY, READY_LIMIT)
}

pub fn sandbox_command(profile: &str, listen: SocketAddr, app_url: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(profile, SANDBOX));
    command.current_dir(root());
    command.args(["--listen", &listen.to_string(), "--app-url", app_url]).arg("--dir").arg(folder);
    command
}

pub fn host_command(profile: &str, manifest: &Path, runtime_config: &Path, listen: SocketAddr) -> Command {
    host_command_of(root(), profile, manifest, runtime_config, listen)
}

/// The host that another checkout has built.
pub fn host_command_of(root: &Path, profile: &str, manifest: &Path, runtime_config: &Path, listen: SocketAddr) -> Command {
    let mut command = Command::new(program_of(root, profile, HOST));
    // Spin takes the database's path relative to the folder it is started in, and so does the embedded host.
    command.current_dir(root);
    command.arg("--manifest").arg(manifest).arg("--runtime-config").arg(runtime_config);
    command.args(["--listen", &listen.to_string()]);
    command
}

pub fn twin_command(profile: &str, listen: SocketAddr) -> Command {
    let mut command = Command::new(program(profile, TWIN));
    command.args(["--listen", &listen.to_string()]);
    command
}

/// The variables that point the app at a sandbox on this address.
pub fn sandbox_variables(sandbox: SocketAddr) -> Vec<(&'static str, String)> {
    let sandbox = reachable(sandbox);
    let service = |offset: u16| format!("http://{}", SocketAddr::new(sandbox.ip(), sandbox.port() + offset));
    vec![
        ("s3_endpoint", service(1)),
        ("kie_base_url", service(2)),
        ("kie_result_host", service(2)),
        ("creem_base_url", service(3)),
        ("google_base_url", service(4)),
        ("google_token_base_url", service(4)),
        ("google_certs_base_url", service(4)),
        ("github_base_url", service(5)),
        ("github_api_url", service(5)),
    ]
}

/// What the user said about a variable stands.
fn add_default(variables: &mut Vec<String>, name: &str, value: String) {
    let said = variables.iter().any(|variable| variable.split_once('=').is_some_and(|(said, _)| said == name));
    if !said {
        variables.push(format!("{name}={value}"));
    }
}

fn greeting(app: &str, sandbox: Option<SocketAddr>, admin: bool, state: &Path) -> String {
    let mut text = format!("\n  the app        {app}\n");
    if let Some(sandbox) = sandbox {
        let sandbox = reachable(sandbox);
        text.push_str(&format!("  the sandbox    http://{sandbox}\n"));
        for (offset, name) in (1..).zip(["the bucket", "kie.ai", "creem", "Google", "GitHub"]) {
            let service = SocketAddr::new(sandbox.ip(), sandbox.port() + offset);
            text.push_str(&format!("    {name:<12} http://{service}\n"));
        }
    }
    if admin {
        text.push_str(&format!("  an admin       sign in as Admin ({SANDBOX_ADMIN}), then open {app}/admin\n"));
    }
    text.push_str(&format!("  all data       {}\n\nA first thing to try:\n\n", state.display()));
    text.push_str(&format!("  curl -s {app}/health\n"));
    if sandbox.is_some() {
        text.push_str(&format!(
            "  curl -sL -c jar -b jar '{app}/auth/login/google?login_hint=ada@example.com&redirect_to=/auth/session'\n\
             \x20 curl -s -b jar {app}/api/me\n"
        ));
    }
    text.push_str("\nCtrl-C ends everything.\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_about_a_variable_stands() {
        let mut variables = vec!["public_url=https://hair.test".to_owned()];
        add_default(&mut variables, "public_url", "http://127.0.0.1:3000".into());
        add_default(&mut variables, "public", "x".into());
        assert_eq!(variables, ["public_url=https://hair.test", "public=x"]);
    }

    #[test]
    fn the_manifests_defaults_point_at_the_default_sandbox() -> Result<()> {
        let manifest: toml::Value = toml::from_str(&std::fs::read_to_string(root().join("spin.toml"))?)?;
        for (name, value) in sandbox_variables(SANDBOX_LISTEN.parse()?) {
            assert_eq!(manifest["variables"][name]["default"].as_str(), Some(value.as_str()), "{name}");
        }
        Ok(())
    }

    #[test]
    fn the_greeting_names_every_address() -> Result<()> {
        let text = greeting("http://127.0.0.1:3000", Some(SANDBOX_LISTEN.parse()?), true, Path::new(".spin"));
        assert!(text.contains("sign in as Admin (admin@example.com), then open http://127.0.0.1:3000/admin\n"), "{text}");
        assert!(!greeting("http://127.0.0.1:3000", None, false, Path::new(".spin")).contains("admin"));
        for port in 3100..=3105 {
            assert!(text.contains(&format!("http://127.0.0.1:{port}\n")), "{port}");
        }
        Ok(())
    }
}
