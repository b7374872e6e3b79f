//! The same for a database on a libSQL server.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hrana::{Client, Stream, Value};

use crate::{Applied, BUSY_TIMEOUT, Error, RECORD, Report, VIOLATIONS, Violations, check_known, load};

/// Applies what is missing to a database on a server. Each file is one transaction on a stream of its own; a stream that breaks takes its
/// transaction with it. Whoever comes second waits for the first.
pub fn apply_to_server(client: &Client, dir: &Path) -> Result<Report, Error> {
    let migrations = load(dir)?;
    let mut report = Report { applied: Vec::new(), already: 0 };
    for migration in &migrations {
        let mut stream = begin(client)?;
        stream.run(RECORD, &[])?;
        let known = known(&mut stream)?;
        check_known(&known, &migrations)?;
        if known.iter().any(|applied| applied.version == migration.version) {
            stream.run("COMMIT", &[])?;
            report.already += 1;
            continue;
        }
        let failed = |source| Error::FailedThere { name: migration.name.clone(), source };
        stream.sequence(&migration.sql).map_err(failed)?;
        if stream.is_autocommit()? {
            return Err(Error::EndsTransaction { name: migration.name.clone() });
        }
        let violations = dangling_references(&mut stream)?;
        if !violations.0.is_empty() {
            return Err(Error::DanglingReferences { name: migration.name.clone(), violations });
        }
        let record =
            [Value::Integer(migration.version.into()), Value::Text(migration.name.clone()), Value::Text(migration.checksum.clone())];
        stream.run("INSERT INTO schema_migrations (version, name, checksum) VALUES (?1, ?2, ?3)", &record).map_err(failed)?;
        stream.run("COMMIT", &[]).map_err(failed)?;
        report.applied.push(migration.name.clone());
    }
    Ok(report)
}

/// Takes the lock before the record is read: whoever waits here sees what the other has done.
fn begin(client: &Client) -> Result<Stream, Error> {
    let start = Instant::now();
    loop {
        let mut stream = client.stream();
        match stream.run("BEGIN IMMEDIATE", &[]) {
            Ok(_) => return Ok(stream),
            // The server itself waits for a moment only.
            Err(hrana::Error::Sql(text)) if is_busy(&text) && start.elapsed() < BUSY_TIMEOUT => thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_busy(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("locked") || text.contains("busy")
}

fn known(stream: &mut Stream) -> Result<Vec<Applied>, Error> {
    let rows = stream.run("SELECT version, name, checksum FROM schema_migrations ORDER BY version", &[])?;
    let applied = rows.into_iter().filter_map(|row| match <[Value; 3]>::try_from(row) {
        Ok([Value::Integer(version), Value::Text(name), Value::Text(checksum)]) => {
            Some(Applied { version: u32::try_from(version).ok()?, name, checksum })
        }
        _ => None,
    });
    Ok(applied.collect())
}

fn dangling_references(stream: &mut Stream) -> Result<Violations, Error> {
    let rows = stream.run(VIOLATIONS, &[])?;
    let violations = rows.into_iter().filter_map(|row| match <[Value; 3]>::try_from(row) {
        Ok([Value::Text(table), Value::Text(parent), Value::Integer(rows)]) => Some((table, parent, usize::try_from(rows).ok()?)),
        _ => None,
    });
    Ok(Violations(violations.collect()))
}
