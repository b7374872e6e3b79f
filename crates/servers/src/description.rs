//! Public programs that read the API's description: a validator, and a generator of clients with a compiler for what it makes.
//!
//! They come from the registries of Python's and JavaScript's packages, each of one version, and stay in `target/`. Where one cannot be had, the
//! error says which and why.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{lock, run, told};

const VALIDATOR: &str = "openapi-spec-validator==0.9.0";
const GENERATOR: [&str; 3] = ["openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3"];

/// Says what is wrong with a description by the specification of OpenAPI 3.1.
pub struct Validator(PathBuf);

impl Validator {
    /// Finds it, fetching it into the folder `target` if it is missing.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn get(target: &Path) -> Result<Self, String> {
        let folder = once(&target.join("description/python"), |folder| {
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--target"];
            run(Command::new("python3").args(pip).arg(folder).arg(VALIDATOR))
        });
        folder.map(Self).map_err(|error| format!("{VALIDATOR} cannot be had here: {error}"))
    }

    /// Looks at the description in a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look(&self, description: &Path) -> Result<(), String> {
        let mut command = Command::new("python3");
        output(command.env("PYTHONPATH", &self.0).args(["-m", "openapi_spec_validator"]).arg(description)).map(drop)
    }
}

/// Makes a client in TypeScript.
pub struct Generator(PathBuf);

impl Generator {
    /// Finds it, fetching it into the folder `target` if it is missing.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn get(target: &Path) -> Result<Self, String> {
        let folder = once(&target.join("description/typescript"), |folder| {
            fs::create_dir_all(folder).map_err(told)?;
            let npm = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1", "--prefix"];
            run(Command::new("npm").args(npm).arg(folder).args(GENERATOR))
        });
        folder.map(Self).map_err(|error| format!("{} cannot be had here: {error}", GENERATOR[0]))
    }

    /// Makes the client of a description beside a program that uses it (as `./ai-hairstyle`), compiles both with all checks on, runs the
    /// program, and answers what it wrote.
    ///
    /// # Errors
    /// What the generator, the compiler or the program had to say.
    pub fn try_out(&self, description: &Path, program: &str) -> Result<String, String> {
        // Below the packages' folder, where the program finds them.
        let work = TempDir::new_in(&self.0).map_err(told)?;
        let (client, source) = (work.path().join("ai-hairstyle.ts"), work.path().join("program.ts"));
        fs::write(&source, program).map_err(told)?;
        fs::write(work.path().join("package.json"), r#"{"type": "module"}"#).map_err(told)?;
        self.run(work.path(), "openapi-typescript", [description.as_os_str(), OsStr::new("--output"), client.as_os_str()])?;
        let settings = ["--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"];
        self.run(work.path(), "tsc", settings.iter().map(OsStr::new).chain([source.as_os_str()]))?;
        output(Command::new("node").arg(work.path().join("program.js")))
    }

    fn run<'a>(&self, place: &Path, program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String, String> {
        output(Command::new(self.0.join("node_modules/.bin").join(program)).args(arguments).current_dir(place))
    }
}

/// Fills a folder once, and whole.
fn once(folder: &Path, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let whole = folder.join("whole");
    if !whole.is_file() {
        let _lock = lock(folder)?;
        if !whole.is_file() {
            fill(folder)?;
            fs::write(&whole, "").map_err(told)?;
        }
    }
    Ok(folder.to_owned())
}

/// What a program writes; where it fails, that is what went wrong.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let (written, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(written.into_owned()) } else { Err(format!("{name}: {written}{errors}")) }
}
