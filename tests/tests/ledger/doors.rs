//! The rules of migration 7: who is welcomed, what a day may cost, what admins did, and who has gone.

use crate::books::Books;

fn sign_up(books: &Books, id: &str, mailbox: &str, address: Option<&str>) -> i64 {
    let sql = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at, identity_hashes, address_hash, address_limit) \
               VALUES (?1, ?1, ?1, 3, 'google', ?1, 1000, json_array(?2, 'old-' || ?2), ?3, 2)";
    books.run(sql, (id, mailbox, address)).unwrap();
    books.ask("SELECT credits FROM users WHERE id = ?1", [id])
}

#[test]
fn a_mailbox_is_welcomed_once_and_an_address_so_many_times_a_day() {
    let books = Books::new();
    assert_eq!(sign_up(&books, "ada", "m1", Some("a1")), 3);
    assert_eq!(sign_up(&books, "ada+1", "m1", Some("a2")), 0);
    assert_eq!(sign_up(&books, "bob", "m2", Some("a1")), 3);
    assert_eq!(sign_up(&books, "carol", "m3", Some("a1")), 0);
    // Who was not given any may be given them another day, elsewhere.
    assert_eq!(books.ask::<i64>("SELECT count(*) FROM signup_grants", []), 2);
    assert_eq!(sign_up(&books, "dave", "m4", None), 3);
    // A mailbox that was welcomed under the key before this one.
    books.run("INSERT INTO signup_grants VALUES ('old-m5', NULL, 1)", []).unwrap();
    assert_eq!(sign_up(&books, "eve", "m5", None), 0);
    books.assert_invariants();
}

#[test]
fn a_day_has_so_many_pictures_and_the_next_begins_anew() {
    let books = Books::of_ada(100);
    let order = |ids: &str, at: i64| {
        let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, price, created_at, updated_at, day_limit) \
                   SELECT value, value, 'ada', '{}', 1, ?2, ?2, 5 FROM json_each(?1)";
        books.run(sql, (ids, at))
    };
    let day = 20_000 * 86_400;
    order(r#"["1","2","3"]"#, day).unwrap();
    // All or none.
    assert!(order(r#"["4","5","6"]"#, day + 86_399).is_err());
    order(r#"["4","5"]"#, day + 86_399).unwrap();
    assert!(order(r#"["6"]"#, day + 86_399).is_err());
    order(r#"["6"]"#, day + 86_400).unwrap();
    assert_eq!(books.balance(), 94);
    books.assert_invariants();
}

#[test]
fn one_person_gets_a_tenth_of_a_day_and_twenty_in_any_case() {
    let books = Books::of_ada(1_000);
    books.sign_up("bob", 1_000).unwrap();
    let order = |who: &str, count: i64, at: i64, limit: i64| {
        let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, price, created_at, updated_at, day_limit) \
                   SELECT hex(randomblob(8)), hex(randomblob(8)), ?1, '{}', 1, ?3, ?3, ?4 FROM json_each(json_array(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)) \
                   WHERE value <= ?2";
        books.run(sql, (who, count, at, limit))
    };
    let day = 20_000 * 86_400;
    for _ in 0..2 {
        order("ada", 10, day, 100).unwrap();
    }
    assert!(order("ada", 1, day + 86_399, 100).unwrap_err().contains("share_of_the_day_used"));
    order("bob", 10, day, 100).unwrap();
    // Of a larger day it is more, all or none.
    order("ada", 9, day, 300).unwrap();
    assert!(order("ada", 2, day, 300).unwrap_err().contains("share_of_the_day_used"));
    order("ada", 1, day, 300).unwrap();
    // What failed and was paid back has been made all the same.
    books.run("UPDATE ai_tasks SET status = 'failed', updated_at = created_at WHERE user_id = 'ada'", []).unwrap();
    assert!(order("ada", 1, day, 300).is_err());
    order("ada", 1, day + 86_400, 300).unwrap();
    let plan: String = books
        .db
        .prepare("EXPLAIN QUERY PLAN SELECT count(*) FROM ai_tasks WHERE user_id = 'ada' AND created_at >= 1 AND created_at < 2")
        .unwrap()
        .query_map([], |row| row.get::<_, String>(3))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(plan.contains("ai_tasks_user_id"), "{plan}");
    books.assert_invariants();
}

#[test]
fn what_came_before_the_log_is_written_down_once() {
    let books = Books::of_ada(3);
    books.refuses("log_is_append_only", "INSERT INTO before_the_log VALUES ('gift', 'mine')");
}

fn act(books: &Books, seq: i64, previous: &str, action: &str, detail: &str) -> bool {
    let sql = "INSERT INTO admin_log (seq, at, admin_id, action, subject, detail, previous, hash) \
               VALUES (?1, 1000, 'boss', ?3, 'ada', ?4, ?2, printf('%064d', ?1))";
    books.run(sql, (seq, previous, action, detail)).is_ok()
}

#[test]
fn the_admins_log_only_grows_at_its_end() {
    let books = Books::of_ada(3);
    let hash = |seq: i64| format!("{seq:064}");
    assert!(!act(&books, 2, "", "note", "{}"), "it begins with 1");
    assert!(act(&books, 1, "", "note", "{}"));
    assert!(!act(&books, 1, "", "note", "{}"));
    assert!(!act(&books, 2, &hash(7), "note", "{}"), "an act names the one before");
    assert!(act(&books, 2, &hash(1), "note", "{}"));
    books.refuses("log_is_append_only", "UPDATE admin_log SET at = 1");
    books.refuses("log_is_append_only", "DELETE FROM admin_log WHERE seq = 2");
    books.refuses(
        "",
        "INSERT OR REPLACE INTO admin_log SELECT seq, at, 'eve', action, subject, detail, previous, hash FROM admin_log WHERE seq = 2",
    );
}

#[test]
fn an_act_and_what_it_does_are_one() {
    let books = Books::of_ada(3);
    let gift = r#"{"key":"k","credits":7,"lasts":null,"note":null}"#;
    assert!(act(&books, 1, "", "gift", gift));
    assert_eq!(books.balance(), 10);
    assert!(!act(&books, 2, &format!("{:064}", 1), "gift", gift), "the key is taken");
    assert!(!act(&books, 2, &format!("{:064}", 1), "gift", r#"{"key":"l","credits":0}"#), "of nothing");
    assert!(!act(&books, 2, &format!("{:064}", 1), "role", r#"{"role":"emperor"}"#));
    assert_eq!(books.ask::<i64>("SELECT count(*) FROM admin_log", []), 1, "what did not happen is not in the log");
    assert!(act(&books, 2, &format!("{:064}", 1), "role", r#"{"role":"admin"}"#));
    assert_eq!(books.ask::<String>("SELECT role FROM users", []), "admin");
    books.assert_invariants();
}

#[test]
fn who_goes_leaves_the_books_and_nothing_else() {
    let books = Books::of_ada(3);
    books.task("done", 1).unwrap();
    books.set_task("done", "processing").unwrap();
    books
        .run("UPDATE ai_tasks SET status = 'completed', completed_at = 2000, result_urls = '[\"/files/x\"]' WHERE id = 'done'", [])
        .unwrap();
    books.task("running", 1).unwrap();
    books.run("INSERT INTO sessions (id_hash, user_id, created_at, expires_at) VALUES ('s', 'ada', 1, 99999999999)", []).unwrap();
    books.run("INSERT INTO erasures (user_id, asked_at) VALUES ('ada', 3000)", []).unwrap();
    assert_eq!(books.ask::<String>("SELECT email || name || role FROM users", []), "erased-ada@erased.invalidEraseduser");
    assert_eq!(
        books.ask::<String>("SELECT group_concat(input_params || status) FROM (SELECT * FROM ai_tasks ORDER BY id)", []),
        "{}completed,{}failed"
    );
    assert_eq!(books.ask::<i64>("SELECT count(*) FROM user_auth", []) + books.ask::<i64>("SELECT count(*) FROM signin_logs", []), 0);
    assert_eq!(books.ask::<i64>("SELECT expires_at FROM sessions", []), 0, "ended; its row says whom to take out of the cache");
    books.assert_invariants();
    // What was on its way finds the door closed.
    for sql in [
        "INSERT INTO sessions (id_hash, user_id, expires_at) VALUES ('t', 'ada', 99999999999)",
        "INSERT INTO uploads (id, user_id, key, content_type, expires_at) VALUES ('u', 'ada', 'k', 'image/png', 99999999999)",
        "INSERT INTO ai_tasks (id, task_no, user_id, input_params) VALUES ('t', 't', 'ada', '{}')",
        "INSERT INTO user_auth (id, user_id, provider, openid) VALUES ('a', 'ada', 'github', '1')",
    ] {
        books.refuses("account_is_erased", sql);
    }
    // Money that moves later still moves.
    books.gift("late", 5, None).unwrap();
    books.assert_invariants();
}
