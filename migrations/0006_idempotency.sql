-- Requests that a client may repeat with the same `Idempotency-Key`: the work is done once, its answer is kept for a day.
--
-- A key is claimed by whoever inserts it, and by the next one once the claim has passed (the first was cut off). `work_id` stays the
-- same then: rows that the work makes take their ids from it, so what was done before the cut is found instead of done again.

CREATE TABLE idempotency_keys (
    user_id       TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    endpoint      TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    -- SHA-256 of what was sent. NULL while a streamed body is still being read.
    fingerprint   TEXT,
    work_id       TEXT    NOT NULL,
    -- Whose claim it is: a value that nobody else knows.
    claim         TEXT    NOT NULL,
    claimed_until INTEGER NOT NULL,
    -- The answer; NULL until there is one.
    status        INTEGER,
    body          TEXT,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    PRIMARY KEY (user_id, endpoint, key)
) STRICT;
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
