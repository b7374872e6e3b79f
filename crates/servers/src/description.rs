//! What the world has for descriptions of APIs, for tests: a validator, and a generator of clients with the compiler that reads what it writes.
//!
//! The validator is a Python package, the generator and the compiler are JavaScript packages. They are fetched once and stay in `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{lock, run, told};

const VALIDATOR: &str = "openapi-spec-validator==0.9.0";
/// The compiler's major version is the one that the generator is made for.
const GENERATOR: [&str; 2] = ["openapi-typescript@7.13.0", "typescript@5.9.3"];

/// Says whether a description is one.
pub struct Validator {
    packages: PathBuf,
}

impl Validator {
    /// Finds it, fetching it into the folder `target` if it is missing.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn get(target: &Path) -> Result<Self, String> {
        let packages = fetched(target, &VALIDATOR.replace("==", "-"), |to| {
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"];
            let patience = ["--only-binary=:all:", "--retries", "1", "--timeout", "15"];
            run(Command::new("python3").args(install).args(patience).arg("--target").arg(to).arg(VALIDATOR))
        });
        Ok(Self { packages: packages.map_err(|why| format!("a validator of descriptions cannot be had here: {why}"))? })
    }

    /// Reads a description.
    ///
    /// # Errors
    /// What it objects to.
    pub fn check(&self, description: &Path) -> Result<(), String> {
        said(Command::new("python3").args(["-m", "openapi_spec_validator"]).arg(description).env("PYTHONPATH", &self.packages))
    }
}

/// Makes types for TypeScript of a description.
pub struct Generator {
    modules: PathBuf,
}

impl Generator {
    /// Finds it with its compiler, fetching both into the folder `target` if they are missing.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub fn get(target: &Path) -> Result<Self, String> {
        let folder = fetched(target, &GENERATOR[0].replace('@', "-"), |to| {
            let install = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--prefix"];
            run(Command::new("npm").args(install).arg(to).args(GENERATOR).current_dir(to))
        });
        Ok(Self { modules: folder.map_err(|why| format!("a generator of clients cannot be had here: {why}"))?.join("node_modules") })
    }

    /// Writes the types of a description beside a program that uses them, and has both compiled. The program finds the types in `./api`.
    ///
    /// # Errors
    /// What the generator or the compiler says.
    pub fn compile(&self, description: &Path, program: &str) -> Result<(), String> {
        let work = TempDir::new().map_err(told)?;
        let (types, using) = (work.path().join("api.ts"), work.path().join("client.ts"));
        fs::write(&using, program).map_err(told)?;
        said(Command::new("node").arg(self.modules.join("openapi-typescript/bin/cli.js")).arg(description).arg("-o").arg(&types))?;
        let strict = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"];
        said(Command::new("node").arg(self.modules.join("typescript/bin/tsc")).args(strict).arg(&using).current_dir(work.path()))
    }
}

/// A folder in `target` that is there as a whole or not at all.
fn fetched(target: &Path, name: &str, fetch: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let folder = target.join(name);
    let whole = folder.join("whole");
    if whole.is_dir() {
        return Ok(whole);
    }
    let _lock = lock(&folder)?;
    if !whole.is_dir() {
        let unfinished = TempDir::new_in(&folder).map_err(told)?;
        fetch(unfinished.path())?;
        fs::rename(unfinished.path(), &whole).map_err(told)?;
    }
    Ok(whole)
}

/// Runs a program to its end; what it said is the error if it did not end well.
fn said(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(told)?;
    let words = [output.stdout, output.stderr].concat();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&words).into_owned())
}
