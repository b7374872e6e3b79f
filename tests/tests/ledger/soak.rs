//! A bounded share of what `cargo xtask audit --soak` does by the million: random interleavings of everything that moves credits,
//! compared with the plain model of the package `books` after every step.

use books::{Database as _, Sqlite, Walk, walk};

/// Walks that once found a fault. They are taken first, for ever.
const KEPT: [u64; 7] = [1, 6, 31, 1_795_991_072, 1_795_991_936, 1_795_991_950, 1_795_994_989];

fn take(seed: u64) {
    let mut database = Sqlite::migrated(&e2e::root().join("migrations")).unwrap();
    if let Err(failure) = walk(&mut database, Walk { seed, steps: 400, audit_every: 50 }) {
        panic!("{failure}");
    }
}

#[test]
fn walks_that_found_a_fault_find_none_any_more() {
    KEPT.into_iter().for_each(take);
}

#[test]
fn whatever_happens_in_whatever_order_the_books_are_what_the_model_says() {
    let start = u64::try_from(e2e::now()).unwrap();
    println!("seeds {start} to {}", start + 39);
    (start..start + 40).for_each(take);
}

/// The walk itself must be able to fail: with one rule of the schema taken away, it does.
#[test]
fn a_schema_without_one_of_its_rules_is_found_out() {
    let broken = [
        ("DROP TRIGGER ai_tasks_pay_back", "a failed task pays back"),
        ("DROP TRIGGER orders_money_back", "credits follow the money"),
        ("DROP TRIGGER ai_tasks_status_arrows", "final states stay"),
    ];
    for (sql, rule) in broken {
        let found = (1..=20).any(|seed| {
            let mut database = Sqlite::migrated(&e2e::root().join("migrations")).unwrap();
            database.run(sql, &[]).unwrap();
            walk(&mut database, Walk { seed, steps: 400, audit_every: 50 }).is_err()
        });
        assert!(found, "nobody noticed that this is gone: {rule}");
    }
}
