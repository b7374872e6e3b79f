//! Plans and money that goes back: what a payment stands for, by the calendar month.

use crate::books::{Books, START};

const MONTH: i64 = 31 * 86_400;

impl Books {
    /// What the provider says of ada's subscription `sub`, begun with order `order`, and of one payment.
    fn news(&self, order: &str, product: &str, status: &str, payment: Option<(&str, i64, i64)>) -> usize {
        let sql = "INSERT INTO subscription_news (order_id, third_party_subscription_id, provider_product_id, provider_status, provider_updated_at, \
                   period_start, period_end, transaction_id, at) VALUES (?1, 'sub_' || ?1, 'prod_' || ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let (id, start, end) = payment.map_or((None, None, None), |(id, start, end)| (Some(id), Some(start), Some(end)));
        self.run(sql, (order, product, status, self.now * 1_000, start, end, id, self.now)).unwrap()
    }

    fn plan_order(&self, id: &str, product: &str) {
        let sql = "INSERT INTO orders (id, user_id, amount, currency, credits, product_id, created_at, updated_at) \
                   SELECT ?1, 'ada', amount, currency, credits, id, ?3, ?3 FROM products WHERE id = ?2";
        self.run(sql, (id, product, self.now)).unwrap();
    }

    fn money_back(&self, transaction: &str, refunded: Option<i64>, disputed: Option<i64>) {
        let sql = "INSERT INTO money_back (transaction_id, refunded_amount, disputed, at) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, (transaction, refunded, disputed, self.now)).unwrap();
    }

    fn grant_month(&self, period: &str, n: i64) -> Result<usize, String> {
        self.run("UPDATE subscription_months SET granted_at = ?3 WHERE period_id = ?1 AND n = ?2", (period, n, self.now))
    }
}

#[test]
fn months_begin_on_the_day_the_period_did_or_on_the_last_of_a_shorter_one() {
    let mut books = Books::of_ada(0);
    // 31 January 2028, 10:20:30; 2028 is a leap year.
    books.now = 1_832_926_830;
    books.plan_order("o", "basic-yearly");
    books.news("o", "basic_yearly", "active", Some(("t", books.now, books.now + 366 * 86_400)));
    let mut statement = books.db.prepare("SELECT datetime(due_at, 'unixepoch') FROM subscription_months ORDER BY n").unwrap();
    let days: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let expected = ["01-31", "02-29", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30", "10-31", "11-30", "12-31"];
    assert_eq!(days, expected.map(|day| format!("2028-{day} 10:20:30")));
    // Without a gap: each ends where the next begins, the last with the period.
    let gaps: i64 = books.ask(
        "SELECT count(*) FROM subscription_months m WHERE ends_at IS NOT coalesce(\
             (SELECT due_at FROM subscription_months WHERE period_id = m.period_id AND n = m.n + 1), (SELECT ends_at FROM subscription_periods))",
        [],
    );
    assert_eq!(gaps, 0);
    books.assert_invariants();
}

#[test]
fn a_payment_grants_once_however_often_it_is_told() {
    let mut books = Books::of_ada(0);
    books.plan_order("o", "pro-monthly");
    for _ in 0..3 {
        books.news("o", "pro_monthly", "active", Some(("t1", START, START + MONTH)));
        books.now += 1;
    }
    assert_eq!(books.balance(), 60);
    assert_eq!(books.ask::<String>("SELECT status FROM orders", []), "completed");
    // A month's credits end with the month.
    books.now = START + MONTH;
    assert_eq!(books.balance(), 0);
    books.news("o", "pro_monthly", "active", Some(("t2", START + MONTH, START + 2 * MONTH)));
    assert_eq!(books.balance(), 60);
    books.assert_invariants();
}

#[test]
fn a_frozen_plan_is_given_nothing_more() {
    let mut books = Books::of_ada(0);
    books.plan_order("o", "basic-yearly");
    books.news("o", "basic_yearly", "active", Some(("t", START, START + 365 * 86_400)));
    for status in ["past_due", "unpaid", "paused", "expired"] {
        books.now += 1;
        books.news("o", "basic_yearly", status, None);
        assert_eq!(books.grant_month("t", 1).unwrap_err(), "plan_is_frozen", "{status}");
    }
    for (n, status) in [(1, "active"), (2, "scheduled_cancel"), (3, "canceled")] {
        books.now += 1;
        books.news("o", "basic_yearly", status, None);
        assert_eq!(books.grant_month("t", n), Ok(1), "{status}");
        assert_eq!(books.grant_month("t", n).unwrap_err(), "month_is_granted_once");
    }
    // Cancelled is the end of it.
    books.now += 1;
    books.news("o", "basic_yearly", "active", None);
    assert_eq!(books.ask::<String>("SELECT status FROM subscriptions", []), "cancelled");
    books.assert_invariants();
}

#[test]
fn a_late_month_is_good_for_a_week_at_least() {
    let mut books = Books::of_ada(0);
    books.now = START + 3 * MONTH;
    books.plan_order("o", "basic-monthly");
    books.news("o", "basic_monthly", "active", Some(("t", START, START + MONTH)));
    assert_eq!(books.balance(), 25);
    books.now += 7 * 86_400;
    assert_eq!(books.balance(), 0);
    books.assert_invariants();
}

#[test]
fn what_goes_back_of_a_yearly_payment_is_first_what_was_not_granted_yet() {
    let books = Books::of_ada(0);
    books.plan_order("o", "basic-yearly");
    books.news("o", "basic_yearly", "active", Some(("t", START, START + 365 * 86_400)));
    books.grant_month("t", 1).unwrap();
    assert_eq!(books.balance(), 50);
    // 300 credits for 9,990 cents; a third goes back.
    books.money_back("t", Some(3_330), None);
    assert_eq!(books.balance(), 50);
    for n in 2..12 {
        books.grant_month("t", n).unwrap();
    }
    assert_eq!(books.balance(), 200, "never more in all than what is still paid");
    // The rest but a twelfth: what is left is the oldest month.
    books.money_back("t", Some(9_158), None);
    assert_eq!((books.balance(), books.remaining("period:t:0")), (25, 25));
    books.assert_invariants();
}

/// An order of ada's that the checkout has paid: by a payment of its name, of so many cents.
fn checked_out(books: &Books, order: &str, cents: i64) {
    let sql = "UPDATE orders SET status = 'paid', transaction_id = 't_' || id, amount_paid = ?2, provider_subscription_id = 'sub_' || id, \
               updated_at = ?3 WHERE id = ?1";
    books.run(sql, (order, cents, books.now)).unwrap();
}

#[test]
fn what_goes_back_is_a_share_of_what_was_paid_and_not_of_the_list_s_price() {
    // Paid, went back, credits left of 25: with a discount, with tax, and for nothing.
    for (paid, back, left) in [(500, 500, 0), (500, 250, 13), (1_249, 999, 6), (1_249, 1_249, 0), (0, 0, 25)] {
        for told_first in [true, false] {
            let books = Books::of_ada(0);
            books.plan_order("o", "basic-monthly");
            let payment = Some(("t_o", START, START + MONTH));
            if told_first {
                books.news("o", "basic_monthly", "active", payment);
                books.run("UPDATE orders SET amount_paid = ?1, updated_at = ?2", (paid, books.now)).unwrap();
            } else {
                checked_out(&books, "o", paid);
                books.news("o", "basic_monthly", "active", payment);
            }
            books.money_back("t_o", Some(back), None);
            assert_eq!(books.balance(), left, "{back} of {paid}, the plan told first: {told_first}");
            books.assert_invariants();
        }
    }
}

#[test]
fn what_was_paid_may_be_heard_of_after_some_of_it_has_gone_back() {
    let books = Books::of_ada(0);
    books.plan_order("o", "basic-monthly");
    books.news("o", "basic_monthly", "active", Some(("t", START, START + MONTH)));
    books.money_back("t", Some(500), None);
    assert_eq!(books.balance(), 13, "of the list's 999");
    let sql = "INSERT INTO money_back (transaction_id, amount_paid, refunded_amount, at) VALUES ('t', ?1, 500, ?2)";
    for (paid, left) in [(1_250, 15), (1_000, 13), (500, 0)] {
        books.run(sql, (paid, books.now)).unwrap();
        assert_eq!(books.balance(), left, "of {paid}");
        books.assert_invariants();
    }
}

#[test]
fn money_that_went_back_before_the_plan_s_payment_was_told_of_counts() {
    let mut books = Books::of_ada(0);
    books.plan_order("o", "basic-monthly");
    checked_out(&books, "o", 999);
    books.money_back("t_o", Some(999), None);
    books.news("o", "basic_monthly", "active", Some(("t_o", START, START + MONTH)));
    assert_eq!(books.balance(), 0);
    books.assert_invariants();

    // A disputed year, and a renewal whose refund came first.
    books.plan_order("p", "basic-yearly");
    checked_out(&books, "p", 9_990);
    books.money_back("t_p", None, Some(1));
    books.news("p", "basic_yearly", "active", Some(("t_p", START, START + 365 * 86_400)));
    assert_eq!(books.balance(), 0);
    assert_eq!(books.grant_month("t_p", 1).unwrap_err(), "plan_is_frozen");
    let refund =
        "INSERT INTO money_back (transaction_id, refund_id, refund_amount, refund_status, at) VALUES ('t_2', 'r', 999, 'succeeded', ?1)";
    books.run(refund, [books.now]).unwrap();
    books.now += MONTH;
    books.news("o", "basic_monthly", "active", Some(("t_2", START + MONTH, START + 2 * MONTH)));
    assert_eq!(books.balance(), 0);
    books.assert_invariants();
}

#[test]
fn an_upgrade_grants_what_is_to_come_and_nothing_twice() {
    let year = 365 * 86_400;
    // In the eleventh month of a year: this month's difference, and next month's.
    let mut books = Books::of_ada(0);
    books.plan_order("o", "basic-yearly");
    books.news("o", "basic_yearly", "active", Some(("t1", START, START + year)));
    books.now = START + 10 * MONTH;
    books.news("o", "premium_yearly", "active", Some(("t2", START, START + year)));
    let lots = "SELECT count(*) FROM credit_lots WHERE id LIKE 'period:t2:%'";
    assert_eq!((books.ask::<i64>(lots, []), books.balance()), (1, 175));
    books.run("UPDATE subscription_months SET granted_at = ?1 WHERE granted_at IS NULL AND due_at <= ?1", [START + year]).unwrap();
    assert_eq!(books.ask::<i64>("SELECT sum(amount) FROM credit_lots WHERE id LIKE 'period:t2:%'", []), 2 * 175);
    books.assert_invariants();

    // From a month to a year that begins with it: that month is granted once, the others too.
    let mut books = Books::of_ada(0);
    books.plan_order("o", "basic-monthly");
    books.news("o", "basic_monthly", "active", Some(("t1", START, START + MONTH)));
    books.now += 86_400;
    books.news("o", "basic_yearly", "active", Some(("t2", START, START + year)));
    assert_eq!(books.balance(), 25);
    for n in 1..12 {
        books.grant_month("t2", n).unwrap();
    }
    assert_eq!(books.ask::<i64>("SELECT sum(amount) FROM credit_lots", []), 12 * 25);
    books.assert_invariants();
}

#[test]
fn a_period_that_is_paid_anew_after_its_money_went_back_grants_anew() {
    let books = Books::of_ada(0);
    books.plan_order("o", "basic-monthly");
    books.news("o", "basic_monthly", "active", Some(("t1", START, START + MONTH)));
    books.money_back("t1", Some(999), None);
    assert_eq!(books.balance(), 0);
    books.news("o", "basic_monthly", "active", Some(("t2", START, START + MONTH)));
    assert_eq!(books.balance(), 25);
    books.assert_invariants();
}

#[test]
fn a_dispute_is_watched_however_late_it_comes() {
    let books = Books::of_ada(0);
    books.order("o", 10, None).unwrap();
    checked_out(&books, "o", 499);
    books.plan_order("p", "basic-monthly");
    books.news("p", "basic_monthly", "active", Some(("t_p", START, START + MONTH)));
    let next = |books: &Books, table: &str, id: &str| -> Option<i64> {
        books.ask(&format!("SELECT next_look_at FROM {table} WHERE id = ?1"), [id])
    };
    books.run("UPDATE orders SET next_look_at = NULL", []).unwrap();
    books.run("UPDATE subscriptions SET next_look_at = NULL", []).unwrap();
    books.money_back("t_o", None, Some(1));
    books.money_back("t_p", None, Some(1));
    assert_eq!(next(&books, "orders", "o"), Some(books.now + 86_400));
    assert_eq!((next(&books, "orders", "p"), next(&books, "subscriptions", "p")), (None, Some(books.now + 86_400)));
}

#[test]
fn a_dispute_takes_everything_and_gives_back_what_it_took() {
    let mut books = Books::of_ada(0);
    books.order("o", 10, None).unwrap();
    books.run("UPDATE orders SET status = 'paid', transaction_id = 't', amount_paid = 499, updated_at = ?1", [books.now]).unwrap();
    books.task("x", 3).unwrap();
    books.money_back("t", None, Some(1));
    assert_eq!(books.balance(), 0);
    // Its owner's task fails meanwhile: what comes back is held, too.
    books.set_task("x", "failed").unwrap();
    assert_eq!(books.balance(), 0);
    books.now += 86_400;
    books.money_back("t", Some(0), Some(0));
    assert_eq!(books.balance(), 10);
    books.money_back("t", Some(100), None);
    assert_eq!(books.balance(), 8);
    books.assert_invariants();
}

#[test]
fn credits_that_come_back_to_a_refunded_lot_go_where_the_money_went() {
    for lasts in [None, Some(60)] {
        let mut books = Books::of_ada(0);
        books.order("o", 10, lasts).unwrap();
        books.run("UPDATE orders SET status = 'paid', transaction_id = 't', amount_paid = 499, updated_at = ?1", [books.now]).unwrap();
        books.task("x", 8).unwrap();
        books.money_back("t", Some(300), None);
        assert_eq!(books.balance(), 0, "six are to go, two were there");
        books.now += 100;
        books.set_task("x", "failed").unwrap();
        // Eight come back, four of them are still owed.
        assert_eq!(books.balance(), 4, "{lasts:?}");
        books.assert_invariants();
    }
}

#[test]
fn the_rows_of_payments_cannot_be_tampered_with() {
    let books = Books::of_ada(0);
    books.plan_order("o", "basic-yearly");
    books.news("o", "basic_yearly", "active", Some(("t", START, START + 365 * 86_400)));
    books.run("INSERT INTO payment_events (id, type, payload) VALUES ('e', 'x', '{}')", []).unwrap();
    books.run("UPDATE payment_events SET status = 'done', processed_at = received_at WHERE id = 'e'", []).unwrap();
    for (token, sql) in [
        ("period_terms_are_fixed", "UPDATE subscription_periods SET credits = 1000"),
        ("ledger_is_append_only", "DELETE FROM subscription_periods"),
        ("ledger_is_append_only", "DELETE FROM subscription_months"),
        ("ledger_is_append_only", "DELETE FROM subscriptions"),
        ("ledger_is_append_only", "DELETE FROM credit_reclaims WHERE lot_id = 'none' OR true; DELETE FROM orders"),
        ("UNIQUE constraint failed", "INSERT OR REPLACE INTO subscription_months (period_id, n, due_at, ends_at) VALUES ('t', 0, 1, 2)"),
        ("UNIQUE constraint failed", "INSERT OR REPLACE INTO subscription_periods SELECT * FROM subscription_periods"),
        ("month_is_granted_once", "UPDATE subscription_months SET granted_at = NULL WHERE n = 0"),
        ("subscription_terms_are_fixed", "UPDATE subscriptions SET third_party_subscription_id = 'sub_other'"),
        (
            "order_is_not_paid",
            "INSERT INTO orders (id, user_id, amount, credits) VALUES ('p', 'ada', 1, 1); UPDATE orders SET refunded_amount = 1 WHERE id = 'p'",
        ),
        ("events_are_filed_once", "UPDATE payment_events SET status = 'received'"),
    ] {
        let refusal = books.db.execute_batch(sql).expect_err(sql).to_string();
        assert!(refusal.contains(token), "{sql}: {refusal}");
    }
    books.assert_invariants();
}
