-- What the world outside may do: how often, in whose name, and what stays when somebody goes.
--
-- Counters that must be exact are rows changed by one statement; the rules that cost money (how many pictures a day, who is given
-- sign-up credits) are triggers, so that no two requests can both be the last one.

-- ---------------------------------------------------------------------------------------------------------------------
-- How often: fixed windows. A row is one subject (a user or a fingerprint of a client's address) in one class of endpoints.

CREATE TABLE rate_counters (
    class       TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    used        INTEGER NOT NULL,
    window_ends INTEGER NOT NULL,
    PRIMARY KEY (class, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX rate_counters_window_ends ON rate_counters (window_ends);

-- Pictures ordered a day (Unix seconds / 86400, UTC), and the limit that was in force when a task was ordered.
CREATE TABLE provider_spend (
    day      INTEGER NOT NULL PRIMARY KEY,
    pictures INTEGER NOT NULL
) STRICT;
ALTER TABLE ai_tasks ADD COLUMN day_limit INTEGER;

CREATE TRIGGER ai_tasks_within_the_day BEFORE INSERT ON ai_tasks WHEN NEW.day_limit IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'spend_limit_reached')
    WHERE coalesce((SELECT pictures FROM provider_spend WHERE day = NEW.created_at / 86400), 0) >= NEW.day_limit;
END;
CREATE TRIGGER ai_tasks_are_counted AFTER INSERT ON ai_tasks
BEGIN
    INSERT INTO provider_spend (day, pictures) VALUES (NEW.created_at / 86400, 1)
    ON CONFLICT (day) DO UPDATE SET pictures = pictures + 1;
END;

-- What the moderation said about a person's own words. The words themselves are not kept here.
CREATE TABLE prompt_verdicts (
    id          TEXT    NOT NULL PRIMARY KEY,
    user_id     TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The moderation's own name of its verdict, if it gave one.
    provider_id TEXT,
    decision    TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX prompt_verdicts_user_id ON prompt_verdicts (user_id, created_at);

-- ---------------------------------------------------------------------------------------------------------------------
-- Who is given sign-up credits: one mailbox once, one client address a few times a day. Others get an account without them.
-- Both are keyed fingerprints; a mailbox stays known after its account is erased, or erasing would be worth credits.

CREATE TABLE signup_grants (
    identity_hash TEXT    NOT NULL PRIMARY KEY,
    address_hash  TEXT,
    created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX signup_grants_address ON signup_grants (address_hash, created_at) WHERE address_hash IS NOT NULL;

DROP TRIGGER sign_ups_apply;
DROP VIEW sign_ups;
-- `identity_hashes`: JSON list of the mailbox's fingerprints, one for each key in use, the current first. `address_limit`: grants for
-- one address in 24 hours. All three may be NULL: then there is no such rule.
CREATE VIEW sign_ups AS
SELECT users.id AS user_id, email, name, picture, credits, provider, openid, users.created_at,
       NULL AS identity_hashes, NULL AS address_hash, NULL AS address_limit
FROM users JOIN user_auth ON user_auth.user_id = users.id;

CREATE TRIGGER sign_ups_apply INSTEAD OF INSERT ON sign_ups
BEGIN
    INSERT INTO users (id, email, name, picture, credits, created_at, updated_at)
    VALUES (
        NEW.user_id, NEW.email, NEW.name, NEW.picture,
        iif(
            EXISTS (SELECT 1 FROM signup_grants WHERE identity_hash IN (SELECT value FROM json_each(coalesce(NEW.identity_hashes, '[]'))))
            OR (NEW.address_hash IS NOT NULL AND NEW.address_limit <= (
                SELECT count(*) FROM signup_grants WHERE address_hash = NEW.address_hash AND created_at > NEW.created_at - 86400
            )),
            0, NEW.credits
        ),
        NEW.created_at, NEW.created_at
    );
    INSERT INTO user_auth (id, user_id, provider, openid, created_at)
    VALUES (lower(hex(randomblob(16))), NEW.user_id, NEW.provider, NEW.openid, NEW.created_at);
    INSERT INTO signup_grants (identity_hash, address_hash, created_at)
    SELECT NEW.identity_hashes ->> 0, NEW.address_hash, NEW.created_at FROM users
    WHERE id = NEW.user_id AND credits > 0 AND NEW.identity_hashes IS NOT NULL;
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Sessions that nobody uses end before their time.

ALTER TABLE sessions ADD COLUMN last_seen_at INTEGER;

-- ---------------------------------------------------------------------------------------------------------------------
-- What admins do: each act is a row, and the row is the act. A row names the hash of the one before, so that none can be changed or
-- taken out unseen; see crates/audit for how the hash is made.

CREATE TABLE admin_log (
    seq      INTEGER NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    admin_id TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    -- Whom or what it is about: the id of a user or an event, a prefix of the cache.
    subject  TEXT    NOT NULL,
    detail   TEXT    NOT NULL CHECK (json_valid(detail)),
    previous TEXT    NOT NULL,
    hash     TEXT    NOT NULL UNIQUE CHECK (length(hash) = 64)
) STRICT;

CREATE TRIGGER admin_log_goes_on BEFORE INSERT ON admin_log
BEGIN
    SELECT RAISE(ABORT, 'log_moved_on')
    WHERE NEW.seq <> coalesce((SELECT max(seq) FROM admin_log), 0) + 1
       OR NEW.previous <> coalesce((SELECT hash FROM admin_log ORDER BY seq DESC LIMIT 1), '');
END;
CREATE TRIGGER admin_log_no_update BEFORE UPDATE ON admin_log
BEGIN SELECT RAISE(ABORT, 'log_is_append_only'); END;
CREATE TRIGGER admin_log_no_delete BEFORE DELETE ON admin_log
BEGIN SELECT RAISE(ABORT, 'log_is_append_only'); END;

-- The acts that change something in the database.
CREATE TRIGGER admin_log_gift AFTER INSERT ON admin_log WHEN NEW.action = 'gift'
BEGIN
    INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, note, created_at)
    VALUES ('gift:' || (NEW.detail ->> 'key'), NEW.subject, NEW.detail ->> 'credits', 'gift', 'admin', NEW.detail ->> 'key',
            NEW.at + (NEW.detail ->> 'lasts'), coalesce(NEW.detail ->> 'note', 'gift'), NEW.at);
END;
CREATE TRIGGER admin_log_role AFTER INSERT ON admin_log WHEN NEW.action = 'role'
BEGIN
    UPDATE users SET role = NEW.detail ->> 'role' WHERE id = NEW.subject;
END;
CREATE TRIGGER admin_log_replay AFTER INSERT ON admin_log WHEN NEW.action = 'replay'
BEGIN
    UPDATE payment_events SET next_attempt_at = 0 WHERE id = NEW.subject AND status = 'received';
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Payment events are kept without the buyer's name and address, which nothing of ours needs.

DROP TRIGGER payment_events_stay;
UPDATE payment_events SET payload = json_remove(payload,
    '$.object.customer.email', '$.object.customer.name', '$.object.customer_email',
    '$.object.order.customer.email', '$.object.order.customer.name',
    '$.object.checkout.customer.email', '$.object.checkout.customer.name',
    '$.object.transaction.customer.email', '$.object.transaction.customer.name',
    '$.object.subscription.customer.email', '$.object.subscription.customer.name');
CREATE TRIGGER payment_events_stay BEFORE UPDATE OF id, type, payload, status ON payment_events
WHEN NEW.id <> OLD.id OR NEW.type <> OLD.type OR NEW.payload <> OLD.payload OR (NEW.status <> OLD.status AND OLD.status <> 'received')
BEGIN SELECT RAISE(ABORT, 'events_are_filed_once'); END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Going: inserting a row here erases a person. What they paid and spent stays, under an id that says nothing; everything else
-- goes in the same step. Their files follow (they are not in this database), and `done_at` says when a look found nothing left.

ALTER TABLE users ADD COLUMN erased_at INTEGER;

CREATE TABLE erasures (
    user_id    TEXT    NOT NULL PRIMARY KEY,
    asked_at   INTEGER NOT NULL,
    -- When nothing was left; NULL: files or cache entries may be.
    done_at    INTEGER,
    -- When to look (again): what was on its way when the person went may have arrived since.
    next_look_at INTEGER
) STRICT;
CREATE INDEX erasures_due ON erasures (next_look_at) WHERE next_look_at IS NOT NULL;

CREATE TRIGGER erasures_begin AFTER INSERT ON erasures
BEGIN
    SELECT RAISE(ABORT, 'plan_is_active') WHERE EXISTS (
        SELECT 1 FROM subscriptions WHERE user_id = NEW.user_id AND status = 'active' AND provider_status <> 'scheduled_cancel'
    );
    UPDATE ai_tasks SET status = 'failed', updated_at = NEW.asked_at, completed_at = NEW.asked_at, claimed_until = 0
    WHERE user_id = NEW.user_id AND status IN ('pending', 'processing');
    UPDATE ai_tasks SET input_params = '{}', result_urls = NULL, failure_reason = NULL WHERE user_id = NEW.user_id;
    UPDATE orders SET payment_url = NULL WHERE user_id = NEW.user_id;
    UPDATE users SET email = 'erased-' || id || '@erased.invalid', name = 'Erased', picture = NULL, role = 'user', erased_at = NEW.asked_at
    WHERE id = NEW.user_id;
    -- Ended, and found by whoever takes them out of the cache.
    UPDATE sessions SET expires_at = 0, ip_address = NULL, user_agent = NULL WHERE user_id = NEW.user_id;
    DELETE FROM signin_logs WHERE user_id = NEW.user_id;
    DELETE FROM user_auth WHERE user_id = NEW.user_id;
    DELETE FROM uploads WHERE user_id = NEW.user_id;
    DELETE FROM idempotency_keys WHERE user_id = NEW.user_id;
    DELETE FROM prompt_verdicts WHERE user_id = NEW.user_id;
    DELETE FROM rate_counters WHERE subject = 'user:' || NEW.user_id;
END;

-- What was on its way finds the door closed.
CREATE TRIGGER sessions_of_the_living BEFORE INSERT ON sessions
BEGIN SELECT RAISE(ABORT, 'account_is_erased') WHERE EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL); END;
CREATE TRIGGER uploads_of_the_living BEFORE INSERT ON uploads
BEGIN SELECT RAISE(ABORT, 'account_is_erased') WHERE EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL); END;
CREATE TRIGGER ai_tasks_of_the_living BEFORE INSERT ON ai_tasks
BEGIN SELECT RAISE(ABORT, 'account_is_erased') WHERE EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL); END;
CREATE TRIGGER user_auth_of_the_living BEFORE INSERT ON user_auth
BEGIN SELECT RAISE(ABORT, 'account_is_erased') WHERE EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL); END;
