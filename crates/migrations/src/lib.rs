//! Applies the SQL files of a folder to a SQLite database, in a file or on a libSQL server: each once, in order, each as one transaction.
//!
//! A file is named `NNNN_name.sql`; numbers begin at 1 and leave no gap. What was applied is recorded in the table
//! `schema_migrations` with a checksum, so that a file edited afterwards is refused instead of silently ignored.
//! Any number of processes may apply at the same time: one does the work and the others find it done.

mod remote;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use sha2::{Digest as _, Sha256};

pub use remote::apply_to_server;

/// How long a process waits for another one that is applying.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

const RECORD: &str = "
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version    INTEGER NOT NULL PRIMARY KEY,
        name       TEXT    NOT NULL,
        checksum   TEXT    NOT NULL,
        applied_at INTEGER NOT NULL DEFAULT (unixepoch())
    ) STRICT";

/// One file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub version: u32,
    /// The file's name without `.sql`, as in `0001_people`.
    pub name: String,
    pub sql: String,
    /// SHA-256 of the file, in hex.
    pub checksum: String,
}

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The names of the migrations applied now.
    pub applied: Vec<String>,
    /// How many had been applied before.
    pub already: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not named like a migration: rename it to NNNN_name.sql, as in 0007_teams.sql", .0.display())]
    Misnamed(PathBuf),
    #[error("two migrations have the number {version:04}: {first} and {second}; renumber the newer one")]
    Duplicate { version: u32, first: String, second: String },
    #[error("there is no migration {missing:04}, though {next} follows; numbers leave no gap")]
    Gap { missing: u32, next: String },
    #[error("{} holds no migrations", .0.display())]
    Empty(PathBuf),
    #[error("{name} was changed after it was applied to this database; undo the change and put it into a new migration")]
    Changed { name: String },
    #[error("this database has migration {name}, which is missing from the folder; is the source older than the database?")]
    Missing { name: String },
    #[error("{name} was not applied: {source}")]
    Failed { name: String, source: rusqlite::Error },
    #[error(
        "{name} ends its transaction itself, so part of it may stay in the database, which is best restored; \
         take BEGIN, COMMIT and ROLLBACK out of the file"
    )]
    EndsTransaction { name: String },
    #[error("{name} was not applied: it leaves rows that refer to nothing: {violations}")]
    DanglingReferences { name: String, violations: Violations },
    #[error("cannot open the database {}: {source}", path.display())]
    Unopened { path: PathBuf, source: rusqlite::Error },
    #[error("the database refuses: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("{name} was not applied: {source}")]
    FailedThere { name: String, source: hrana::Error },
    #[error("the server refuses: {0}")]
    Server(#[from] hrana::Error),
}

/// Rows whose foreign keys point nowhere, counted by table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(Vec<(String, String, usize)>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (table, parent, rows)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{rows} of {table} to {parent}")?;
        }
        Ok(())
    }
}

/// Applies what is missing to the database in this file, which is created if there is none.
pub fn apply(path_to_db: &Path, dir: &Path) -> Result<Report, Error> {
    let unopened = |source| Error::Unopened { path: path_to_db.to_owned(), source };
    let mut connection = Connection::open(path_to_db).map_err(unopened)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    use_wal(&connection).map_err(unopened)?;
    apply_to(&mut connection, dir)
}

/// Readers go on while somebody writes. The mode is stored in the file; it stays for everyone who opens it later.
fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        let switched = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match switched {
            // The switch is the one thing that SQLite does not wait for on its own when two do it at once.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < BUSY_TIMEOUT => {
                thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome.map(drop),
        }
    }
}

/// Applies what is missing to an open database.
pub fn apply_to(connection: &mut Connection, dir: &Path) -> Result<Report, Error> {
    apply_all(connection, &load(dir)?)
}

/// As [`apply_to`], but nothing that is newer than the `last` migration: the database is one of that time.
pub fn apply_up_to(connection: &mut Connection, dir: &Path, last: u32) -> Result<Report, Error> {
    let mut migrations = load(dir)?;
    migrations.retain(|migration| migration.version <= last);
    apply_all(connection, &migrations)
}

fn apply_all(connection: &mut Connection, migrations: &[Migration]) -> Result<Report, Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // It cannot be changed inside a transaction, and not every build of SQLite has it on.
    connection.pragma_update(None, "foreign_keys", true)?;

    let mut report = Report { applied: Vec::new(), already: 0 };
    for migration in migrations {
        // The lock is taken before the record is read: whoever waits here sees what the other has done.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(RECORD)?;
        let known = known(&transaction)?;
        check_known(&known, migrations)?;
        if known.iter().any(|applied| applied.version == migration.version) {
            // Nothing was changed, unless the table was made just now.
            transaction.commit()?;
            report.already += 1;
            continue;
        }
        let failed = |source| Error::Failed { name: migration.name.clone(), source };
        transaction.execute_batch(&migration.sql).map_err(failed)?;
        if transaction.is_autocommit() {
            return Err(Error::EndsTransaction { name: migration.name.clone() });
        }
        let violations = dangling_references(&transaction)?;
        if !violations.0.is_empty() {
            return Err(Error::DanglingReferences { name: migration.name.clone(), violations });
        }
        transaction
            .execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES (?1, ?2, ?3)",
                (migration.version, &migration.name, &migration.checksum),
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        report.applied.push(migration.name.clone());
    }
    Ok(report)
}

/// Reads the folder's migrations, in order.
pub fn load(dir: &Path) -> Result<Vec<Migration>, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Unreadable { path, source }
    };
    let mut migrations: Vec<Migration> = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        // A README may explain the files beside it.
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let (version, name) = number_and_name(&path).ok_or_else(|| Error::Misnamed(path.clone()))?;
        let sql = fs::read_to_string(&path).map_err(unreadable(&path))?;
        let checksum = Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        migrations.push(Migration { version, name, sql, checksum });
    }
    migrations.sort_by(|a, b| (a.version, &a.name).cmp(&(b.version, &b.name)));
    if migrations.is_empty() {
        return Err(Error::Empty(dir.to_owned()));
    }
    for pair in migrations.windows(2) {
        if let [first, second] = pair
            && first.version == second.version
        {
            return Err(Error::Duplicate { version: first.version, first: first.name.clone(), second: second.name.clone() });
        }
    }
    for (expected, migration) in (1..).zip(&migrations) {
        if migration.version != expected {
            return Err(Error::Gap { missing: expected, next: migration.name.clone() });
        }
    }
    Ok(migrations)
}

fn number_and_name(path: &Path) -> Option<(u32, String)> {
    let stem = path.file_stem()?.to_str()?;
    let (number, rest) = stem.split_once('_')?;
    let well_formed = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()) && !rest.is_empty();
    let version = number.parse().ok().filter(|version| well_formed && *version > 0)?;
    Some((version, stem.to_owned()))
}

struct Applied {
    version: u32,
    name: String,
    checksum: String,
}

fn known(connection: &Connection) -> Result<Vec<Applied>, Error> {
    let mut statement = connection.prepare("SELECT version, name, checksum FROM schema_migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| Ok(Applied { version: row.get(0)?, name: row.get(1)?, checksum: row.get(2)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn check_known(known: &[Applied], migrations: &[Migration]) -> Result<(), Error> {
    for applied in known {
        match migrations.iter().find(|migration| migration.version == applied.version) {
            None => {
                return Err(Error::Missing { name: applied.name.clone() });
            }
            Some(migration) if migration.checksum != applied.checksum => {
                return Err(Error::Changed { name: migration.name.clone() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

const VIOLATIONS: &str = r#"SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY "table", parent ORDER BY 1, 2"#;

fn dangling_references(connection: &Connection) -> Result<Violations, Error> {
    let mut statement = connection.prepare(VIOLATIONS)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as usize)))?;
    Ok(Violations(rows.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tempfile::TempDir;

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const PEOPLE: &str = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL);";
    const LETTERS: &str = "
        CREATE TABLE letters (id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES people (id));
        CREATE TRIGGER letters_are_kept BEFORE DELETE ON letters
        BEGIN
            SELECT RAISE(ABORT, 'letters_are_kept');
            SELECT 1;
        END;";

    /// A folder of migrations and a database beside it.
    struct Scene(TempDir);

    impl Scene {
        fn with(files: &[(&str, &str)]) -> io::Result<Self> {
            let scene = Self(TempDir::new()?);
            fs::create_dir(scene.folder())?;
            for (name, sql) in files {
                scene.write(name, sql)?;
            }
            Ok(scene)
        }

        fn write(&self, name: &str, sql: &str) -> io::Result<()> {
            fs::write(self.folder().join(name), sql)
        }

        fn folder(&self) -> PathBuf {
            self.0.path().join("migrations")
        }

        fn database(&self) -> PathBuf {
            self.0.path().join("app.db")
        }

        fn apply(&self) -> Result<Report, Error> {
            apply(&self.database(), &self.folder())
        }

        fn refusal(&self) -> String {
            match self.apply() {
                Ok(report) => format!("no refusal but {report:?}"),
                Err(error) => error.to_string(),
            }
        }

        fn tables(&self) -> rusqlite::Result<Vec<String>> {
            let connection = Connection::open(self.database())?;
            let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
            let names = statement.query_map([], |row| row.get(0))?;
            names.collect()
        }
    }

    #[test]
    fn each_file_is_applied_once_and_in_order() -> Outcome {
        let scene = Scene::with(&[("0002_letters.sql", LETTERS), ("0001_people.sql", PEOPLE), ("README.md", "no SQL")])?;
        let first = scene.apply()?;
        assert_eq!(first.applied, ["0001_people", "0002_letters"]);
        assert_eq!(first.already, 0);

        scene.write("0003_places.sql", "CREATE TABLE places (id INTEGER PRIMARY KEY);")?;
        let second = scene.apply()?;
        assert_eq!(second.applied, ["0003_places"]);
        assert_eq!(second.already, 2);
        assert_eq!(scene.apply()?, Report { applied: vec![], already: 3 });
        Ok(())
    }

    #[test]
    fn what_was_applied_is_recorded_with_its_checksum() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE)])?;
        scene.apply()?;
        let connection = Connection::open(scene.database())?;
        let (version, name, checksum, age): (u32, String, String, i64) =
            connection.query_row("SELECT version, name, checksum, unixepoch() - applied_at FROM schema_migrations", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
        assert_eq!((version, name.as_str()), (1, "0001_people"));
        assert_eq!(checksum.len(), 64);
        assert_eq!(checksum, load(&scene.folder())?[0].checksum);
        assert!((0..60).contains(&age));
        Ok(())
    }

    #[test]
    fn the_database_is_left_in_wal_mode() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE)])?;
        scene.apply()?;
        let mode: String = Connection::open(scene.database())?.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        assert_eq!(mode, "wal");
        Ok(())
    }

    #[test]
    fn a_changed_file_is_refused_by_name() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE)])?;
        scene.apply()?;
        scene.write("0001_people.sql", "CREATE TABLE people (id INTEGER PRIMARY KEY);")?;
        assert!(scene.refusal().starts_with("0001_people was changed after it was applied"));
        Ok(())
    }

    #[test]
    fn a_changed_file_stops_those_after_it() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE)])?;
        scene.apply()?;
        scene.write("0001_people.sql", "-- nothing")?;
        scene.write("0002_letters.sql", LETTERS)?;
        assert!(scene.apply().is_err());
        assert_eq!(scene.tables()?, ["people", "schema_migrations"]);
        Ok(())
    }

    #[test]
    fn a_file_that_went_missing_is_refused_by_name() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE), ("0002_letters.sql", LETTERS)])?;
        scene.apply()?;
        fs::remove_file(scene.folder().join("0002_letters.sql"))?;
        assert!(scene.refusal().starts_with("this database has migration 0002_letters, which is missing"));
        Ok(())
    }

    #[test]
    fn gaps_duplicates_and_other_names_are_refused() -> Outcome {
        let gap = Scene::with(&[("0001_people.sql", PEOPLE), ("0003_letters.sql", LETTERS)])?;
        assert_eq!(gap.refusal(), "there is no migration 0002, though 0003_letters follows; numbers leave no gap");
        let twice = Scene::with(&[("0001_people.sql", PEOPLE), ("0001_letters.sql", LETTERS)])?;
        assert!(twice.refusal().contains("0001_letters and 0001_people"));
        for name in ["people.sql", "1_people.sql", "0000_people.sql", "0001_.sql", "00a1_people.sql"] {
            let misnamed = Scene::with(&[(name, PEOPLE)])?;
            assert!(misnamed.refusal().contains("is not named like a migration"), "{name}");
        }
        assert!(Scene::with(&[])?.refusal().ends_with("holds no migrations"));
        Ok(())
    }

    #[test]
    fn a_failing_file_leaves_nothing_behind_and_those_before_it_stay() -> Outcome {
        let broken = "CREATE TABLE half (id INTEGER); CREATE TABLE people (id INTEGER);";
        let scene = Scene::with(&[("0001_people.sql", PEOPLE), ("0002_broken.sql", broken)])?;
        assert!(scene.refusal().starts_with("0002_broken was not applied: table people already exists"));
        assert_eq!(scene.tables()?, ["people", "schema_migrations"]);

        scene.write("0002_broken.sql", "CREATE TABLE whole (id INTEGER);")?;
        assert_eq!(scene.apply()?, Report { applied: vec!["0002_broken".into()], already: 1 });
        Ok(())
    }

    #[test]
    fn a_file_that_leaves_dangling_references_is_rolled_back() -> Outcome {
        // Rows that came in while the rule was off, as another program may leave them.
        let scene = Scene::with(&[("0001_people.sql", PEOPLE)])?;
        scene.apply()?;
        let connection = Connection::open(scene.database())?;
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.execute_batch("CREATE TABLE notes (person INTEGER REFERENCES people (id)); INSERT INTO notes VALUES (7), (8);")?;
        scene.write("0002_letters.sql", LETTERS)?;
        assert_eq!(scene.refusal(), "0002_letters was not applied: it leaves rows that refer to nothing: 2 of notes to people");
        assert_eq!(scene.tables()?, ["notes", "people", "schema_migrations"]);
        Ok(())
    }

    #[test]
    fn a_file_that_breaks_a_foreign_key_is_refused() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE), ("0002_letters.sql", LETTERS)])?;
        scene.write("0003_letter.sql", "INSERT INTO letters (person) VALUES (404);")?;
        assert_eq!(scene.refusal(), "0003_letter was not applied: FOREIGN KEY constraint failed");
        Ok(())
    }

    #[test]
    fn a_file_that_commits_by_itself_is_refused() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", &format!("{PEOPLE} COMMIT;"))])?;
        assert!(scene.refusal().starts_with("0001_people ends its transaction itself"));
        Ok(())
    }

    #[test]
    fn many_at_once_apply_each_file_exactly_once() -> Outcome {
        let scene = Scene::with(&[("0001_people.sql", PEOPLE), ("0002_letters.sql", LETTERS)])?;
        let start = Barrier::new(8);
        let reports: Vec<Result<Report, Error>> = thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        scene.apply()
                    })
                })
                .collect();
            runs.into_iter().filter_map(|run| run.join().ok()).collect()
        });
        let reports = reports.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(reports.len(), 8);
        assert_eq!(reports.iter().map(|report| report.applied.len()).sum::<usize>(), 2);
        Ok(())
    }

    #[test]
    fn the_migrations_of_this_product_apply() -> Outcome {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let mut connection = Connection::open_in_memory()?;
        let report = apply_to(&mut connection, &folder)?;
        assert_eq!(report.applied.len(), load(&folder)?.len());
        assert_eq!(apply_to(&mut connection, &folder)?.applied, Vec::<String>::new());
        Ok(())
    }
}
