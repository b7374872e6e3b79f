//! The documents say what is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every Rust file in a folder and below.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    below.chain(files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"))).collect()
}

/// The names of the functions in a source that `cargo test` runs: helpers are none, and neither is what is ignored.
fn tests_in(source: &str) -> Vec<&str> {
    let (mut found, mut is_test, mut is_ignored) = (Vec::new(), false, false);
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_ignored |= line.starts_with("#[ignore");
        } else if !line.starts_with("//") {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            found.extend(name.filter(|_| is_test && !is_ignored));
            (is_test, is_ignored) = (false, false);
        }
    }
    found
}

/// `module::test` of every test in one folder of tests/tests, by the files' names.
fn tests(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in sources(&e2e::root().join("tests/tests").join(folder)) {
        let module = file.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        found.extend(tests_in(&text).into_iter().map(|name| format!("{module}::{name}")));
    }
    found
}

/// Whether the sources of a crate hold tests.
fn has_unit_tests(name: &str) -> bool {
    let places = [format!("crates/{name}"), name.to_owned()].map(|place| e2e::root().join(place).join("src"));
    let Some(place) = places.iter().find(|place| place.is_dir()) else { return false };
    sources(place).iter().any(|file| !tests_in(&std::fs::read_to_string(file).unwrap()).is_empty())
}

#[test]
fn every_proof_that_the_tables_name_exists() {
    let (ledger, mut others) = (tests("ledger"), tests("it"));
    others.append(&mut tests("browser"));
    let read = |name: &str| std::fs::read_to_string(e2e::root().join("docs").join(name)).unwrap();
    let (faults, security) = (read("faults.md"), read("security.md"));
    let rows = |table: &str| table.lines().filter(|line| line.starts_with("| ")).map(str::to_owned).collect::<Vec<_>>();
    let (faults, security) = (rows(&faults), rows(&security));
    assert!(faults.len() > 40 && security.len() > 30, "{} and {} rows", faults.len(), security.len());
    for row in faults.iter().chain(&security) {
        let parts: Vec<&str> = row.split('`').collect();
        for quoted in parts[1..].chunks(2) {
            let (name, after) = (quoted[0], quoted.get(1).copied().unwrap_or_default());
            let exists = match name.strip_prefix("ledger ") {
                Some(name) => ledger.contains(name),
                None if name.contains("::") => others.contains(name),
                None => !after.starts_with(" unit ") || has_unit_tests(name),
            };
            assert!(exists, "{name} is named as a proof, and there is no such test");
        }
    }
}

#[test]
fn a_helper_and_what_is_ignored_are_no_proofs() {
    let source = "fn helper() {}\n#[test]\nfn one() {}\n#[tokio::test(flavor = \"multi_thread\")]\n// Why.\nasync fn two() {}\n\
                  #[test]\n#[ignore = \"long\"]\nfn three() {}\nfn four() {}\n";
    assert_eq!(tests_in(source), ["one", "two"]);
}

#[test]
fn the_map_names_every_crate() {
    let map = std::fs::read_to_string(e2e::root().join("ARCHITECTURE.md")).unwrap();
    let map = map.split_whitespace().collect::<Vec<_>>().join(" ");
    for entry in std::fs::read_dir(e2e::root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(map.contains(&format!("`{name}` (")), "ARCHITECTURE.md says nothing of crates/{name}");
    }
}

#[test]
fn every_job_is_known_to_whoever_watches_jobs() {
    let manifest = e2e::manifest();
    let routes = manifest["trigger"]["http"].as_array().unwrap().iter().filter_map(|trigger| trigger["route"].as_str());
    for job in routes.filter_map(|route| route.strip_prefix("/internal/")) {
        for (file, list) in [
            ("components/admin/src/overview.rs", "json_each('["),
            ("components/web/site/js/pages/admin/overview.js", "const JOBS = ["),
            ("components/web/site/js/pages/admin/operations.js", "const JOBS = ["),
            ("crates/alarm/src/check.rs", "pub const JOBS: [(&str, i64); "),
        ] {
            let text = std::fs::read_to_string(e2e::root().join(file)).unwrap();
            let after = text.split_once(list).unwrap_or_else(|| panic!("{file} has no list")).1;
            let listed = after.split(";\n").next().unwrap();
            // The look itself: that it did not happen can only be noticed elsewhere.
            let watched_elsewhere = job == "alarms" && file.starts_with("crates/alarm/");
            assert!(watched_elsewhere || listed.replace('\\', "").contains(&format!("\"{job}\"")), "{file} does not know {job}");
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
