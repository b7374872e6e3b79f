//! A browser for tests: Debian's Chromium with its driver, and axe-core, which finds what keeps people from using a page.
//!
//! What is on PATH is taken; what is not is installed with Debian's package manager, by root or whoever may become root without a password.
//! axe-core comes from the registry of JavaScript packages and stays in `target/`. Where one cannot be had, the error says which and why.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{Running, free_address, lock, run, told};

/// What is installed where there is no browser: it, its driver, and letters that it would have none of on a bare machine.
const PACKAGES: [&str; 4] = ["chromium", "chromium-driver", "fonts-dejavu-core", "fonts-wqy-microhei"];
/// Names the browser goes by. The driver has to be of the same version, which packages of one distribution see to.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
const DRIVER: &str = "chromedriver";

/// Where this environment variable is set, nothing is installed.
pub const NO_INSTALL: &str = "AI_HAIRSTYLE_NO_INSTALL";

const AXE: &str = "axe-core@4.14.1";
const AXE_FILE: &str = "axe.min.js";
const AXE_SHA256: &str = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c";

/// The programs of a browser.
#[derive(Clone, Debug)]
pub struct Browser {
    chromium: PathBuf,
    driver: PathBuf,
}

impl Browser {
    /// Finds both, installing them if they are missing. `target` is where the folder of what tests fetch lies.
    ///
    /// # Errors
    /// Names what cannot be had, and why.
    pub fn get(target: &Path) -> Result<Self, String> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        if std::env::var_os(NO_INSTALL).is_some() {
            return Err(not_installed());
        }
        // One installation at a time, and none by who finds it done.
        let _lock = lock(&target.join("browser"))?;
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        let why = match install() {
            Ok(()) => match Self::find() {
                Some(found) => return Ok(found),
                None => format!("the packages {} brought none", PACKAGES.join(" ")),
            },
            Err(why) => why,
        };
        Err(format!("a browser cannot be had here: there is no {} with {DRIVER} on PATH, and {why}", NAMES[0]))
    }

    /// Finds both on PATH.
    #[must_use]
    pub fn find() -> Option<Self> {
        let chromium = NAMES.iter().find_map(|name| on_path(name))?;
        Some(Self { chromium, driver: on_path(DRIVER)? })
    }

    /// The browser's program.
    #[must_use]
    pub fn chromium(&self) -> &Path {
        &self.chromium
    }

    /// Starts a driver, which starts browsers when it is told to.
    ///
    /// # Errors
    /// When it does not listen soon.
    pub fn drive(&self) -> Result<Driver, String> {
        let address = free_address();
        let mut command = Command::new(&self.driver);
        command.arg(format!("--port={}", address.port())).arg("--log-level=OFF");
        let running = Running::start(&mut command, address, "the browser's driver")?;
        Ok(Driver { _running: running, address })
    }
}

/// A running driver. Browsers that hear it through a pipe end with it.
pub struct Driver {
    _running: Running,
    address: SocketAddr,
}

impl Driver {
    /// Where it hears WebDriver.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Why there is no browser where none may be installed.
#[must_use]
pub fn not_installed() -> String {
    format!("there is no {} with {DRIVER} on PATH, and nothing is to be installed", NAMES[0])
}

fn install() -> Result<(), String> {
    if on_path("apt-get").is_none() {
        return Err("there is no apt-get to install it with".into());
    }
    let root = geteuid().is_root();
    if !root {
        run(Command::new("sudo").args(["-n", "true"]))
            .map_err(|_| "only root may install it (or who may use sudo without a password)".to_owned())?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("env") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "env"]);
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]);
        run(command.args(arguments)).map_err(|why| format!("apt-get {}: {why}", arguments[0]))
    };
    eprintln!("installing {} with apt-get, {}", PACKAGES.join(" "), if root { "as root" } else { "by sudo" });
    // A machine's lists may be empty, or name versions that the mirror no longer has.
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], &PACKAGES[..]].concat())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|program| program.is_file())
}

/// axe-core as one script, fetched once.
///
/// # Errors
/// Why it cannot be had.
pub fn axe(target: &Path) -> Result<PathBuf, String> {
    let folder = target.join(AXE.replace('@', "-"));
    let script = folder.join(AXE_FILE);
    let get = || -> Result<(), String> {
        let _lock = lock(&folder)?;
        if script.is_file() {
            return Ok(());
        }
        let work = TempDir::new().map_err(told)?;
        run(Command::new("npm").args(["pack", AXE, "--silent", "--pack-destination"]).arg(work.path()).current_dir(work.path()))?;
        let packed = fs::read_dir(work.path()).map_err(told)?.next().and_then(Result::ok).ok_or("npm brought nothing")?.path();
        let inside = format!("package/{AXE_FILE}");
        run(Command::new("tar").arg("-xzf").arg(packed).arg("-C").arg(work.path()).arg(&inside))?;
        let bytes = fs::read(work.path().join(inside)).map_err(told)?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != AXE_SHA256 {
            return Err(format!("{AXE} is not what it was: its {AXE_FILE} has the SHA-256 {found}"));
        }
        let unfinished = folder.join("unfinished");
        fs::write(&unfinished, bytes).map_err(told)?;
        fs::rename(unfinished, &script).map_err(told)
    };
    if !script.is_file() {
        get().map_err(|error| format!("axe-core cannot be had here: {error}"))?;
    }
    Ok(script)
}
