//! The rules about money, straight on SQL: whatever code runs above it, the schema of `migrations/` keeps these.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "ledger/arrows.rs"]
mod arrows;
#[path = "ledger/doors.rs"]
mod doors;
#[path = "ledger/generations.rs"]
mod generations;
#[path = "ledger/jobs.rs"]
mod jobs;
#[path = "ledger/libsql.rs"]
mod libsql;
#[path = "ledger/lots.rs"]
mod lots;
#[path = "ledger/orders.rs"]
mod orders;
#[path = "ledger/plans.rs"]
mod plans;
#[path = "ledger/refusals.rs"]
mod refusals;
#[path = "ledger/soak.rs"]
mod soak;
#[path = "ledger/tasks.rs"]
mod tasks;

/// An in-memory database with the product's schema, and a clock of its own.
mod books {
    use rusqlite::types::FromSql;
    use rusqlite::{Connection, Params};

    /// Where the clock begins: any time will do.
    pub const START: i64 = 1_800_000_000;
    /// What comes back to a lot that has expired is good for this long.
    pub const GRACE: i64 = 7 * 86_400;

    pub struct Books {
        pub db: Connection,
        pub now: i64,
    }

    /// What the database says no with: the token of a trigger or the text of a constraint.
    pub type Refusal = String;

    impl Books {
        pub fn new() -> Self {
            let mut db = Connection::open_in_memory().unwrap();
            migrations::apply_to(&mut db, &e2e::root().join("migrations")).unwrap();
            Self { db, now: START }
        }

        /// Books with the user `ada`, who was given this many credits for signing up.
        pub fn of_ada(credits: i64) -> Self {
            let books = Self::new();
            books.sign_up("ada", credits).unwrap();
            books
        }

        pub fn run(&self, sql: &str, parameters: impl Params) -> Result<usize, Refusal> {
            self.db.execute(sql, parameters).map_err(|error| match error {
                rusqlite::Error::SqliteFailure(_, Some(text)) => text,
                other => other.to_string(),
            })
        }

        pub fn ask<T: FromSql>(&self, sql: &str, parameters: impl Params) -> T {
            self.db.query_row(sql, parameters, |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
        }

        pub fn sign_up(&self, id: &str, credits: i64) -> Result<usize, Refusal> {
            let sql = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) VALUES (?1, ?1 || '@example.com', ?1, ?2, 'google', ?1, ?3)";
            self.run(sql, (id, credits, self.now))
        }

        /// Gives credits under a business key that can be used once.
        pub fn gift(&self, key: &str, amount: i64, expires_at: Option<i64>) -> Result<usize, Refusal> {
            // An act of the admins' log; what its hash is does not matter here.
            let sql = "INSERT INTO admin_log (seq, at, admin_id, action, subject, detail, previous, hash) \
                       SELECT n + 1, ?4, 'boss', 'gift', 'ada', json_object('key', ?1, 'credits', ?2, 'lasts', ?3 - ?4), \
                              iif(n = 0, '', printf('%064d', n)), printf('%064d', n + 1) FROM (SELECT coalesce(max(seq), 0) AS n FROM admin_log)";
            self.run(sql, (key, amount, expires_at, self.now))
        }

        pub fn task(&self, id: &str, price: i64) -> Result<usize, Refusal> {
            let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, price, created_at, updated_at) VALUES (?1, 'TASK_' || ?1, 'ada', '{}', ?2, ?3, ?3)";
            self.run(sql, (id, price, self.now))
        }

        pub fn set_task(&self, id: &str, status: &str) -> Result<usize, Refusal> {
            self.run("UPDATE ai_tasks SET status = ?2, updated_at = ?3 WHERE id = ?1", (id, status, self.now))
        }

        pub fn order(&self, id: &str, credits: i64, valid_for: Option<i64>) -> Result<usize, Refusal> {
            let sql = "INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at) \
                       VALUES (?1, 'ada', 499, 'USD', ?2, 'credits-10', ?3, ?4, ?4)";
            self.run(sql, (id, credits, valid_for, self.now))
        }

        /// Settles an order as webhook and return page do: only a pending one changes.
        pub fn pay(&self, id: &str) -> usize {
            self.run("UPDATE orders SET status = 'paid', updated_at = ?2 WHERE id = ?1 AND status = 'pending'", (id, self.now)).unwrap()
        }

        /// What can be spent now.
        pub fn balance(&self) -> i64 {
            let sql =
                "SELECT coalesce(sum(remaining), 0) FROM credit_lots WHERE user_id = 'ada' AND (expires_at IS NULL OR expires_at > ?1)";
            self.ask(sql, [self.now])
        }

        /// `users.credits`.
        pub fn mirror(&self) -> i64 {
            self.ask("SELECT credits FROM users WHERE id = 'ada'", [])
        }

        pub fn remaining(&self, lot: &str) -> i64 {
            self.ask("SELECT remaining FROM credit_lots WHERE id = ?1", [lot])
        }

        /// The lots with something left, soonest-expiring first: (remaining, expiry).
        pub fn lots(&self) -> Vec<(i64, Option<i64>)> {
            let sql =
                "SELECT remaining, expires_at FROM credit_lots WHERE remaining > 0 ORDER BY expires_at IS NULL, expires_at, created_at, id";
            let mut statement = self.db.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        }

        /// Everything there is, to see that a refused statement left nothing behind.
        pub fn everything(&self) -> Vec<String> {
            let tables = ["users", "credit_records", "credit_lots", "credit_consumptions", "ai_tasks", "orders"];
            let rows = tables.iter().flat_map(|table| {
                let mut statement = self.db.prepare(&format!("SELECT * FROM {table} ORDER BY rowid")).unwrap();
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| {
                    let cells: Result<Vec<_>, _> = (0..columns).map(|at| row.get::<_, rusqlite::types::Value>(at)).collect();
                    Ok(format!("{table} {:?}", cells?))
                });
                rows.unwrap().map(Result::unwrap).collect::<Vec<_>>()
            });
            rows.collect()
        }

        /// A statement that must be refused with this token and change nothing.
        pub fn refuses(&self, token: &str, sql: &str) {
            let before = self.everything();
            let refusal = self.db.execute_batch(sql).expect_err(sql).to_string();
            assert!(refusal.contains(token), "{sql}: refused with {refusal}, not {token}");
            assert_eq!(self.everything(), before, "{sql} was refused and yet changed something");
        }

        /// Every invariant there is, and the balance at this moment and at others: a lot that will have expired must not part the two ways
        /// to count.
        pub fn assert_invariants(&self) {
            let none = |what: &str, sql: &str| {
                let mut statement = self.db.prepare(sql).unwrap();
                let wrong: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
                assert!(wrong.is_empty(), "{what}: {wrong:?}\n{}", self.everything().join("\n"));
            };
            for invariant in audit::INVARIANTS {
                none(&format!("{}, {}", invariant.id, invariant.rule), invariant.offenders);
            }
            for at in [0, self.now - 1, self.now, self.now + 40, self.now + GRACE + 1, i64::MAX] {
                none(
                    "I2: sum of the unexpired rows is not what the unexpired lots hold",
                    &format!(
                        "SELECT u.id FROM users u WHERE \
                         (SELECT coalesce(sum(amount), 0) FROM credit_records WHERE user_id = u.id AND (expires_at IS NULL OR expires_at > {at})) <> \
                         (SELECT coalesce(sum(remaining), 0) FROM credit_lots WHERE user_id = u.id AND (expires_at IS NULL OR expires_at > {at}))"
                    ),
                );
            }
        }
    }
}
