//! Which database a chore is about: a file on this machine, or one on a libSQL server.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Deserialize;

use crate::state;

#[derive(Args)]
pub struct Place {
    /// The database's file; the database of runtime-config.toml when neither file nor server is named
    #[arg(long, conflicts_with_all = ["url", "runtime_config"])]
    database: Option<PathBuf>,
    /// The database's libSQL server, as in https://name-org.turso.io
    #[arg(long, conflicts_with = "runtime_config")]
    url: Option<String>,
    /// The token of that server; better given in the environment
    #[arg(long, env = "LIBSQL_AUTH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The database that another runtime configuration names
    #[arg(long, value_name = "FILE")]
    runtime_config: Option<PathBuf>,
}

/// Where the database is.
pub enum Database {
    File(PathBuf),
    /// A client, and the server's address for messages.
    Server(hrana::Client, String),
}

impl Place {
    pub fn find(&self) -> Result<Database> {
        if let Some(file) = &self.database {
            return Ok(Database::File(std::path::absolute(file)?));
        }
        if let Some(url) = &self.url {
            return Ok(Database::Server(hrana::Client::new(url, self.token.as_deref()), url.clone()));
        }
        let config = self.runtime_config.clone().unwrap_or_else(state::default_runtime_config);
        let text = std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        match server(&text).with_context(|| format!("cannot read {}", config.display()))? {
            Some((url, token)) => Ok(Database::Server(hrana::Client::new(&url, self.token.as_deref().or(Some(&token))), url)),
            None => Ok(Database::File(state::database(&config)?)),
        }
    }
}

/// Address and token of the app's database, where a runtime configuration has it on a server.
fn server(runtime_config: &str) -> Result<Option<(String, String)>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        sqlite_database: std::collections::BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        r#type: String,
        url: Option<String>,
        token: Option<String>,
    }
    // Without the parser's picture of the line: it may hold the token.
    let mut config: Config = toml::from_str(runtime_config).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    let Some(entry) = config.sqlite_database.remove("default").filter(|entry| entry.r#type == "libsql") else { return Ok(None) };
    let url = entry.url.context("[sqlite_database.default] has no url")?;
    Ok(Some((url, entry.token.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_configuration_may_name_a_server() -> Result<()> {
        let found = server("[sqlite_database.default]\ntype = \"libsql\"\nurl = \"https://a.test\"\ntoken = \"t\"\n")?;
        assert_eq!(found, Some(("https://a.test".to_owned(), "t".to_owned())));
        assert_eq!(server("[sqlite_database.default]\ntype = \"spin\"\npath = \"a.db\"\n")?, None);
        assert!(server("[sqlite_database.default]\ntype = \"libsql\"\n").is_err());
        Ok(())
    }
}
