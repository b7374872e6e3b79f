//! What the ledger lets nobody do, whoever writes the statement.

use crate::books::Books;

fn with_history() -> Books {
    let books = Books::of_ada(3);
    books.task("kept", 1).unwrap();
    books.task("failed", 1).unwrap();
    books.set_task("failed", "failed").unwrap();
    books
}

#[test]
fn money_rows_are_never_changed_or_removed() {
    let books = with_history();
    for table in ["credit_records", "credit_consumptions"] {
        books.refuses("ledger_is_append_only", &format!("UPDATE {table} SET amount = 1"));
        books.refuses("ledger_is_append_only", &format!("DELETE FROM {table}"));
    }
    books.refuses("ledger_is_append_only", "UPDATE credit_records SET note = 'only a word'");
}

/// `REPLACE` removes the old row without firing its delete triggers, so it needs a rule of its own.
#[test]
fn money_rows_are_not_replaced_either() {
    let books = with_history();
    let rows = [
        "INSERT OR REPLACE INTO credit_records (id, user_id, amount, type, entity_type, entity_id) VALUES ('signup:ada', 'ada', 1000, 'gift', 'signup', 'ada')",
        "INSERT OR REPLACE INTO credit_consumptions (id, user_id, amount, from_record_id, entity_type, entity_id) \
         SELECT id, user_id, -amount, from_record_id, entity_type, entity_id FROM credit_consumptions WHERE entity_id = 'kept'",
    ];
    for sql in rows {
        books.refuses("", sql);
        books.assert_invariants();
    }
    // A lot from which nothing was taken yet, and whose removal would cascade to no other row.
    let untouched = Books::of_ada(3);
    untouched.refuses("", rows[0]);
}

#[test]
fn the_balance_can_only_be_what_the_ledger_says() {
    let books = with_history();
    for credits in [0, 1, 3, 1_000_000] {
        books.refuses("credits_mirror_the_ledger", &format!("UPDATE users SET credits = {credits} WHERE id = 'ada'"));
    }
    books.refuses("lots_mirror_the_ledger", "UPDATE credit_lots SET remaining = remaining + 1");
    books.refuses("lots_mirror_the_ledger", "UPDATE credit_lots SET amount = amount + 1, remaining = remaining + 1");
    books.refuses("lots_mirror_the_ledger", "UPDATE credit_lots SET expires_at = 1");
    // What it is already, it may be set to.
    books.run("UPDATE users SET credits = credits", []).unwrap();
}

#[test]
fn a_lot_is_neither_invented_nor_removed() {
    let books = with_history();
    let invented = "INSERT INTO credit_lots (id, user_id, amount, remaining, created_at) \
                    SELECT id, user_id, 1000, 1000, created_at FROM credit_records WHERE lot_id IS NOT NULL LIMIT 1";
    books.refuses("", invented);
    books.refuses("", "DELETE FROM credit_lots");
}

#[test]
fn a_ledger_row_fits_its_lot() {
    let books = Books::of_ada(3);
    books.sign_up("bob", 3).unwrap();
    let row = |user: &str, amount: i64, lot: &str, expires_at: &str| {
        format!(
            "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, lot_id) \
             VALUES ('x', '{user}', {amount}, 'consumption', 'task', 't', {expires_at}, '{lot}')"
        )
    };
    books.refuses("record_does_not_fit_its_lot", &row("bob", -1, "signup:ada", "NULL"));
    books.refuses("record_does_not_fit_its_lot", &row("ada", -1, "signup:ada", "1900000000"));
    books.refuses("record_does_not_fit_its_lot", &row("ada", -1, "nonsense", "NULL"));
    books.refuses("lot_never_overdrawn", &row("ada", -4, "signup:ada", "NULL"));
    books.refuses("lot_never_overfilled", &row("ada", 1, "signup:ada", "NULL"));
    books.refuses("record_moves_something", &row("ada", 0, "signup:ada", "NULL"));
    books.refuses("only_credits_open_a_lot", "INSERT INTO credit_records (id, user_id, amount, type) VALUES ('x', 'ada', -1, 'gift')");
}

#[test]
fn a_portion_comes_from_a_lot_of_the_same_person() {
    let books = Books::of_ada(3);
    books.sign_up("bob", 3).unwrap();
    let portion = |user: &str, amount: i64, lot: &str| {
        format!(
            "INSERT INTO credit_consumptions (id, user_id, amount, from_record_id, entity_type, entity_id) VALUES ('x', '{user}', {amount}, '{lot}', 'task', 't')"
        )
    };
    books.refuses("record_does_not_fit_its_lot", &portion("bob", 1, "signup:ada"));
    books.refuses("lot_never_overdrawn", &portion("ada", 4, "signup:ada"));
    books.refuses("lot_never_overfilled", &portion("ada", -1, "signup:ada"));
    books.refuses("consumption_moves_something", &portion("ada", 0, "signup:ada"));
}

#[test]
fn somebody_whose_money_has_moved_cannot_be_deleted() {
    let books = with_history();
    books.refuses("ledger_is_append_only", "DELETE FROM users WHERE id = 'ada'");
    books.sign_up("bob", 3).unwrap();
    books.refuses("ledger_is_append_only", "DELETE FROM users WHERE id = 'bob'");
    books.sign_up("eve", 0).unwrap();
    assert_eq!(books.run("DELETE FROM users WHERE id = 'eve'", []), Ok(1), "nobody owes her anything");
    assert_eq!(books.ask::<i64>("SELECT count(*) FROM user_auth WHERE user_id = 'eve'", []), 0);
}

#[test]
fn an_address_and_an_identity_belong_to_one_person() {
    let books = Books::of_ada(3);
    let sign_up = |id: &str, email: &str, openid: &str| {
        format!(
            "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) VALUES ('{id}', '{email}', 'x', 3, 'google', '{openid}', 1)"
        )
    };
    books.refuses("UNIQUE constraint failed: users.email", &sign_up("eve", "ada@example.com", "other"));
    // The user is not made either: both or neither.
    books.refuses("UNIQUE constraint failed: user_auth.provider, user_auth.openid", &sign_up("eve", "eve@example.com", "ada"));
}

/// Erasing an account takes the person out of its row; the books stay.
#[test]
fn the_books_outlive_the_person() {
    let books = with_history();
    books.refuses("ledger_is_append_only", "DELETE FROM users WHERE id = 'ada'");
    let (balance, rows) = (books.balance(), books.ask::<i64>("SELECT count(*) FROM credit_records", []));
    books.run("UPDATE users SET email = 'erased:' || id, name = '', picture = NULL WHERE id = 'ada'", []).unwrap();
    books.run("DELETE FROM user_auth WHERE user_id = 'ada'", []).unwrap();
    assert_eq!((books.balance(), books.ask::<i64>("SELECT count(*) FROM credit_records", [])), (balance, rows));
    books.assert_invariants();
}
