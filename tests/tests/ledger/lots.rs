//! Which credits are spent, and where they come back to.

use crate::books::{Books, GRACE, START};

#[test]
fn a_newcomer_has_one_lot_of_sign_up_credits() {
    let books = Books::of_ada(3);
    assert_eq!((books.balance(), books.mirror()), (3, 3));
    let row: String = books.ask("SELECT type || ' ' || entity_type || ' ' || entity_id || ' ' || amount FROM credit_records", []);
    assert_eq!(row, "gift signup ada 3");
    books.assert_invariants();
}

#[test]
fn a_newcomer_without_credits_has_no_lot() {
    let books = Books::of_ada(0);
    assert_eq!((books.balance(), books.lots()), (0, vec![]));
}

#[test]
fn what_expires_first_is_spent_first_then_what_is_oldest() {
    let mut books = Books::of_ada(1);
    books.gift("late", 1, Some(START + 200)).unwrap();
    books.gift("soon", 1, Some(START + 100)).unwrap();
    books.now += 1;
    books.gift("ever", 1, None).unwrap();
    let mut spent = Vec::new();
    for task in ["t1", "t2", "t3", "t4"] {
        books.task(task, 1).unwrap();
        spent.push(books.ask::<String>("SELECT from_record_id FROM credit_consumptions WHERE entity_id = ?1", [task]));
    }
    assert_eq!(spent, ["gift:soon", "gift:late", "signup:ada", "gift:ever"]);
    books.assert_invariants();
}

#[test]
fn a_spend_can_take_from_several_lots() {
    let books = Books::of_ada(3);
    books.gift("soon", 2, Some(START + 100)).unwrap();
    books.task("t", 4).unwrap();
    assert_eq!((books.remaining("gift:soon"), books.remaining("signup:ada")), (0, 1));
    assert_eq!(books.ask::<i64>("SELECT count(*) FROM credit_consumptions WHERE entity_id = 't'", []), 2);
    // Each portion carries the expiry of its lot.
    assert_eq!(books.ask::<i64>("SELECT sum(amount) FROM credit_records WHERE expires_at = ?1", [START + 100]), 0);
    books.assert_invariants();
}

#[test]
fn expired_credits_cannot_be_spent() {
    let mut books = Books::of_ada(0);
    books.gift("brief", 5, Some(START + 10)).unwrap();
    books.now += 10;
    assert_eq!(books.balance(), 0);
    assert_eq!(books.task("t", 1), Err("insufficient_credits".into()));
    books.assert_invariants();
}

#[test]
fn a_failed_task_pays_back_to_the_same_lots() {
    let books = Books::of_ada(3);
    books.gift("soon", 2, Some(START + 100)).unwrap();
    let before = books.lots();
    books.task("t", 4).unwrap();
    books.set_task("t", "failed").unwrap();
    assert_eq!(books.lots(), before);
    assert_eq!(books.ask::<i64>("SELECT count(*) FROM credit_records WHERE type = 'refund' AND entity_id = 't'", []), 2);
    books.assert_invariants();
}

#[test]
fn what_comes_back_to_an_expired_lot_is_good_for_a_week() {
    let mut books = Books::of_ada(0);
    books.gift("brief", 2, Some(START + 10)).unwrap();
    books.gift("ever", 1, None).unwrap();
    books.task("t", 3).unwrap();
    books.set_task("t", "processing").unwrap();
    books.now += 20;
    books.set_task("t", "failed").unwrap();
    assert_eq!(books.remaining("gift:brief"), 0, "nothing comes back to where nobody can spend it");
    assert_eq!(books.lots(), [(2, Some(START + 20 + GRACE)), (1, None)]);
    assert_eq!((books.balance(), books.mirror()), (3, 3));
    books.assert_invariants();
    // And it can be spent, fail and come back like any other.
    books.task("again", 3).unwrap();
    books.set_task("again", "failed").unwrap();
    assert_eq!(books.balance(), 3);
    books.assert_invariants();
}

#[test]
fn credits_that_expired_between_two_changes_leave_the_mirror_at_the_next_one() {
    let mut books = Books::of_ada(3);
    books.gift("brief", 2, Some(START + 10)).unwrap();
    assert_eq!(books.mirror(), 5);
    books.now += 10;
    books.task("t", 1).unwrap();
    assert_eq!((books.balance(), books.mirror()), (2, 2));
    books.assert_invariants();
}
