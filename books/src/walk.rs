//! Random walks: any of the things that can happen, in any order, repeated, reordered, late.

use audit::INVARIANTS;

use crate::{
    Database, Refusal, Value,
    model::{Model, Order, Period},
};

const SETTLE: &str = include_str!("../../crates/order/sql/settle.sql");
const REVIVE: &str = include_str!("../../crates/order/sql/revive.sql");
const GRANT_MONTHS: &str = include_str!("../../crates/order/sql/grant_due_months.sql");

/// Where the clock begins: 31 January 2027, a day that shorter months don't have.
const START: i64 = 1_801_390_830;
const DAY: i64 = 86_400;

/// What a walk should be.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    pub seed: u64,
    pub steps: u32,
    /// All invariants are asked after each so many steps, and at the end.
    pub audit_every: u32,
}

/// Where database and model part.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    /// The number of the step, from 0.
    pub step: u32,
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "seed {} step {}: {}", self.seed, self.step, self.what)
    }
}

/// Takes a walk on an empty database with the product's schema.
///
/// # Errors
/// The first difference between the database and the model, or the first invariant that is broken.
pub fn walk(database: &mut dyn Database, walk: Walk) -> Result<(), Failure> {
    let mut walker = Walker { db: database, model: Model::default(), dice: walk.seed, now: START, number: 0, done: String::new() };
    let fail = |step, what, done: &str| Failure { seed: walk.seed, step, what: format!("{what}\nafter: {done}") };
    walker.sign_up().map_err(|what| fail(0, what, ""))?;
    for step in 0..walk.steps {
        let result = walker.step().and_then(|()| walker.compare());
        result.map_err(|what| fail(step, what, &walker.done))?;
        if (step + 1) % walk.audit_every == 0 || step + 1 == walk.steps {
            walker.audit().map_err(|what| fail(step, what, &walker.done))?;
        }
    }
    Ok(())
}

struct Walker<'a> {
    db: &'a mut dyn Database,
    model: Model,
    dice: u64,
    now: i64,
    number: u32,
    /// The last step, in words.
    done: String,
}

type Step = Result<(), String>;

impl Walker<'_> {
    fn sign_up(&mut self) -> Step {
        let sql = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) VALUES (?1, ?1 || '@example.com', ?1, ?2, 'google', ?1, ?3)";
        for (person, credits) in [("ada", 3), ("eve", 5)] {
            self.run(sql, &[person.into(), credits.into(), self.now.into()])?;
        }
        self.model.grant("signup:ada", 3, None, self.now);
        Ok(())
    }

    /// The next number of a splitmix64 sequence, below `bound`.
    fn roll(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.roll(u64::try_from(high - low + 1).unwrap_or(1))).unwrap_or_default()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(usize::try_from(self.roll(from.len() as u64)).unwrap_or_default()).cloned() }
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.number += 1;
        format!("{prefix}{:05}", self.number)
    }

    fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, String> {
        self.db.run(sql, parameters).map_err(|refusal| format!("refused: {refusal}"))
    }

    fn tell(&mut self, what: String) {
        self.done = format!("{what} at {}", self.now);
    }

    fn step(&mut self) -> Step {
        match self.roll(100) {
            0..=6 => self.gift(),
            7..=27 => self.spend(),
            28..=52 => self.move_task(),
            53..=60 => self.order(),
            61..=70 => self.pay(),
            71..=72 => self.give_up(),
            73..=79 => self.money_back(),
            80..=86 => self.plan_news(),
            87..=90 => self.drip(),
            _ => self.pass_time(),
        }
    }

    fn gift(&mut self) -> Step {
        let (amount, lasts) = (self.between(1, 6), self.between(-60, 40 * DAY));
        let expires_at = (lasts > 0).then(|| self.now + if lasts % 2 == 0 { lasts } else { lasts % 120 + 1 });
        let key = self.fresh("g");
        self.tell(format!("gift {key} of {amount} until {expires_at:?}"));
        // A gift is an act of the admins' log; what its hash is does not matter here.
        let sql = "INSERT INTO admin_log (seq, at, admin_id, action, subject, detail, previous, hash) \
                   SELECT n + 1, ?4, 'boss', 'gift', 'ada', json_object('key', ?1, 'credits', ?2, 'lasts', ?3 - ?4), \
                          iif(n = 0, '', printf('%064d', n)), printf('%064d', n + 1) FROM (SELECT coalesce(max(seq), 0) AS n FROM admin_log)";
        let parameters = [(&key).into(), amount.into(), expires_at.into(), self.now.into()];
        self.run(sql, &parameters)?;
        self.model.grant(&format!("gift:{key}"), amount, expires_at, self.now);
        // The key once more.
        match self.db.run(sql, &parameters) {
            Err(refusal) if refusal.contains("UNIQUE constraint failed") => Ok(()),
            other => Err(format!("a gift's key was taken twice: {other:?}")),
        }
    }

    fn spend(&mut self) -> Step {
        let tasks: Vec<String> = (0..self.between(1, 3)).map(|_| self.fresh("t")).collect();
        let price = self.between(1, 4);
        self.tell(format!("tasks {tasks:?} for {price} each"));
        let ids = format!("[{}]", tasks.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(","));
        let sql = "INSERT INTO ai_tasks (id, task_no, user_id, input_params, price, created_at, updated_at) \
                   SELECT value, 'TASK_' || value, 'ada', '{}', ?2, ?3, ?3 FROM json_each(?1) RETURNING id";
        let answer = self.db.run(sql, &[(&ids).into(), price.into(), self.now.into()]);
        let before = self.model.clone();
        let enough = tasks.iter().all(|task| self.model.spend(task, price, self.now));
        if !enough {
            self.model = before;
        }
        match answer {
            Ok(rows) if enough && rows.len() == tasks.len() => Ok(()),
            Err(refusal) if !enough && refusal.contains("insufficient_credits") => Ok(()),
            other => Err(format!("{other:?}, where there {} enough", if enough { "is" } else { "is not" })),
        }
    }

    fn move_task(&mut self) -> Step {
        let open: Vec<String> =
            self.model.tasks.iter().filter(|(_, task)| !matches!(task.status, "completed" | "failed")).map(|(id, _)| id.clone()).collect();
        let all: Vec<String> = self.model.tasks.keys().cloned().collect();
        // Mostly one that is open; any now and then, for the arrows that there are not.
        let from = if self.roll(5) > 0 { open } else { all };
        let (Some(id), Some(to)) = (self.pick(&from), self.pick(&["processing", "completed", "failed", "failed", "pending"])) else {
            return Ok(());
        };
        self.tell(format!("task {id} to {to}"));
        let sql = "UPDATE ai_tasks SET status = ?2, updated_at = ?3, result_urls = iif(?2 = 'completed', '[\"/files/x\"]', result_urls) WHERE id = ?1 RETURNING id";
        let answer = self.db.run(sql, &[(&id).into(), to.into(), self.now.into()]);
        match (self.model.move_task(&id, to, self.now), answer) {
            (true, Ok(_)) => Ok(()),
            (false, Err(refusal)) if refusal.contains("illegal_task_transition") => Ok(()),
            (legal, answer) => Err(format!("{answer:?}, where the arrow is legal: {legal}")),
        }
    }

    fn order(&mut self) -> Step {
        let is_plan = self.roll(3) == 0;
        let product = if is_plan { self.pick(&["basic-monthly", "pro-monthly", "basic-yearly"]) } else { Some("credits-10") };
        let Some(product) = product else { return Ok(()) };
        let id = self.fresh("o");
        let lasts = if is_plan || self.roll(2) == 0 { None } else { Some(self.between(60, 20 * DAY)) };
        self.tell(format!("order {id} of {product} for {lasts:?}"));
        let sql = "INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at, next_look_at) \
                   SELECT ?1, 'ada', amount, currency, credits, id, ?3, ?4, ?4, ?4 FROM products WHERE id = ?2 RETURNING credits, amount";
        let row = self.run(sql, &[(&id).into(), product.into(), lasts.into(), self.now.into()])?.remove(0);
        let list = row[1].integer();
        // With a discount, as it stands, or with tax.
        let paid = list * self.pick(&[50, 100, 125]).unwrap_or(100) / 100;
        let order = Order {
            status: "pending",
            created_at: self.now,
            credits: row[0].integer(),
            lasts,
            list,
            paid,
            told: None,
            refunded: 0,
            disputed_at: None,
            is_plan,
            transaction: None,
        };
        self.model.orders.insert(id, order);
        Ok(())
    }

    /// A paid checkout is heard of: perhaps not for the first time, perhaps after its order was given up, perhaps one that was made beside
    /// the order's own.
    fn pay(&mut self) -> Step {
        let orders: Vec<String> = self.model.orders.keys().filter(|id| !id.contains("-ch_")).cloned().collect();
        let Some(id) = self.pick(&orders) else { return Ok(()) };
        let order = self.model.orders[&id].clone();
        let checkout = if !order.is_plan && self.roll(4) == 0 { format!("{id}b") } else { id.clone() };
        let transaction = format!("tran_{checkout}");
        // What was paid is not always told.
        let told = if self.roll(4) == 0 { None } else { Some(order.paid) };
        self.tell(format!("payment of {id} by {checkout}, {told:?} cents"));
        // What was given up, or paid by another checkout, cannot take this payment; another order does.
        let takes = match order.status {
            "pending" => true,
            "cancelled" | "expired" => false,
            _ => order.is_plan || order.transaction.as_ref() == Some(&transaction),
        };
        let mut settled = self.settle(&id, &checkout, told)?;
        if takes != settled.is_some() {
            return Err(format!("settling {id} answered {settled:?}, where it takes this payment: {takes}"));
        }
        let mut target = id.clone();
        if !takes {
            target = format!("{id}-ch_{checkout}");
            let product = self.product(&id)?.remove(0);
            self.run(REVIVE, &[(&id).into(), (&target).into(), self.now.into(), (&format!("ch_{checkout}")).into(), product])?;
            let another =
                Order { status: "pending", created_at: self.now, told: None, refunded: 0, disputed_at: None, transaction: None, ..order };
            self.model.orders.entry(target.clone()).or_insert(another);
            settled = self.settle(&target, &checkout, told)?;
        }
        let first = self.model.settle(&target, &transaction, told, self.now);
        if settled != Some(first) {
            return Err(format!("settling {target} answered {settled:?}, where it is the first time: {first}"));
        }
        Ok(())
    }

    /// `None`: no order fits. Otherwise whether it was paid now.
    fn settle(&mut self, order: &str, checkout: &str, told: Option<i64>) -> Result<Option<bool>, String> {
        let product = self.product(order)?.remove(0);
        let name = |prefix: &str| Value::from(&format!("{prefix}_{checkout}"));
        let is_plan = self.model.orders.get(order).is_some_and(|order| order.is_plan);
        let subscription = if is_plan { name("sub") } else { Value::Null };
        let parameters = [
            order.into(),
            name("ch"),
            name("ord"),
            product,
            self.now.into(),
            name("tran"),
            told.into(),
            name("cust"),
            subscription,
            Value::Null,
        ];
        Ok(self.run(SETTLE, &parameters)?.pop().map(|row| row[0].integer() != 0))
    }

    /// What an order is for: the provider's product.
    fn product(&mut self, order: &str) -> Result<Vec<Value>, String> {
        let sql = "SELECT provider_product_id FROM orders JOIN products ON products.id = product_id WHERE orders.id = ?1";
        self.run(sql, &[order.into()])?.pop().ok_or_else(|| format!("there is no order {order}"))
    }

    fn give_up(&mut self) -> Step {
        let orders: Vec<String> = self.model.orders.keys().cloned().collect();
        let (Some(id), Some(to)) = (self.pick(&orders), self.pick(&["cancelled", "expired"])) else { return Ok(()) };
        self.tell(format!("order {id} is {to}"));
        let sql = "UPDATE orders SET status = ?2, updated_at = ?3 WHERE id = ?1 AND status = 'pending' RETURNING id";
        let changed = !self.run(sql, &[(&id).into(), to.into(), self.now.into()])?.is_empty();
        let pending = self.model.orders[&id].status == "pending";
        if let Some(order) = self.model.orders.get_mut(&id).filter(|order| order.status == "pending") {
            order.status = to;
        }
        if changed == pending { Ok(()) } else { Err(format!("given up: {changed}, pending: {pending}")) }
    }

    /// News of a refund or a dispute: of something paid or not, once or again, in any order.
    fn money_back(&mut self) -> Step {
        let payments: Vec<(String, i64)> = self
            .model
            .orders
            .iter()
            .map(|(id, order)| (id.clone(), order.paid))
            .chain(self.model.periods.iter().map(|(id, period)| (id.clone(), period.paid)))
            .collect();
        let Some((id, paid)) = self.pick(&payments) else { return Ok(()) };
        let refunded = match self.roll(4) {
            0 => paid,
            1 => 0,
            _ => self.between(1, paid.max(1)),
        };
        let disputed = self.pick(&[None, None, Some(true), Some(false), Some(false)]).flatten();
        let told = (self.roll(2) == 0).then_some(paid);
        self.tell(format!("{refunded} of {paid} (told: {}) went back of {id}, disputed {disputed:?}", told.is_some()));
        // A period's id is its payment; an order that was not paid has none yet.
        let transaction = self.model.orders.get(&id).map_or(Some(id.clone()), |order| order.transaction.clone());
        let transaction = transaction.unwrap_or_else(|| format!("tran_{id}"));
        let sql = "INSERT INTO money_back (transaction_id, amount_paid, refunded_amount, disputed, at) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, &[(&transaction).into(), told.into(), refunded.into(), disputed.map(i64::from).into(), self.now.into()])?;
        self.model.money_back(&transaction, told, refunded, disputed, self.now);
        Ok(())
    }

    /// News of a plan: its state, and a payment that is new, repeated or late.
    fn plan_news(&mut self) -> Step {
        let plans: Vec<String> = self
            .model
            .orders
            .iter()
            .filter(|(id, order)| order.is_plan && !id.contains("-ch_") && !matches!(order.status, "cancelled" | "expired"))
            .map(|(id, _)| id.clone())
            .collect();
        let Some(order) = self.pick(&plans) else { return Ok(()) };
        let known = "SELECT provider_product_id, billing_cycle = 'yearly', products.credits, products.amount FROM orders JOIN products ON products.id = product_id WHERE orders.id = ?1";
        let row = self.run(known, &[(&order).into()])?.remove(0);
        let yearly = row[1].integer() != 0;
        let status =
            self.pick(&["active", "active", "active", "past_due", "paused", "scheduled_cancel", "expired", "canceled"]).unwrap_or("active");
        // Which of its payments, if any. The first is the order's own.
        let n = self.roll(5);
        let payment = (n < 4).then(|| if n == 0 { format!("tran_{order}") } else { format!("p_{order}_{n}") });
        let paid = if n == 0 { self.model.orders[&order].paid } else { row[3].integer() * (3 + i64::try_from(n).unwrap_or_default()) / 4 };
        let told = (payment.is_some() && self.roll(2) == 0).then_some(paid);
        let start = START
            + i64::try_from(n).unwrap_or_default() * 31 * DAY
            + if yearly { i64::try_from(n).unwrap_or_default() * 335 * DAY } else { 0 };
        let months: i64 = if yearly { 12 } else { 1 };
        let end = start + if yearly { 366 * DAY } else { 31 * DAY };
        self.tell(format!("plan {order} is {status}, payment {payment:?} of {told:?} cents"));
        let sql = "INSERT INTO subscription_news (order_id, third_party_subscription_id, provider_product_id, provider_status, provider_updated_at, \
                   period_start, period_end, transaction_id, amount_paid, at) VALUES (?1, 'sub_' || ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let parameters = [
            (&order).into(),
            row[0].clone(),
            status.into(),
            (self.now * 1_000).into(),
            start.into(),
            end.into(),
            payment.as_ref().map_or(Value::Null, Value::from),
            told.into(),
            self.now.into(),
        ];
        self.run(sql, &parameters)?;
        self.model.plans.insert(order.clone(), status);
        if let Some(payment) = payment {
            let begins: Vec<i64> = (0..=months).map(|month| add_months(start, month)).collect();
            let months = (0..usize::try_from(months).unwrap_or_default()).map(|month| {
                let begin = if month == 0 { begins[0].min(self.now) } else { begins[month] };
                let last = month + 1 == begins.len() - 1;
                (begin, if last { end } else { begins[month + 1] }, false)
            });
            let period = Period {
                plan: order.clone(),
                credits: row[2].integer(),
                months: months.collect(),
                paid: row[3].integer(),
                refunded: 0,
                disputed_at: None,
                lots: Vec::new(),
            };
            self.model.begin_period(&payment, period, told, self.now);
            // A payment completes the order that began it all.
            let is_first = start < self.model.orders[&order].created_at + 15 * DAY;
            self.model.pay(&order, is_first.then_some(payment.as_str()), self.now);
        }
        Ok(())
    }

    fn drip(&mut self) -> Step {
        self.tell("the months that are due".into());
        while self.run(GRANT_MONTHS, &[self.now.into(), 5.into()])?.len() == 5 {}
        self.model.drip(self.now);
        Ok(())
    }

    fn pass_time(&mut self) -> Step {
        let seconds = match self.roll(4) {
            0 => 0,
            1 => self.between(1, 90),
            2 => self.between(1, DAY),
            _ => self.between(DAY, 20 * DAY),
        };
        self.now += seconds;
        self.tell(format!("{seconds} seconds"));
        Ok(())
    }

    /// The balance after every step; now and then each lot and each state.
    fn compare(&mut self) -> Step {
        let sql = "SELECT coalesce(sum(remaining), 0) FROM credit_lots WHERE user_id = 'ada' AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1)";
        let balance = self.run(sql, &[self.now.into()])?[0][0].integer();
        let expected = self.model.balance(self.now);
        if balance != expected {
            return Err(format!("the balance is {balance}, and should be {expected}\n{}", self.lots()?));
        }
        if self.roll(10) > 0 {
            return Ok(());
        }
        let lots = self.run("SELECT id, remaining FROM credit_lots WHERE user_id = 'ada' ORDER BY id", &[])?;
        let expected: Vec<Vec<Value>> = self.model.lots.iter().map(|(id, lot)| vec![id.into(), lot.remaining.into()]).collect();
        if lots != expected {
            return Err(self.lots()?);
        }
        let orders = self.run("SELECT id, status FROM orders ORDER BY id", &[])?;
        let expected: Vec<Vec<Value>> = self.model.orders.iter().map(|(id, order)| vec![id.into(), order.status.into()]).collect();
        if orders != expected {
            return Err(format!("orders {orders:?}\nand should be {expected:?}"));
        }
        let eve = self.run("SELECT credits FROM users WHERE id = 'eve'", &[])?[0][0].integer();
        if eve == 5 { Ok(()) } else { Err(format!("somebody else's balance is {eve}")) }
    }

    fn lots(&mut self) -> Result<String, Refusal> {
        let lots = self.run("SELECT id, remaining, expires_at FROM credit_lots WHERE user_id = 'ada' ORDER BY id", &[])?;
        let periods = "SELECT id, amount_paid, refunded_amount, disputed_at FROM subscription_periods ORDER BY id";
        let periods = self.run(periods, &[])?;
        let model = &self.model;
        Ok(format!("lots {lots:?}\nand should be {:?}\nperiods {periods:?}\nand should be {:?}", model.lots, model.periods))
    }

    fn audit(&mut self) -> Step {
        for invariant in INVARIANTS {
            let offenders = self.run(invariant.offenders, &[])?;
            if !offenders.is_empty() {
                return Err(format!("{} ({}) is broken by {offenders:?}", invariant.id, invariant.rule));
            }
        }
        Ok(())
    }
}

/// The same time of day so many calendar months later, on the last day of a shorter month.
fn add_months(start: i64, months: i64) -> i64 {
    let (year, month, day) = civil(start.div_euclid(DAY));
    let index = year * 12 + month - 1 + months;
    let (year, month) = (index.div_euclid(12), index.rem_euclid(12) + 1);
    let last = (28..=31).rev().find(|day| civil(days(year, month, *day)) == (year, month, *day)).unwrap_or(28);
    days(year, month, day.min(last)) * DAY + start.rem_euclid(DAY)
}

/// Days since 1970 (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_added_by_the_calendar() {
        let day = |text: i64| civil(text.div_euclid(DAY));
        assert_eq!(day(START), (2027, 1, 31));
        assert_eq!(day(add_months(START, 1)), (2027, 2, 28));
        assert_eq!(day(add_months(START, 13)), (2028, 2, 29));
        assert_eq!(add_months(START, 12) % DAY, START % DAY);
    }
}
