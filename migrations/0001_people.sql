-- People: who they are, how they sign in, and what a sign-in leaves behind.
--
-- All times are Unix seconds. A user's identity is (provider, openid): an address may change hands, that pair does not.
-- `users.credits` is a mirror of the ledger in 0002; nothing but the ledger's triggers can move it.

CREATE TABLE users (
    id         TEXT    NOT NULL PRIMARY KEY,
    email      TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    picture    TEXT,
    -- At insertion: how many credits the newcomer is given. From then on: the balance.
    credits    INTEGER NOT NULL DEFAULT 3 CONSTRAINT balance_never_negative CHECK (credits >= 0),
    role       TEXT    NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    updated_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE INDEX users_created_at ON users (created_at);

CREATE TABLE user_auth (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    provider   TEXT    NOT NULL,
    openid     TEXT    NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    UNIQUE (provider, openid)
) STRICT;
CREATE INDEX user_auth_user_id ON user_auth (user_id);

CREATE TABLE signin_logs (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    ip_address TEXT,
    user_agent TEXT,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE INDEX signin_logs_user_id ON signin_logs (user_id, created_at);
CREATE INDEX signin_logs_created_at ON signin_logs (created_at);

-- Sessions are read from the key-value store; this table is the truth behind it, and what one lists and revokes.
-- Only a hash of the session id is kept, so that reading the database signs nobody in.
CREATE TABLE sessions (
    id_hash    TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    ip_address TEXT,
    user_agent TEXT,
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_user_id ON sessions (user_id, created_at);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- Starting a session is signing in: the log line cannot be forgotten.
CREATE TRIGGER sessions_are_logged AFTER INSERT ON sessions
BEGIN
    INSERT INTO signin_logs (id, user_id, ip_address, user_agent, created_at)
    VALUES (lower(hex(randomblob(16))), NEW.user_id, NEW.ip_address, NEW.user_agent, NEW.created_at);
END;

-- Values that may be used once: sign-in states. Consumed by `DELETE ... RETURNING`, so that two requests cannot both win.
CREATE TABLE one_time_tokens (
    token_hash TEXT    NOT NULL PRIMARY KEY,
    kind       TEXT    NOT NULL,
    payload    TEXT    NOT NULL CHECK (json_valid(payload)),
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX one_time_tokens_expires_at ON one_time_tokens (expires_at);

-- A command in the shape of a view: `INSERT INTO sign_ups` makes the user and the identity together or not at all.
CREATE VIEW sign_ups AS
SELECT users.id AS user_id, email, name, picture, credits, provider, openid, users.created_at
FROM users JOIN user_auth ON user_auth.user_id = users.id;

CREATE TRIGGER sign_ups_apply INSTEAD OF INSERT ON sign_ups
BEGIN
    INSERT INTO users (id, email, name, picture, credits, created_at, updated_at)
    VALUES (NEW.user_id, NEW.email, NEW.name, NEW.picture, NEW.credits, NEW.created_at, NEW.created_at);
    INSERT INTO user_auth (id, user_id, provider, openid, created_at)
    VALUES (lower(hex(randomblob(16))), NEW.user_id, NEW.provider, NEW.openid, NEW.created_at);
END;
