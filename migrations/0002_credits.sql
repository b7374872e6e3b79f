-- Credits: an append-only ledger of lots.
--
-- A row of `credit_records` without a `lot_id` opens a lot: credits that came together and expire together. Every other
-- row moves one lot and inherits its expiry. So at any moment, before and after an expiry,
--     balance = sum(amount) over the rows that have not expired
-- and the same, computed cheaply, is sum(remaining) over the lots that have not expired.
-- Time is data: a change happens at the `created_at` of its row, and "expired" means `expires_at <= created_at`.
--
-- Invariants (see ARCHITECTURE.md): I1 no lot is overdrawn; I2 balance = what the lots hold = users.credits.
-- Refusals raised here are stable tokens; `crates/database` maps them to problem codes.

CREATE TABLE credit_records (
    id          TEXT    NOT NULL PRIMARY KEY,
    user_id     TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    amount      INTEGER NOT NULL CONSTRAINT record_moves_something CHECK (amount <> 0),
    type        TEXT    NOT NULL CHECK (type IN ('purchase', 'gift', 'consumption', 'refund')),
    entity_type TEXT    CHECK (entity_type IN ('order', 'task', 'admin', 'signup', 'subscription')),
    entity_id   TEXT,
    expires_at  INTEGER,
    note        TEXT,
    created_at  INTEGER NOT NULL DEFAULT (unixepoch()),
    -- The lot this row moves; NULL: this row opens a lot of its own.
    lot_id      TEXT    REFERENCES credit_records (id),
    CONSTRAINT only_credits_open_a_lot CHECK (lot_id IS NOT NULL OR amount > 0)
) STRICT;
CREATE INDEX credit_records_user_id ON credit_records (user_id, created_at);
CREATE INDEX credit_records_type ON credit_records (type);
CREATE INDEX credit_records_entity ON credit_records (entity_type, entity_id);
CREATE INDEX credit_records_expires_at ON credit_records (expires_at);
CREATE INDEX credit_records_lot_id ON credit_records (lot_id) WHERE lot_id IS NOT NULL;
-- One grant per business key: an order, a subscription period, a sign-up or an admin's gift key can open one lot only.
-- (A task may: its credits come back in a new lot for each one that expired meanwhile.)
CREATE UNIQUE INDEX credit_records_one_grant ON credit_records (entity_type, entity_id)
WHERE lot_id IS NULL AND entity_type <> 'task';

-- What is left of each lot. Derived from `credit_records` and held to it by the triggers below.
CREATE TABLE credit_lots (
    id         TEXT    NOT NULL PRIMARY KEY REFERENCES credit_records (id) ON DELETE CASCADE,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    amount     INTEGER NOT NULL CHECK (amount > 0),
    remaining  INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    CONSTRAINT lot_never_overdrawn CHECK (remaining >= 0),
    CONSTRAINT lot_never_overfilled CHECK (remaining <= amount)
) STRICT;
CREATE INDEX credit_lots_spendable ON credit_lots (user_id, expires_at) WHERE remaining > 0;
CREATE INDEX credit_lots_expires_at ON credit_lots (expires_at) WHERE remaining > 0;

-- Which lots paid for a task: one row a portion (positive), and its mirror image (negative) when the task fails.
CREATE TABLE credit_consumptions (
    id             TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    amount         INTEGER NOT NULL CONSTRAINT consumption_moves_something CHECK (amount <> 0),
    from_record_id TEXT    NOT NULL REFERENCES credit_records (id) ON DELETE CASCADE,
    entity_type    TEXT    NOT NULL CHECK (entity_type = 'task'),
    entity_id      TEXT    NOT NULL,
    reason         TEXT,
    created_at     INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE INDEX credit_consumptions_user_id ON credit_consumptions (user_id, created_at);
CREATE INDEX credit_consumptions_from_record_id ON credit_consumptions (from_record_id);
CREATE INDEX credit_consumptions_entity ON credit_consumptions (entity_type, entity_id);

-- Money rows are never changed or removed: a correction is a new row. This also stops `DELETE FROM users` for anyone
-- whose money has moved, because the cascade ends here; erasing an account pseudonymises its row instead.
CREATE TRIGGER credit_records_no_update BEFORE UPDATE ON credit_records
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
CREATE TRIGGER credit_records_no_delete BEFORE DELETE ON credit_records
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
CREATE TRIGGER credit_consumptions_no_update BEFORE UPDATE ON credit_consumptions
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
CREATE TRIGGER credit_consumptions_no_delete BEFORE DELETE ON credit_consumptions
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;

-- `INSERT OR REPLACE` would delete a row without firing the triggers above, so a row that is there refuses to be replaced.
CREATE TRIGGER credit_records_no_replace BEFORE INSERT ON credit_records
BEGIN
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: credit_records.id')
    WHERE EXISTS (SELECT 1 FROM credit_records WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: credit_records.entity_type, credit_records.entity_id')
    WHERE NEW.lot_id IS NULL AND NEW.entity_type <> 'task' AND EXISTS (
        SELECT 1 FROM credit_records
        WHERE entity_type = NEW.entity_type AND entity_id = NEW.entity_id AND lot_id IS NULL AND entity_type <> 'task'
    );
END;
CREATE TRIGGER credit_consumptions_no_replace BEFORE INSERT ON credit_consumptions
BEGIN
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: credit_consumptions.id')
    WHERE EXISTS (SELECT 1 FROM credit_consumptions WHERE id = NEW.id);
END;

-- A row that moves a lot must belong to that lot's owner and carry its expiry, or the two balances would part.
CREATE TRIGGER credit_records_fit_their_lot BEFORE INSERT ON credit_records WHEN NEW.lot_id IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'record_does_not_fit_its_lot')
    WHERE NOT EXISTS (
        SELECT 1 FROM credit_lots
        WHERE id = NEW.lot_id AND user_id = NEW.user_id AND expires_at IS NEW.expires_at
    );
END;

-- Every ledger row moves its lot and then the mirror, in one step. (One trigger, because SQLite promises no order among several.)
CREATE TRIGGER credit_records_apply AFTER INSERT ON credit_records
BEGIN
    INSERT INTO credit_lots (id, user_id, amount, remaining, expires_at, created_at)
    SELECT NEW.id, NEW.user_id, NEW.amount, NEW.amount, NEW.expires_at, NEW.created_at
    WHERE NEW.lot_id IS NULL;

    UPDATE credit_lots SET remaining = remaining + NEW.amount WHERE id = NEW.lot_id;

    UPDATE users SET updated_at = NEW.created_at, credits = (
        SELECT coalesce(sum(remaining), 0) FROM credit_lots
        WHERE user_id = NEW.user_id AND remaining > 0 AND (expires_at IS NULL OR expires_at > NEW.created_at)
    ) WHERE id = NEW.user_id;
END;

-- A lot appears with the record that opens it, whole, once; it never goes.
CREATE TRIGGER credit_lots_open_with_their_record BEFORE INSERT ON credit_lots
BEGIN
    SELECT RAISE(ABORT, 'lots_mirror_the_ledger')
    WHERE EXISTS (SELECT 1 FROM credit_lots WHERE id = NEW.id) OR NOT EXISTS (
        SELECT 1 FROM credit_records
        WHERE id = NEW.id AND lot_id IS NULL AND user_id = NEW.user_id AND amount = NEW.amount AND amount = NEW.remaining
          AND expires_at IS NEW.expires_at AND created_at = NEW.created_at
    );
END;
CREATE TRIGGER credit_lots_no_delete BEFORE DELETE ON credit_lots
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;

-- The two derived figures can only be set to what the rows say.
CREATE TRIGGER credit_lots_mirror BEFORE UPDATE ON credit_lots
BEGIN
    SELECT RAISE(ABORT, 'lots_mirror_the_ledger')
    WHERE NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.amount IS NOT OLD.amount
       OR NEW.expires_at IS NOT OLD.expires_at
       OR NEW.remaining <> OLD.amount + coalesce((SELECT sum(amount) FROM credit_records WHERE lot_id = OLD.id), 0);
END;

CREATE TRIGGER users_credits_mirror BEFORE UPDATE OF credits ON users WHEN NEW.credits <> OLD.credits
BEGIN
    SELECT RAISE(ABORT, 'credits_mirror_the_ledger')
    WHERE NEW.credits <> (
        SELECT coalesce(sum(remaining), 0) FROM credit_lots
        WHERE user_id = NEW.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > NEW.updated_at)
    );
END;

-- A newcomer's credits are a gift like any other: a lot, once per user.
CREATE TRIGGER users_signup_credits AFTER INSERT ON users WHEN NEW.credits > 0
BEGIN
    UPDATE users SET credits = 0 WHERE id = NEW.id;
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, note, created_at)
    VALUES ('signup:' || NEW.id, NEW.id, NEW.credits, 'gift', 'signup', NEW.id, 'sign-up credits', NEW.created_at);
END;

-- A portion taken from a lot, or put back, is a ledger row. What comes back to a lot that has expired meanwhile
-- opens a new lot with seven days of grace: a failed task must not cost the person anything.
CREATE TRIGGER credit_consumptions_apply AFTER INSERT ON credit_consumptions
BEGIN
    SELECT RAISE(ABORT, 'record_does_not_fit_its_lot')
    WHERE NOT EXISTS (SELECT 1 FROM credit_lots WHERE id = NEW.from_record_id AND user_id = NEW.user_id);

    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at, lot_id)
    SELECT
        'move:' || NEW.id, NEW.user_id, -NEW.amount, iif(NEW.amount > 0, 'consumption', 'refund'),
        NEW.entity_type, NEW.entity_id,
        iif(grace, NEW.created_at + 604800, expires_at), NEW.reason, NEW.created_at,
        iif(grace, NULL, id)
    FROM (
        SELECT id, expires_at, (NEW.amount < 0 AND expires_at IS NOT NULL AND expires_at <= NEW.created_at) AS grace
        FROM credit_lots WHERE id = NEW.from_record_id
    );
END;
