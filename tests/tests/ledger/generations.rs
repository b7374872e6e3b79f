//! Every migration on a database that is in use: what was there stays there.

use std::collections::BTreeMap;

use rusqlite::Connection;
use tempfile::TempDir;

/// A life as far as the first tables of it go.
const LIFE: &[(u32, &str)] = &[
    (2, "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) VALUES ('ada', 'ada@example.com', 'Ada', 3, 'google', '1', 1800000000);
         INSERT INTO sessions (id_hash, user_id, created_at, expires_at) VALUES ('hash', 'ada', 1800000000, 1900000000);
         INSERT INTO one_time_tokens (token_hash, kind, payload, expires_at) VALUES ('t', 'state', '{}', 1900000000);"),
    (3, "INSERT INTO uploads (id, user_id, key, content_type, expires_at) VALUES ('u', 'ada', 'cache/ada/1_a.jpg', 'image/jpeg', 1900000000);
         INSERT INTO ai_tasks (id, task_no, user_id, input_params, created_at, updated_at) VALUES ('done', 'T1', 'ada', '{}', 1800000001, 1800000001);
         INSERT INTO ai_tasks (id, task_no, user_id, input_params, created_at, updated_at) VALUES ('failed', 'T2', 'ada', '{}', 1800000001, 1800000001);
         UPDATE ai_tasks SET status = 'processing' WHERE id = 'done';
         UPDATE ai_tasks SET status = 'completed', result_urls = '[\"/files/x\"]', completed_at = 1800000002, updated_at = 1800000002 WHERE id = 'done';
         UPDATE ai_tasks SET status = 'failed', updated_at = 1800000002 WHERE id = 'failed';"),
    (4, "INSERT INTO orders (id, user_id, amount, credits, product_id, checkout_id, created_at, updated_at) VALUES ('paid', 'ada', 499, 10, 'credits-10', 'ch_1', 1800000003, 1800000003);
         INSERT INTO orders (id, user_id, amount, credits, product_id, created_at, updated_at) VALUES ('open', 'ada', 499, 10, 'credits-10', 1800000003, 1800000003);
         UPDATE orders SET status = 'paid', payment_id = 'ord_1', updated_at = 1800000004 WHERE id = 'paid';
         INSERT INTO payment_events (id, type, payload, status, processed_at) VALUES ('e', 'checkout.completed', '{}', 'done', 1800000004);"),
];

fn rows(database: &Connection) -> BTreeMap<String, i64> {
    let mut tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_migrations'").unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let count = |name: &String| database.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).unwrap();
    names.iter().map(|name| (name.clone(), count(name))).collect()
}

#[test]
fn no_migration_loses_a_row_of_a_database_in_use() {
    let all = e2e::root().join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for first in 2..=files.len() {
        // A product that went into service with this generation, and is brought up to date.
        let folder = TempDir::new().unwrap();
        for file in &files[..first] {
            std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let mut database = Connection::open_in_memory().unwrap();
        migrations::apply_to(&mut database, folder.path()).unwrap();
        for (_, sql) in LIFE.iter().filter(|(since, _)| *since as usize <= first) {
            database.execute_batch(sql).unwrap();
        }
        // A gift and an admin of the time before they had to be acts of the admins' log.
        let has_it = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'before_the_log')";
        let before_the_log = !database.query_row(has_it, [], |row| row.get::<_, bool>(0)).unwrap();
        if before_the_log {
            let sql = "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, created_at)
                       VALUES ('gift:old', 'ada', 5, 'gift', 'admin', 'old', 1800000001);
                       UPDATE users SET role = 'admin';";
            database.execute_batch(sql).unwrap();
        }
        let before = rows(&database);
        migrations::apply_to(&mut database, &all).unwrap();
        let after = rows(&database);
        for (table, count) in before {
            // What is for sale is the schema's own; it may grow.
            let kept = if table == "products" { after[&table] >= count } else { after[&table] == count };
            assert!(kept, "{table} had {count} rows in generation {first} and has {}", after[&table]);
        }
        for invariant in audit::INVARIANTS {
            let wrong = format!("SELECT count(*) FROM ({})", invariant.offenders);
            assert_eq!(database.query_row(&wrong, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "{} in generation {first}", invariant.id);
        }
        // And what was begun goes on.
        if first >= 4 {
            database.execute("UPDATE orders SET status = 'paid', updated_at = 1800000005 WHERE id = 'open'", []).unwrap();
            let credits: i64 = database.query_row("SELECT credits FROM users", [], |row| row.get(0)).unwrap();
            assert_eq!(credits, 2 + 10 + 10 + if before_the_log { 5 } else { 0 });
        }
    }
}
