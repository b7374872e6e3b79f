-- Buying credits.
--
-- Paying an order grants its credits in the same statement. I4: each paid order has exactly one grant.
-- I5: pending -> paid -> processing -> completed -> refunding -> refunded, pending -> cancelled | expired.

CREATE TABLE products (
    id                  TEXT    NOT NULL PRIMARY KEY,
    name                TEXT    NOT NULL,
    -- The payment provider's id for this product. Set yours before you sell: UPDATE products SET provider_product_id = ...
    provider_product_id TEXT    NOT NULL UNIQUE,
    kind                TEXT    NOT NULL CHECK (kind IN ('pack', 'plan')),
    credits             INTEGER NOT NULL CHECK (credits > 0),
    -- In the currency's smallest unit (cents), before tax.
    amount              INTEGER NOT NULL CHECK (amount >= 0),
    currency            TEXT    NOT NULL DEFAULT 'USD',
    -- For how long the credits of a pack are good, in seconds; NULL: for ever.
    valid_for           INTEGER CHECK (valid_for > 0),
    active              INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
    position            INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO products (id, name, provider_product_id, kind, credits, amount, position) VALUES
    ('credits-10', '10 credits', 'prod_credits_10', 'pack', 10, 499, 1),
    ('credits-50', '50 credits', 'prod_credits_50', 'pack', 50, 1999, 2),
    ('credits-200', '200 credits', 'prod_credits_200', 'pack', 200, 5999, 3);

CREATE TABLE orders (
    id                TEXT    NOT NULL PRIMARY KEY,
    user_id           TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    amount            INTEGER NOT NULL CHECK (amount >= 0),
    currency          TEXT    NOT NULL DEFAULT 'CNY',
    status            TEXT    NOT NULL DEFAULT 'pending' CHECK (status IN (
                          'pending', 'paid', 'processing', 'completed', 'refunding', 'refunded', 'cancelled', 'expired')),
    payment_provider  TEXT    NOT NULL DEFAULT 'creem',
    -- The provider's checkout id while the order is pending; its order id once paid.
    payment_id        TEXT,
    payment_url       TEXT,
    credits           INTEGER NOT NULL CHECK (credits > 0),
    created_at        INTEGER NOT NULL DEFAULT (unixepoch()),
    updated_at        INTEGER NOT NULL DEFAULT (unixepoch()),
    product_id        TEXT    REFERENCES products (id),
    checkout_id       TEXT    UNIQUE,
    -- When the granted credits end, counted from payment, in seconds; NULL: never.
    credits_valid_for INTEGER,
    paid_at           INTEGER
) STRICT;
CREATE INDEX orders_user_id ON orders (user_id, created_at DESC, id DESC);
CREATE INDEX orders_status ON orders (status);
CREATE INDEX orders_payment_id ON orders (payment_id);
CREATE INDEX orders_created_at ON orders (created_at);

CREATE TRIGGER orders_start_pending BEFORE INSERT ON orders
BEGIN
    SELECT RAISE(ABORT, 'order_starts_pending') WHERE NEW.status <> 'pending';
    -- `INSERT OR REPLACE` would delete the order that is there without firing the trigger below.
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: orders.id') WHERE EXISTS (SELECT 1 FROM orders WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: orders.checkout_id')
    WHERE EXISTS (SELECT 1 FROM orders WHERE checkout_id = NEW.checkout_id);
END;

CREATE TRIGGER orders_no_delete BEFORE DELETE ON orders
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;

CREATE TRIGGER orders_fixed_terms BEFORE UPDATE OF id, user_id, amount, currency, credits, product_id, credits_valid_for ON orders
WHEN NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR NEW.amount <> OLD.amount OR NEW.currency <> OLD.currency
  OR NEW.credits <> OLD.credits OR NEW.product_id IS NOT OLD.product_id
  OR NEW.credits_valid_for IS NOT OLD.credits_valid_for
BEGIN SELECT RAISE(ABORT, 'order_terms_are_fixed'); END;

CREATE TRIGGER orders_status_arrows BEFORE UPDATE OF status ON orders WHEN NEW.status <> OLD.status
BEGIN
    SELECT RAISE(ABORT, 'illegal_order_transition')
    WHERE NOT (OLD.status = 'pending' AND NEW.status IN ('paid', 'cancelled', 'expired'))
      AND NOT (OLD.status = 'paid' AND NEW.status = 'processing')
      AND NOT (OLD.status = 'processing' AND NEW.status = 'completed')
      AND NOT (OLD.status = 'completed' AND NEW.status = 'refunding')
      AND NOT (OLD.status = 'refunding' AND NEW.status = 'refunded');
END;

-- Settling: the payment, the grant and the completion are one step, so "paid, no credits" is not a state anyone can be left in.
CREATE TRIGGER orders_settle AFTER UPDATE OF status ON orders WHEN OLD.status = 'pending' AND NEW.status = 'paid'
BEGIN
    UPDATE orders SET status = 'processing' WHERE id = NEW.id;
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at)
    VALUES ('order:' || NEW.id, NEW.user_id, NEW.credits, 'purchase', 'order', NEW.id,
            NEW.updated_at + NEW.credits_valid_for, 'order ' || NEW.id, NEW.updated_at);
    UPDATE orders SET status = 'completed', paid_at = NEW.updated_at WHERE id = NEW.id;
END;

CREATE TABLE subscriptions (
    id                          TEXT    NOT NULL PRIMARY KEY,
    user_id                     TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    plan_type                   TEXT    NOT NULL CHECK (plan_type IN ('basic', 'pro', 'premium')),
    status                      TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'cancelled', 'expired')),
    billing_cycle               TEXT    NOT NULL DEFAULT 'monthly' CHECK (billing_cycle IN ('monthly', 'yearly')),
    third_party_subscription_id TEXT,
    enabled_at                  INTEGER,
    expires_at                  INTEGER,
    next_billing_at             INTEGER,
    cancelled_at                INTEGER,
    created_at                  INTEGER NOT NULL DEFAULT (unixepoch()),
    updated_at                  INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE INDEX subscriptions_user_id ON subscriptions (user_id);
CREATE INDEX subscriptions_status ON subscriptions (status);
CREATE INDEX subscriptions_expires_at ON subscriptions (expires_at);

-- The inbox of payment events. The raw event is kept before anything is done about it; its id makes it unique, its
-- status says whether its effect took place, so a delivery that was cut off is finished by the next one.
CREATE TABLE payment_events (
    id           TEXT    NOT NULL PRIMARY KEY,
    type         TEXT    NOT NULL,
    payload      TEXT    NOT NULL CHECK (json_valid(payload)),
    status       TEXT    NOT NULL DEFAULT 'received' CHECK (status IN ('received', 'done', 'ignored')),
    deliveries   INTEGER NOT NULL DEFAULT 1,
    outcome      TEXT,
    received_at  INTEGER NOT NULL DEFAULT (unixepoch()),
    processed_at INTEGER
) STRICT;
CREATE INDEX payment_events_open ON payment_events (received_at) WHERE status = 'received';
