//! The chores of this repository, one command each: `cargo xtask <chore>`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod apt;
mod audit;
mod bench;
mod build;
mod children;
mod command;
mod http;
mod migrate;
mod place;
mod ports;
mod restore;
mod state;
mod step;
mod test;
mod toolchain;
mod up;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The chores of this repository, one command each")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the components into target/wasm; fetches a compiler for them if the machine has none
    Build {
        /// Ids of components in spin.toml, or `hello` or `scheduler`; all of the app when none is named
        components: Vec<String>,
        /// Build the component that speed is measured against, too
        #[arg(long)]
        bench: bool,
    },
    /// Apply the files of migrations/ to the app's database
    Migrate(place::Place),
    /// Run the whole product here: the app in the embedded host, beside the sandbox
    Up(up::Options),
    /// Run the sandbox alone, for an app that runs under Spin's own CLI; its flags follow (try --help)
    #[command(disable_help_flag = true)]
    Sandbox {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure requests per second, side by side with a component that does nothing
    Bench(bench::Options),
    /// Ask whether the books are right: every invariant with what breaks it; `--soak` walks at random instead
    Audit(audit::Options),
    /// Restore a backup into a new database, check it from end to end and audit it; its flags follow (try --help)
    #[command(disable_help_flag = true)]
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the API's description as the types have it now
    Openapi,
    /// Check everything: formatting, lints, sizes, and all tests
    Test(test::Options),
    /// Make the pictures of docs/screenshots anew, from the tests of the pages
    Screenshots,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments.chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(chore: &Chore) -> Result<ExitCode> {
    match chore {
        Chore::Build { components, bench } => build::build(components, *bench)?,
        Chore::Migrate(place) => migrate::migrate(place)?,
        Chore::Up(options) => return Ok(up::up(options)?.exit_code()),
        Chore::Sandbox { arguments } => return up::sandbox_alone(arguments),
        Chore::Bench(options) => {
            if let Some(ending) = bench::bench(options)? {
                return Ok(ending.exit_code());
            }
        }
        Chore::Audit(options) => audit::audit(options)?,
        Chore::Restore { arguments } => return restore::restore(arguments),
        Chore::Openapi => command::run(command::cargo().current_dir(command::root()).args(["run", "--quiet", "--bin", "openapi"]))?,
        Chore::Test(options) => test::test(options)?,
        Chore::Screenshots => test::screenshots()?,
    }
    Ok(ExitCode::SUCCESS)
}
