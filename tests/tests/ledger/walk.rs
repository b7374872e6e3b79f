//! Random walks: whatever happens in whatever order, I1 to I5 hold after every step, and the balance is what a plain model of it says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::books::{Books, GRACE};

#[derive(Clone, Debug)]
enum Step {
    Gift {
        amount: i64,
        lasts: Option<i64>,
    },
    /// The same key once more.
    GiftAgain,
    Spend {
        price: i64,
    },
    SpendSeveral {
        tasks: usize,
    },
    /// Something happens to one of the tasks so far.
    Move {
        which: usize,
        to: &'static str,
    },
    Order {
        credits: i64,
        lasts: Option<i64>,
    },
    /// Webhook and return page: one of the orders so far is paid twice.
    PayTwice {
        which: usize,
    },
    Cancel {
        which: usize,
    },
    Clock {
        seconds: i64,
    },
    /// What the sweep does about balances whose lots have expired.
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let lasts = prop_oneof![Just(None), (1..120_i64).prop_map(Some)];
    prop_oneof![
        3 => (1..6_i64, lasts.clone()).prop_map(|(amount, lasts)| Step::Gift { amount, lasts }),
        1 => Just(Step::GiftAgain),
        4 => (1..5_i64).prop_map(|price| Step::Spend { price }),
        2 => (2..5_usize).prop_map(|tasks| Step::SpendSeveral { tasks }),
        8 => (any::<usize>(), prop::sample::select(vec!["processing", "completed", "failed", "failed", "pending"]))
            .prop_map(|(which, to)| Step::Move { which, to }),
        2 => (1..12_i64, lasts).prop_map(|(credits, lasts)| Step::Order { credits, lasts }),
        2 => any::<usize>().prop_map(|which| Step::PayTwice { which }),
        1 => any::<usize>().prop_map(|which| Step::Cancel { which }),
        3 => prop_oneof![1..60_i64, Just(GRACE)].prop_map(|seconds| Step::Clock { seconds }),
        1 => Just(Step::Sweep),
    ]
}

/// A lot, by its expiry (or the end of time) and its order of arrival.
type Lot = (i64, u32);

/// What a task was charged: so much from each of these lots.
type Portions = Vec<(Lot, i64)>;

/// The rules of money in the plainest words: lots that are spent soonest-expiring first, then oldest.
#[derive(Default)]
struct Model {
    /// (expiry or the end of time, order of arrival) -> what is left.
    lots: BTreeMap<Lot, i64>,
    arrivals: u32,
    /// Status, and the portions it was charged: (lot, amount).
    tasks: Vec<(&'static str, Portions)>,
    /// Status, credits, how long they last.
    orders: Vec<(&'static str, i64, Option<i64>)>,
}

impl Model {
    fn add(&mut self, amount: i64, expires_at: Option<i64>) {
        self.arrivals += 1;
        self.lots.insert((expires_at.unwrap_or(i64::MAX), self.arrivals), amount);
    }

    fn balance(&self, now: i64) -> i64 {
        self.lots.iter().filter(|((expiry, _), _)| *expiry > now).map(|(_, left)| left).sum()
    }

    fn spend(&mut self, price: i64, now: i64) -> bool {
        if self.balance(now) < price {
            return false;
        }
        let (mut owed, mut portions) = (price, Vec::new());
        for (lot, left) in self.lots.iter_mut().filter(|((expiry, _), _)| *expiry > now) {
            let taken = owed.min(*left);
            if taken > 0 {
                *left -= taken;
                owed -= taken;
                portions.push((*lot, taken));
            }
        }
        self.tasks.push(("pending", portions));
        true
    }

    fn move_task(&mut self, which: usize, to: &'static str, now: i64) -> bool {
        let (from, portions) = self.tasks[which].clone();
        if from == to {
            return true;
        }
        if !matches!((from, to), ("pending", "processing" | "failed") | ("processing", "completed" | "failed")) {
            return false;
        }
        self.tasks[which].0 = to;
        if to == "failed" {
            for (lot, amount) in portions {
                if lot.0 <= now { self.add(amount, Some(now + GRACE)) } else { *self.lots.get_mut(&lot).unwrap() += amount }
            }
        }
        true
    }
}

fn take(step: &Step, books: &mut Books, model: &mut Model, number: usize) {
    match step {
        Step::Gift { amount, lasts } => {
            let expires_at = lasts.map(|seconds| books.now + seconds);
            books.gift(&format!("g{number:03}"), *amount, expires_at).unwrap();
            model.add(*amount, expires_at);
        }
        Step::GiftAgain => {
            let again = "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id) VALUES ('again', 'ada', 9, 'gift', 'signup', 'ada')";
            assert!(books.run(again, []).unwrap_err().contains("UNIQUE constraint failed"));
        }
        Step::Spend { price } => {
            let id = format!("t{}", model.tasks.len());
            let expected = if model.spend(*price, books.now) { Ok(1) } else { Err("insufficient_credits".to_owned()) };
            assert_eq!(books.task(&id, *price), expected);
        }
        Step::SpendSeveral { tasks } => {
            let first = model.tasks.len();
            let ids: Vec<String> = (first..first + tasks).map(|at| format!("\"t{at}\"")).collect();
            let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, created_at, updated_at) \
                       SELECT value, value, 'ada', '{}', ?2, ?2 FROM json_each(?1)";
            let outcome = books.run(sql, (format!("[{}]", ids.join(",")), books.now));
            if model.balance(books.now) >= i64::try_from(*tasks).unwrap() {
                assert_eq!(outcome, Ok(*tasks));
                (0..*tasks).for_each(|_| assert!(model.spend(1, books.now)));
            } else {
                assert_eq!(outcome, Err("insufficient_credits".to_owned()));
            }
        }
        Step::Move { which, to } => {
            let Some(which) = which.checked_rem(model.tasks.len()) else { return };
            let moved = books.set_task(&format!("t{which}"), to);
            let expected = if model.move_task(which, to, books.now) { Ok(1) } else { Err("illegal_task_transition".to_owned()) };
            assert_eq!(moved, expected);
        }
        Step::Order { credits, lasts } => {
            books.order(&format!("o{}", model.orders.len()), *credits, *lasts).unwrap();
            model.orders.push(("pending", *credits, *lasts));
        }
        Step::PayTwice { which } => {
            let Some(which) = which.checked_rem(model.orders.len()) else { return };
            let id = format!("o{which}");
            let (status, credits, lasts) = model.orders[which];
            let expected = usize::from(status == "pending");
            assert_eq!((books.pay(&id), books.pay(&id)), (expected, 0));
            if status == "pending" {
                model.orders[which].0 = "completed";
                model.add(credits, lasts.map(|seconds| books.now + seconds));
            }
        }
        Step::Cancel { which } => {
            let Some(which) = which.checked_rem(model.orders.len()) else { return };
            let moved = books.run("UPDATE orders SET status = 'cancelled' WHERE id = ?1", [format!("o{which}")]);
            match model.orders[which].0 {
                "completed" => assert_eq!(moved, Err("illegal_order_transition".to_owned())),
                _ => {
                    assert_eq!(moved, Ok(1));
                    model.orders[which].0 = "cancelled";
                }
            }
        }
        Step::Clock { seconds } => books.now += seconds,
        Step::Sweep => {
            let sql = "UPDATE users SET updated_at = ?1, credits = (SELECT coalesce(sum(remaining), 0) FROM credit_lots \
                       WHERE user_id = users.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1))";
            books.run(sql, [books.now]).unwrap();
            assert_eq!(books.mirror(), model.balance(books.now));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_keeps_the_books(steps in prop::collection::vec(step(), 1..50)) {
        let mut books = Books::of_ada(3);
        let mut model = Model::default();
        model.add(3, None);
        for (number, step) in steps.iter().enumerate() {
            take(step, &mut books, &mut model, number);
            books.assert_invariants();
            assert_eq!(books.balance(), model.balance(books.now), "after {step:?}");
            for (at, (status, _)) in model.tasks.iter().enumerate() {
                assert_eq!(books.ask::<String>("SELECT status FROM ai_tasks WHERE id = ?1", [format!("t{at}")]), *status);
            }
            for (at, (status, ..)) in model.orders.iter().enumerate() {
                assert_eq!(books.ask::<String>("SELECT status FROM orders WHERE id = ?1", [format!("o{at}")]), *status);
            }
        }
    }
}
