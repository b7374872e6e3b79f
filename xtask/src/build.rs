//! Building the components into wasm, within the budget of their size.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::command::{root, run};
use crate::step::step;
use crate::toolchain::{TARGET, Toolchain};

/// What the largest component may weigh. Small components start fast and travel well.
const LARGEST_KIB: u64 = 700;

/// The component that does nothing; what the others' speed is measured against.
pub const HELLO: &str = "hello";

/// Components that are not the app's: the measure, the guest of the host's own tests, and what Spin's cron plugin runs (spin-cron.toml).
pub const EXTRAS: [&str; 3] = [HELLO, "probe", "scheduler"];

#[derive(Deserialize)]
struct Manifest {
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    source: PathBuf,
}

/// The ids of the app's components, which are their packages' names too.
pub fn component_ids() -> Result<Vec<String>> {
    Ok(sources()?.into_keys().collect())
}

fn sources() -> Result<BTreeMap<String, PathBuf>> {
    let file = root().join("spin.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(manifest.component.into_iter().map(|(id, component)| (id, component.source)).collect())
}

/// Builds these components (none named: all of the app), shows their sizes, and refuses those over the budget.
pub fn build(names: &[String], with_extras: bool) -> Result<()> {
    refuse(&compile(names, with_extras)?)
}

/// The same for somebody who wants to run them: a component over the budget is only told of.
pub fn build_to_run(with_extras: bool) -> Result<()> {
    if let Err(refusal) = refuse(&compile(&[], with_extras)?) {
        eprintln!("    note: {refusal}");
    }
    Ok(())
}

/// Returns the names of the components that are over the budget.
fn compile(names: &[String], with_extras: bool) -> Result<Vec<String>> {
    let sources = sources()?;
    let mut chosen: Vec<String> = names.to_vec();
    if chosen.is_empty() {
        chosen.extend(sources.keys().cloned());
    }
    if with_extras {
        for extra in EXTRAS {
            if !chosen.iter().any(|name| name == extra) {
                chosen.push(extra.to_owned());
            }
        }
    }
    let mut files = Vec::new();
    for name in &chosen {
        let source = match sources.get(name) {
            Some(source) => source.clone(),
            None if EXTRAS.contains(&name.as_str()) => Path::new("target/wasm").join(TARGET).join(format!("release/{name}.wasm")),
            None => {
                let known: Vec<&str> = sources.keys().map(String::as_str).chain(EXTRAS).collect();
                bail!("there is no component {name} in spin.toml; there are {}", known.join(", "));
            }
        };
        files.push((name.as_str(), root().join(source)));
    }

    let toolchain = step("finding a compiler for components", || {
        let toolchain = Toolchain::find()?;
        eprintln!("    {}", toolchain.described());
        Ok(toolchain)
    })?;
    forget_other_toolchain(&toolchain)?;
    step("building components", || {
        for (profile, names) in by_profile(&files) {
            let mut command = toolchain.cargo()?;
            command.current_dir(root()).args(["build", "--profile", profile, "--target", TARGET, "--target-dir", "target/wasm"]);
            for name in names {
                command.args(["-p", name]);
            }
            run(&mut command)?;
        }
        Ok(())
    })?;
    weigh(&files)
}

/// The components of each cargo profile: it names the folder that cargo leaves them in, and so the one that spin.toml looks into.
fn by_profile<'f>(files: &'f [(&'f str, PathBuf)]) -> BTreeMap<&'f str, Vec<&'f str>> {
    let mut profiles = BTreeMap::<_, Vec<_>>::new();
    for (name, file) in files {
        let folder = file.parent().and_then(Path::file_name).and_then(std::ffi::OsStr::to_str).unwrap_or("release");
        profiles.entry(folder).or_default().push(*name);
    }
    profiles
}

/// Cargo tells compilers apart by their version only: what was built on another copy of the same version's
/// standard library would be kept, and not link.
pub fn forget_other_toolchain(toolchain: &Toolchain) -> Result<()> {
    let folder = root().join("target/wasm");
    let note = folder.join(".toolchain");
    let identity = toolchain.identity()?;
    let before = fs::read_to_string(&note).ok();
    if before.as_deref() == Some(identity.as_str()) {
        return Ok(());
    }
    if folder.exists() {
        step("clearing what another toolchain built", || {
            run(toolchain.cargo()?.current_dir(root()).args(["clean", "--quiet", "--target-dir", "target/wasm"]))
        })?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(&note, identity)?;
    Ok(())
}

/// Shows what the components weigh; returns the names of those over the budget.
fn weigh(files: &[(&str, PathBuf)]) -> Result<Vec<String>> {
    let mut too_large = Vec::new();
    let mut sum = 0;
    println!("{:<20} {:>8}", "component", "KiB");
    for (name, file) in files {
        let bytes = fs::metadata(file).with_context(|| format!("the build of {name} left no {}", file.display()))?.len();
        sum += bytes;
        let kib = bytes.div_ceil(1024);
        println!("{name:<20} {kib:>8}");
        if kib > LARGEST_KIB {
            too_large.push(format!("{name} ({kib} KiB)"));
        }
    }
    println!("{:<20} {:>8}", "together", sum.div_ceil(1024));
    Ok(too_large)
}

fn refuse(too_large: &[String]) -> Result<()> {
    if !too_large.is_empty() {
        bail!("over the budget of {LARGEST_KIB} KiB for one component: {}", too_large.join(", "));
    }
    Ok(())
}
