//! Everything that has to hold before a change goes in.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use servers::browser::{self, Browser};
use servers::description::{Generator, Validator};

use crate::build::{self, EXTRAS};
use crate::command::{cargo, root, run};
use crate::toolchain::Toolchain;

#[derive(Args)]
pub struct Options {
    /// Run only the tests whose name holds this
    filter: Option<String>,
    /// Leave out formatting and lints
    #[arg(long)]
    no_lint: bool,
    /// Install nothing on this machine: without Chromium on PATH the tests of the pages are skipped
    #[arg(long)]
    no_install: bool,
    /// Run only the tests of one package, without lints; `e2e` are those over HTTP against the running app
    #[arg(long, value_name = "PACKAGE")]
    only: Option<String>,
    /// `shared`: only the tests over HTTP, each on two hosts that share a libSQL server and a Redis
    #[arg(long, value_name = "STORES", value_parser = ["shared"], conflicts_with = "only")]
    stores: Option<String>,
}

/// What is told at the end.
#[derive(Default)]
struct Summary {
    /// The steps that were taken, with their times. If something failed, it was the last one.
    steps: Vec<(&'static str, Duration)>,
    /// What was not tested, and why.
    skipped: Vec<String>,
}

impl Summary {
    fn step<T>(&mut self, what: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {what}");
        let start = Instant::now();
        let result = work();
        self.steps.push((what, start.elapsed()));
        result
    }

    fn print(&self, failed: bool) {
        eprintln!();
        for (index, (what, took)) in self.steps.iter().enumerate() {
            let verdict = if failed && index + 1 == self.steps.len() { "FAILED" } else { "ok" };
            eprintln!("{verdict:<7} {:>7.1} s  {what}", took.as_secs_f64());
        }
        for what in &self.skipped {
            eprintln!("skipped            {what}");
        }
    }
}

pub fn test(options: &Options) -> Result<()> {
    let mut summary = Summary::default();
    let result = steps(options, &mut summary);
    summary.print(result.is_err());
    result
}

fn steps(options: &Options, summary: &mut Summary) -> Result<()> {
    let mut components = build::component_ids()?;
    components.extend(EXTRAS.map(str::to_owned));

    if options.stores.is_some() {
        return with_shared_stores(options, summary);
    }

    if !options.no_lint && options.only.is_none() {
        summary.step("formatting", || run(cargo().current_dir(root()).args(["fmt", "--all", "--check"])))?;
        summary.step("lints, native", || {
            let mut command = cargo();
            command.current_dir(root()).args(["clippy", "--workspace", "--all-targets"]);
            // Components build for wasm only: their exports have names that no native linker takes.
            for component in &components {
                command.args(["--exclude", component]);
            }
            run(command.args(["--", "-D", "warnings"]))
        })?;
        summary.step("lints, components", || lint_components(&components))?;
    }
    summary.step("components, and their sizes", || build::build(&[], true))?;
    if options.only.as_deref().is_none_or(|package| package == "e2e") {
        let missing = summary.step("programs that tests use: a browser, servers, readers of the description", || get_programs(options))?;
        summary.skipped.extend(missing);
    }
    summary.step("tests", || {
        let mut command = cargo();
        // In the root, without a package named, cargo takes the workspace's default members: all that is native.
        command.current_dir(root()).args(["test", "--no-fail-fast"]);
        if options.no_install {
            command.env(browser::NO_INSTALL, "1");
        }
        if let Some(package) = &options.only {
            command.args(["-p", package]);
        }
        if let Some(filter) = &options.filter {
            command.arg(filter);
        }
        run(&mut command)
    })
}

/// Lets the tests of the pages keep the pictures that the documents show.
pub fn screenshots() -> Result<()> {
    Browser::get(&root().join("target")).map_err(anyhow::Error::msg)?;
    build::build_to_run(false)?;
    let mut command = cargo();
    command.current_dir(root()).env("SCREENSHOTS", "keep");
    run(command.args(["test", "-p", "e2e", "--test", "browser"]))
}

/// Gets the programs that some tests need, installing and fetching what is missing. A test whose program cannot be had passes without having
/// looked at anything; answers what that leaves untested.
///
/// # Errors
/// Where `CI` is set the browser and the servers must be there.
fn get_programs(options: &Options) -> Result<Vec<String>> {
    let target = root().join("target");
    let find_browser = || if options.no_install { Browser::find().ok_or_else(browser::not_installed) } else { Browser::get(&target) };
    let found = patiently(find_browser);
    let mut required = Vec::new();
    let mut others = Vec::new();
    match found {
        Err(why) => required.push(format!("the console: no page is looked at. {why}")),
        Ok(_) => others.extend(browser::axe(&target).err().map(|why| format!("accessibility: pages are not checked with axe-core. {why}"))),
    }
    if let Err(why) = patiently(|| servers::Programs::get(&target)) {
        required.push(format!("shared stores: nothing runs on a libSQL server or with a Redis. {why}"));
    }
    let readers = [Validator::get(&target).map(drop), Generator::get(&target).map(drop)];
    let unread = readers.into_iter().filter_map(Result::err);
    others.extend(unread.map(|why| format!("the API's description: a public program does not read it. {why}")));
    for what in required.iter().chain(&others) {
        eprintln!("skipped: {what}");
    }
    if in_ci() && !required.is_empty() {
        bail!("CI is set, so these must be tested: {}", required.join("; "));
    }
    Ok([required, others].concat())
}

/// Where `CI` is set, tries again what may have failed by a moment's trouble on the way to a mirror.
fn patiently<T>(get: impl Fn() -> Result<T, String>) -> Result<T, String> {
    let mut got = get();
    for _ in 0..3 {
        if got.is_ok() || !in_ci() {
            break;
        }
        thread::sleep(Duration::from_secs(10));
        got = get();
    }
    got
}

/// Whether this runs as a service that checks changes; all of them set this variable.
fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !["", "0", "false"].iter().any(|off| value == *off))
}

/// The product on two hosts.
fn with_shared_stores(options: &Options, summary: &mut Summary) -> Result<()> {
    summary.step("a libSQL server and a Redis", || {
        let programs = servers::Programs::get(&root().join("target"));
        programs.map(drop).map_err(anyhow::Error::msg).context("nothing can be tested on shared stores")
    })?;
    summary.step("components, and their sizes", || build::build(&[], true))?;
    summary.step("the host", || run(cargo().current_dir(root()).args(["build", "--bin", "ai-hairstyle-host"])))?;
    summary.step("tests over HTTP, two hosts on shared stores", || {
        let mut command = cargo();
        command.current_dir(root()).env("E2E_STORES", "shared").args(["test", "--no-fail-fast", "-p", "e2e", "--test", "it"]);
        run(command.args(&options.filter))
    })
}

fn lint_components(components: &[String]) -> Result<()> {
    let toolchain = Toolchain::find()?;
    build::forget_other_toolchain(&toolchain)?;
    let mut command = toolchain.clippy()?;
    // The profile of the build, so that both share the macros and build scripts of their dependencies.
    command.current_dir(root()).args(["--release", "--target-dir", "target/wasm", "--lib"]);
    for component in components {
        command.args(["-p", component]);
    }
    run(command.args(toolchain.clippy_lints()))
}
