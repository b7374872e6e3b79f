//! Where a running app keeps its data: the state folder, and the runtime configuration that points into it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::command::root;

/// The folder that runtime-config.toml of the repository names.
pub const DEFAULT_FOLDER: &str = ".spin";

const RUNTIME_CONFIG: &str = "runtime-config.toml";

/// What this program, the app and the sandbox put into a state folder.
const OURS: [&str; 5] = ["ai-hairstyle.db", "key-value.db", "sandbox", RUNTIME_CONFIG, "lock"];

/// What Spin's own CLI puts there.
const SPINS: [&str; 3] = ["logs", "sqlite_db.db", "sqlite_key_value.db"];

#[derive(Deserialize)]
struct RuntimeConfig {
    #[serde(default)]
    sqlite_database: std::collections::BTreeMap<String, Database>,
}

#[derive(Deserialize)]
struct Database {
    r#type: String,
    path: Option<PathBuf>,
}

/// The file of the app's database, as this runtime configuration has it.
pub fn database(runtime_config: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(runtime_config).with_context(|| format!("cannot read {}", runtime_config.display()))?;
    let config: RuntimeConfig = toml::from_str(&text).with_context(|| format!("cannot read {}", runtime_config.display()))?;
    let Some(database) = config.sqlite_database.get("default") else {
        bail!("{} has no [sqlite_database.default]; add one with `type` and `path`", runtime_config.display());
    };
    match &database.path {
        // Spin takes it relative to the folder it is started in, and that is the root of the repository.
        Some(path) if database.r#type == "spin" => Ok(root().join(path)),
        _ => bail!(
            "the database in {} is of type {:?} and not a file on this machine; \
             apply the files in migrations/ with its own tools, or name a file with --database",
            runtime_config.display(),
            database.r#type
        ),
    }
}

/// The runtime configuration of the repository, which keeps everything in [`DEFAULT_FOLDER`].
pub fn default_runtime_config() -> PathBuf {
    root().join(RUNTIME_CONFIG)
}

/// A state folder that one running app has for itself.
pub struct State {
    pub folder: PathBuf,
    pub runtime_config: PathBuf,
    _lock: File,
}

impl State {
    /// Takes a folder, which is created if there is none; `fresh` empties it first.
    pub fn take(folder: &Path, fresh: bool) -> Result<Self> {
        let is_default = folder == Path::new(DEFAULT_FOLDER);
        let folder = root().join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another app that runs keeps its data in {}; stop it, or choose another --state-dir", folder.display());
        }
        if fresh {
            empty(&folder)?;
        }
        let runtime_config = if is_default {
            default_runtime_config()
        } else {
            let file = folder.join(RUNTIME_CONFIG);
            fs::write(&file, runtime_config_for(&folder)?)?;
            file
        };
        Ok(Self { folder, runtime_config, _lock: lock })
    }

    pub fn sandbox(&self) -> PathBuf {
        self.folder.join("sandbox")
    }
}

fn runtime_config_for(folder: &Path) -> Result<String> {
    let quoted = |name: &str| -> Result<String> {
        let path = folder.join(name);
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(toml::Value::from(text).to_string())
    };
    Ok(format!(
        "# Written by `cargo xtask up --state-dir`, anew each time.\n\
         [sqlite_database.default]\ntype = \"spin\"\npath = {}\n\n\
         [key_value_store.default]\ntype = \"spin\"\npath = {}\n",
        quoted("ai-hairstyle.db")?,
        quoted("key-value.db")?,
    ))
}

/// Removes what is in the folder, if all of it looks like ours.
fn empty(folder: &Path) -> Result<()> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    for entry in &entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        // SQLite keeps files beside a database.
        let plain = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-shm")).unwrap_or(&name);
        if !OURS.contains(&plain) && !SPINS.contains(&plain) {
            bail!(
                "{} holds {name}, which is not ours; nothing was removed. Empty the folder yourself, or choose another \
                 --state-dir",
                folder.display()
            );
        }
    }
    for entry in &entries {
        if entry.ends_with("lock") {
            continue;
        }
        let removed = if entry.is_dir() && !entry.is_symlink() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) };
        removed.with_context(|| format!("cannot remove {}", entry.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repositorys_own_configuration_names_the_default_folder() -> Result<()> {
        let database = database(&default_runtime_config())?;
        assert_eq!(database, root().join(DEFAULT_FOLDER).join("ai-hairstyle.db"));
        Ok(())
    }

    #[test]
    fn another_folder_gets_a_configuration_that_points_into_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let state = State::take(folder.path(), false)?;
        assert_eq!(database(&state.runtime_config)?, folder.path().join("ai-hairstyle.db"));
        Ok(())
    }

    #[test]
    fn a_folder_serves_one_app_at_a_time() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let first = State::take(folder.path(), false)?;
        assert!(State::take(folder.path(), false).is_err());
        drop(first);
        State::take(folder.path(), false)?;
        Ok(())
    }

    #[test]
    fn fresh_removes_what_is_ours() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for name in ["ai-hairstyle.db", "ai-hairstyle.db-wal", "key-value.db"] {
            fs::write(folder.path().join(name), "")?;
        }
        fs::create_dir_all(folder.path().join("sandbox/s3"))?;
        State::take(folder.path(), true)?;
        let mut left: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", RUNTIME_CONFIG]);
        Ok(())
    }

    #[test]
    fn fresh_leaves_a_folder_alone_that_holds_other_things() -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ai-hairstyle.db"), "")?;
        fs::write(folder.path().join("thesis.txt"), "")?;
        let refusal = State::take(folder.path(), true).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("thesis.txt"), "{refusal}");
        assert!(folder.path().join("ai-hairstyle.db").exists());
        Ok(())
    }
}
