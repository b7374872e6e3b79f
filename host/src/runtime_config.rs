//! `runtime-config.toml`: where the stores are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::key_value::KvLocation;

/// Where each store lies and what the providers say.
#[derive(Clone, Debug, Default)]
pub struct RuntimeConfig {
    pub sqlite: BTreeMap<String, PathBuf>,
    pub key_value: BTreeMap<String, KvLocation>,
    pub variables: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    state_dir: Option<PathBuf>,
    #[serde(default)]
    sqlite_database: BTreeMap<String, Store>,
    #[serde(default)]
    key_value_store: BTreeMap<String, Store>,
    #[serde(default)]
    variables_provider: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    #[serde(rename = "type")]
    kind: String,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Provider {
    Static { values: BTreeMap<String, String> },
    Env { prefix: Option<String> },
}

impl RuntimeConfig {
    /// Reads a runtime config file. As in Spin, a key-value path is relative to the file and a database path to the current
    /// directory.
    ///
    /// # Errors
    /// For anything unknown or not supported here, in words that name it.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the runtime config {}", path.display()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(""))).with_context(|| format!("in the runtime config {}", path.display()))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let state = file.state_dir.unwrap_or_else(|| PathBuf::from(".spin"));
        let mut config = Self::default();
        config.sqlite.insert("default".into(), state.join("sqlite_db.db"));
        config.key_value.insert("default".into(), KvLocation::File(state.join("sqlite_key_value.db")));
        for (label, store) in file.sqlite_database {
            match (store.kind.as_str(), store.path) {
                ("spin", Some(path)) => drop(config.sqlite.insert(label, path)),
                ("spin", None) => bail!("[sqlite_database.{label}] needs a path: a database in memory would be empty at every request"),
                (other, _) => bail!("[sqlite_database.{label}] type = {other:?} is not supported by this host yet; \"spin\" is"),
            }
        }
        for (label, store) in file.key_value_store {
            match (store.kind.as_str(), store.path) {
                ("spin", Some(path)) => drop(config.key_value.insert(label, KvLocation::File(folder.join(path)))),
                ("spin", None) => drop(config.key_value.insert(label, KvLocation::Memory)),
                (other, _) => bail!("[key_value_store.{label}] type = {other:?} is not supported by this host yet; \"spin\" is"),
            }
        }
        for provider in file.variables_provider {
            let values = match provider {
                Provider::Static { values } => values,
                Provider::Env { prefix } => {
                    let prefix = format!("{}_", prefix.as_deref().unwrap_or("SPIN_VARIABLE"));
                    std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_lowercase(), value))).collect()
                }
            };
            // The first provider that knows a name counts.
            for (name, value) in values {
                config.variables.entry(name).or_insert(value);
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_as_in_spin() {
        let text = "[sqlite_database.default]\ntype = \"spin\"\npath = \"a.db\"\n[key_value_store.default]\ntype = \"spin\"\npath = \"k.db\"\n[key_value_store.m]\ntype = \"spin\"\n";
        let config = RuntimeConfig::parse(text, Path::new("/etc/app")).expect("valid");
        assert_eq!(config.sqlite["default"], Path::new("a.db"));
        assert!(matches!(&config.key_value["default"], KvLocation::File(path) if path == Path::new("/etc/app/k.db")));
        assert!(matches!(&config.key_value["m"], KvLocation::Memory));
    }

    #[test]
    fn other_backends_are_refused_by_name() {
        let error =
            RuntimeConfig::parse("[key_value_store.default]\ntype = \"redis\"\n", Path::new("")).expect_err("unsupported").to_string();
        assert!(error.contains("redis"), "{error}");
    }
}
