//! I5: statuses move along the arrows and no other way. Every pair is tried.

use crate::books::Books;

/// Puts a row into a status from which it could not have been reached in one step, with the rules of its table set aside.
fn force(books: &Books, table: &str, status: &str) {
    let mut statement = books.db.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1").unwrap();
    let rows = statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let triggers: Vec<(String, String)> = rows.map(Result::unwrap).collect();
    assert!(!triggers.is_empty());
    for (name, _) in &triggers {
        books.db.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    books.run(&format!("UPDATE {table} SET status = ?1"), [status]).unwrap();
    for (_, sql) in &triggers {
        books.db.execute_batch(sql).unwrap();
    }
}

fn check(table: &str, statuses: &[&str], arrows: &[(&str, &str)], make: impl Fn() -> Books) {
    for from in statuses {
        for to in statuses {
            let books = make();
            force(&books, table, from);
            let moved = books.run(&format!("UPDATE {table} SET status = ?1"), [to]);
            let allowed = from == to || arrows.contains(&(from, to));
            let token = if table == "orders" { "illegal_order_transition" } else { "illegal_task_transition" };
            if allowed {
                assert_eq!(moved, Ok(1), "{table}: {from} -> {to}");
            } else {
                assert_eq!(moved, Err(token.into()), "{table}: {from} -> {to}");
                assert_eq!(books.ask::<String>(&format!("SELECT status FROM {table}"), []), *from);
            }
        }
        let books = make();
        force(&books, table, from);
        assert!(books.run(&format!("UPDATE {table} SET status = 'nonsense'"), []).is_err(), "{table}: {from} -> nonsense");
    }
}

#[test]
fn tasks_move_along_their_arrows_only() {
    let statuses = ["pending", "processing", "completed", "failed"];
    let arrows = [("pending", "processing"), ("pending", "failed"), ("processing", "completed"), ("processing", "failed")];
    check("ai_tasks", &statuses, &arrows, || {
        let books = Books::of_ada(3);
        books.task("t", 1).unwrap();
        books
    });
}

#[test]
fn orders_move_along_their_arrows_only() {
    let statuses = ["pending", "paid", "processing", "completed", "refunding", "refunded", "cancelled", "expired"];
    let arrows = [
        ("pending", "paid"),
        ("pending", "cancelled"),
        ("pending", "expired"),
        ("paid", "processing"),
        ("processing", "completed"),
        ("completed", "refunding"),
        ("refunding", "refunded"),
    ];
    check("orders", &statuses, &arrows, || {
        let books = Books::of_ada(0);
        books.order("o", 10, None).unwrap();
        books
    });
}
