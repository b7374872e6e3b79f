//! The documents say what is so.

use std::collections::BTreeSet;
use std::path::Path;

/// `module::test` of every test there is, by the files' names.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
            continue;
        }
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
        found.extend(names.map(|name| format!("{module}::{name}")));
    }
}

#[test]
fn every_proof_that_the_tables_name_exists() {
    let mut known = BTreeSet::new();
    tests(&e2e::root().join("tests/tests"), &mut known);
    let read = |name: &str| std::fs::read_to_string(e2e::root().join("docs").join(name)).unwrap();
    let (faults, security) = (read("faults.md"), read("security.md"));
    let rows = |table: &str| table.lines().filter(|line| line.starts_with("| ")).map(str::to_owned).collect::<Vec<_>>();
    let (faults, security) = (rows(&faults), rows(&security));
    assert!(faults.len() > 40 && security.len() > 30, "{} and {} rows", faults.len(), security.len());
    for row in faults.iter().chain(&security) {
        for name in row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            let name = name.strip_prefix("ledger ").unwrap_or(name);
            assert!(known.contains(name), "{name} is named as a proof, and there is no such test");
        }
    }
}

#[test]
fn how_long_what_is_kept_is_told() {
    let text = std::fs::read_to_string(e2e::root().join("docs/retention.md")).unwrap();
    for rule in &retention::RULES {
        let row = text.lines().find(|line| line.ends_with(&format!("| `{}` |", rule.name))).unwrap_or_else(|| panic!("{}", rule.name));
        let days = format!("{} days", rule.kept / retention::DAY);
        assert!(rule.kept == 0 || row.contains(&days), "{days}: {row}");
    }
    // A table of which nobody has said how long it is kept.
    let mut database = rusqlite::Connection::open_in_memory().unwrap();
    migrations::apply_to(&mut database, &e2e::root().join("migrations")).unwrap();
    let mut tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for table in tables.iter().filter(|table| *table != "schema_migrations") {
        let plain = ["uploads", "one_time_tokens", "idempotency_keys", "rate_counters", "sessions"].contains(&table.as_str());
        assert!(plain || text.contains(&format!("`{table}`")) || text.contains(&format!("`{table}.")), "{table}");
    }
}
