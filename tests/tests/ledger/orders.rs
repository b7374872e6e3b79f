//! Buying: one payment, one grant.

use crate::books::{Books, START};

#[test]
fn a_paid_order_is_completed_and_granted_in_the_same_step() {
    let books = Books::of_ada(0);
    books.order("o", 10, None).unwrap();
    assert_eq!(books.pay("o"), 1);
    assert_eq!(books.ask::<String>("SELECT status FROM orders", []), "completed");
    assert_eq!(books.ask::<i64>("SELECT paid_at FROM orders", []), START);
    assert_eq!((books.balance(), books.mirror()), (10, 10));
    books.assert_invariants();
}

#[test]
fn an_order_that_is_paid_again_grants_nothing_more() {
    let books = Books::of_ada(0);
    books.order("o", 10, None).unwrap();
    assert_eq!((books.pay("o"), books.pay("o")), (1, 0));
    assert_eq!(books.balance(), 10);
    books.assert_invariants();
}

#[test]
fn the_credits_of_an_order_end_when_they_were_said_to() {
    let mut books = Books::of_ada(0);
    books.order("o", 10, Some(100)).unwrap();
    books.now += 50;
    books.pay("o");
    assert_eq!(books.lots(), [(10, Some(START + 150))], "counted from the payment, not from the order");
}

#[test]
fn a_key_grants_once() {
    let books = Books::of_ada(3);
    books.gift("welcome-back", 5, None).unwrap();
    let before = books.everything();
    assert!(books.gift("welcome-back", 5, None).unwrap_err().starts_with("UNIQUE constraint failed: credit_records."));
    let under_another_id = "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id) VALUES ('x', 'ada', 5, 'gift', 'admin', 'welcome-back')";
    books.refuses("UNIQUE constraint failed: credit_records.entity_type, credit_records.entity_id", under_another_id);
    let for_signing_up =
        "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id) VALUES ('x', 'ada', 3, 'gift', 'signup', 'ada')";
    books.refuses("UNIQUE constraint failed: credit_records.entity_type, credit_records.entity_id", for_signing_up);
    books.order("o", 10, None).unwrap();
    books.pay("o");
    let for_the_order =
        "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id) VALUES ('x', 'ada', 10, 'purchase', 'order', 'o')";
    books.refuses("UNIQUE constraint failed: credit_records.entity_type, credit_records.entity_id", for_the_order);
    assert!(books.everything().len() > before.len());
    books.assert_invariants();
}

#[test]
fn the_terms_of_an_order_stay_what_they_were() {
    let books = Books::of_ada(0);
    books.sign_up("bob", 0).unwrap();
    books.order("o", 10, None).unwrap();
    for change in ["credits = 1000", "amount = 1", "currency = 'EUR'", "user_id = 'bob'", "product_id = 'credits-50'", "id = 'other'"] {
        books.refuses("order_terms_are_fixed", &format!("UPDATE orders SET {change} WHERE id = 'o'"));
    }
    books.refuses("ledger_is_append_only", "DELETE FROM orders WHERE id = 'o'");
    books.refuses(
        "order_starts_pending",
        "INSERT INTO orders (id, user_id, amount, credits, status) VALUES ('p', 'ada', 0, 1000000, 'paid')",
    );
}

#[test]
fn when_credits_end_is_part_of_the_terms() {
    let books = Books::of_ada(0);
    books.order("o", 10, Some(100)).unwrap();
    books.refuses("order_terms_are_fixed", "UPDATE orders SET credits_valid_for = NULL WHERE id = 'o'");
}

#[test]
fn two_orders_cannot_share_a_checkout() {
    let books = Books::of_ada(0);
    books.order("o", 10, None).unwrap();
    books.order("p", 10, None).unwrap();
    books.run("UPDATE orders SET checkout_id = 'ch_1' WHERE id = 'o'", []).unwrap();
    books.refuses("UNIQUE constraint failed: orders.checkout_id", "UPDATE orders SET checkout_id = 'ch_1' WHERE id = 'p'");
}
