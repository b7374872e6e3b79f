//! A Rust that can build components: target wasm32-wasip2 with its standard library.
//!
//! On most machines rustup has it, or fetches it. A machine that reaches only a Debian mirror and a package
//! registry gets one put together from the distribution's packages, in a private folder of the user's cache:
//! a newer compiler, its library's sources, a C library for the target, and the standard library built from them once.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::apt::{self, Apt};
use crate::command::{self, cargo, path_with, read, run_quietly, run_within};
use crate::step::step;

pub const TARGET: &str = "wasm32-wasip2";

/// The oldest Rust that builds this workspace, `1.NN`: the `rust-version` of Cargo.toml.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// To be raised when the recipe below changes, so that folders made by an older one are not used.
const RECIPE: u32 = 1;

/// The release whose C library knows wasm32-wasip2, for machines whose own is older.
const SUITE_WITH_WASI_LIBC: &str = "trixie";

/// Names a folder to keep a toolchain of our own in. Where it is set, that toolchain is used even if rustup has one.
const FOLDER_VARIABLE: &str = "AI_HAIRSTYLE_TOOLCHAIN_DIR";

/// Written last: a folder without it is not finished.
const MARKER: &str = "finished";

const RUSTUP_LIMIT: Duration = Duration::from_mins(5);

/// Where the compiler for components comes from.
pub enum Toolchain {
    /// The compiler on PATH knows the target.
    Installed,
    /// One of ours, in this folder.
    Private { folder: PathBuf, linkers: Vec<PathBuf> },
}

impl Toolchain {
    /// Finds a toolchain, or makes one.
    pub fn find() -> Result<Self> {
        if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
            return Self::private(make(&std::path::absolute(folder)?)?);
        }
        if installed_target()? {
            return Ok(Self::Installed);
        }
        let base = base()?;
        if let Some(folder) = finished(&base) {
            return Self::private(folder);
        }
        eprintln!("No {TARGET} on this machine yet. It is looked for once; this can take a few minutes.");
        let refusal = match step("asking rustup for the target", add_with_rustup) {
            Ok(()) if installed_target()? => return Ok(Self::Installed),
            Ok(()) => anyhow!("rustup says it is done, but rustc has no {TARGET}"),
            Err(refusal) => refusal,
        };
        eprintln!("    not from rustup: {}", format!("{refusal:#}").lines().next().unwrap_or_default());
        if !apt::available() {
            return Err(refusal.context(format!("no {TARGET}: install Rust {OLDEST} or later and run `rustup target add {TARGET}`")));
        }
        Self::private(make(&base)?)
    }

    fn private(folder: PathBuf) -> Result<Self> {
        Ok(Self::Private { folder, linkers: linkers()? })
    }

    /// Cargo, set up to build components.
    pub fn cargo(&self) -> Result<Command> {
        let mut command = cargo();
        if let Self::Private { folder, linkers } = self {
            command.env("RUSTC", folder.join("rustc")).env("PATH", path_with(linkers)?);
        }
        Ok(command)
    }

    /// Cargo, set up to lint components with the same compiler; to be given the packages to lint.
    pub fn clippy(&self) -> Result<Command> {
        let mut command = self.cargo()?;
        match self {
            Self::Installed => {
                command.args(["clippy", "--target", TARGET]);
            }
            // `cargo clippy` would take the driver that lies beside it, which belongs to another compiler.
            // It does no more than this.
            Self::Private { folder, .. } => {
                command
                    .args(["check", "--target", TARGET])
                    .env("RUSTC_WORKSPACE_WRAPPER", folder.join("clippy-driver"))
                    .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
            }
        }
        Ok(command)
    }

    /// Lints become errors through this: cargo's own arguments end where these begin.
    pub fn clippy_lints(&self) -> &'static [&'static str] {
        match self {
            Self::Installed => &["--", "-D", "warnings"],
            Self::Private { .. } => &[],
        }
    }

    /// Names this very toolchain: another one cannot use what it built.
    pub fn identity(&self) -> Result<String> {
        match self {
            Self::Installed => read(Command::new("rustc").arg("-vV")),
            Self::Private { folder, .. } => {
                let marker = folder.join(MARKER);
                fs::read_to_string(&marker).with_context(|| format!("cannot read {}", marker.display()))
            }
        }
    }

    pub fn described(&self) -> String {
        match self {
            Self::Installed => format!("the installed Rust has {TARGET}"),
            Self::Private { folder, .. } => format!("{TARGET} of {}", folder.display()),
        }
    }
}

fn installed_target() -> Result<bool> {
    let libdir = read(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))
        .context("no Rust compiler on PATH; install Rust first")?;
    let found = fs::read_dir(libdir.trim()).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    });
    if found {
        let version = read(Command::new("rustc").arg("--version"))?;
        check_version(&version).context("update it, for instance with `rustup update`")?;
    }
    Ok(found)
}

fn add_with_rustup() -> Result<()> {
    if !command::on_path("rustup") {
        bail!("there is no rustup on PATH");
    }
    let mut add = Command::new("rustup");
    run_within(RUSTUP_LIMIT, add.args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "0"))
}

/// Refuses a compiler that is too old; takes the words of `rustc --version`.
fn check_version(version: &str) -> Result<()> {
    let minor = |version: &str| version.split_whitespace().find_map(|word| word.strip_prefix("1.")?.split('.').next()?.parse::<u32>().ok());
    let found = minor(version).with_context(|| format!("this is no version of rustc: {version}"))?;
    if Some(found) < minor(OLDEST) {
        bail!("{} is too old: components need Rust {OLDEST} or later", version.trim());
    }
    Ok(())
}

fn base() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set; set one")?;
            PathBuf::from(home).join(".cache")
        }
    };
    Ok(cache.join("ai-hairstyle"))
}

/// The newest finished toolchain of this recipe.
fn finished(base: &Path) -> Option<PathBuf> {
    let ending = format!("-r{RECIPE}");
    let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(base)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("wasm-toolchain-") && name.ends_with(&ending)
        })
        .filter_map(|entry| {
            let made = fs::metadata(entry.path().join(MARKER)).ok()?.modified().ok()?;
            Some((made, entry.path()))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, folder)| folder)
}

/// The linkers that rustup's toolchain brings: wasm-component-ld, and rust-lld under its other names.
fn linkers() -> Result<Vec<PathBuf>> {
    let sysroot = read(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = host()?;
    let tools = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
    if !tools.join("wasm-component-ld").is_file() {
        bail!("{} has no wasm-component-ld; use a Rust toolchain that was installed by rustup", tools.display());
    }
    Ok(vec![tools.join("gcc-ld"), tools])
}

fn host() -> Result<String> {
    let about = read(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    Ok(host.to_owned())
}

/// The finished toolchain in this folder, which is made if there is none.
fn make(base: &Path) -> Result<PathBuf> {
    if let Some(folder) = finished(base) {
        return Ok(folder);
    }
    put_together(base)
        .with_context(|| format!("cannot put a {TARGET} toolchain together; with a network, `rustup target add {TARGET}` is enough"))
}

fn put_together(base: &Path) -> Result<PathBuf> {
    fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
    // The lock is given back by the system when this process ends, however it ends.
    let lock = File::create(base.join("lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("    another run is making the toolchain; waiting for it");
        lock.lock()?;
    }
    if let Some(folder) = finished(base) {
        return Ok(folder);
    }
    let unfinished = base.join("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let root = unfinished.join("root");
    let downloads = unfinished.join("downloads");

    let version = step("downloading a Rust compiler, clippy and library sources (about 140 MB)", || {
        let apt = Apt::of_machine();
        let first = match packages(&apt) {
            Ok((version, packages)) => apt.unpack(&packages, &downloads, &root).map(|()| version),
            Err(refusal) => Err(refusal),
        };
        // The machine's lists may be empty, or name versions that the mirror no longer has.
        first.or_else(|refusal| {
            eprintln!("    not with the machine's lists of packages ({refusal}); fetching new ones");
            let apt = Apt::refreshed(&unfinished.join("apt"))?;
            let (version, packages) = packages(&apt)?;
            apt.unpack(&packages, &downloads, &root)?;
            Ok(version)
        })
    })?;
    step("fetching the target's C library", || add_libc(&root, &unfinished))?;
    step("checking the compiler", || {
        write_wrappers(&root)?;
        let about =
            read(Command::new(root.join("rustc")).arg("--version")).context("the downloaded compiler does not start on this machine")?;
        check_version(&about)
    })?;
    step("building the standard library for the target (about a minute)", || build_std(&root, &unfinished.join("std")))?;
    // 300 MB that nothing reads any more.
    fs::remove_dir_all(root.join("usr/src"))?;
    fs::remove_dir_all(root.join("usr/lib/rustlib/src"))?;
    let _ = fs::remove_dir_all(root.join("usr/share"));

    let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let folder = base.join(format!("wasm-toolchain-{}-r{RECIPE}", version.replace(['/', ':', '~', '+'], "_")));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&root, &folder)?;
    fs::write(folder.join(MARKER), format!("{version} {made}\n"))?;
    fs::remove_dir_all(&unfinished)?;
    Ok(folder)
}

/// The version of the compiler on offer, and all packages it takes.
fn packages(apt: &Apt) -> Result<(String, Vec<String>)> {
    let version = apt.candidate("rustc-web")?.context("apt offers no package rustc-web")?;
    check_version(&version)?;
    let mut packages: Vec<String> = ["rustc-web", "libstd-rust-web-dev", "rust-web-src", "rust-web-clippy"].map(str::to_owned).into();
    // Their libraries, whose names hold version numbers (libstd-rust-web-1.NN, libllvmNN), and what those need
    // in turn, as far as the machine hasn't got it.
    let mut next = 0;
    while let Some(package) = packages.get(next).cloned() {
        next += 1;
        for needed in apt.depends(&package)? {
            let library = needed.starts_with("lib") || needed.starts_with("zlib");
            if library && !packages.contains(&needed) && !apt::installed(&needed) {
                packages.push(needed);
            }
        }
    }
    Ok((version, packages))
}

/// Places the C library's files where rustc looks for those it brings itself.
fn add_libc(root: &Path, unfinished: &Path) -> Result<()> {
    const FILES: [&str; 3] = ["crt1-command.o", "crt1-reactor.o", "libc.a"];
    let unpacked = unfinished.join("wasi-libc");
    let downloads = unfinished.join("downloads");
    let files = unpacked.join("usr/lib").join(TARGET);
    let package = ["wasi-libc".to_owned()];
    let own = Apt::of_machine().unpack(&package, &downloads, &unpacked);
    if own.is_err() || !files.join(FILES[0]).is_file() {
        Apt::of_suite(SUITE_WITH_WASI_LIBC, &unfinished.join(SUITE_WITH_WASI_LIBC))?
            .unpack(&package, &downloads, &unpacked)
            .with_context(|| format!("cannot download wasi-libc of {SUITE_WITH_WASI_LIBC}"))?;
    }
    let place = root.join("usr/lib/rustlib").join(TARGET).join("lib/self-contained");
    fs::create_dir_all(&place)?;
    for file in FILES {
        fs::copy(files.join(file), place.join(file)).with_context(|| format!("the package wasi-libc has no {TARGET}/{file}"))?;
    }
    Ok(())
}

/// The compilers need the libraries that lie beside them. The folder is looked up at each run, so that it can be moved.
fn write_wrappers(root: &Path) -> Result<()> {
    let mut libraries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(root.join("usr/lib"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with("-linux-gnu") {
            libraries.push(PathBuf::from("usr/lib").join(name));
        } else if name.starts_with("llvm-") {
            libraries.push(PathBuf::from("usr/lib").join(name).join("lib"));
        }
    }
    libraries.sort();
    let path: Vec<String> = libraries.iter().map(|folder| format!("$here/{}", folder.display())).collect();
    let path = path.join(":");
    for program in ["rustc", "clippy-driver"] {
        // Cargo calls a wrapper of rustc with the path of rustc first, which the driver takes for a sign to be one too.
        let script = format!(
            "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\n\
             LD_LIBRARY_PATH=\"{path}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\" exec \"$here/usr/bin/{program}\" \"$@\"\n"
        );
        let file = root.join(program);
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn build_std(root: &Path, work: &Path) -> Result<()> {
    let sources = fs::read_dir(root.join("usr/src"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|folder| folder.join("library/std").is_dir())
        .context("the package rust-web-src has no library sources")?;
    // Cargo looks for them here; the package may bring the link.
    let expected = root.join("usr/lib/rustlib/src/rust/library");
    if !expected.join("std").is_dir() {
        fs::create_dir_all(root.join("usr/lib/rustlib/src/rust"))?;
        symlink(sources.join("library"), &expected)?;
    }

    fs::create_dir_all(work.join("src"))?;
    fs::write(work.join("src/lib.rs"), "#![no_std]\n")?;
    fs::write(work.join("Cargo.toml"), "[package]\nname = \"nothing\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n")?;
    let built = work.join("target");
    run_quietly(
        cargo()
            .current_dir(work)
            .args(["build", "--release", "--target", TARGET, "-Zbuild-std=std,panic_abort,panic_unwind"])
            .arg("--target-dir")
            .arg(&built)
            .env("RUSTC", root.join("rustc"))
            .env("PATH", path_with(&linkers()?)?)
            .env("RUSTC_BOOTSTRAP", "1")
            // Components are built with `lto = true`, which needs the bitcode.
            .env("RUSTFLAGS", "-Cembed-bitcode=yes")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    let place = root.join("usr/lib/rustlib").join(TARGET).join("lib");
    let mut copied = 0;
    for entry in fs::read_dir(built.join(TARGET).join("release/deps"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libnothing-") {
            fs::copy(entry.path(), place.join(&name))?;
            copied += 1;
        }
    }
    if copied == 0 {
        bail!("the build left no libraries in {}", built.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compiler_is_refused() {
        assert!(check_version("rustc 1.94.1 (abc 2026-03-26)").is_err());
        assert!(check_version(&format!("rustc {OLDEST}.0 (abc 2026-04-14)")).is_ok());
        assert!(check_version("1.96.0+dfsg1-1~deb12u2").is_ok());
        assert!(check_version("1.9.0").is_err(), "versions are numbers, not texts");
        assert!(check_version("rustc").is_err());
    }

    #[test]
    fn only_finished_toolchains_of_this_recipe_are_used() -> Result<()> {
        let base = tempfile::tempdir()?;
        fs::create_dir_all(base.path().join(format!("wasm-toolchain-1.96-r{RECIPE}")))?;
        fs::create_dir_all(base.path().join("wasm-toolchain-1.96-r0"))?;
        fs::write(base.path().join("wasm-toolchain-1.96-r0").join(MARKER), "")?;
        assert_eq!(finished(base.path()), None);
        let folder = base.path().join(format!("wasm-toolchain-1.96-r{RECIPE}"));
        fs::write(folder.join(MARKER), "")?;
        assert_eq!(finished(base.path()), Some(folder));
        Ok(())
    }
}
