-- What a payment was: the cents that came, which are not always the list's (a discount, tax, an upgrade within a period), and news of it
-- in any order. Credits go back with the share of the money that does, so the share has to be of what was paid.

-- ---------------------------------------------------------------------------------------------------------------------
-- How much was paid may be heard of later than that something was

DROP TRIGGER subscription_periods_fixed_terms;
CREATE TRIGGER subscription_periods_fixed_terms
BEFORE UPDATE OF id, subscription_id, user_id, product_id, credits, months, starts_at, ends_at ON subscription_periods
BEGIN SELECT RAISE(ABORT, 'period_terms_are_fixed'); END;

-- A plan's order knows what its first payment was.
CREATE TRIGGER orders_tell_what_was_paid AFTER UPDATE OF amount_paid, transaction_id ON orders
WHEN NEW.amount_paid IS NOT NULL AND NEW.transaction_id IS NOT NULL
 AND (NEW.amount_paid IS NOT OLD.amount_paid OR NEW.transaction_id IS NOT OLD.transaction_id)
BEGIN
    UPDATE subscription_periods SET amount_paid = NEW.amount_paid, updated_at = NEW.updated_at
    WHERE id = NEW.transaction_id AND amount_paid <> NEW.amount_paid;
END;

-- As in 0005, and when it becomes known what was paid.
DROP TRIGGER orders_money_back;
CREATE TRIGGER orders_money_back AFTER UPDATE OF refunded_amount, disputed_at, amount_paid ON orders
WHEN NEW.refunded_amount <> OLD.refunded_amount OR NEW.disputed_at IS NOT OLD.disputed_at
  OR (NEW.refunded_amount > 0 AND NEW.amount_paid IS NOT OLD.amount_paid)
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

DROP TRIGGER subscription_periods_money_back;
CREATE TRIGGER subscription_periods_money_back AFTER UPDATE OF refunded_amount, disputed_at, amount_paid ON subscription_periods
WHEN NEW.refunded_amount <> OLD.refunded_amount OR NEW.disputed_at IS NOT OLD.disputed_at
  OR (NEW.refunded_amount > 0 AND NEW.amount_paid <> OLD.amount_paid)
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
-- Two payments of one period: an upgrade, or one that was paid anew after its money had gone back

-- As in 0005. Money may have gone back of a payment before the payment itself was heard of.
DROP TRIGGER subscription_periods_begin;
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
    UPDATE subscription_periods SET
        refunded_amount = max(
            refunded_amount,
            coalesce((SELECT refunded_amount FROM orders WHERE transaction_id = NEW.id), 0),
            coalesce((SELECT sum(amount) FROM refunds WHERE transaction_id = NEW.id AND status = 'succeeded'), 0)
        ),
        disputed_at = coalesce(disputed_at, (SELECT disputed_at FROM orders WHERE transaction_id = NEW.id))
    WHERE id = NEW.id;
END;

-- As in 0005, and: of a period that was paid for before, a later payment grants only what is to come, and nothing twice. What it has more
-- of each month is in its `credits` already if both are of the same length; between a month and a year only the first month is of both.
DROP TRIGGER subscription_months_grant;
CREATE TRIGGER subscription_months_grant AFTER UPDATE OF granted_at ON subscription_months
WHEN OLD.granted_at IS NULL AND NEW.granted_at IS NOT NULL
BEGIN
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at)
    SELECT 'period:' || id || ':' || NEW.n, user_id, granted, 'purchase', 'subscription', id || ':' || NEW.n,
           max(NEW.ends_at, NEW.granted_at + 604800 * (NEW.ends_at <= NEW.granted_at)), 'plan, month ' || (NEW.n + 1), NEW.granted_at
    FROM (
        SELECT id, user_id, min(credits - iif(NEW.n = 0, other_length, 0), entitled - coalesce((
            SELECT sum(amount) FROM credit_lots JOIN subscription_months m ON credit_lots.id = 'period:' || m.period_id || ':' || m.n
            WHERE m.period_id = NEW.period_id
        ), 0)) AS granted
        FROM (
            SELECT p.id, p.user_id, p.credits,
                   CASE
                       WHEN p.refunded_amount = 0 THEN p.credits * p.months
                       WHEN p.refunded_amount >= p.amount_paid THEN 0
                       ELSE p.credits * p.months - p.credits * p.months * p.refunded_amount / p.amount_paid
                   END AS entitled,
                   coalesce(sum(iif(before.months <> p.months, before.credits, 0)), 0) AS other_length,
                   count(before.id) AS payments_before
            FROM subscription_periods p
            LEFT JOIN subscription_periods before ON before.subscription_id = p.subscription_id AND before.starts_at = p.starts_at
                AND before.id <> p.id AND before.created_at <= p.created_at
                AND (before.refunded_amount = 0 OR before.refunded_amount < before.amount_paid)
            WHERE p.id = NEW.period_id
            GROUP BY p.id
        )
        WHERE payments_before = 0 OR NEW.ends_at > (SELECT created_at FROM subscription_periods WHERE id = NEW.period_id)
    )
    WHERE granted > 0;
END;

-- As in 0005. Of payments for a period that was granted already only those count whose money has not all gone back.
DROP TRIGGER subscription_news_apply;
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
               SELECT sum(credits) FROM subscription_periods
               WHERE subscription_id = subscriptions.id AND starts_at = coalesce(NEW.period_start, NEW.at)
                 AND months = iif(products.billing_cycle = 'yearly', 12, 1) AND (refunded_amount = 0 OR refunded_amount < amount_paid)
           ), 0)),
           iif(products.billing_cycle = 'yearly', 12, 1),
           coalesce(NEW.period_start, NEW.at),
           coalesce(NEW.period_end, unixepoch(coalesce(NEW.period_start, NEW.at), 'unixepoch', iif(products.billing_cycle = 'yearly', '+1 year', '+1 month'))),
           coalesce(NEW.amount_paid, (SELECT amount_paid FROM orders WHERE transaction_id = NEW.transaction_id), products.amount), NEW.at, NEW.at
    FROM subscriptions JOIN products ON products.provider_product_id = NEW.provider_product_id AND products.kind = 'plan'
    WHERE third_party_subscription_id = NEW.third_party_subscription_id AND NEW.transaction_id IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM subscription_periods WHERE id = NEW.transaction_id);

    UPDATE subscription_periods SET amount_paid = NEW.amount_paid, updated_at = NEW.at
    WHERE id = NEW.transaction_id AND amount_paid <> NEW.amount_paid;

    -- The order's own payment is that of its first period; a renewal may be heard of before it.
    UPDATE orders SET status = 'paid', updated_at = NEW.at,
        transaction_id = coalesce(transaction_id, iif(coalesce(NEW.period_start, NEW.at) < created_at + 15 * 86400, NEW.transaction_id, NULL))
    WHERE NEW.transaction_id IS NOT NULL AND status = 'pending'
      AND id = (SELECT id FROM subscriptions WHERE third_party_subscription_id = NEW.third_party_subscription_id);

    UPDATE payment_events SET status = 'done', outcome = 'applied', processed_at = NEW.at
    WHERE id = NEW.event_id AND status = 'received'
      AND EXISTS (SELECT 1 FROM products WHERE provider_product_id = NEW.provider_product_id AND kind = 'plan')
      AND EXISTS (SELECT 1 FROM subscriptions WHERE third_party_subscription_id = NEW.third_party_subscription_id);
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Money that goes back

-- As in 0005, with `amount_paid`: the cents of the payment, with tax; NULL: not told. What is wholly refunded stays so. A dispute is
-- looked at each day, also when the payment was no longer watched.
DROP VIEW money_back;
CREATE VIEW money_back AS
SELECT transaction_id, payment_id AS provider_order_id, checkout_id, amount_paid, refunded_amount, NULL AS disputed,
       '' AS refund_id, 0 AS refund_amount, '' AS refund_status, event_id, updated_at AS at
FROM orders;

CREATE TRIGGER money_back_apply INSTEAD OF INSERT ON money_back
BEGIN
    INSERT INTO refunds (id, transaction_id, amount, status, created_at)
    SELECT NEW.refund_id, NEW.transaction_id, coalesce(NEW.refund_amount, 0), coalesce(NEW.refund_status, 'succeeded'), NEW.at
    WHERE NEW.refund_id IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET status = excluded.status;

    -- Both at once, and before the order tells what was paid: in two steps credits would come back that are to go.
    UPDATE subscription_periods SET
        amount_paid = coalesce(NEW.amount_paid, amount_paid),
        refunded_amount = max(refunded_amount, coalesce(NEW.refunded_amount, 0), coalesce((
            SELECT sum(amount) FROM refunds WHERE transaction_id = NEW.transaction_id AND status = 'succeeded'), 0)),
        disputed_at = CASE NEW.disputed
            WHEN 1 THEN coalesce(disputed_at, NEW.at) WHEN 0 THEN iif(disputed_at > NEW.at - 86400, disputed_at, NULL) ELSE disputed_at
        END,
        updated_at = NEW.at
    WHERE id = NEW.transaction_id;

    UPDATE orders SET
        amount_paid = iif(status = 'refunded', amount_paid, coalesce(NEW.amount_paid, amount_paid)),
        refunded_amount = max(refunded_amount, coalesce(NEW.refunded_amount, 0), coalesce((
            SELECT sum(amount) FROM refunds WHERE transaction_id = NEW.transaction_id AND status = 'succeeded'), 0)),
        disputed_at = CASE NEW.disputed
            WHEN 1 THEN coalesce(disputed_at, NEW.at) WHEN 0 THEN iif(disputed_at > NEW.at - 86400, disputed_at, NULL) ELSE disputed_at
        END,
        -- A plan's payments are watched by its subscription.
        next_look_at = iif(
            NEW.disputed = 1 AND NOT EXISTS (SELECT 1 FROM products WHERE id = product_id AND kind = 'plan'),
            min(coalesce(next_look_at, NEW.at + 86400), NEW.at + 86400), next_look_at
        ),
        updated_at = NEW.at,
        event_id = coalesce(NEW.event_id, event_id)
    WHERE status IN ('completed', 'refunding', 'refunded') AND (
        transaction_id = NEW.transaction_id
        OR transaction_id IS NULL AND (payment_id = NEW.provider_order_id OR checkout_id = NEW.checkout_id)
           AND NOT EXISTS (SELECT 1 FROM products WHERE id = product_id AND kind = 'plan')
    );

    UPDATE subscriptions SET next_look_at = min(coalesce(next_look_at, NEW.at + 86400), NEW.at + 86400)
    WHERE NEW.disputed = 1 AND id = (SELECT subscription_id FROM subscription_periods WHERE id = NEW.transaction_id);

    UPDATE payment_events SET status = 'done', outcome = 'applied', processed_at = NEW.at
    WHERE id = NEW.event_id AND status = 'received' AND EXISTS (SELECT 1 FROM subscription_periods WHERE id = NEW.transaction_id);
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- What was heard of before

UPDATE subscription_periods SET
    amount_paid = coalesce((SELECT amount_paid FROM orders WHERE transaction_id = subscription_periods.id), amount_paid),
    refunded_amount = max(refunded_amount, coalesce((SELECT refunded_amount FROM orders WHERE transaction_id = subscription_periods.id), 0)),
    disputed_at = coalesce(disputed_at, (SELECT disputed_at FROM orders WHERE transaction_id = subscription_periods.id)),
    updated_at = unixepoch()
WHERE id IN (SELECT transaction_id FROM orders WHERE transaction_id IS NOT NULL);
