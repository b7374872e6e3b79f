//! Bringing the app's database up to date.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::root;
use crate::state;

/// Applies what is missing to this file, or to the database of runtime-config.toml.
pub fn migrate(database: Option<&Path>) -> Result<()> {
    let database = match database {
        Some(file) => std::path::absolute(file)?,
        None => state::database(&state::default_runtime_config())?,
    };
    migrate_file(&database)
}

pub fn migrate_file(database: &Path) -> Result<()> {
    if let Some(folder) = database.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let report =
        migrations::apply(database, &root().join("migrations")).with_context(|| format!("cannot migrate {}", database.display()))?;
    for name in &report.applied {
        eprintln!("    applied {name}");
    }
    let state = if report.applied.is_empty() { "is up to date" } else { "is now up to date" };
    eprintln!("    {} {state} ({} migrations)", database.display(), report.already + report.applied.len());
    Ok(())
}
