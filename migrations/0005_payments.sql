-- Plans, money that goes back, and what keeps the books in step with the payment provider.
--
-- A plan is paid period by period. A payment of a period is a row of `subscription_periods`; its months are rows of
-- `subscription_months`, and granting a month opens one lot. A yearly plan so drips by the calendar month.
-- Money that goes back (a refund, a dispute) is kept on what was paid: `refunded_amount`, `disputed_at`. How many credits that
-- takes is a pure function of these two, computed anew each time, so repeated and reordered news cannot count twice.
-- Two views are commands: `INSERT INTO subscription_news` and `INSERT INTO money_back` apply what the provider says, whether a
-- webhook brought it or we asked, and file the event that brought it, all in one statement.

-- What is for sale: plans beside packs. A plan's `credits` come each month.
ALTER TABLE products ADD COLUMN plan_type TEXT CHECK (plan_type IN ('basic', 'pro', 'premium'));
ALTER TABLE products ADD COLUMN billing_cycle TEXT CHECK (
    billing_cycle IN ('monthly', 'yearly') AND (kind = 'plan') = (plan_type IS NOT NULL)
    OR billing_cycle IS NULL AND kind = 'pack' AND plan_type IS NULL
);

INSERT INTO products (id, name, provider_product_id, kind, credits, amount, position, plan_type, billing_cycle) VALUES
    ('basic-monthly', 'Basic, monthly', 'prod_basic_monthly', 'plan', 25, 999, 11, 'basic', 'monthly'),
    ('pro-monthly', 'Pro, monthly', 'prod_pro_monthly', 'plan', 60, 1999, 12, 'pro', 'monthly'),
    ('premium-monthly', 'Premium, monthly', 'prod_premium_monthly', 'plan', 200, 4999, 13, 'premium', 'monthly'),
    ('basic-yearly', 'Basic, yearly', 'prod_basic_yearly', 'plan', 25, 9990, 21, 'basic', 'yearly'),
    ('pro-yearly', 'Pro, yearly', 'prod_pro_yearly', 'plan', 60, 19990, 22, 'pro', 'yearly'),
    ('premium-yearly', 'Premium, yearly', 'prod_premium_yearly', 'plan', 200, 49990, 23, 'premium', 'yearly');

-- ---------------------------------------------------------------------------------------------------------------------
-- Credits that go back with the money

-- How many credits of a lot are to be taken back, and how many have been. What was spent cannot be taken, and is not taken from
-- other lots; but if it comes back (its task failed), it is taken then.
CREATE TABLE credit_reclaims (
    lot_id     TEXT    NOT NULL PRIMARY KEY REFERENCES credit_lots (id),
    target     INTEGER NOT NULL CHECK (target >= 0),
    taken      INTEGER NOT NULL DEFAULT 0 CHECK (taken >= 0),
    -- Numbers the ledger rows of this lot's reclaims.
    moves      INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER credit_reclaims_begin AFTER INSERT ON credit_reclaims
BEGIN
    SELECT RAISE(ABORT, 'reclaims_start_empty') WHERE NEW.taken <> 0 OR NEW.moves <> 0;
    UPDATE credit_reclaims SET taken = taken + coalesce((
        SELECT min(NEW.target, remaining) FROM credit_lots
        WHERE id = NEW.lot_id AND (expires_at IS NULL OR expires_at > NEW.updated_at)
    ), 0)
    WHERE lot_id = NEW.lot_id;
END;

CREATE TRIGGER credit_reclaims_change AFTER UPDATE OF target ON credit_reclaims WHEN NEW.target <> OLD.target
BEGIN
    UPDATE credit_reclaims SET taken = iif(NEW.target <= NEW.taken, NEW.target, NEW.taken + coalesce((
        SELECT min(NEW.target - NEW.taken, remaining) FROM credit_lots
        WHERE id = NEW.lot_id AND (expires_at IS NULL OR expires_at > NEW.updated_at)
    ), 0))
    WHERE lot_id = NEW.lot_id;
END;

-- Every change of `taken` is a ledger row. What is given back to a lot that has expired meanwhile opens one with seven days of grace.
CREATE TRIGGER credit_reclaims_apply AFTER UPDATE OF taken ON credit_reclaims WHEN NEW.taken <> OLD.taken
BEGIN
    UPDATE credit_reclaims SET moves = moves + 1 WHERE lot_id = NEW.lot_id;
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at, lot_id)
    SELECT
        'reclaim:' || NEW.lot_id || ':' || NEW.moves, user_id, OLD.taken - NEW.taken, 'refund',
        iif(grace, NULL, entity_type), iif(grace, NULL, entity_id), iif(grace, NEW.updated_at + 604800, expires_at),
        iif(NEW.taken > OLD.taken, 'taken back with the money', 'given back: ' || NEW.lot_id), NEW.updated_at,
        iif(grace, NULL, id)
    FROM (
        SELECT *, (NEW.taken < OLD.taken AND expires_at IS NOT NULL AND expires_at <= NEW.updated_at) AS grace
        FROM credit_records WHERE id = NEW.lot_id
    );
END;
CREATE TRIGGER credit_reclaims_no_delete BEFORE DELETE ON credit_reclaims
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;

-- As in 0002, and: what comes back to a lot with an open reclaim is taken back at once. An expired lot takes only that part;
-- the rest opens a lot with grace.
DROP TRIGGER credit_consumptions_apply;
CREATE TRIGGER credit_consumptions_apply AFTER INSERT ON credit_consumptions
BEGIN
    SELECT RAISE(ABORT, 'record_does_not_fit_its_lot')
    WHERE NOT EXISTS (SELECT 1 FROM credit_lots WHERE id = NEW.from_record_id AND user_id = NEW.user_id);

    -- To the lot itself: everything, unless it has expired.
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at, lot_id)
    SELECT 'move:' || NEW.id, NEW.user_id, moved, iif(NEW.amount > 0, 'consumption', 'refund'),
           NEW.entity_type, NEW.entity_id, expires_at, NEW.reason, NEW.created_at, id
    FROM (
        SELECT id, expires_at, iif(
            NEW.amount < 0 AND expires_at IS NOT NULL AND expires_at <= NEW.created_at,
            min(-NEW.amount, coalesce((SELECT max(target - taken, 0) FROM credit_reclaims WHERE lot_id = NEW.from_record_id), 0)),
            -NEW.amount
        ) AS moved
        FROM credit_lots WHERE id = NEW.from_record_id
    )
    WHERE moved <> 0;

    -- To a lot with grace: the rest.
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at)
    SELECT 'grace:' || NEW.id, NEW.user_id, rest, 'refund', NEW.entity_type, NEW.entity_id,
           NEW.created_at + 604800, NEW.reason, NEW.created_at
    FROM (SELECT -NEW.amount - coalesce((SELECT amount FROM credit_records WHERE id = 'move:' || NEW.id), 0) AS rest)
    WHERE rest > 0;

    UPDATE credit_reclaims SET taken = taken + min(target - taken, -NEW.amount), updated_at = NEW.created_at
    WHERE NEW.amount < 0 AND lot_id = NEW.from_record_id AND target > taken;
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Orders

-- What creem calls the payment, the buyer and the subscription that began with it.
ALTER TABLE orders ADD COLUMN transaction_id TEXT;
ALTER TABLE orders ADD COLUMN provider_customer_id TEXT;
ALTER TABLE orders ADD COLUMN provider_subscription_id TEXT;
-- In cents, with tax; what was paid and what went back of it, in all.
ALTER TABLE orders ADD COLUMN amount_paid INTEGER CHECK (amount_paid >= 0);
ALTER TABLE orders ADD COLUMN refunded_amount INTEGER NOT NULL DEFAULT 0 CHECK (refunded_amount >= 0);
-- While a dispute is open or lost: since when.
ALTER TABLE orders ADD COLUMN disputed_at INTEGER;
-- The event that last told about this order; naming it here files it.
ALTER TABLE orders ADD COLUMN event_id TEXT;
-- When the provider is asked about this order, if nothing is heard; NULL: never again.
ALTER TABLE orders ADD COLUMN next_look_at INTEGER;
ALTER TABLE orders ADD COLUMN looks INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX orders_transaction_id ON orders (transaction_id) WHERE transaction_id IS NOT NULL;
CREATE INDEX orders_next_look ON orders (next_look_at) WHERE next_look_at IS NOT NULL;
UPDATE orders SET next_look_at = created_at WHERE status IN ('pending', 'completed');

-- Settling: a pack grants its credits; a plan begins its subscription, whose periods grant. One step either way.
DROP TRIGGER orders_settle;
CREATE TRIGGER orders_settle AFTER UPDATE OF status ON orders WHEN OLD.status = 'pending' AND NEW.status = 'paid'
BEGIN
    UPDATE orders SET status = 'processing' WHERE id = NEW.id;
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at)
    SELECT 'order:' || NEW.id, NEW.user_id, NEW.credits, 'purchase', 'order', NEW.id,
           NEW.updated_at + NEW.credits_valid_for, 'order ' || NEW.id, NEW.updated_at
    WHERE NOT EXISTS (SELECT 1 FROM products WHERE id = NEW.product_id AND kind = 'plan');
    INSERT INTO subscriptions (id, user_id, plan_type, billing_cycle, product_id, third_party_subscription_id, customer_id,
                               enabled_at, next_look_at, created_at, updated_at)
    SELECT NEW.id, NEW.user_id, plan_type, billing_cycle, id, NEW.provider_subscription_id, NEW.provider_customer_id,
           NEW.updated_at, NEW.updated_at, NEW.updated_at, NEW.updated_at
    FROM products
    WHERE id = NEW.product_id AND kind = 'plan' AND NOT EXISTS (
        SELECT 1 FROM subscriptions WHERE id = NEW.id OR third_party_subscription_id = NEW.provider_subscription_id
    );
    UPDATE orders SET status = 'completed', paid_at = NEW.updated_at, looks = 0, next_look_at = (
        -- A plan's payments are watched by its subscription.
        SELECT NEW.updated_at + 3600 WHERE NOT EXISTS (SELECT 1 FROM products WHERE id = NEW.product_id AND kind = 'plan')
    ) WHERE id = NEW.id;
END;

CREATE TRIGGER orders_file_their_event AFTER UPDATE OF event_id ON orders WHEN NEW.event_id IS NOT NULL
BEGIN
    UPDATE payment_events SET status = 'done', outcome = 'applied', processed_at = max(NEW.updated_at, received_at)
    WHERE id = NEW.event_id AND status = 'received';
END;

-- A pack's credits follow its money: all of them while the payment is disputed or once it is refunded, else the share refunded.
CREATE TRIGGER orders_money_back AFTER UPDATE OF refunded_amount, disputed_at ON orders
WHEN NEW.refunded_amount <> OLD.refunded_amount OR NEW.disputed_at IS NOT OLD.disputed_at
BEGIN
    SELECT RAISE(ABORT, 'order_is_not_paid') WHERE NEW.status NOT IN ('completed', 'refunding', 'refunded');
    INSERT INTO credit_reclaims (lot_id, target, updated_at)
    SELECT id, CASE
               WHEN NEW.disputed_at IS NOT NULL THEN amount
               WHEN NEW.refunded_amount = 0 THEN 0
               WHEN NEW.refunded_amount >= coalesce(NEW.amount_paid, NEW.amount) THEN amount
               ELSE amount * NEW.refunded_amount / coalesce(NEW.amount_paid, NEW.amount)
           END, NEW.updated_at
    FROM credit_lots WHERE id = 'order:' || NEW.id
    ON CONFLICT (lot_id) DO UPDATE SET target = excluded.target, updated_at = excluded.updated_at;
    UPDATE orders SET status = 'refunding'
    WHERE id = NEW.id AND status = 'completed' AND NEW.refunded_amount > 0 AND NEW.refunded_amount >= coalesce(NEW.amount_paid, NEW.amount);
    UPDATE orders SET status = 'refunded' WHERE id = NEW.id AND status = 'refunding';
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Subscriptions: one begins with a plan's order, whose id it carries

ALTER TABLE subscriptions ADD COLUMN product_id TEXT REFERENCES products (id);
ALTER TABLE subscriptions ADD COLUMN customer_id TEXT;
-- creem's own word: active, trialing, past_due, unpaid, paused, scheduled_cancel, canceled, expired; others may come.
ALTER TABLE subscriptions ADD COLUMN provider_status TEXT NOT NULL DEFAULT 'active';
-- Of the newest news, in milliseconds: what is older changes nothing any more.
ALTER TABLE subscriptions ADD COLUMN provider_updated_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN next_look_at INTEGER;
ALTER TABLE subscriptions ADD COLUMN looks INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX subscriptions_third_party ON subscriptions (third_party_subscription_id) WHERE third_party_subscription_id IS NOT NULL;
CREATE INDEX subscriptions_next_look ON subscriptions (next_look_at) WHERE next_look_at IS NOT NULL;

CREATE TRIGGER subscriptions_no_delete BEFORE DELETE ON subscriptions
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
-- active -> cancelled | expired, expired -> active (a late payment) | cancelled.
CREATE TRIGGER subscriptions_status_arrows BEFORE UPDATE OF status ON subscriptions WHEN NEW.status <> OLD.status
BEGIN SELECT RAISE(ABORT, 'illegal_subscription_transition') WHERE OLD.status = 'cancelled'; END;
CREATE TRIGGER subscriptions_fixed_terms BEFORE UPDATE OF id, user_id, third_party_subscription_id ON subscriptions
WHEN NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id
  OR (OLD.third_party_subscription_id IS NOT NULL AND NEW.third_party_subscription_id IS NOT OLD.third_party_subscription_id)
BEGIN SELECT RAISE(ABORT, 'subscription_terms_are_fixed'); END;

-- A payment of a plan: one row per transaction, whatever number of events tells of it.
CREATE TABLE subscription_periods (
    -- creem's transaction.
    id              TEXT    NOT NULL PRIMARY KEY,
    subscription_id TEXT    NOT NULL REFERENCES subscriptions (id),
    user_id         TEXT    NOT NULL REFERENCES users (id),
    product_id      TEXT    NOT NULL REFERENCES products (id),
    -- Each month. 0: another payment for a period that was granted already.
    credits         INTEGER NOT NULL CHECK (credits >= 0),
    months          INTEGER NOT NULL CHECK (months IN (1, 12)),
    starts_at       INTEGER NOT NULL,
    ends_at         INTEGER NOT NULL,
    -- In cents, with tax.
    amount_paid     INTEGER NOT NULL CHECK (amount_paid >= 0),
    refunded_amount INTEGER NOT NULL DEFAULT 0 CHECK (refunded_amount >= 0),
    disputed_at     INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    CONSTRAINT period_ends_after_its_start CHECK (ends_at > starts_at)
) STRICT;
CREATE INDEX subscription_periods_subscription ON subscription_periods (subscription_id, starts_at);
CREATE INDEX subscription_periods_user_id ON subscription_periods (user_id);

CREATE TABLE subscription_months (
    period_id  TEXT    NOT NULL REFERENCES subscription_periods (id),
    -- 0 is the first.
    n          INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    granted_at INTEGER,
    PRIMARY KEY (period_id, n)
) STRICT;
CREATE INDEX subscription_months_due ON subscription_months (due_at) WHERE granted_at IS NULL;

CREATE TRIGGER subscription_periods_no_delete BEFORE DELETE ON subscription_periods
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
CREATE TRIGGER subscription_periods_no_replace BEFORE INSERT ON subscription_periods
BEGIN
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: subscription_periods.id')
    WHERE EXISTS (SELECT 1 FROM subscription_periods WHERE id = NEW.id);
END;
CREATE TRIGGER subscription_periods_fixed_terms
BEFORE UPDATE OF id, subscription_id, user_id, product_id, credits, months, starts_at, ends_at, amount_paid ON subscription_periods
BEGIN SELECT RAISE(ABORT, 'period_terms_are_fixed'); END;
CREATE TRIGGER subscription_months_no_delete BEFORE DELETE ON subscription_months
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
CREATE TRIGGER subscription_months_no_replace BEFORE INSERT ON subscription_months
BEGIN
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: subscription_months.period_id, subscription_months.n')
    WHERE EXISTS (SELECT 1 FROM subscription_months WHERE period_id = NEW.period_id AND n = NEW.n);
END;

-- The months of a period, by the calendar: month n begins on the day the period did, or on the last of a shorter month.
-- The first is granted at once (it is paid), and those that have passed while nobody heard of the payment.
CREATE TRIGGER subscription_periods_begin AFTER INSERT ON subscription_periods
BEGIN
    INSERT INTO subscription_months (period_id, n, due_at, ends_at)
    SELECT NEW.id, n, iif(n = 0, min(NEW.starts_at, NEW.created_at), begins_at), iif(n + 1 = NEW.months, NEW.ends_at, next_begins_at)
    FROM (
        SELECT n, begins_at, lead(begins_at) OVER (ORDER BY n) AS next_begins_at
        FROM (
            SELECT value AS n, min(
                unixepoch(NEW.starts_at, 'unixepoch', '+' || value || ' months'),
                unixepoch(date(NEW.starts_at, 'unixepoch', 'start of month', '+' || (value + 1) || ' months', '-1 day')
                          || ' ' || time(NEW.starts_at, 'unixepoch'))
            ) AS begins_at
            FROM json_each('[0,1,2,3,4,5,6,7,8,9,10,11,12]')
        )
    )
    WHERE n < NEW.months;
    UPDATE subscription_months SET granted_at = NEW.created_at
    WHERE period_id = NEW.id AND due_at <= NEW.created_at AND (n = 0 OR NOT EXISTS (
        SELECT 1 FROM subscriptions WHERE id = NEW.subscription_id AND provider_status IN ('past_due', 'unpaid', 'paused', 'expired')
    ));
END;

-- A plan that is behind with its payments, paused or over is given nothing more; nor is a disputed period.
CREATE TRIGGER subscription_months_frozen BEFORE UPDATE ON subscription_months
BEGIN
    SELECT RAISE(ABORT, 'month_is_granted_once') WHERE OLD.granted_at IS NOT NULL;
    SELECT RAISE(ABORT, 'plan_is_frozen') FROM subscription_periods JOIN subscriptions ON subscriptions.id = subscription_id
    WHERE NEW.granted_at IS NOT NULL AND NEW.n > 0 AND subscription_periods.id = NEW.period_id
      AND (disputed_at IS NOT NULL OR provider_status IN ('past_due', 'unpaid', 'paused', 'expired'));
END;

-- Granting a month opens its lot, good until the month ends (a late one for seven days at least). Never more in all than what the
-- payment still stands for.
CREATE TRIGGER subscription_months_grant AFTER UPDATE OF granted_at ON subscription_months
WHEN OLD.granted_at IS NULL AND NEW.granted_at IS NOT NULL
BEGIN
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at)
    SELECT 'period:' || id || ':' || NEW.n, user_id, granted, 'purchase', 'subscription', id || ':' || NEW.n,
           max(NEW.ends_at, NEW.granted_at + 604800 * (NEW.ends_at <= NEW.granted_at)), 'plan, month ' || (NEW.n + 1), NEW.granted_at
    FROM (
        SELECT id, user_id, min(credits, entitled - coalesce((
            SELECT sum(amount) FROM credit_lots JOIN subscription_months m ON credit_lots.id = 'period:' || m.period_id || ':' || m.n
            WHERE m.period_id = NEW.period_id
        ), 0)) AS granted
        FROM (
            SELECT id, user_id, credits, CASE
                       WHEN refunded_amount = 0 THEN credits * months
                       WHEN refunded_amount >= amount_paid THEN 0
                       ELSE credits * months - credits * months * refunded_amount / amount_paid
                   END AS entitled
            FROM subscription_periods WHERE id = NEW.period_id
        )
    )
    WHERE granted > 0;
END;

-- As with orders. What is taken is first what was not granted yet, then the latest months.
CREATE TRIGGER subscription_periods_money_back AFTER UPDATE OF refunded_amount, disputed_at ON subscription_periods
WHEN NEW.refunded_amount <> OLD.refunded_amount OR NEW.disputed_at IS NOT OLD.disputed_at
BEGIN
    INSERT INTO credit_reclaims (lot_id, target, updated_at)
    SELECT id, max(0, min(amount, granted - entitled - later)), NEW.updated_at
    FROM (
        SELECT l.id, l.amount,
            sum(l.amount) OVER () AS granted,
            coalesce(sum(l.amount) OVER (ORDER BY m.n DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS later,
            CASE
                WHEN NEW.disputed_at IS NOT NULL THEN 0
                WHEN NEW.refunded_amount = 0 THEN NEW.credits * NEW.months
                WHEN NEW.refunded_amount >= NEW.amount_paid THEN 0
                ELSE NEW.credits * NEW.months - NEW.credits * NEW.months * NEW.refunded_amount / NEW.amount_paid
            END AS entitled
        FROM subscription_months m JOIN credit_lots l ON l.id = 'period:' || m.period_id || ':' || m.n
        WHERE m.period_id = NEW.id
    )
    WHERE true
    ON CONFLICT (lot_id) DO UPDATE SET target = excluded.target, updated_at = excluded.updated_at;
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- The inbox: what could not be applied yet is tried again

ALTER TABLE payment_events ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE payment_events ADD COLUMN next_attempt_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX payment_events_due ON payment_events (next_attempt_at) WHERE status = 'received';
CREATE TRIGGER payment_events_stay BEFORE UPDATE OF id, type, payload, status ON payment_events
WHEN NEW.id <> OLD.id OR NEW.type <> OLD.type OR NEW.payload <> OLD.payload OR (NEW.status <> OLD.status AND OLD.status <> 'received')
BEGIN SELECT RAISE(ABORT, 'events_are_filed_once'); END;

-- Single refunds, for those that come without the transaction's own sum.
CREATE TABLE refunds (
    id             TEXT    NOT NULL PRIMARY KEY,
    transaction_id TEXT    NOT NULL,
    amount         INTEGER NOT NULL CHECK (amount >= 0),
    -- creem's word: pending, succeeded, canceled, failed.
    status         TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX refunds_transaction_id ON refunds (transaction_id);

-- What the provider says about a subscription, and about a payment of it if `transaction_id` is given. Newer news of its state win;
-- a payment counts whenever it is heard of. Without a subscription or plan order that it fits, nothing happens, and the event stays open.
CREATE VIEW subscription_news AS
SELECT id AS order_id, third_party_subscription_id, '' AS provider_product_id, customer_id, provider_status, provider_updated_at,
       enabled_at AS period_start, expires_at AS period_end, next_billing_at, cancelled_at,
       '' AS transaction_id, 0 AS amount_paid, '' AS event_id, updated_at AS at
FROM subscriptions;

CREATE TRIGGER subscription_news_apply INSTEAD OF INSERT ON subscription_news
BEGIN
    INSERT INTO subscriptions (id, user_id, plan_type, billing_cycle, product_id, third_party_subscription_id, enabled_at, next_look_at,
                               created_at, updated_at)
    SELECT orders.id, orders.user_id, products.plan_type, products.billing_cycle, products.id, NEW.third_party_subscription_id,
           NEW.at, NEW.at, NEW.at, NEW.at
    FROM orders JOIN products AS bought ON bought.id = orders.product_id AND bought.kind = 'plan'
    JOIN products ON products.provider_product_id = NEW.provider_product_id AND products.kind = 'plan'
    WHERE orders.id = NEW.order_id AND NOT EXISTS (
        SELECT 1 FROM subscriptions WHERE id = orders.id OR third_party_subscription_id = NEW.third_party_subscription_id
    );

    UPDATE subscriptions SET third_party_subscription_id = NEW.third_party_subscription_id
    WHERE id = NEW.order_id AND third_party_subscription_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM subscriptions WHERE third_party_subscription_id = NEW.third_party_subscription_id);

    UPDATE subscriptions SET
        (product_id, plan_type, billing_cycle) = (
            SELECT id, plan_type, billing_cycle FROM products WHERE provider_product_id = NEW.provider_product_id AND kind = 'plan'
        ),
        customer_id = coalesce(NEW.customer_id, customer_id),
        provider_status = NEW.provider_status,
        provider_updated_at = NEW.provider_updated_at,
        status = iif(status = 'cancelled', status, CASE NEW.provider_status WHEN 'canceled' THEN 'cancelled' WHEN 'expired' THEN 'expired' ELSE 'active' END),
        expires_at = coalesce(NEW.period_end, expires_at),
        next_billing_at = iif(NEW.provider_status IN ('active', 'trialing', 'past_due', 'unpaid'), NEW.next_billing_at, NULL),
        cancelled_at = iif(NEW.provider_status = 'canceled', coalesce(NEW.cancelled_at, cancelled_at, NEW.at), NULL),
        updated_at = NEW.at
    WHERE third_party_subscription_id = NEW.third_party_subscription_id AND provider_updated_at <= NEW.provider_updated_at
      AND EXISTS (SELECT 1 FROM products WHERE provider_product_id = NEW.provider_product_id AND kind = 'plan');

    -- Another payment for a period that was granted (an upgrade) grants what the new plan has more.
    INSERT INTO subscription_periods (id, subscription_id, user_id, product_id, credits, months, starts_at, ends_at, amount_paid, created_at, updated_at)
    SELECT NEW.transaction_id, subscriptions.id, user_id, products.id,
           max(0, products.credits - coalesce((
               SELECT sum(credits) FROM subscription_periods WHERE subscription_id = subscriptions.id AND starts_at = coalesce(NEW.period_start, NEW.at)
           ), 0)),
           iif(products.billing_cycle = 'yearly', 12, 1),
           coalesce(NEW.period_start, NEW.at),
           coalesce(NEW.period_end, unixepoch(coalesce(NEW.period_start, NEW.at), 'unixepoch', iif(products.billing_cycle = 'yearly', '+1 year', '+1 month'))),
           coalesce(NEW.amount_paid, products.amount), NEW.at, NEW.at
    FROM subscriptions JOIN products ON products.provider_product_id = NEW.provider_product_id AND products.kind = 'plan'
    WHERE third_party_subscription_id = NEW.third_party_subscription_id AND NEW.transaction_id IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM subscription_periods WHERE id = NEW.transaction_id);

    UPDATE orders SET status = 'paid', updated_at = NEW.at, transaction_id = coalesce(transaction_id, NEW.transaction_id)
    WHERE NEW.transaction_id IS NOT NULL AND status = 'pending'
      AND id = (SELECT id FROM subscriptions WHERE third_party_subscription_id = NEW.third_party_subscription_id);

    UPDATE payment_events SET status = 'done', outcome = 'applied', processed_at = NEW.at
    WHERE id = NEW.event_id AND status = 'received'
      AND EXISTS (SELECT 1 FROM products WHERE provider_product_id = NEW.provider_product_id AND kind = 'plan')
      AND EXISTS (SELECT 1 FROM subscriptions WHERE third_party_subscription_id = NEW.third_party_subscription_id);
END;

-- What the provider says has gone back of a payment: `refunded_amount` in all, `disputed` 1 (open or lost), 0 (none, so one that was
-- open for a day at least is won: until then the provider may not show it yet) or NULL (nothing is said of it). `provider_order_id` and `checkout_id` find a pack's order that was never told its transaction.
CREATE VIEW money_back AS
SELECT transaction_id, payment_id AS provider_order_id, checkout_id, refunded_amount, NULL AS disputed,
       '' AS refund_id, 0 AS refund_amount, '' AS refund_status, event_id, updated_at AS at
FROM orders;

CREATE TRIGGER money_back_apply INSTEAD OF INSERT ON money_back
BEGIN
    INSERT INTO refunds (id, transaction_id, amount, status, created_at)
    SELECT NEW.refund_id, NEW.transaction_id, coalesce(NEW.refund_amount, 0), coalesce(NEW.refund_status, 'succeeded'), NEW.at
    WHERE NEW.refund_id IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET status = excluded.status;

    UPDATE orders SET
        refunded_amount = max(refunded_amount, coalesce(NEW.refunded_amount, 0), coalesce((
            SELECT sum(amount) FROM refunds WHERE transaction_id = NEW.transaction_id AND status = 'succeeded'), 0)),
        disputed_at = CASE NEW.disputed
            WHEN 1 THEN coalesce(disputed_at, NEW.at) WHEN 0 THEN iif(disputed_at > NEW.at - 86400, disputed_at, NULL) ELSE disputed_at
        END,
        updated_at = NEW.at,
        event_id = coalesce(NEW.event_id, event_id)
    WHERE status IN ('completed', 'refunding', 'refunded') AND (
        transaction_id = NEW.transaction_id
        OR transaction_id IS NULL AND (payment_id = NEW.provider_order_id OR checkout_id = NEW.checkout_id)
           AND NOT EXISTS (SELECT 1 FROM products WHERE id = product_id AND kind = 'plan')
    );

    UPDATE subscription_periods SET
        refunded_amount = max(refunded_amount, coalesce(NEW.refunded_amount, 0), coalesce((
            SELECT sum(amount) FROM refunds WHERE transaction_id = NEW.transaction_id AND status = 'succeeded'), 0)),
        disputed_at = CASE NEW.disputed
            WHEN 1 THEN coalesce(disputed_at, NEW.at) WHEN 0 THEN iif(disputed_at > NEW.at - 86400, disputed_at, NULL) ELSE disputed_at
        END,
        updated_at = NEW.at
    WHERE id = NEW.transaction_id;

    UPDATE payment_events SET status = 'done', outcome = 'applied', processed_at = NEW.at
    WHERE id = NEW.event_id AND status = 'received' AND EXISTS (SELECT 1 FROM subscription_periods WHERE id = NEW.transaction_id);
END;
