//! A database as it is after years: rows by the million, for measuring and for tests of what must not grow with them.
//!
//! Going through the triggers would take hours, so they are taken out, the rows are made as the triggers would have left them, and the
//! triggers are put back, all in one transaction. The invariants of the crate `audit` hold before and after.

use rusqlite::{Connection, params};

/// Tasks of one person, on average.
const TASKS_EACH: u64 = 45;
/// For how long the crowd has been here, in seconds.
const DAYS_90: i64 = 90 * 86_400;

/// What is filled. The triggers and the indexes of these tables are taken out and put back.
const TABLES: &str = "'users', 'user_auth', 'sessions', 'signin_logs', 'uploads', 'orders', 'payment_events', 'ai_tasks', \
    'credit_records', 'credit_lots', 'credit_consumptions', 'provider_spend', 'rate_counters'";

/// Fills a migrated database with so many tasks and what belongs to them: people, their sessions, photos and payments, and for
/// each task a line in the account book. Every tenth task is `heavy`'s; `usual` is one of the crowd, with some 45. Both must be there.
/// The last fiftieth of the tasks is under way, and nobody will look at them for a day; the others are completed.
///
/// # Errors
/// The database's; then nothing has happened. It must not have been filled before.
pub fn fill(database: &mut Connection, tasks: u64, heavy: &str, usual: &str, now: i64) -> rusqlite::Result<()> {
    // Rows are made in an order that no constraint minds; whether they fit is asked at the end.
    database.pragma_update(None, "foreign_keys", false)?;
    let transaction = database.transaction()?;
    let (triggers, indexes) = (take_out(&transaction, "trigger")?, take_out(&transaction, "index")?);
    let others = tasks - tasks.div_ceil(10);
    let people = (others / TASKS_EACH).max(1);
    transaction.execute_batch(NUMBERS)?;
    transaction
        .execute("INSERT INTO temp.crowd VALUES (?1, ?2, ?3, ?4, ?5, ?6)", params![tasks, people, heavy, usual, now - DAYS_90, now])?;
    transaction.execute_batch(ROWS)?;
    put_back(&transaction, &indexes)?;
    transaction.execute_batch(BALANCES)?;
    put_back(&transaction, &triggers)?;
    transaction.commit()?;
    database.pragma_update(None, "foreign_keys", true)
}

/// Drops what was made with `CREATE TRIGGER` or `CREATE INDEX`, and answers the texts that make it again.
fn take_out(database: &Connection, kind: &str) -> rusqlite::Result<Vec<String>> {
    let sql = format!("SELECT name, sql FROM sqlite_schema WHERE type = ?1 AND sql IS NOT NULL AND tbl_name IN ({TABLES})");
    let made: Vec<(String, String)> =
        database.prepare(&sql)?.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (name, _) in &made {
        database.execute_batch(&format!("DROP {kind} \"{name}\""))?;
    }
    Ok(made.into_iter().map(|(_, sql)| sql).collect())
}

fn put_back(database: &Connection, texts: &[String]) -> rusqlite::Result<()> {
    texts.iter().try_for_each(|text| database.execute_batch(text))
}

/// Who does what: `person` 0 is the heavy one, 1 the usual one; `made` is one row a task, `lot` the packs of fifty that paid for them.
const NUMBERS: &str = "
CREATE TEMP TABLE crowd (tasks INTEGER, people INTEGER, heavy TEXT, usual TEXT, since INTEGER, now INTEGER);
CREATE TEMP TABLE person (p INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TEMP TABLE made (i INTEGER PRIMARY KEY, p INTEGER NOT NULL, nth INTEGER NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL, running INTEGER NOT NULL);
CREATE TEMP TABLE lot (p INTEGER, k INTEGER, used INTEGER, PRIMARY KEY (p, k));
";

const ROWS: &str = "
INSERT INTO temp.person
WITH RECURSIVE n (p) AS (SELECT 0 UNION ALL SELECT p + 1 FROM n WHERE p < (SELECT people FROM temp.crowd))
SELECT p, CASE p WHEN 0 THEN heavy WHEN 1 THEN usual ELSE printf('crowd-%08d', p) END FROM n, temp.crowd;

INSERT INTO temp.made
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < (SELECT tasks FROM temp.crowd))
SELECT i, iif(i % 10 = 0, 0, 1 + (i - i / 10 - 1) % people), iif(i % 10 = 0, i / 10, (i - i / 10 - 1) / people), at,
       printf('%08x-%04x-7000-8000-%012x', at * 1000 >> 16, at * 1000 & 0xffff, i), i >= tasks - tasks / 50
FROM (SELECT i, iif(i >= tasks - tasks / 50, now - 600, since + i * (now - since) / tasks) AS at FROM n, temp.crowd), temp.crowd;

INSERT INTO temp.lot SELECT p, nth / 50, count(*) FROM temp.made GROUP BY 1, 2;
-- Everybody has something left.
INSERT INTO temp.lot SELECT p, count(*) / 50, 0 FROM temp.made GROUP BY p HAVING count(*) % 50 = 0;

INSERT INTO users (id, email, name, credits, created_at, updated_at)
SELECT id, id || '@crowd.example', 'Somebody', 0, since - 100, now FROM temp.person, temp.crowd WHERE p > 1;
INSERT INTO user_auth (id, user_id, provider, openid, created_at)
SELECT 'auth-' || id, id, 'google', 'openid-' || id, since - 100 FROM temp.person, temp.crowd WHERE p > 1;
INSERT INTO sessions (id_hash, user_id, created_at, expires_at)
SELECT lower(hex(randomblob(32))), id, now - 86400, now + 86400 * 29 FROM temp.person, temp.crowd WHERE p > 1;
INSERT INTO signin_logs (id, user_id, created_at)
SELECT lower(hex(randomblob(16))), id, now - 86400 FROM temp.person, temp.crowd WHERE p > 1;
INSERT INTO rate_counters (class, subject, used, window_ends)
SELECT 'reads', 'user:' || id, 64, now + 3600 FROM temp.person, temp.crowd WHERE p > 1;

INSERT INTO uploads (id, user_id, key, status, content_type, size, width, height, sha256, created_at, expires_at)
SELECT 'up-' || made.id, person.id, 'cache/' || person.id || '/' || made.id || '.jpg', 'stored', 'image/jpeg', 165174, 819, 1024,
       lower(hex(randomblob(32))), at, now + 7 * 86400
FROM temp.made JOIN temp.person USING (p), temp.crowd WHERE i % 5 = 0;

INSERT INTO orders (id, user_id, amount, currency, status, payment_id, credits, created_at, updated_at, product_id, checkout_id, paid_at,
                    transaction_id, amount_paid)
SELECT printf('crowd-order-%d-%d', p, k), id, 1999, 'USD', 'completed', printf('ord_%d_%d', p, k), 50, since - 50, since - 50, 'credits-50',
       printf('ch_crowd_%d_%d', p, k), since - 50, printf('tran_%d_%d', p, k), 1999
FROM temp.lot JOIN temp.person USING (p), temp.crowd;
INSERT INTO payment_events (id, type, payload, status, outcome, received_at, processed_at)
SELECT printf('evt_crowd_%d_%d', p, k), 'checkout.completed', '{}', 'done', 'applied', since - 50, since - 50 FROM temp.lot, temp.crowd;
INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, note, created_at)
SELECT printf('order:crowd-order-%d-%d', p, k), id, 50, 'purchase', 'order', printf('crowd-order-%d-%d', p, k),
       printf('order crowd-order-%d-%d', p, k), since - 50
FROM temp.lot JOIN temp.person USING (p), temp.crowd;
INSERT INTO credit_lots (id, user_id, amount, remaining, created_at)
SELECT printf('order:crowd-order-%d-%d', p, k), id, 50, 50 - used, since - 50 FROM temp.lot JOIN temp.person USING (p), temp.crowd;

INSERT INTO ai_tasks (id, task_no, user_id, status, input_params, result_urls, external_provider, external_task_id, created_at, updated_at,
                      price, attempts, next_attempt_at, completed_at)
SELECT made.id, printf('TASK_%d_%06x', at * 1000, i), person.id, iif(running, 'processing', 'completed'),
       json_object('hairstyle', 'bob-cut', 'hair_color', NULL, 'detail', NULL, 'model', 'nano-banana-edit',
                   'prompt', 'sealed:00000000:' || substr(hex(zeroblob(180)), 1, 360), 'upload_id', 'up-' || made.id,
                   'upload_key', 'cache/' || person.id || '/' || made.id || '.jpg',
                   'upload_url', '/files/cache/' || person.id || '/' || made.id || '.jpg', 'width', 819, 'height', 1024),
       iif(running, NULL, json_array('/files/result/hairstyle/' || made.id || '/0.png')), 'kie_market', 'crowd-' || i, at, at + 40, 1, 1,
       iif(running, now + 86400, 0), iif(running, NULL, at + 40)
FROM temp.made JOIN temp.person USING (p), temp.crowd ORDER BY i;
INSERT INTO credit_consumptions (id, user_id, amount, from_record_id, entity_type, entity_id, reason, created_at)
SELECT made.id || ':' || printf('order:crowd-order-%d-%d', p, nth / 50), person.id, 1, printf('order:crowd-order-%d-%d', p, nth / 50),
       'task', made.id, printf('task TASK_%d_%06x', at * 1000, i), at
FROM temp.made JOIN temp.person USING (p) ORDER BY i;
INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, note, created_at, lot_id)
SELECT 'move:' || id, user_id, -1, 'consumption', 'task', entity_id, reason, created_at, from_record_id FROM credit_consumptions
WHERE entity_id IN (SELECT id FROM temp.made) ORDER BY created_at;
INSERT INTO provider_spend (day, pictures) SELECT at / 86400, count(*) FROM temp.made GROUP BY 1
ON CONFLICT (day) DO UPDATE SET pictures = pictures + excluded.pictures;
";

const BALANCES: &str = "
UPDATE users SET updated_at = now, credits = (
    SELECT coalesce(sum(remaining), 0) FROM credit_lots
    WHERE user_id = users.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > now)
) FROM temp.crowd;
DROP TABLE temp.crowd;
DROP TABLE temp.person;
DROP TABLE temp.made;
DROP TABLE temp.lot;
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_crowd_leaves_the_books_right() -> Result<(), Box<dyn std::error::Error>> {
        let folder = std::env::temp_dir().join(format!("crowd-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("app.db");
        migrations::apply(&path, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations"))?;
        let mut database = Connection::open(&path)?;
        let schema = |database: &Connection| -> rusqlite::Result<Vec<String>> {
            let sql = "SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
            database.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        let before = schema(&database)?;
        for (id, provider) in [("ada", "google"), ("bob", "github")] {
            let sql = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) VALUES (?1, ?1 || '@x.example', ?1, 3, ?2, ?1, 1)";
            database.execute(sql, [id, provider])?;
        }
        fill(&mut database, 1_234, "ada", "bob", 1_800_000_000)?;
        assert_eq!(schema(&database)?, before, "everything that was taken out is back");
        for invariant in audit::INVARIANTS {
            let offenders: Vec<String> =
                database.prepare(invariant.offenders)?.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<_, _>>()?;
            assert!(offenders.is_empty(), "{}: {offenders:?}", invariant.id);
        }
        assert_eq!(database.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get::<_, i64>(0))?, 0);
        let of = |id: &str| database.query_row("SELECT count(*) FROM ai_tasks WHERE user_id = ?1", [id], |row| row.get::<_, i64>(0));
        assert_eq!((of("ada")?, of("bob")?), (124, 47));
        // And the rules are in force again.
        assert!(database.execute("UPDATE users SET credits = credits + 1 WHERE id = 'ada'", []).is_err());
        drop(database);
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }
}
