//! Restoring a backup: the program of its own that does it (its HTTPS would make this one slow to build), with the app's variables.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::command::root;
use crate::up::{build_program, program};

const RESTORE: &str = "ai-hairstyle-restore";

/// What the program takes of the app's variables.
const VARIABLES: [&str; 6] = ["data_encryption_key", "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key_id", "s3_secret_access_key"];

/// Runs the program with these words of its own command line, in place of this one.
pub fn restore(words: &[String]) -> Result<ExitCode> {
    build_program("restoring program", RESTORE, "dev")?;
    let mut command = Command::new(program("dev", RESTORE));
    command.args(words);
    if !words.iter().any(|word| word.starts_with("--migrations")) {
        command.arg("--migrations").arg(root().join("migrations"));
    }
    let manifest: toml::Value = toml::from_str(&fs::read_to_string(root().join("spin.toml"))?)?;
    for name in VARIABLES {
        let default = manifest["variables"][name]["default"].as_str().with_context(|| format!("{name} has no default in spin.toml"))?;
        command.env(in_environment(name), value(env::var_os(in_environment(name)), default));
    }
    let error = command.exec();
    Err(error).context("cannot start the restoring program")
}

/// As Spin names a variable in the environment.
fn in_environment(name: &str) -> String {
    format!("SPIN_VARIABLE_{}", name.to_uppercase())
}

/// What the environment says stands; without it there is the default, which is good on this machine only.
fn value(given: Option<OsString>, default: &str) -> OsString {
    given.unwrap_or_else(|| default.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_as_spin_names_them_and_the_environment_wins() {
        assert_eq!(in_environment("s3_endpoint"), "SPIN_VARIABLE_S3_ENDPOINT");
        assert_eq!(value(Some("https://r2.test".into()), "http://127.0.0.1:3101"), "https://r2.test");
        assert_eq!(value(None, "http://127.0.0.1:3101"), "http://127.0.0.1:3101");
    }
}
