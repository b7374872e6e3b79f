//! Bringing the app's database up to date.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::root;
use crate::place::{Database, Place};

/// Applies what is missing to the database of this place.
pub fn migrate(place: &Place) -> Result<()> {
    match place.find()? {
        Database::File(file) => migrate_file(&file),
        Database::Server(client, url) => {
            let report =
                migrations::apply_to_server(&client, &root().join("migrations")).with_context(|| format!("cannot migrate {url}"))?;
            tell(&url, &report);
            Ok(())
        }
    }
}

pub fn migrate_file(database: &Path) -> Result<()> {
    if let Some(folder) = database.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let report =
        migrations::apply(database, &root().join("migrations")).with_context(|| format!("cannot migrate {}", database.display()))?;
    tell(&database.display().to_string(), &report);
    Ok(())
}

fn tell(database: &str, report: &migrations::Report) {
    for name in &report.applied {
        eprintln!("    applied {name}");
    }
    let state = if report.applied.is_empty() { "is up to date" } else { "is now up to date" };
    eprintln!("    {database} {state} ({} migrations)", report.already + report.applied.len());
}
