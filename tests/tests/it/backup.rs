//! `POST /internal/backup`, and the way back: what a backup holds is what there was, and nobody else can read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::Settings;
use e2e::{CRON_SECRET, DATA_KEY, Options, PATIENCE, Person, SESSION_SECRET, World, now};
use futures::join;
use host::Moment;
use http::Method;
use restore::source::{Bucket, Folder};
use restore::{Report, Which};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use sandbox::{Credentials, Fault, PaymentEvent};
use seal::Keys;
use serde_json::{Value, json};
use tempfile::TempDir;

const WISH: &str = "a little shorter over the left ear, like grandmother's";

fn ask(world: &World, path: &str) -> reqwest::RequestBuilder {
    world.stranger().request(Method::POST, path).bearer_auth(CRON_SECRET).timeout(Duration::from_secs(3_600))
}

/// Makes a backup, whether it is due or not; answers the run's report.
async fn back_up(world: &World) -> Value {
    let report = world.stranger().send(200, ask(world, "/internal/backup?now=true")).await.json();
    assert_eq!(report["outcome"], "done", "{report}");
    report
}

fn id_of(report: &Value) -> Which {
    Which::Id(report["backup"].as_str().unwrap().to_owned())
}

fn keys(secrets: &str) -> Keys {
    Keys::from_settings(&Settings::from_values([(seal::VARIABLE, secrets)])).unwrap()
}

/// Restores from the bucket's folder as if it was a copy of the bucket.
fn restore_from(bucket: &Path, which: &Which, secrets: &str, into: &Path) -> Result<Report, String> {
    let migrations = e2e::root().join("migrations");
    restore::restore(&Folder(bucket.to_owned()), which, &keys(secrets), &migrations, into).map_err(|error| format!("{error:#}"))
}

fn restored(world: &World, report: &Value, folder: &TempDir) -> (PathBuf, Report) {
    let into = folder.path().join(format!("{}.db", report["backup"].as_str().unwrap()));
    let report = restore_from(&world.bucket_folder(), &id_of(report), DATA_KEY, &into).unwrap();
    assert_eq!(report.wrong(), 0, "{report}");
    (into, report)
}

/// Every row of every table with its rowid, exactly, and every object of the schema.
fn everything(path: &Path) -> BTreeMap<String, Vec<String>> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    let mut statement =
        database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'").unwrap();
    let mut tables: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    tables.push("sqlite_schema".into());
    let mut all = BTreeMap::new();
    for table in tables {
        let exact = |sql: &str| -> rusqlite::Result<Vec<String>> {
            let mut statement = database.prepare(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let value = |at| match row.get_ref(at).unwrap() {
                    ValueRef::Text(text) => format!("{:?}", std::str::from_utf8(text).unwrap()),
                    other => format!("{other:?}"),
                };
                found.push((0..columns).map(value).collect::<Vec<_>>().join(" | "));
            }
            Ok(found)
        };
        let rows = if table == "sqlite_schema" {
            exact("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2")
        } else {
            exact(&format!("SELECT rowid, * FROM {table} ORDER BY rowid")).or_else(|_| exact(&format!("SELECT * FROM {table}")))
        };
        all.insert(table, rows.unwrap());
    }
    all
}

/// Compares two databases. The run that made the backup was under way in it, and has ended since.
fn assert_same(one: &Path, other: &Path) {
    let (mut one, mut other) = (everything(one), everything(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    let (runs, restored) = (one.remove("job_runs").unwrap(), other.remove("job_runs").unwrap());
    assert_eq!(runs.len(), restored.len());
    for (table, rows) in one {
        assert_eq!(rows, other[&table], "{table}");
    }
}

/// Makes so many rows of so many random letters each and a number, in whose order they come; they do not compress to less than half. They lie between the books and those they belong to.
fn fill(world: &World, rows: u64, letters: u64) {
    let sql = "WITH RECURSIVE n (x) AS (SELECT ?1 UNION ALL SELECT x + 1 FROM n WHERE x < ?2) \
               INSERT INTO rate_counters (class, subject, used, window_ends) SELECT 'filler', printf('%09d', x) || hex(randomblob(?3 / 2)), x, 99999999999 FROM n";
    let number = |number: u64| i64::try_from(number).unwrap();
    // In steps: a libSQL server through which no other write goes for some seconds is taken to be stuck.
    for first in (1..=rows).step_by(2_000) {
        world.db_write(sql, [number(first), number(rows.min(first + 1_999)), number(letters)]);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

/// Ada has done a bit of everything, Grace has a plan, and an admin was kind.
async fn busy_world() -> (World, Person, Person) {
    let variables = [("admin_emails".to_owned(), "boss@example.com".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let order = json!({"upload_id": ada.any_upload().await, "hairstyles": ["bob-cut"], "detail": WISH});
    let request = ada.request(Method::POST, "/api/tasks").header("idempotency-key", "once").json(&order);
    let task = ada.send(202, request).await.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
    ada.wait_completed(&task).await;
    world.fault(Fault::KieFail { code: 500, msg: None }.once());
    let failed = ada.order_one().await;
    ada.wait_failed(&failed).await;
    let pack = ada.begin_purchase("credits-10").await;
    ada.pay(&pack).await;
    world.control().fire(pack["id"].as_str().unwrap(), PaymentEvent::Refund { amount: Some(100), status: None }).await.unwrap();
    ada.begin_purchase("credits-10").await;
    let grace = world.sign_in_github("grace@example.com").await;
    let plan = grace.begin_purchase("pro-monthly").await;
    grace.pay(&plan).await;
    let boss = world.sign_in("boss@example.com").await;
    boss.post_json(201, "/api/admin/gifts", &json!({"email": "ada@example.com", "credits": 7, "key": "sorry"})).await;
    (world, ada, grace)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restore_drill_loses_nothing() {
    let (world, ada, grace) = busy_world().await;
    let (ada_before, grace_before) = (ada.credits().await, grace.credits().await);
    let report = back_up(&world).await;
    let folder = TempDir::new().unwrap();
    let (into, told) = restored(&world, &report, &folder);
    assert_same(&world.database(), &into);
    assert_eq!(
        (told.foreign.as_slice(), told.applied.as_slice(), told.erased.as_slice()),
        ([].as_slice(), [].as_slice(), [].as_slice()),
        "{told}"
    );
    assert!(everything(&into)["ai_tasks"].len() == 2 && everything(&into)["subscriptions"].len() == 1);
    let mode: String = Connection::open(&into).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");

    // The old machine is gone; another one takes over the database and the bucket.
    // But for the addresses, which begin with where the app is.
    let plain = |mut task: Value| {
        task["source_url"] = Value::Null;
        task
    };
    let task = plain(ada.get(200, "/api/tasks").await.json()["tasks"][0].clone());
    let (token, graces) = (ada.token().unwrap(), grace.token().unwrap());
    let again = World::with(Options { database: Some(into), ..Options::default() }).await;
    copy(&world.bucket_folder(), &again.bucket_folder());
    drop((world, ada, grace));
    let client = again.stranger();
    let get = |path: &str, token: &str| client.request(Method::GET, path).bearer_auth(token);
    // Whoever was signed in still is, and finds everything.
    let me = client.send(200, get("/api/me", &token)).await.json();
    assert_eq!(me["user"]["email"], "ada@example.com");
    for (token, credits) in [(&token, ada_before), (&graces, grace_before)] {
        assert_eq!(client.send(200, get("/api/me/credits", token)).await.json()["balance"], credits);
    }
    let mine = client.send(200, get("/api/tasks", &token)).await.json();
    let done = mine["tasks"].as_array().unwrap().iter().find(|task| task["status"] == "completed").unwrap();
    assert!(mine["tasks"].as_array().unwrap().iter().cloned().any(|other| plain(other) == task));
    let shown = client.send(200, get(&format!("/api/tasks/{}", done["task_no"].as_str().unwrap()), &token)).await.json();
    assert_eq!(shown["task"]["detail"], WISH, "what is sealed can be opened");
    let link = client.send(302, get(done["result_urls"][0].as_str().unwrap(), &token)).await;
    assert!(!again.stranger().get(200, link.header("location")).await.body.is_empty());
    // And goes on.
    let ada = again.sign_in("ada@example.com").await;
    assert_eq!(ada.credits().await, ada_before, "it is the same Ada");
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    assert_eq!(ada.credits().await, ada_before - 1 + 10);
    assert_eq!(client.send(200, get("/api/subscription", &graces)).await.json()["subscription"]["status"], "active");
    again.sweep().await;
    again.assert_books_balance();
    // The next backup of the new machine is one, too.
    again.db_write("UPDATE job_runs SET leased_until = 0 WHERE outcome = 'running'", []);
    let report = back_up(&again).await;
    let (second, _) = restored(&again, &report, &folder);
    assert_same(&again.database(), &second);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_and_every_kind_of_value_is_in_a_backup() {
    let world = World::new().await;
    for sql in [
        "CREATE TABLE later (a ANY, b BLOB, r REAL, t TEXT, n INTEGER) STRICT",
        "CREATE TABLE \"odd \"\"name\" (\"a b\")",
        "INSERT INTO later (rowid, a, b, r, t, n) VALUES (5, x'00ff', x'', 5e-324, 'é' || char(0) || '発\"\n\\', 9223372036854775807)",
        "INSERT INTO later (rowid, a, b, r, t, n) VALUES (3, 1.5, NULL, -0.0, '', -9223372036854775808)",
        // An infinite number cannot travel from a libSQL server: JSON has none.
        &format!(
            "INSERT INTO later (rowid, a, b, r, t, n) VALUES (9, '1', x'41', {}, char(0x10ffff), 9007199254740993)",
            if e2e::hosts::shared_everywhere() { "1.7976931348623157e308" } else { "9e999" }
        ),
        "CREATE INDEX later_n ON later (n)",
    ] {
        world.db_write(sql, []);
    }
    let report = back_up(&world).await;
    let id = report["backup"].as_str().unwrap();
    let manifest: Value =
        serde_json::from_slice(&fs::read(world.bucket_folder().join(format!("backups/{id}/manifest.json"))).unwrap()).unwrap();
    let named: BTreeSet<String> = manifest["rows"].as_object().unwrap().keys().cloned().collect();
    let tables = world.sql("SELECT name FROM sqlite_schema WHERE type = 'table'");
    let tables: BTreeSet<String> =
        tables.iter().map(|row| row[0].as_str().unwrap().to_owned()).chain(["sqlite_schema".to_owned()]).collect();
    assert!(tables.len() > 20 && !tables.contains("sqlite_sequence"), "{tables:?}");
    assert_eq!(named, tables);
    assert_eq!(manifest["schema_version"], world.sql_number("SELECT max(version) FROM schema_migrations"));
    let folder = TempDir::new().unwrap();
    let into = folder.path().join("new.db");
    let told = restore_from(&world.bucket_folder(), &Which::Latest, DATA_KEY, &into).unwrap();
    assert_eq!(told.foreign, ["later", "later_n", "odd \"name"], "what no migration has made is said, and there");
    let exact = |path: &Path| {
        let database = Connection::open(path).unwrap();
        let sql = "SELECT rowid || typeof(a) || quote(a) || typeof(b) || quote(b) || quote(r) || hex(t) || length(t) || n FROM later ORDER BY rowid";
        let mut statement = database.prepare(sql).unwrap();
        statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(exact(&world.database()), exact(&into));
    assert_eq!(exact(&into).len(), 3);
    assert_same_tables(&world.database(), &into, &["later", "users", "products", "sqlite_schema", "schema_migrations"]);
}

fn assert_same_tables(one: &Path, other: &Path, tables: &[&str]) {
    let count = |path: &Path, table: &str| -> i64 {
        Connection::open(path).unwrap().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    for table in tables {
        assert_eq!(count(one, table), count(other, table), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_while_people_order_and_pay_is_of_one_moment() {
    let variables =
        [("signup_credits", "500"), ("rate_limit_per_hour", "0")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    // Two parts of an object, each of which is held up while the rest of the database has not been read yet.
    fill(&world, 30_000, 600);
    world.fault(Fault::S3Slow { ms: 300, method: None, prefix: Some("backups/".into()) });
    let people = [world.sign_in("ada@example.com").await, world.sign_in("grace@example.com").await];
    let (stop, count) = (std::sync::atomic::AtomicBool::new(false), || world.sql_number("SELECT count(*) FROM credit_records"));
    let live = async |person: &Person| {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            person.order(&["bob-cut", "quiff"]).await;
            let order = person.begin_purchase("credits-10").await;
            person.pay(&order).await;
        }
    };
    let watch = async {
        let mut reports = Vec::new();
        let mut moved = 0;
        for _ in 0..3 {
            let before = count();
            reports.push(back_up(&world).await);
            moved += count() - before;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (reports, moved)
    };
    let ((), (), (reports, moved)) = join!(live(&people[0]), live(&people[1]), watch);
    assert!(moved > 0, "nobody wrote anything meanwhile");
    let folder = TempDir::new().unwrap();
    for report in &reports {
        assert!(report["stored_bytes"].as_u64().unwrap() > 6 << 20, "{report}");
        let (_, told) = restored(&world, report, &folder);
        assert!(told.manifest.rows["rate_counters"] >= 30_000);
    }
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_due_once_a_day_and_one_runs_at_a_time() {
    let world = World::new().await;
    let stranger = world.stranger();
    for path in ["/internal/backup", "/internal/backup?now=true"] {
        let answer = stranger.send(401, stranger.request(Method::POST, path).bearer_auth("wrong")).await;
        answer.problem("unauthenticated");
        assert_eq!(answer.calls(), e2e::Calls::default());
        stranger.get(405, path).await.problem("method_not_allowed");
    }
    let once = async || stranger.send(200, ask(&world, "/internal/backup")).await.json();
    world.fault(Fault::S3Slow { ms: 400, method: None, prefix: Some("backups/".into()) });
    let outcomes =
        async |answers: [Value; 2]| answers.iter().map(|answer| answer["outcome"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    let (one, other) = join!(once(), once());
    assert_eq!(outcomes([one, other]).await, BTreeSet::from(["done".to_owned(), "already_running".to_owned()]));
    world.control().clear_faults();
    assert_eq!(once().await, json!({"job": "backup", "outcome": "not_due"}));
    assert_eq!(world.backups().len(), 2);
    assert_eq!(world.sql_number("SELECT count(*) FROM job_runs"), 1, "what was not due is no run");
    back_up(&world).await;
    assert_eq!(world.backups().len(), 4);
    world.db_write("UPDATE job_runs SET started_at = started_at - 72001, ended_at = ended_at - 72001", []);
    for backup in fs::read_dir(world.bucket_folder().join("backups")).unwrap().map(|entry| entry.unwrap().path()) {
        let random = backup.to_str().unwrap().rsplit('_').next().unwrap().to_owned();
        fs::rename(&backup, backup.with_file_name(format!("{}_{random}", clock_stamp(now() - 72_001)))).unwrap();
    }
    assert_eq!(once().await["outcome"], "done");
    assert_eq!(world.backups().len(), 6);
}

/// Puts a backup into the bucket as if it had been made then, and answers its id.
fn made(world: &World, at: i64, complete: bool) -> String {
    let id = format!("{}_0123abcd", clock_stamp(at));
    let folder = world.bucket_folder().join("backups").join(&id);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("data"), "x").unwrap();
    if complete {
        fs::write(folder.join("manifest.json"), "{}").unwrap();
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_could_not_tidy_up_is_made_up_for_without_another_backup() {
    let world = World::new().await;
    made(&world, now() - 50 * 86_400, true);
    world.fault(Fault::S3Answers { status: 503, method: Some("DELETE".into()), prefix: Some("backups/".into()) });
    let first = world.scheduled(503, "/internal/backup").await;
    assert_eq!((&first["outcome"], &first["kept"]["error"]), (&json!("failed"), &json!("storage_unavailable")));
    for _ in 0..2 {
        let again = world.scheduled(503, "/internal/backup").await;
        assert_eq!((&again["made_before"], &again["backup"]), (&first["backup"], &Value::Null), "{again}");
    }
    assert_eq!(world.backups().len(), 4);
    // Whoever asks for one is given one.
    world.stranger().send(503, ask(&world, "/internal/backup?now=true")).await;
    assert_eq!(world.backups().len(), 6);
    world.control().clear_faults();
    let done = world.scheduled(200, "/internal/backup").await;
    assert_eq!((&done["outcome"], &done["kept"]["deleted_backups"]), (&json!("done"), &json!(1)), "{done}");
    assert_eq!(world.scheduled(200, "/internal/backup").await["outcome"], "not_due");
    assert_eq!(world.backups().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_ahead_removes_no_backup() {
    let world = World::new().await;
    // As the store has it, it is sixty days ago; the database takes the last backup to be of today, and the others to be long over.
    let then = now() - 60 * 86_400;
    for id in [made(&world, then - 86_400, true), made(&world, then - 2 * 86_400, true), made(&world, now() - 60, true)] {
        assert!(world.control().age_objects(&format!("backups/{id}/"), Duration::from_secs(60 * 86_400)).unwrap() == 2);
    }
    let report = world.scheduled(200, "/internal/backup").await;
    assert_eq!((&report["kept"]["backups"], &report["kept"]["deleted_backups"]), (&json!(3), &json!(0)), "{report}");
    // One that says it is of a time to come is none of today.
    fs::remove_dir_all(world.bucket_folder().join("backups")).unwrap();
    made(&world, now() + 60 * 86_400, true);
    world.db_write("DELETE FROM job_runs", []);
    let report = world.scheduled(200, "/internal/backup").await;
    assert!(report["backup"].is_string(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_locked_goes_later() {
    let world = World::new().await;
    // What a run that was cut off has left.
    made(&world, now() - 2 * 86_400, false);
    world.fault(Fault::S3Locked { prefix: Some("backups/".into()) });
    let kept = back_up(&world).await["kept"].clone();
    assert_eq!(kept, json!({"backups": 2, "deleted_backups": 0, "deleted_notes": 0, "refused": 1, "overdue": 0}));
    // This one should be nowhere any more.
    made(&world, now() - 44 * 86_400, true);
    let report = world.stranger().send(503, ask(&world, "/internal/backup?now=true")).await.json();
    assert_eq!((&report["kept"]["refused"], &report["kept"]["overdue"]), (&json!(2), &json!(1)), "{report}");
    assert!(report["backup"].is_string(), "there is a backup all the same: {report}");
    assert_eq!(world.events("backup_not_removed").len(), 3);
    world.control().clear_faults();
    let kept = back_up(&world).await["kept"].clone();
    assert_eq!((&kept["deleted_backups"], &kept["backups"]), (&json!(2), &json!(3)), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_cut_off_or_put_together_is_refused() {
    let world = World::new().await;
    world.sign_in("ada@example.com").await;
    fill(&world, 3_000, 600);
    let (one, two) = (back_up(&world).await, back_up(&world).await);
    let (id, other) = (one["backup"].as_str().unwrap(), two["backup"].as_str().unwrap());
    let folder = TempDir::new().unwrap();
    // Each on a copy of the bucket.
    let number = std::cell::Cell::new(0);
    let attempt = |change: &dyn Fn(&Path)| {
        number.set(number.get() + 1);
        let bucket = folder.path().join(format!("bucket{}", number.get()));
        copy(&world.bucket_folder().join("backups"), &bucket.join("backups"));
        change(&bucket.join("backups"));
        let into = folder.path().join(format!("{}.db", number.get()));
        let refusal = restore_from(&bucket, &Which::Id(id.into()), DATA_KEY, &into).map(|report| report.to_string());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(refusal.is_ok() || left.iter().all(|name| !name.contains(".db")), "{left:?}");
        refusal
    };
    let data = |backups: &Path| backups.join(id).join("data");
    let manifest = |backups: &Path| backups.join(id).join("manifest.json");
    let edit = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    let size = usize::try_from(one["stored_bytes"].as_u64().unwrap()).unwrap();
    // The sealed pieces with their lengths, after 8 bytes of the form and 27 of key and nonce.
    let first = |bytes: &[u8]| 4 + u32::from_be_bytes(bytes[35..39].try_into().unwrap()) as usize;
    let swap = |bytes: &mut Vec<u8>| {
        let first = first(bytes);
        let second = 4 + u32::from_be_bytes(bytes[35 + first..39 + first].try_into().unwrap()) as usize;
        bytes[35..35 + first + second].rotate_left(first);
    };
    type Change<'a> = Box<dyn Fn(&Path) + 'a>;
    fn change<'a>(change: impl Fn(&Path) + 'a) -> Change<'a> {
        Box::new(change)
    }
    let refused: Vec<(&str, &str, Change<'_>)> = vec![
        ("a bit", "does not open", change(|backups| edit(&data(backups), &|bytes| bytes[size / 2] ^= 1))),
        ("the end cut off", "does not open", change(|backups| edit(&data(backups), &|bytes| bytes.truncate(size - 1)))),
        (
            "cut off between two pieces",
            "does not open",
            change(|backups| {
                edit(&data(backups), &|bytes| {
                    let end = 35 + first(bytes);
                    bytes.truncate(end);
                })
            }),
        ),
        ("two pieces swapped", "does not open", change(|backups| edit(&data(backups), &swap))),
        ("more at the end", "does not open", change(|backups| edit(&data(backups), &|bytes| bytes.extend(b"more")))),
        ("another's data", "does not open", change(|backups| fs::copy(backups.join(other).join("data"), data(backups)).map(drop).unwrap())),
        ("no data", "has a manifest and no data", change(|backups| fs::remove_file(data(backups)).unwrap())),
        ("not a backup", "not the data of a backup", change(|backups| fs::write(data(backups), "hello").unwrap())),
        ("no manifest", "was never finished", change(|backups| fs::remove_file(manifest(backups)).unwrap())),
        (
            "another's manifest",
            "is that of",
            change(|backups| fs::copy(backups.join(other).join("manifest.json"), manifest(backups)).map(drop).unwrap()),
        ),
        (
            "a form to come",
            "newer than this program",
            change(|backups| edit(&manifest(backups), &|bytes| *bytes = b"{\"format\": 2}".to_vec())),
        ),
        (
            "a manifest that promises more",
            "not what its manifest says",
            change(|backups| {
                edit(&manifest(backups), &|bytes| {
                    let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
                    manifest["rows"]["users"] = json!(2);
                    *bytes = manifest.to_string().into_bytes();
                });
            }),
        ),
        ("nothing at all", "there is no backup", change(|backups| fs::remove_dir_all(backups).unwrap())),
    ];
    for (what, words, make) in &refused {
        let refusal = attempt(make.as_ref()).expect_err(what);
        assert!(refusal.contains(words), "{what}: {refusal}");
    }
    attempt(&|_: &Path| {}).expect("as it was made");

    // With another key; with the old one behind the new one.
    let into = folder.path().join("keys.db");
    let wrong = restore_from(&world.bucket_folder(), &Which::Latest, "another-key", &into).expect_err("another key");
    assert!(wrong.contains("sealed with the key") && wrong.contains("behind the current one"), "{wrong}");
    restore_from(&world.bucket_folder(), &Which::Latest, &format!("another-key, {DATA_KEY}"), &into).unwrap();
    // What is there is not touched.
    let before = fs::read(&into).unwrap();
    let refusal = restore_from(&world.bucket_folder(), &Which::Latest, DATA_KEY, &into).expect_err("there already");
    assert!(refusal.contains("is there already"), "{refusal}");
    assert_eq!(fs::read(&into).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_halfway_leaves_no_backup_and_the_next_one_is_made() {
    let world = World::new().await;
    world.sign_in("ada@example.com").await;
    fill(&world, 30_000, 600);
    let down = |method: &str, prefix: &str| Fault::S3Answers { status: 503, method: Some(method.into()), prefix: Some(prefix.into()) };
    // At the parts, at the end of the object, at the manifest.
    let requests = |world: &World| ask(world, "/internal/backup");
    for fault in [
        sandbox::Rule::from(down("PUT", "backups/")),
        down("POST", "backups/").into(),
        sandbox::Rule::from(down("PUT", "backups/")).matching("manifest"),
    ] {
        world.fault(fault);
        world.stranger().send(503, requests(&world)).await.problem("storage_unavailable");
        world.control().clear_faults();
        let last = world.sql("SELECT outcome, report FROM job_runs ORDER BY started_at DESC, id DESC LIMIT 1");
        assert_eq!(last[0][0], "failed", "{last:?}");
        assert!(world.backups().iter().all(|key| !key.ends_with("manifest.json")), "{:?}", world.backups());
    }
    let report = world.stranger().send(200, requests(&world)).await.json();
    assert_eq!(report["outcome"], "done", "what failed is due at once: {report}");
    let folder = TempDir::new().unwrap();
    restored(&world, &report, &folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_may_go_at_any_moment() {
    for call in 1.. {
        let mut crashed = false;
        for moment in [Moment::Before, Moment::After] {
            let world = World::new().await;
            world.sign_in("ada@example.com").await;
            world.crash_at("backup-cron", call, moment);
            world.stranger().ask(ask(&world, "/internal/backup")).await;
            crashed |= world.crashed();
            // What was cut off loses its lease, and the next one runs.
            world.db_write("UPDATE job_runs SET leased_until = 0 WHERE outcome = 'running'", []);
            let report = back_up(&world).await;
            let folder = TempDir::new().unwrap();
            let (into, _) = restored(&world, &report, &folder);
            assert_same(&world.database(), &into);
            // What it left is either a whole backup or none, and what is none goes a day later.
            for key in world.backups().iter().filter(|key| key.ends_with("/data")) {
                let id = key.split('/').nth(1).unwrap();
                let complete = world.backups().contains(&format!("backups/{id}/manifest.json"));
                if complete {
                    restore_from(&world.bucket_folder(), &Which::Id(id.into()), DATA_KEY, &folder.path().join("left.db")).unwrap();
                    let _ = fs::remove_file(folder.path().join("left.db"));
                } else {
                    let backups = world.bucket_folder().join("backups");
                    fs::rename(backups.join(id), backups.join(format!("20260101T000000Z_{}", &id[17..]))).unwrap();
                }
            }
            back_up(&world).await;
            assert!(world.backups().iter().all(|key| !key.contains("/20260101T")), "{:?}", world.backups());
        }
        if !crashed {
            assert!(call > 6, "it makes calls that could be cut off");
            return;
        }
        assert!(call < 40, "it goes on for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_anything_in_the_bucket() {
    let (world, ada, _) = busy_world().await;
    let report = back_up(&world).await;
    let token = ada.token().unwrap();
    let (session, seal) = token.split_once('.').unwrap();
    let credentials = Credentials::default();
    let folder = world.bucket_folder();
    let stored: Vec<(String, Vec<u8>)> =
        world.backups().into_iter().map(|key| (key.clone(), fs::read(folder.join(key)).unwrap())).collect();
    assert_eq!(stored.len(), 2);
    let (id, order) = (ada.id().await, world.sql_text("SELECT id FROM orders LIMIT 1"));
    for secret in [
        "ada@example.com",
        "grace@",
        "Lovelace",
        "@example",
        WISH,
        "left ear",
        session,
        seal,
        SESSION_SECRET,
        CRON_SECRET,
        DATA_KEY,
        &id,
        &order,
        &credentials.s3_secret_access_key,
        &credentials.creem_webhook_secret,
        "CREATE TABLE",
    ] {
        for (key, bytes) in &stored {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in {key}");
        }
    }
    // It is in there all the same.
    let place = TempDir::new().unwrap();
    let (into, _) = restored(&world, &report, &place);
    assert!(everything(&into)["users"].iter().any(|row| row.contains("ada@example.com")));
    // Nor in the log.
    assert!(world.logs().iter().all(|line| !line.contains("ada@example.com") && !line.contains(DATA_KEY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_gone_since_is_gone_in_what_is_restored() {
    let (world, ada, grace) = busy_world().await;
    let (ada_id, grace_id, token) = (ada.id().await, grace.id().await, ada.token().unwrap());
    let report = back_up(&world).await;
    // Grace has a plan in the backup, and cancels it before she goes; the store is down when Ada goes.
    grace.post(200, "/api/subscription/cancel").await;
    grace.delete(200, "/api/me").await;
    world.storage_down();
    ada.delete(202, "/api/me").await;
    world.control().clear_faults();
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    world.sweep().await;
    assert_eq!(world.backups().iter().filter(|key| key.starts_with("backups/erasures/")).count(), 2);

    let folder = TempDir::new().unwrap();
    let (into, told) = restored(&world, &report, &folder);
    assert_eq!(told.erased.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&ada_id, &grace_id]), "{told}");
    let again = World::with(Options { database: Some(into), ..Options::default() }).await;
    let rows: Vec<String> = everything(&again.database()).into_values().flatten().collect();
    for trace in ["ada@", "grace@", "Lovelace", WISH] {
        assert!(rows.iter().all(|row| !row.contains(trace)), "{trace}");
    }
    assert!(rows.iter().any(|row| row.contains("boss@example.com")));
    let client = again.stranger();
    client.send(401, client.request(Method::GET, "/api/me").bearer_auth(&token)).await;
    assert_eq!(again.sweep().await["erasures"], json!({"looked_at": 2, "done": 2}));
    again.assert_books_balance();

    // A note is kept for as long as some backup does not know of it.
    let note = world.bucket_folder().join(format!("backups/erasures/{ada_id}"));
    let file = fs::File::options().write(true).open(&note).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60 * 86_400)).unwrap();
    let kept = back_up(&world).await["kept"].clone();
    assert_eq!((&kept["deleted_notes"], note.exists()), (&json!(1), false), "{kept}");
    assert!(world.bucket_folder().join(format!("backups/erasures/{grace_id}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_backups_go_and_nothing_else_does() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.upload("portrait.jpg").await;
    let backups = world.bucket_folder().join("backups");
    let at = now();
    let stamp = |days: i64| format!("{}_0123abcd", clock_stamp(at - days * 86_400));
    for days in [1, 6, 10, 11, 45, 400] {
        fs::create_dir_all(backups.join(stamp(days))).unwrap();
        fs::write(backups.join(stamp(days)).join("data"), "x").unwrap();
        // One of yesterday was cut off.
        if days != 1 {
            fs::write(backups.join(stamp(days)).join("manifest.json"), "{}").unwrap();
        }
    }
    // Things of somebody else, beside ours.
    fs::create_dir_all(backups.join("by-hand")).unwrap();
    fs::write(backups.join("by-hand/notes.txt"), "x").unwrap();
    let kept = back_up(&world).await["kept"].clone();
    let left: BTreeSet<String> = world.backups().iter().map(|key| key.split('/').nth(1).unwrap().to_owned()).collect();
    assert!(left.contains("by-hand") && left.contains(&stamp(6)), "{left:?}");
    for days in [1, 45, 400] {
        assert!(!left.contains(&stamp(days)), "{days} days: {left:?}");
    }
    // Ten and eleven days: of one week one stays; of two weeks each has its own.
    assert!(left.contains(&stamp(11)), "{left:?}");
    assert!(kept["deleted_backups"].as_u64().unwrap() >= 3, "{kept}");
    assert_eq!(world.objects().len(), 1, "the photo");
}

/// As the ids of backups have it.
fn clock_stamp(unix: i64) -> String {
    let sql = "SELECT strftime('%Y%m%dT%H%M%SZ', ?1, 'unixepoch')";
    Connection::open_in_memory().unwrap().query_row(sql, [unix], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_from_the_bucket_itself() {
    let world = World::new().await;
    world.sign_in("ada@example.com").await;
    fill(&world, 12_000, 600);
    back_up(&world).await;
    let folder = TempDir::new().unwrap();
    let into = folder.path().join("new.db");
    let credentials = Credentials::default();
    let bucket = |secret: &str| Bucket::new(&world.places().s3, "auto", sandbox::BUCKET, &credentials.s3_access_key_id, secret).unwrap();
    let migrations = e2e::root().join("migrations");
    let restore = |secret: &str| {
        tokio::task::block_in_place(|| restore::restore(&bucket(secret), &Which::Latest, &keys(DATA_KEY), &migrations, &into))
    };
    let refusal = restore("wrong").unwrap_err().to_string();
    assert!(refusal.contains("403") && !refusal.contains("Signature"), "{refusal}");
    let told = restore(&credentials.s3_secret_access_key).unwrap();
    assert_eq!(told.wrong(), 0, "{told}");
    assert_same(&world.database(), &into);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_backup_is_not_cut_off_by_the_time_limit_of_clients() {
    let headers = vec![("authorization".to_owned(), format!("Bearer {CRON_SECRET}"))];
    let schedule = vec![host::Schedule {
        every: Duration::from_millis(300),
        method: Method::POST,
        path: "/internal/backup".into(),
        headers,
        timeout: Duration::from_secs(60),
    }];
    let world = World::with(Options { request_timeout: Some(Duration::from_millis(500)), schedule, ..Options::default() }).await;
    // Longer than a client waits, and than an instance may be busy after that.
    world.fault(Fault::S3Slow { ms: 6_500, method: Some("PUT".into()), prefix: Some("backups/".into()) }.once());
    let made = async || {
        let outcomes = world.sql("SELECT outcome FROM job_runs");
        if outcomes.iter().any(|row| row[0] == "done") { Ok(()) } else { Err(format!("{outcomes:?}")) }
    };
    world.until("the backup", made).await;
    assert_eq!(world.sql_number("SELECT count(*) FROM job_runs"), 1, "{}", world.tail());
    assert!(world.backups().iter().any(|key| key.ends_with("manifest.json")));
}

/// Kilobytes of this process in memory: now, and at most so far.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// `cargo test -p e2e --test it backup::a_million -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, and a gigabyte of disk"]
async fn a_million_rows() {
    let world = World::with(Options { request_timeout: Some(Duration::from_secs(1_800)), ..Options::default() }).await;
    world.sign_in("ada@example.com").await;
    let rows: u64 = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    // As large as rows of the product are, with sealed values, which do not compress, and others that do.
    let sql = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1) \
               INSERT INTO signin_logs (id, user_id, ip_address, user_agent, created_at) \
               SELECT lower(hex(randomblob(16))), (SELECT id FROM users), 'sealed:01234567:' || hex(randomblob(40)), \
                      'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36', 1800000000 + x FROM n";
    world.db_write(sql, [i64::try_from(rows).unwrap()]);
    // One before, so that what grows is the rows' alone.
    let before = memory();
    let started = Instant::now();
    let report = back_up(&world).await;
    let took = started.elapsed();
    let after = memory();
    println!("{report}");
    println!(
        "backup of {rows} rows: {:.1} s; database {} MB",
        took.as_secs_f64(),
        fs::metadata(world.database()).unwrap().len() / 1_000_000
    );
    println!("memory in KiB (now, most so far): before {before:?}, after {after:?}");
    let folder = TempDir::new().unwrap();
    let (_, told) = restored(&world, &report, &folder);
    println!("restored in {:.1} s; memory {:?}", told.took.as_secs_f64(), memory());
    assert!(after.1 - before.1.min(after.1) < 200 << 10, "memory grew with the rows");
}
