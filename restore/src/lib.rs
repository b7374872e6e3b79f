//! Restores a backup into a new database, and looks whether it is all there.
//!
//! The new file gets the schema that the backup holds (tables first, then the rows, then indexes, views and triggers, so that no trigger
//! does a second time what it did when a row was made), is checked from end to end, brought up to date with the migrations of the
//! source at hand, and freed of everybody who has been erased since. Only then it gets its name: what is cut off leaves no database behind.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use audit::log::Act;
use backup::{Manifest, Table, Unpacker, Value, schema::quoted};
use rusqlite::Connection;
use seal::Keys;
use storage::key;

pub mod source;

use source::Source;

/// Which backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest that is complete.
    Latest,
    /// The one of this id.
    Id(String),
}

/// A manifest is some KiB, a note of an erasure some bytes.
const SMALL: u64 = 1 << 20;

/// What was restored.
#[derive(Debug)]
pub struct Report {
    pub into: PathBuf,
    pub manifest: Manifest,
    /// Names of objects of the schema that the migrations would have made otherwise, or not at all.
    pub foreign: Vec<String>,
    /// Migrations that are newer than the backup; they have been applied.
    pub applied: Vec<String>,
    /// Ids of people who were erased after the backup was made; they are erased in the new database too.
    pub erased: Vec<String>,
    pub audit: Vec<Verdict>,
    pub took: Duration,
}

/// What became of one rule.
#[derive(Debug)]
pub struct Verdict {
    pub id: &'static str,
    pub rule: &'static str,
    /// The ids of what breaks it.
    pub offenders: Vec<String>,
}

impl Report {
    /// How many rows break a rule.
    #[must_use]
    pub fn wrong(&self) -> usize {
        self.audit.iter().map(|verdict| verdict.offenders.len()).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { id, app, rows, .. } = &self.manifest;
        writeln!(f, "{} is what backup {id} (app {app}) holds", self.into.display())?;
        for (table, count) in rows {
            writeln!(f, "{count:>12}  {table}")?;
        }
        writeln!(
            f,
            "{:>12}  rows in {:.1} s; counts, checksums, references and the file itself are right",
            rows.values().sum::<u64>(),
            self.took.as_secs_f64()
        )?;
        for name in &self.foreign {
            writeln!(f, "note: {name} is not as the migrations make it; it was restored as it was")?;
        }
        for name in &self.applied {
            writeln!(f, "applied {name}, which is newer than the backup")?;
        }
        for user in &self.erased {
            writeln!(f, "erased {user}, who has gone since; their files follow with the next cleanup")?;
        }
        for Verdict { id, rule, offenders } in &self.audit {
            let verdict = if offenders.is_empty() { "ok".to_owned() } else { format!("{} WRONG", offenders.len()) };
            writeln!(f, "{id:<4} {verdict:>8}  {rule}")?;
            for offender in offenders.iter().take(20) {
                writeln!(f, "     {offender}")?;
            }
        }
        Ok(())
    }
}

/// Restores into a file that is not there yet, or empty.
///
/// # Errors
/// In words for whoever does it. Nothing is left under the name of the new database then.
pub fn restore(source: &dyn Source, which: &Which, keys: &Keys, migrations: &Path, into: &Path) -> Result<Report> {
    let started = Instant::now();
    refuse_existing(into)?;
    let manifest = choose(source, which)?;
    let partial = beside(into, ".restoring");
    for file in [partial.clone(), beside(&partial, "-wal"), beside(&partial, "-shm")] {
        // What a restore left that was cut off.
        let _ = fs::remove_file(file);
    }
    let made = make(source, &manifest, keys, migrations, &partial);
    let (foreign, applied, erased, audit) = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    };
    File::open(&partial)?.sync_all()?;
    // Somebody may have been quicker.
    refuse_existing(into)?;
    fs::rename(&partial, into).with_context(|| format!("cannot name the new database {}", into.display()))?;
    if let Some(folder) = into.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(Report { into: into.to_owned(), manifest, foreign, applied, erased, audit, took: started.elapsed() })
}

fn refuse_existing(into: &Path) -> Result<()> {
    for file in [into.to_owned(), beside(into, "-wal"), beside(into, "-shm"), beside(into, "-journal")] {
        let empty = fs::metadata(&file).map_or(true, |found| found.is_file() && found.len() == 0);
        ensure!(
            empty,
            "{} is there already; a backup is restored into a new database only, so name another file with --into",
            file.display()
        );
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The backups that there are: complete ones, and those that were never finished.
fn backups(source: &dyn Source) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut complete, mut all) = (BTreeSet::new(), BTreeSet::new());
    for object in source.list(key::BACKUPS)? {
        let Some((id, name)) = object.strip_prefix(key::BACKUPS).and_then(|rest| rest.split_once('/')) else { continue };
        if backup::made_at(id).is_none() {
            continue;
        }
        all.insert(id.to_owned());
        if object == key::backup_manifest(id) && name == "manifest.json" {
            complete.insert(id.to_owned());
        }
    }
    let unfinished = all.difference(&complete).cloned().collect();
    Ok((complete, unfinished))
}

fn choose(source: &dyn Source, which: &Which) -> Result<Manifest> {
    let (complete, unfinished) = backups(source)?;
    let id = match which {
        Which::Latest => complete.last().cloned().context("there is no complete backup here")?,
        Which::Id(id) if complete.contains(id) => id.clone(),
        Which::Id(id) if unfinished.contains(id) => {
            bail!("the backup {id} was never finished: it has no manifest. Choose another: {}", list(&complete))
        }
        Which::Id(id) => bail!("there is no backup {id}. There are: {}", list(&complete)),
    };
    let text = small(source, &key::backup_manifest(&id))?.context("the manifest has just gone")?;
    // A newer form may have another manifest; its number is where it was.
    let format = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|manifest| manifest["format"].as_u64());
    if let Some(newer) = format.filter(|format| *format > u64::from(backup::FORMAT)) {
        bail!("the backup {id} has the form {newer}, which is newer than this program; use a newer one");
    }
    let manifest: Manifest = serde_json::from_slice(&text).with_context(|| format!("the manifest of {id} is none"))?;
    ensure!(manifest.id == id, "the manifest of {id} is that of {}", manifest.id);
    Ok(manifest)
}

fn list(ids: &BTreeSet<String>) -> String {
    if ids.is_empty() { "none".to_owned() } else { ids.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn small(source: &dyn Source, key: &str) -> Result<Option<Vec<u8>>> {
    let Some(object) = source.open(key)? else { return Ok(None) };
    let mut bytes = Vec::new();
    object.take(SMALL).read_to_end(&mut bytes).with_context(|| format!("cannot read {key}"))?;
    Ok(Some(bytes))
}

type Made = (Vec<String>, Vec<String>, Vec<String>, Vec<Verdict>);

fn make(source: &dyn Source, manifest: &Manifest, keys: &Keys, folder: &Path, partial: &Path) -> Result<Made> {
    let mut database = Connection::open(partial).with_context(|| format!("cannot make {}", partial.display()))?;
    // Nobody sees this file before it is whole, so nothing has to be safe against a crash yet. References and triggers come later.
    database
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -65536;")?;
    fill(&database, source, manifest, keys)?;
    check(&database)?;
    let foreign = foreign(&database, manifest, folder)?;
    let applied = match manifest.schema_version {
        Some(_) => migrations::apply_to(&mut database, folder).context("the backup is restored, and cannot be brought up to date")?.applied,
        None => Vec::new(),
    };
    let erased = erase(&mut database, source)?;
    let audit = audit(&database)?;
    database.close().map_err(|(_, error)| error)?;
    // The mode stays in the file; see crates/database. A connection that kept no journal cannot change to it.
    let database = Connection::open(partial)?;
    let mode: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "the new database stays in the mode {mode}");
    database.close().map_err(|(_, error)| error)?;
    Ok((foreign, applied, erased, audit))
}

/// Reads the backup from end to end.
fn fill(database: &Connection, source: &dyn Source, manifest: &Manifest, keys: &Keys) -> Result<()> {
    let data =
        source.open(&key::backup_data(&manifest.id))?.with_context(|| format!("the backup {} has a manifest and no data", manifest.id))?;
    let mut unpacker = Unpacker::begin(data, keys, &manifest.id)?;
    let tables = unpacker.header().tables.clone();
    let mut inserts = vec![None; tables.len()];
    let mut later = Vec::new();
    database.execute_batch("BEGIN")?;
    while let Some((number, values)) = unpacker.next()? {
        let table = &tables[number];
        if number == 0 {
            let [Value::Text(kind), Value::Text(name), _, Value::Text(sql)] = values.as_slice() else {
                bail!("the backup's schema is none")
            };
            if kind == "table" {
                database.execute_batch(sql).with_context(|| format!("cannot make the table {name}"))?;
            } else {
                later.push((kind.clone(), name.clone(), sql.clone()));
            }
            continue;
        }
        let sql = inserts[number].get_or_insert_with(|| insert(table));
        let mut statement = database.prepare_cached(sql).with_context(|| format!("cannot fill the table {}", table.name))?;
        statement
            .execute(rusqlite::params_from_iter(values.into_iter().map(to_sql)))
            .with_context(|| format!("a row of {}", table.name))?;
    }
    // A trigger may be on a view.
    for wanted in ["index", "view", "trigger"] {
        for (_, name, sql) in later.iter().filter(|(kind, ..)| kind == wanted) {
            database.execute_batch(sql).with_context(|| format!("cannot make the {wanted} {name}"))?;
        }
    }
    database.execute_batch("COMMIT")?;
    let totals = unpacker.totals();
    let said = (&manifest.rows, manifest.plain_bytes, &manifest.plain_sha256, manifest.stored_bytes, &manifest.stored_sha256);
    let found = (&totals.rows, totals.plain_bytes, &totals.plain_sha256, totals.stored_bytes, &totals.stored_sha256);
    ensure!(said == found, "the backup {} is not what its manifest says: one of the two was changed", manifest.id);
    for table in tables.iter().skip(1) {
        let count: u64 = database.query_row(&format!("SELECT count(*) FROM {}", quoted(&table.name)), [], |row| row.get(0))?;
        ensure!(
            totals.rows.get(&table.name) == Some(&count),
            "{} rows of {} were read, and {count} are there",
            totals.rows[&table.name],
            table.name
        );
    }
    Ok(())
}

fn insert(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    let places = (1..=table.columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    format!("INSERT INTO {} ({columns}) VALUES ({places})", quoted(&table.name))
}

fn to_sql(value: Value) -> rusqlite::types::Value {
    match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(number) => rusqlite::types::Value::Integer(number),
        Value::Real(number) => rusqlite::types::Value::Real(number),
        Value::Text(text) => rusqlite::types::Value::Text(text),
        Value::Blob(bytes) => rusqlite::types::Value::Blob(bytes),
    }
}

/// Asks SQLite itself: the file, and every reference in it.
fn check(database: &Connection) -> Result<()> {
    let words: Vec<String> = texts(database, "SELECT integrity_check FROM pragma_integrity_check")?;
    ensure!(words == ["ok"], "the new database is damaged: {}", words.iter().take(5).cloned().collect::<Vec<_>>().join("; "));
    let dangling = texts(
        database,
        r#"SELECT count(*) || ' of ' || "table" || ' to ' || parent FROM pragma_foreign_key_check GROUP BY "table", parent"#,
    )?;
    ensure!(dangling.is_empty(), "rows refer to what is not there: {}", dangling.join(", "));
    Ok(())
}

/// What is not as the migrations up to the backup's own would make it.
fn foreign(database: &Connection, manifest: &Manifest, folder: &Path) -> Result<Vec<String>> {
    let Some(version) = manifest.schema_version else { return Ok(vec!["the schema (it has no record of migrations)".to_owned()]) };
    let mut fresh = Connection::open_in_memory()?;
    migrations::apply_up_to(&mut fresh, folder, u32::try_from(version)?)?;
    let objects = |database: &Connection| -> Result<BTreeSet<(String, String)>> {
        let mut statement =
            database.prepare(r"SELECT name, type || ' ' || sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\'")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let (there, usual) = (objects(database)?, objects(&fresh)?);
    let names: BTreeSet<String> = there.symmetric_difference(&usual).map(|(name, _)| name.clone()).collect();
    Ok(names.into_iter().collect())
}

/// Erases everybody again who has gone since the backup was made: `crates/erasure` leaves a note of each beside the backups.
fn erase(database: &mut Connection, source: &dyn Source) -> Result<Vec<String>> {
    let mut erased = Vec::new();
    let change = database.transaction()?;
    for object in source.list(key::ERASURES)? {
        let user = &object[key::ERASURES.len()..];
        let Some(note) = small(source, &object)? else { continue };
        let note: serde_json::Value = serde_json::from_slice(&note).with_context(|| format!("{object} is no note of an erasure"))?;
        let erased_at = note["erased_at"].as_i64().with_context(|| format!("{object} does not say when"))?;
        let back = "SELECT count(*) FROM users WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM erasures WHERE user_id = ?1)";
        if change.query_row(back, [user], |row| row.get::<_, i64>(0))? == 0 {
            continue;
        }
        // Nobody goes with a plan that goes on, so it was cancelled after the backup was made. The provider is asked how it stands.
        let plan = "UPDATE subscriptions SET provider_status = 'scheduled_cancel', next_look_at = 0 \
                    WHERE user_id = ?1 AND status = 'active' AND provider_status <> 'scheduled_cancel'";
        change.execute(plan, [user])?;
        // Due at once: the sweep looks for their files.
        change
            .execute("INSERT INTO erasures (user_id, asked_at, next_look_at) VALUES (?1, ?2, ?2)", (user, erased_at))
            .with_context(|| format!("cannot erase {user}, who has gone"))?;
        erased.push(user.to_owned());
    }
    change.commit()?;
    Ok(erased)
}

/// As `cargo xtask audit`, without its rules about what is overdue: in a backup of yesterday something always is.
fn audit(database: &Connection) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for rule in audit::INVARIANTS {
        let offenders = texts(database, rule.offenders).with_context(|| format!("{} cannot be asked", rule.id))?;
        verdicts.push(Verdict { id: rule.id, rule: rule.rule, offenders });
    }
    let mut statement = database.prepare(&format!("SELECT {} FROM admin_log ORDER BY seq", audit::log::COLUMNS))?;
    // A column of another type does not fit the hash of its row.
    let acts =
        statement.query_map([], |row| Ok(Act::of_columns(|at| row.get(at).unwrap_or_default(), |at| row.get(at).unwrap_or_default())))?;
    let acts: Vec<Act> = acts.collect::<Result<_, _>>()?;
    let offenders = audit::log::first_wrong(&acts).map(|seq| format!("{seq} is the first that does not fit")).into_iter().collect();
    verdicts.push(Verdict { id: "L1", rule: "the admins' log is a chain, and each act is as it was written", offenders });
    Ok(verdicts)
}

/// The first column of each row, as text.
fn texts(database: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = database.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().map_err(|error| anyhow!("{error}"))?.to_owned(),
        });
    }
    Ok(found)
}
