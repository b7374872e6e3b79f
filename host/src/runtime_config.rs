//! `runtime-config.toml`: where the stores are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::{KvLocation, SqliteLocation};

/// Where each store lies and what the providers say.
#[derive(Clone, Debug, Default)]
pub struct RuntimeConfig {
    pub sqlite: BTreeMap<String, SqliteLocation>,
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
    url: Option<String>,
    token: Option<String>,
}

impl Store {
    /// Refuses keys that belong to another type of store.
    fn only(&self, place: &str, allowed: &[&str]) -> Result<()> {
        let given = [("path", self.path.is_some()), ("url", self.url.is_some()), ("token", self.token.is_some())];
        match given.iter().find(|(key, given)| *given && !allowed.contains(key)) {
            Some((key, _)) => bail!("{place} is of type {:?}, which has no key {key:?}", self.kind),
            None => Ok(()),
        }
    }
}

/// A key that a type of store cannot do without.
fn required<T>(value: Option<T>, place: &str, key: &str) -> Result<T> {
    value.with_context(|| format!("{place} needs the key {key:?}"))
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
        // The parser's own message shows the line, and a line may hold a password.
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            anyhow!("line {line}: {}", error.message())
        })?;
        let state = file.state_dir.unwrap_or_else(|| PathBuf::from(".spin"));
        let mut config = Self::default();
        config.sqlite.insert("default".into(), SqliteLocation::File(state.join("sqlite_db.db")));
        config.key_value.insert("default".into(), KvLocation::File(state.join("sqlite_key_value.db")));
        for (label, store) in file.sqlite_database {
            let place = format!("[sqlite_database.{label}]");
            let location = match store.kind.as_str() {
                "spin" => {
                    store.only(&place, &["path"])?;
                    let Some(path) = store.path else {
                        bail!("{place} needs a path: a database in memory would be empty at every request")
                    };
                    SqliteLocation::File(path)
                }
                "libsql" => {
                    store.only(&place, &["url", "token"])?;
                    let url = required(store.url, &place, "url")?;
                    ensure!(url.starts_with("http://") || url.starts_with("https://"), "{place} url must begin with http:// or https://");
                    SqliteLocation::Libsql { url, token: required(store.token, &place, "token")? }
                }
                other => bail!("{place} type = {other:?} is not supported by this host; \"spin\" and \"libsql\" are"),
            };
            config.sqlite.insert(label, location);
        }
        for (label, store) in file.key_value_store {
            let place = format!("[key_value_store.{label}]");
            let location = match store.kind.as_str() {
                "spin" => {
                    store.only(&place, &["path"])?;
                    store.path.map_or(KvLocation::Memory, |path| KvLocation::File(folder.join(path)))
                }
                "redis" => {
                    store.only(&place, &["url"])?;
                    KvLocation::Redis { url: required(store.url, &place, "url")? }
                }
                other => bail!("{place} type = {other:?} is not supported by this host; \"spin\" and \"redis\" are"),
            };
            config.key_value.insert(label, location);
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
        assert!(matches!(&config.sqlite["default"], SqliteLocation::File(path) if path == Path::new("a.db")));
        assert!(matches!(&config.key_value["default"], KvLocation::File(path) if path == Path::new("/etc/app/k.db")));
        assert!(matches!(&config.key_value["m"], KvLocation::Memory));
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", RuntimeConfig::parse(text, Path::new("")).expect_err("refused"))
    }

    #[test]
    fn servers_have_an_address_and_their_secrets_are_not_shown() {
        let text = "[sqlite_database.default]\ntype = \"libsql\"\nurl = \"https://a.test\"\ntoken = \"geheim\"\n\
                    [key_value_store.default]\ntype = \"redis\"\nurl = \"redis://:geheim@b.test:6379/1\"\n";
        let config = RuntimeConfig::parse(text, Path::new("")).expect("valid");
        assert!(matches!(&config.sqlite["default"], SqliteLocation::Libsql { url, token } if url == "https://a.test" && token == "geheim"));
        assert!(matches!(&config.key_value["default"], KvLocation::Redis { url } if url.starts_with("redis://")));
        assert!(!format!("{config:?}").contains("geheim"), "{config:?}");
    }

    #[test]
    fn what_is_missing_unknown_or_elsewhere_is_named() {
        assert!(refusal("[key_value_store.default]\ntype = \"azure_cosmos\"\n").contains("azure_cosmos"));
        assert!(refusal("[key_value_store.default]\ntype = \"redis\"\n").contains("\"url\""));
        assert!(
            refusal("[sqlite_database.a]\ntype = \"libsql\"\nurl = \"http://a.test\"\n")
                .contains("[sqlite_database.a] needs the key \"token\"")
        );
        assert!(refusal("[sqlite_database.a]\ntype = \"libsql\"\nurl = \"libsql://a.test\"\ntoken = \"\"\n").contains("https://"));
        assert!(refusal("[sqlite_database.a]\ntype = \"spin\"\npath = \"a\"\ntoken = \"geheim\"\n").contains("has no key \"token\""));
        let unknown = refusal("[sqlite_database.a]\ntype = \"libsql\"\ntokn = \"geheim\"\n");
        assert!(unknown.contains("line 3") && unknown.contains("tokn") && !unknown.contains("geheim"), "{unknown}");
    }
}
