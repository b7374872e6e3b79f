-- The doors once more: who vouches for an address, what was there before the admins' log began, one person's share of a day, and one at a
-- time for the steps of a direct upload.

-- ---------------------------------------------------------------------------------------------------------------------
-- When somebody last signed in with an identity whose provider runs the mailbox of `users.email` (Unix seconds); NULL: it does not, or
-- nobody has signed in with it since this column is here. An address in the variable `admin_emails` counts only with it.

ALTER TABLE user_auth ADD COLUMN vouched_at INTEGER;

-- ---------------------------------------------------------------------------------------------------------------------
-- Gifts and admins that the admins' log (migration 7) does not tell of because it came after them. From now on every one has its act; what
-- has none was made behind the log's back, or somebody has shortened the log. See crates/audit, I7c and I7d.

CREATE TABLE before_the_log (
    kind    TEXT NOT NULL CHECK (kind IN ('gift', 'admin')),
    subject TEXT NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
INSERT INTO before_the_log (kind, subject)
SELECT 'gift', id FROM credit_records r WHERE entity_type = 'admin' AND lot_id IS NULL AND NOT EXISTS (
    SELECT 1 FROM admin_log WHERE action = 'gift' AND detail ->> 'key' = r.entity_id AND subject = r.user_id
)
UNION ALL
SELECT 'admin', id FROM users u WHERE role = 'admin' AND NOT EXISTS (
    SELECT 1 FROM admin_log WHERE action = 'role' AND subject = u.id AND detail ->> 'role' = 'admin'
);
CREATE TRIGGER before_the_log_is_over BEFORE INSERT ON before_the_log
BEGIN SELECT RAISE(ABORT, 'log_is_append_only'); END;
CREATE TRIGGER before_the_log_no_update BEFORE UPDATE ON before_the_log
BEGIN SELECT RAISE(ABORT, 'log_is_append_only'); END;
CREATE TRIGGER before_the_log_no_delete BEFORE DELETE ON before_the_log
BEGIN SELECT RAISE(ABORT, 'log_is_append_only'); END;

-- What was done to somebody, latest last.
CREATE INDEX admin_log_subject ON admin_log (action, subject, seq);

-- ---------------------------------------------------------------------------------------------------------------------
-- A day's pictures are everybody's: one person gets a tenth of them, but twenty in any case. Pictures that failed were paid back and had
-- cost the provider's time all the same, so they count.

DROP TRIGGER ai_tasks_within_the_day;
CREATE TRIGGER ai_tasks_within_the_day BEFORE INSERT ON ai_tasks WHEN NEW.day_limit IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'spend_limit_reached')
    WHERE coalesce((SELECT pictures FROM provider_spend WHERE day = NEW.created_at / 86400), 0) >= NEW.day_limit;
    -- By the index ai_tasks_user_id.
    SELECT RAISE(ABORT, 'share_of_the_day_used')
    WHERE max(20, NEW.day_limit / 10) <= (
        SELECT count(*) FROM ai_tasks
        WHERE user_id = NEW.user_id AND created_at >= NEW.created_at / 86400 * 86400 AND created_at < (NEW.created_at / 86400 + 1) * 86400
    );
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Looking at a file that was put into the bucket directly is a step that one request at a time may do, until this time (Unix seconds).

ALTER TABLE uploads ADD COLUMN claimed_until INTEGER NOT NULL DEFAULT 0;

-- ---------------------------------------------------------------------------------------------------------------------
-- Why a task failed is told in words of ours. The provider's own could hold anything, also what a person wrote.

UPDATE ai_tasks SET failure_reason = 'The AI provider could not make this picture.'
WHERE failure_reason IS NOT NULL AND failure_reason <> 'cancelled' AND failure_reason NOT LIKE 'The AI provider%' AND failure_reason <> 'The picture could not be ordered.';
