//! Everything that has to hold before a change goes in.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use servers::browser;
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
    /// Run only the tests of one package, without lints; `e2e` are those over HTTP against the running app
    #[arg(long, value_name = "PACKAGE")]
    only: Option<String>,
    /// `shared`: only the tests over HTTP, each on two hosts that share a libSQL server and a Redis
    #[arg(long, value_name = "STORES", value_parser = ["shared"], conflicts_with = "only")]
    stores: Option<String>,
}

/// The steps that were taken, with their times.
struct Summary(Vec<(&'static str, Duration)>);

impl Summary {
    fn step(&mut self, what: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("==> {what}");
        let start = Instant::now();
        let result = work();
        self.0.push((what, start.elapsed()));
        result
    }
}

pub fn test(options: &Options) -> Result<()> {
    let mut summary = Summary(Vec::new());
    let result = steps(options, &mut summary);
    eprintln!();
    let (last, time) = match (&result, summary.0.len()) {
        (Err(_), taken) if taken > 0 => (taken - 1, "FAILED"),
        (_, taken) => (taken, ""),
    };
    for (index, (what, took)) in summary.0.iter().enumerate() {
        let word = if index == last { time } else { "ok" };
        eprintln!("{word:<7} {:>7.1} s  {what}", took.as_secs_f64());
    }
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
        summary.step("a browser for the tests", || {
            say_what_is_skipped();
            Ok(())
        })?;
    }
    summary.step("tests", || {
        let mut command = cargo();
        // In the root, without a package named, cargo takes the workspace's default members: all that is native.
        command.current_dir(root()).args(["test", "--no-fail-fast"]);
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
    browser::Browser::get(&root().join("target")).map_err(anyhow::Error::msg)?;
    build::build_to_run(false)?;
    let mut command = cargo();
    command.current_dir(root()).env("SCREENSHOTS", "keep");
    run(command.args(["test", "-p", "e2e", "--test", "browser"]))
}

/// Gets what the tests of the pages and of the API's description need, installing it if it is missing. They go without what cannot be had.
fn say_what_is_skipped() {
    let target = root().join("target");
    if let Err(why) = browser::Browser::get(&target) {
        eprintln!("skipped: no page will be looked at (the tests of `browser` pass without a look). {why}");
    } else if let Err(why) = browser::axe(&target) {
        eprintln!("skipped: pages will not be searched for what keeps people out. {why}");
    }
    let readers = [Validator::get(&target).map(drop), Generator::get(&target).map(drop)];
    for why in readers.into_iter().filter_map(Result::err) {
        eprintln!("skipped: the API's description will not be read by a public program. {why}");
    }
}

/// The product on two hosts. Where the servers cannot be had, nothing is tested, in a clear line.
fn with_shared_stores(options: &Options, summary: &mut Summary) -> Result<()> {
    if let Err(why) = servers::Programs::get(&root().join("target")) {
        eprintln!("skipped: nothing was tested on shared stores. {why}");
        return Ok(());
    }
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
