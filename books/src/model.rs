//! The rules of money as one would tell them, without a database.

use std::collections::BTreeMap;

/// What comes back to a lot that has expired is good for this long, in seconds.
pub const GRACE: i64 = 7 * 86_400;

/// Credits that came together and expire together.
#[derive(Clone, Debug)]
pub struct Lot {
    pub amount: i64,
    pub remaining: i64,
    pub expires_at: Option<i64>,
    pub created_at: i64,
    /// How many are to be taken back, and how many have been.
    pub target: i64,
    pub taken: i64,
    /// How often something was taken or given back.
    pub moves: i64,
}

impl Lot {
    fn lives(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|expiry| expiry > now)
    }
}

#[derive(Clone, Debug)]
pub struct Task {
    pub status: &'static str,
    /// So much from each of these lots.
    pub portions: Vec<(String, i64)>,
}

#[derive(Clone, Debug)]
pub struct Order {
    pub status: &'static str,
    pub created_at: i64,
    pub credits: i64,
    pub lasts: Option<i64>,
    /// Cents: the list's, and what is really paid.
    pub list: i64,
    pub paid: i64,
    /// What we were told of what was paid.
    pub told: Option<i64>,
    pub refunded: i64,
    pub disputed_at: Option<i64>,
    pub is_plan: bool,
    /// The payment, once there was one.
    pub transaction: Option<String>,
}

/// A payment of a plan.
#[derive(Clone, Debug)]
pub struct Period {
    pub plan: String,
    pub credits: i64,
    /// Begin and end of each month; whether it was granted.
    pub months: Vec<(i64, i64, bool)>,
    /// Cents, as far as we know.
    pub paid: i64,
    pub refunded: i64,
    pub disputed_at: Option<i64>,
    /// Of what was granted, for the month's number.
    pub lots: Vec<(usize, String)>,
}

/// One person's books.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub lots: BTreeMap<String, Lot>,
    pub tasks: BTreeMap<String, Task>,
    pub orders: BTreeMap<String, Order>,
    pub periods: BTreeMap<String, Period>,
    /// Plans by their order's id: the provider's word for their state.
    pub plans: BTreeMap<String, &'static str>,
}

impl Model {
    #[must_use]
    pub fn balance(&self, now: i64) -> i64 {
        self.lots.values().filter(|lot| lot.lives(now)).map(|lot| lot.remaining).sum()
    }

    pub fn grant(&mut self, id: &str, amount: i64, expires_at: Option<i64>, now: i64) {
        let lot = Lot { amount, remaining: amount, expires_at, created_at: now, target: 0, taken: 0, moves: 0 };
        assert!(self.lots.insert(id.to_owned(), lot).is_none(), "{id} is granted twice");
    }

    /// Takes the price from the lots that expire soonest, then from the oldest. False: there is not enough, and nothing is taken.
    pub fn spend(&mut self, task: &str, price: i64, now: i64) -> bool {
        if self.balance(now) < price {
            return false;
        }
        let mut order: Vec<_> = self
            .lots
            .iter()
            .filter(|(_, lot)| lot.lives(now) && lot.remaining > 0)
            .map(|(id, lot)| (lot.expires_at.unwrap_or(i64::MAX), lot.created_at, id.clone()))
            .collect();
        order.sort();
        let (mut owed, mut portions) = (price, Vec::new());
        for (_, _, id) in order {
            let Some(lot) = self.lots.get_mut(&id) else { continue };
            let taken = owed.min(lot.remaining);
            if taken > 0 {
                lot.remaining -= taken;
                owed -= taken;
                portions.push((id, taken));
            }
        }
        self.tasks.insert(task.to_owned(), Task { status: "pending", portions });
        true
    }

    /// Moves a task along its arrows; false: there is no such arrow.
    pub fn move_task(&mut self, id: &str, to: &'static str, now: i64) -> bool {
        let Some(task) = self.tasks.get_mut(id) else { return false };
        if task.status == to {
            return true;
        }
        if !matches!((task.status, to), ("pending", "processing" | "failed") | ("processing", "completed" | "failed")) {
            return false;
        }
        task.status = to;
        if to == "failed" {
            for (lot, amount) in task.portions.clone() {
                self.give_back(id, &lot, amount, now);
            }
        }
        true
    }

    /// A failed task's portion returns to its lot; what of it is owed goes at once; what comes to an expired lot gets a week.
    fn give_back(&mut self, task: &str, lot_id: &str, amount: i64, now: i64) {
        let Some(lot) = self.lots.get_mut(lot_id) else { return };
        let owed = (lot.target - lot.taken).clamp(0, amount);
        if owed > 0 {
            lot.taken += owed;
            lot.moves += 1;
        }
        if lot.lives(now) {
            lot.remaining += amount - owed;
        } else if amount > owed {
            self.grant(&format!("grace:return:{task}:{lot_id}"), amount - owed, Some(now + GRACE), now);
        }
    }

    /// Sets how many credits of a lot go back.
    fn reclaim(&mut self, lot_id: &str, target: i64, now: i64) {
        let Some(lot) = self.lots.get_mut(lot_id) else { return };
        if lot.target == target {
            return;
        }
        lot.target = target;
        let taken = if target <= lot.taken {
            target
        } else if lot.lives(now) {
            lot.taken + (target - lot.taken).min(lot.remaining)
        } else {
            lot.taken
        };
        let back = lot.taken - taken;
        lot.taken = taken;
        if back == 0 {
            return;
        }
        let number = lot.moves;
        lot.moves += 1;
        if back < 0 || lot.lives(now) {
            lot.remaining += back;
        } else {
            self.grant(&format!("reclaim:{lot_id}:{number}"), back, Some(now + GRACE), now);
        }
    }

    /// A checkout pays an order, or tells of one that was paid what the payment was. False: it is not one that can be paid now.
    pub fn settle(&mut self, id: &str, transaction: &str, told: Option<i64>, now: i64) -> bool {
        let first = self.pay(id, Some(transaction), now);
        if let Some(order) = self.orders.get_mut(id) {
            let before = (order.transaction.clone(), order.told);
            if order.status != "refunded" {
                let is_another = order.transaction.as_deref().is_some_and(|other| other != transaction);
                order.told = if is_another { told } else { order.told.or(told) };
            }
            order.transaction = Some(transaction.to_owned());
            let after = (order.transaction.clone(), order.told);
            self.measure(transaction, now);
            if let (Some(told), true) = (after.1, first || before != after) {
                self.learn(transaction, told, now);
            }
        }
        first
    }

    /// Pays an order, by a payment of which it may be known that it is the order's own. False: it is not one that can be paid now.
    pub fn pay(&mut self, id: &str, transaction: Option<&str>, now: i64) -> bool {
        let Some(order) = self.orders.get_mut(id).filter(|order| order.status == "pending") else { return false };
        order.status = "completed";
        order.transaction = transaction.map(str::to_owned);
        let order = order.clone();
        if order.is_plan {
            self.plans.entry(id.to_owned()).or_insert("active");
        } else {
            self.grant(&format!("order:{id}"), order.credits, order.lasts.map(|seconds| now + seconds), now);
        }
        true
    }

    /// What the provider says has gone back of a payment, and perhaps what the payment was.
    pub fn money_back(&mut self, transaction: &str, told: Option<i64>, refunded: i64, disputed: Option<bool>, now: i64) {
        let settle = |known: &mut i64, since: &mut Option<i64>| {
            *known = (*known).max(refunded);
            match disputed {
                Some(true) => *since = since.or(Some(now)),
                Some(false) => *since = since.filter(|since| *since > now - 86_400),
                None => {}
            }
        };
        if let Some((_, order)) = self.order_of(transaction) {
            if order.status != "refunded" {
                order.told = told.or(order.told);
            }
            settle(&mut order.refunded, &mut order.disputed_at);
        }
        if let Some(period) = self.periods.get_mut(transaction) {
            period.paid = told.unwrap_or(period.paid);
            settle(&mut period.refunded, &mut period.disputed_at);
        }
        self.measure(transaction, now);
    }

    fn order_of(&mut self, transaction: &str) -> Option<(&String, &mut Order)> {
        self.orders.iter_mut().find(|(_, order)| order.transaction.as_deref() == Some(transaction))
    }

    /// What a payment of a plan was.
    pub fn learn(&mut self, transaction: &str, paid: i64, now: i64) {
        if let Some(period) = self.periods.get_mut(transaction) {
            period.paid = paid;
            self.measure(transaction, now);
        }
    }

    /// Takes as many credits of a payment back as its money has gone.
    fn measure(&mut self, transaction: &str, now: i64) {
        let share = |all: i64, paid: i64, refunded: i64, disputed: bool| match () {
            () if disputed || (refunded > 0 && refunded >= paid) => all,
            () if refunded == 0 => 0,
            () => all * refunded / paid,
        };
        if let Some((id, order)) = self.order_of(transaction) {
            let (id, paid) = (id.clone(), order.told.unwrap_or(order.list));
            if order.refunded > 0 && order.refunded >= paid {
                order.status = "refunded";
            }
            let target = share(order.credits, paid, order.refunded, order.disputed_at.is_some());
            if !order.is_plan {
                self.reclaim(&format!("order:{id}"), target, now);
            }
        }
        if let Some(period) = self.periods.get(transaction) {
            let period = period.clone();
            let all = period.credits * i64::try_from(period.months.len()).unwrap_or_default();
            let entitled = all - share(all, period.paid, period.refunded, period.disputed_at.is_some());
            let mut surplus = period.lots.iter().map(|(_, lot)| self.lots[lot].amount).sum::<i64>() - entitled;
            for (_, lot) in period.lots.iter().rev() {
                let target = surplus.clamp(0, self.lots[lot].amount);
                surplus -= self.lots[lot].amount;
                self.reclaim(lot, target, now);
            }
        }
    }

    /// A payment of a plan is heard of, and perhaps what it was. Some of it may have gone back before.
    pub fn begin_period(&mut self, id: &str, mut period: Period, told: Option<i64>, now: i64) {
        if self.periods.contains_key(id) {
            if let Some(told) = told {
                self.learn(id, told, now);
            }
            return;
        }
        let order = self.order_of(id).map(|(_, order)| order.clone());
        period.paid = told.or(order.as_ref().and_then(|order| order.told)).unwrap_or(period.paid);
        self.periods.insert(id.to_owned(), period);
        self.grant_months(id, now, true);
        if let (Some(period), Some(order)) = (self.periods.get_mut(id), order) {
            (period.refunded, period.disputed_at) = (order.refunded, order.disputed_at);
            self.measure(id, now);
        }
    }

    /// Grants the months of all plans whose time has come.
    pub fn drip(&mut self, now: i64) {
        for id in self.periods.keys().cloned().collect::<Vec<_>>() {
            self.grant_months(&id, now, false);
        }
    }

    fn grant_months(&mut self, id: &str, now: i64, first: bool) {
        let period = self.periods[id].clone();
        let frozen =
            matches!(self.plans.get(&period.plan), Some(&("past_due" | "unpaid" | "paused" | "expired"))) || period.disputed_at.is_some();
        for (n, (begins, ends, granted)) in period.months.iter().enumerate() {
            if *granted || *begins > now || (frozen && !(first && n == 0)) {
                continue;
            }
            let all = period.credits * i64::try_from(period.months.len()).unwrap_or_default();
            let gone = if period.refunded >= period.paid && period.refunded > 0 {
                all
            } else if period.refunded > 0 {
                all * period.refunded / period.paid
            } else {
                0
            };
            let Some(known) = self.periods.get_mut(id) else { return };
            known.months[n].2 = true;
            let so_far: i64 = known.lots.iter().map(|(_, lot)| self.lots[lot].amount).sum();
            let amount = period.credits.min(all - gone - so_far);
            if amount > 0 {
                let lot = format!("period:{id}:{n}");
                known.lots.push((n, lot.clone()));
                known.lots.sort();
                self.grant(&lot, amount, Some(if *ends > now { *ends } else { now + GRACE }), now);
            }
        }
    }
}
