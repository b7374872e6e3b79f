-- Photos and the pictures made from them.
--
-- Inserting a task charges it, failing it pays it back: both are triggers, so no code path can do the one without the other.
-- I3: a task's charges minus returns are its price while it is pending, processing or completed, and 0 once it failed.
-- I5: pending -> processing -> completed | failed, pending -> failed; final states stay.

CREATE TABLE uploads (
    id            TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The object's key, under cache/{user_id}/. The row is written first, so that an object always has a row that can find it.
    key           TEXT    NOT NULL UNIQUE,
    status        TEXT    NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'stored')),
    content_type  TEXT    NOT NULL,
    original_name TEXT,
    size          INTEGER,
    width         INTEGER,
    height        INTEGER,
    sha256        TEXT,
    created_at    INTEGER NOT NULL DEFAULT (unixepoch()),
    expires_at    INTEGER NOT NULL,
    CONSTRAINT stored_upload_is_known CHECK (
        status = 'pending' OR (size > 0 AND width > 0 AND height > 0 AND sha256 IS NOT NULL)
    )
) STRICT;
CREATE INDEX uploads_user_id ON uploads (user_id, created_at);
CREATE INDEX uploads_expires_at ON uploads (expires_at);
CREATE INDEX uploads_pending ON uploads (created_at) WHERE status = 'pending';

CREATE TABLE ai_tasks (
    id                 TEXT    NOT NULL PRIMARY KEY,
    task_no            TEXT    NOT NULL UNIQUE,
    user_id            TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    status             TEXT    NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    input_params       TEXT    NOT NULL CHECK (json_valid(input_params)),
    estimated_start_at INTEGER,
    result_urls        TEXT    CHECK (result_urls IS NULL OR json_type(result_urls) = 'array'),
    failure_reason     TEXT,
    external_provider  TEXT    CHECK (external_provider IN ('kie_4o', 'kie_kontext', 'kie_market')),
    external_task_id   TEXT,
    created_at         INTEGER NOT NULL DEFAULT (unixepoch()),
    updated_at         INTEGER NOT NULL DEFAULT (unixepoch()),
    -- Credits this task costs.
    price              INTEGER NOT NULL DEFAULT 1 CHECK (price > 0),
    -- While this time lies ahead, somebody is handing the task to the provider or bringing its results home. Whoever
    -- moves it forward in one conditional UPDATE owns the step; if they die, it passes and the next one may.
    claimed_until      INTEGER NOT NULL DEFAULT 0,
    -- How often the task was handed to the provider, and when to try or ask next.
    attempts           INTEGER NOT NULL DEFAULT 0,
    next_attempt_at    INTEGER NOT NULL DEFAULT 0,
    completed_at       INTEGER
) STRICT;
CREATE INDEX ai_tasks_user_id ON ai_tasks (user_id, created_at DESC, id DESC);
CREATE INDEX ai_tasks_status ON ai_tasks (status);
CREATE INDEX ai_tasks_external_task_id ON ai_tasks (external_task_id);
CREATE INDEX ai_tasks_created_at ON ai_tasks (created_at);
CREATE INDEX ai_tasks_running ON ai_tasks (next_attempt_at) WHERE status IN ('pending', 'processing');

-- Charge a new task: soonest-expiring lots first, then the oldest. Refuses with `insufficient_credits`.
CREATE TRIGGER ai_tasks_charge AFTER INSERT ON ai_tasks
BEGIN
    SELECT RAISE(ABORT, 'task_starts_pending') WHERE NEW.status <> 'pending';

    SELECT RAISE(ABORT, 'insufficient_credits')
    WHERE NEW.price > (
        SELECT coalesce(sum(remaining), 0) FROM credit_lots
        WHERE user_id = NEW.user_id AND remaining > 0 AND (expires_at IS NULL OR expires_at > NEW.created_at)
    );

    INSERT INTO credit_consumptions (id, user_id, amount, from_record_id, entity_type, entity_id, reason, created_at)
    SELECT
        NEW.id || ':' || lot_id, NEW.user_id, min(remaining, NEW.price - taken_before), lot_id,
        'task', NEW.id, 'task ' || NEW.task_no, NEW.created_at
    FROM (
        SELECT id AS lot_id, remaining,
            coalesce(sum(remaining) OVER (
                ORDER BY expires_at IS NULL, expires_at, created_at, id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0) AS taken_before
        FROM credit_lots
        WHERE user_id = NEW.user_id AND remaining > 0 AND (expires_at IS NULL OR expires_at > NEW.created_at)
    )
    WHERE taken_before < NEW.price;
END;

-- A task stays as long as its money does; `INSERT OR REPLACE` would be a way around that.
CREATE TRIGGER ai_tasks_no_delete BEFORE DELETE ON ai_tasks
BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END;
CREATE TRIGGER ai_tasks_no_replace BEFORE INSERT ON ai_tasks
BEGIN
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: ai_tasks.id') WHERE EXISTS (SELECT 1 FROM ai_tasks WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: ai_tasks.task_no') WHERE EXISTS (SELECT 1 FROM ai_tasks WHERE task_no = NEW.task_no);
END;

CREATE TRIGGER ai_tasks_status_arrows BEFORE UPDATE OF status ON ai_tasks WHEN NEW.status <> OLD.status
BEGIN
    SELECT RAISE(ABORT, 'illegal_task_transition')
    WHERE NOT (OLD.status = 'pending' AND NEW.status IN ('processing', 'failed'))
      AND NOT (OLD.status = 'processing' AND NEW.status IN ('completed', 'failed'));
END;

-- What was paid for stays what it was.
CREATE TRIGGER ai_tasks_fixed_terms BEFORE UPDATE OF id, task_no, user_id, price ON ai_tasks
WHEN NEW.id <> OLD.id OR NEW.task_no <> OLD.task_no OR NEW.user_id <> OLD.user_id OR NEW.price <> OLD.price
BEGIN SELECT RAISE(ABORT, 'task_terms_are_fixed'); END;

-- A failed task pays back every portion to the lot it came from, at the time of the failure (`updated_at`).
CREATE TRIGGER ai_tasks_pay_back AFTER UPDATE OF status ON ai_tasks WHEN NEW.status = 'failed' AND OLD.status <> 'failed'
BEGIN
    INSERT INTO credit_consumptions (id, user_id, amount, from_record_id, entity_type, entity_id, reason, created_at)
    SELECT 'return:' || id, user_id, -amount, from_record_id, 'task', NEW.id, 'returned: task ' || NEW.task_no, NEW.updated_at
    FROM credit_consumptions
    WHERE entity_type = 'task' AND entity_id = NEW.id AND amount > 0;
END;
