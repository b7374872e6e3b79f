//! What the components ask of the database. Every world collects its statements, and when it ends each must find its rows by an index,
//! and so must the triggers behind it: a scan of a table that grows fails the test that led to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use host::Cost;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Tables that stay small: what is for sale, and the record of migrations.
const SMALL: [&str; 2] = ["products", "schema_migrations"];

/// A scan that is meant.
pub struct Meant {
    /// How the statement begins.
    pub begins: &'static str,
    pub table: &'static str,
    pub why: &'static str,
}

/// This list should only get shorter.
pub const MEANT: &[Meant] = &[
    Meant {
        begins: "INSERT INTO sign_ups",
        table: "credit_lots",
        why: "SQLite's own check of a foreign key, which is made only while one is violated",
    },
    Meant { begins: "INSERT INTO admin_log", table: "admin_log", why: "the last entry: one step from the end" },
    Meant {
        begins: "SELECT id, type, status, outcome, deliveries",
        table: "payment_events",
        why: "newest first by an index, and no further than the page",
    },
    Meant { begins: "UPDATE alarms SET closed_at", table: "alarms", why: "an index of those that are open" },
    Meant { begins: "SELECT json_object('open_alarms'", table: "alarms", why: "an index of those that are open" },
    Meant {
        begins: "SELECT json_object('users'",
        table: "credit_lots",
        why: "all that can be spent, from the index of lots that hold something; once a minute at most",
    },
    Meant { begins: "WITH payments AS", table: "subscriptions", why: "how many of each status, from its index; once a minute at most" },
    Meant { begins: "SELECT seq", table: "admin_log", why: "from its end, by number; or all of it, to check the chain" },
];

/// Whether a statement is one of the audit's (as it stands, or within the alarms' question how many), or the one a backup is made of: those
/// read everything, which is what they are for.
#[must_use]
pub fn reads_everything(statement: &str) -> bool {
    let audits = |rule: &audit::Invariant| statement == rule.count || statement.contains(rule.offenders);
    audit::INVARIANTS.iter().chain(audit::OVERDUE).any(audits) || statement.starts_with("SELECT 0, \"type\", ")
}

/// A scan that a statement makes of a table that grows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scan {
    pub table: String,
    /// SQLite's own words.
    pub plan: String,
}

/// The scans of growing tables that a statement and its triggers make.
pub fn scans(schema: &Connection, statement: &str) -> Vec<Scan> {
    // Without it only the statement itself is explained.
    schema.set_db_config(DbConfig::SQLITE_DBCONFIG_TRIGGER_EQP, true).unwrap();
    let names = |sql: &str| -> Vec<String> {
        schema.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let tables = names("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    // A plan names a table by its alias, and that may stand in a trigger.
    let mut texts = names("SELECT sql FROM sqlite_schema WHERE type IN ('trigger', 'view')");
    texts.push(statement.to_owned());
    let words: Vec<Vec<&str>> =
        texts.iter().map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()).collect();
    let table_of = |name: &str| -> Option<String> {
        if tables.iter().any(|table| table == name) {
            return Some(name.to_owned());
        }
        let aliased = |table: &&String| {
            words.iter().any(|words| {
                words.windows(3).any(|three| {
                    three[0] == table.as_str() && (three[1] == name || three[1].eq_ignore_ascii_case("as") && three[2] == name)
                })
            })
        };
        tables.iter().find(aliased).cloned()
    };
    let mut explained = schema.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap_or_else(|error| panic!("{error}: {statement}"));
    let plans: Vec<String> = explained.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap();
    let mut found = BTreeSet::new();
    for plan in plans {
        let Some(rest) = plan.strip_prefix("SCAN ").filter(|_| !plan.contains("VIRTUAL TABLE")) else { continue };
        let name = rest.split(' ').next().unwrap_or_default();
        if let Some(table) = table_of(name).filter(|table| !SMALL.contains(&table.as_str())) {
            found.insert(Scan { table, plan });
        }
    }
    found.into_iter().collect()
}

/// The reason why a scan is meant, if there is one.
#[must_use]
pub fn meant(statement: &str, scan: &Scan) -> Option<&'static Meant> {
    MEANT.iter().find(|meant| statement.starts_with(meant.begins) && meant.table == scan.table)
}

/// Fails for statements that scan without a reason. Each text is looked at once in a process.
pub(crate) fn refuse_scans(seen: &BTreeMap<String, Cost>) {
    static LOOKED_AT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let new: Vec<&String> = {
        let mut looked_at = LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
        seen.keys().filter(|text| looked_at.insert((*text).clone()) && !reads_everything(text)).collect()
    };
    if new.is_empty() {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let schema = schema(&folder);
    let unexplained = |statement: &String| -> Option<String> {
        let scans: Vec<Scan> = scans(&schema, statement).into_iter().filter(|scan| meant(statement, scan).is_none()).collect();
        (!scans.is_empty()).then(|| format!("{scans:?}: {statement}"))
    };
    let wrong: Vec<String> = new.into_iter().filter_map(unexplained).collect();
    assert!(wrong.is_empty(), "these statements, or triggers behind them, read whole tables:\n{}", wrong.join("\n"));
}

/// An empty database with the product's schema.
#[must_use]
pub fn schema(folder: &tempfile::TempDir) -> Connection {
    let path = folder.path().join("schema.db");
    std::fs::write(&path, crate::migrated()).unwrap();
    Connection::open(path).unwrap()
}
