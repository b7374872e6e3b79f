//! What must be true of the books, as queries: each answers the rows that break its rule, and nothing when all is well.
//!
//! The same list serves the tests, `cargo xtask audit` and the admin's endpoint. The rules are kept by the constraints and triggers of
//! `migrations/`; these queries check them from outside, in other words.

pub mod log;

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// As in ARCHITECTURE.md, with a letter where one rule has several sides.
    pub id: &'static str,
    /// What holds.
    pub rule: &'static str,
    /// Answers one number: how many rows the rule is about.
    pub count: &'static str,
    /// Answers the ids of the rows that break it.
    pub offenders: &'static str,
}

/// Every rule about money and states.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "I1a",
        rule: "no lot is overdrawn or overfilled, and each holds what its rows say",
        count: "SELECT count(*) FROM credit_lots",
        offenders: "SELECT id FROM credit_lots l WHERE remaining < 0 OR remaining > amount \
                    OR remaining <> amount + coalesce((SELECT sum(amount) FROM credit_records WHERE lot_id = l.id), 0)",
    },
    Invariant {
        id: "I1b",
        rule: "every ledger row belongs to a lot of the same owner and expiry",
        count: "SELECT count(*) FROM credit_records",
        offenders: "SELECT r.id FROM credit_records r LEFT JOIN credit_lots l ON l.id = coalesce(r.lot_id, r.id) \
                    WHERE l.id IS NULL OR l.user_id <> r.user_id OR l.expires_at IS NOT r.expires_at",
    },
    Invariant {
        id: "I2a",
        rule: "the unexpired rows add up to what the unexpired lots hold, at every moment past and to come",
        count: "SELECT count(*) FROM (SELECT 1 FROM credit_lots GROUP BY user_id, expires_at)",
        offenders: "SELECT user_id FROM (\
                        SELECT user_id, expires_at, amount FROM credit_records \
                        UNION ALL SELECT user_id, expires_at, -remaining FROM credit_lots) \
                    GROUP BY user_id, expires_at HAVING sum(amount) <> 0",
    },
    Invariant {
        id: "I2b",
        rule: "users.credits is what the lots held when it was written",
        count: "SELECT count(*) FROM users",
        offenders: "SELECT id FROM users WHERE credits <> (SELECT coalesce(sum(remaining), 0) FROM credit_lots \
                    WHERE user_id = users.id AND (expires_at IS NULL OR expires_at > users.updated_at))",
    },
    Invariant {
        id: "I3a",
        rule: "a task's charges minus returns are its price, and nothing once it failed",
        count: "SELECT count(*) FROM ai_tasks",
        offenders: "SELECT id FROM ai_tasks WHERE iif(status = 'failed', 0, price) <> \
                    (SELECT coalesce(sum(amount), 0) FROM credit_consumptions WHERE entity_type = 'task' AND entity_id = ai_tasks.id)",
    },
    Invariant {
        id: "I3b",
        rule: "the ledger moved for each task what its consumptions say",
        count: "SELECT count(*) FROM credit_consumptions",
        offenders: "SELECT id FROM ai_tasks \
                    WHERE (SELECT coalesce(sum(amount), 0) FROM credit_consumptions WHERE entity_type = 'task' AND entity_id = ai_tasks.id) \
                    + (SELECT coalesce(sum(amount), 0) FROM credit_records WHERE entity_type = 'task' AND entity_id = ai_tasks.id) <> 0",
    },
    Invariant {
        id: "I4a",
        rule: "each paid order of a pack has exactly its grant, any other order none",
        count: "SELECT count(*) FROM orders",
        offenders: "SELECT id FROM orders WHERE \
                    (SELECT count(*) FROM credit_records WHERE entity_type = 'order' AND entity_id = orders.id AND lot_id IS NULL \
                     AND amount = orders.credits AND user_id = orders.user_id) \
                    <> (status NOT IN ('pending', 'cancelled', 'expired') \
                        AND NOT EXISTS (SELECT 1 FROM products WHERE products.id = product_id AND kind = 'plan'))",
    },
    Invariant {
        id: "I4b",
        rule: "each paid order of a plan has its subscription",
        count: "SELECT count(*) FROM orders JOIN products ON products.id = product_id AND kind = 'plan'",
        offenders: "SELECT orders.id FROM orders JOIN products ON products.id = product_id AND kind = 'plan' \
                    WHERE status NOT IN ('pending', 'cancelled', 'expired') AND NOT EXISTS (SELECT 1 FROM subscriptions s \
                    WHERE s.id = orders.id OR s.third_party_subscription_id = orders.provider_subscription_id)",
    },
    Invariant {
        id: "I4c",
        rule: "a plan's payment grants its months in turn, and never more in all than it was for",
        count: "SELECT count(*) FROM subscription_periods",
        offenders: "SELECT id FROM subscription_periods p WHERE months <> (SELECT count(*) FROM subscription_months WHERE period_id = p.id) \
                    OR credits * months < (SELECT coalesce(sum(l.amount), 0) FROM subscription_months m \
                        JOIN credit_lots l ON l.id = 'period:' || m.period_id || ':' || m.n WHERE m.period_id = p.id) \
                    OR EXISTS (SELECT 1 FROM subscription_months m JOIN credit_lots l ON l.id = 'period:' || m.period_id || ':' || m.n \
                        WHERE m.period_id = p.id AND (m.granted_at IS NULL OR l.amount > p.credits OR l.user_id <> p.user_id))",
    },
    Invariant {
        id: "I4d",
        rule: "credits follow the money: what is to be taken back fits what was refunded or disputed",
        count: "SELECT count(*) FROM credit_reclaims",
        offenders: "SELECT lot_id FROM credit_reclaims r JOIN credit_lots l ON l.id = lot_id \
                    WHERE taken > target OR target > l.amount \
                    OR taken + coalesce((SELECT sum(amount) FROM credit_records \
                        WHERE substr(id, 1, length(r.lot_id) + 9) = 'reclaim:' || r.lot_id || ':'), 0) <> 0 \
                    OR (target > taken AND l.remaining > 0 AND (expires_at IS NULL OR expires_at > r.updated_at)) \
                    UNION ALL SELECT o.id FROM orders o JOIN credit_lots l ON l.id = 'order:' || o.id \
                    LEFT JOIN credit_reclaims r ON r.lot_id = l.id \
                    WHERE coalesce(r.target, 0) <> CASE WHEN disputed_at IS NOT NULL THEN o.credits WHEN refunded_amount = 0 THEN 0 \
                        ELSE min(o.credits, o.credits * refunded_amount / max(1, coalesce(amount_paid, o.amount))) END \
                    UNION ALL SELECT p.id FROM subscription_periods p WHERE (refunded_amount > 0 OR disputed_at IS NOT NULL) AND ( \
                        SELECT max(0, coalesce(sum(l.amount), 0) - CASE WHEN disputed_at IS NOT NULL THEN 0 \
                                   ELSE max(0, p.credits * months - p.credits * months * refunded_amount / max(1, amount_paid)) END) \
                               <> coalesce(sum(r.target), 0) \
                        FROM subscription_months m JOIN credit_lots l ON l.id = 'period:' || m.period_id || ':' || m.n \
                        LEFT JOIN credit_reclaims r ON r.lot_id = l.id WHERE m.period_id = p.id)",
    },
    Invariant {
        id: "I5a",
        rule: "an order has a time of payment if and only if it was paid, and is refunded if and only if all its money went back",
        count: "SELECT count(*) FROM orders",
        offenders: "SELECT id FROM orders WHERE status IN ('paid', 'processing', 'refunding') \
                    OR (status IN ('completed', 'refunded')) <> (paid_at IS NOT NULL) \
                    OR (status = 'refunded') <> (refunded_amount > 0 AND refunded_amount >= coalesce(amount_paid, amount))",
    },
    Invariant {
        id: "I5b",
        rule: "a completed task has its pictures until its owner goes, any other none",
        count: "SELECT count(*) FROM ai_tasks",
        offenders: "SELECT id FROM ai_tasks WHERE (status <> 'completed' AND result_urls IS NOT NULL) \
                    OR (status = 'completed' AND completed_at IS NOT NULL AND coalesce(json_array_length(result_urls), 0) = 0 \
                        AND NOT EXISTS (SELECT 1 FROM users WHERE users.id = user_id AND erased_at IS NOT NULL))",
    },
    Invariant {
        id: "I7a",
        rule: "of whoever is erased nothing is left but money",
        count: "SELECT count(*) FROM erasures",
        offenders: "SELECT id FROM users u WHERE erased_at IS NOT NULL AND (email <> 'erased-' || id || '@erased.invalid' OR picture IS NOT NULL \
                        OR EXISTS (SELECT 1 FROM user_auth WHERE user_id = u.id) OR EXISTS (SELECT 1 FROM signin_logs WHERE user_id = u.id) \
                        OR EXISTS (SELECT 1 FROM uploads WHERE user_id = u.id) OR EXISTS (SELECT 1 FROM prompt_verdicts WHERE user_id = u.id) \
                        OR EXISTS (SELECT 1 FROM ai_tasks WHERE user_id = u.id AND input_params <> '{}')) \
                    UNION ALL SELECT user_id FROM erasures e WHERE NOT EXISTS (SELECT 1 FROM users WHERE id = e.user_id AND erased_at IS NOT NULL)",
    },
    Invariant {
        id: "I7b",
        rule: "every gift in the admins' log is in the books",
        count: "SELECT count(*) FROM admin_log WHERE action = 'gift'",
        offenders: "SELECT seq FROM admin_log g WHERE action = 'gift' AND NOT EXISTS (SELECT 1 FROM credit_records \
                        WHERE id = 'gift:' || (g.detail ->> 'key') AND user_id = g.subject AND amount = g.detail ->> 'credits')",
    },
    Invariant {
        id: "I7c",
        rule: "every gift in the books is an act in the admins' log",
        count: "SELECT count(*) FROM credit_records WHERE entity_type = 'admin' AND lot_id IS NULL",
        offenders: "SELECT id FROM credit_records r WHERE entity_type = 'admin' AND lot_id IS NULL \
                        AND NOT EXISTS (SELECT 1 FROM admin_log WHERE action = 'gift' AND subject = r.user_id AND detail ->> 'key' = r.entity_id) \
                        AND NOT EXISTS (SELECT 1 FROM before_the_log WHERE kind = 'gift' AND before_the_log.subject = r.id)",
    },
    Invariant {
        id: "I7d",
        rule: "every admin was made one by an act in the admins' log, the last about their role",
        count: "SELECT count(*) FROM users WHERE role = 'admin'",
        offenders: "SELECT id FROM users u WHERE role = 'admin' AND 'admin' IS NOT coalesce(\
                        (SELECT detail ->> 'role' FROM admin_log WHERE action = 'role' AND subject = u.id ORDER BY seq DESC LIMIT 1), \
                        (SELECT kind FROM before_the_log WHERE kind = 'admin' AND before_the_log.subject = u.id))",
    },
    Invariant {
        id: "I6a",
        rule: "an event that is filed has a time of filing, an open one has none",
        count: "SELECT count(*) FROM payment_events",
        offenders: "SELECT id FROM payment_events WHERE (status = 'received') <> (processed_at IS NULL)",
    },
    Invariant {
        id: "I6b",
        rule: "no business key (order, month of a plan, sign-up, gift) was granted twice",
        count: "SELECT count(*) FROM credit_records WHERE lot_id IS NULL",
        offenders: "SELECT entity_type || ' ' || entity_id FROM credit_records WHERE lot_id IS NULL AND entity_type <> 'task' \
                    GROUP BY entity_type, entity_id HAVING count(*) > 1",
    },
];

/// What should have come to an end by itself. Not a rule of the rows but of time: an offender means that a sweep does not run or that
/// something outside has been out of reach for long.
pub const OVERDUE: &[Invariant] = &[
    Invariant {
        id: "O1",
        rule: "no task is unfinished an hour after it was ordered",
        count: "SELECT count(*) FROM ai_tasks WHERE status IN ('pending', 'processing')",
        offenders: "SELECT id FROM ai_tasks WHERE status IN ('pending', 'processing') AND created_at < unixepoch() - 3600",
    },
    Invariant {
        id: "O2",
        rule: "no order is pending for more than two days",
        count: "SELECT count(*) FROM orders WHERE status = 'pending'",
        offenders: "SELECT id FROM orders WHERE status = 'pending' AND created_at < unixepoch() - 172800",
    },
    Invariant {
        id: "O3",
        rule: "no payment event is open for more than a day",
        count: "SELECT count(*) FROM payment_events WHERE status = 'received'",
        offenders: "SELECT id FROM payment_events WHERE status = 'received' AND received_at < unixepoch() - 86400",
    },
    Invariant {
        id: "O4",
        rule: "no month of a running plan is due for more than a day",
        count: "SELECT count(*) FROM subscription_months WHERE granted_at IS NULL",
        offenders: "SELECT period_id || ':' || n FROM subscription_months JOIN subscription_periods p ON p.id = period_id \
                    JOIN subscriptions s ON s.id = subscription_id WHERE granted_at IS NULL AND due_at < unixepoch() - 86400 \
                    AND disputed_at IS NULL AND provider_status NOT IN ('past_due', 'unpaid', 'paused', 'expired')",
    },
];
