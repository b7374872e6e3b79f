-- What an operator has to know: what went wrong, who was told of it, and what is over.

-- Requests that failed by a fault of ours or of somebody we need (5xx, but for a database that is busy), by minute (Unix seconds / 60) and
-- component. A row is written only when something fails.
CREATE TABLE request_errors (
    minute    INTEGER NOT NULL,
    component TEXT    NOT NULL,
    errors    INTEGER NOT NULL CHECK (errors > 0),
    PRIMARY KEY (minute, component)
) STRICT, WITHOUT ROWID;

-- What somebody outside said of us that only an operator can mend, such as a provider whose account is empty: when it was last heard.
CREATE TABLE signals (
    kind    TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    seen_at INTEGER NOT NULL,
    times   INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

-- One row that is written now and then by whoever looks after the stores: a database that can be read may still refuse to be written.
CREATE TABLE last_write (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;
INSERT INTO last_write (one, at) VALUES (1, 0);

-- An alarm is open from when a check first finds something wrong until it has found nothing for a while. `tell_at` says when the
-- operator is to be told next: at once, a day later if it is still open, and when it is over. Whoever moves it forward in one
-- conditional UPDATE is the one who tells; if they die, it passes and the next one may.
CREATE TABLE alarms (
    id        TEXT    NOT NULL PRIMARY KEY,
    kind      TEXT    NOT NULL,
    -- Which of its kind: a store, a rule, a job, a provider.
    subject   TEXT    NOT NULL,
    -- The newest words about it, for the operator. Nothing about persons.
    message   TEXT    NOT NULL,
    opened_at INTEGER NOT NULL,
    -- When a check last found it.
    seen_at   INTEGER NOT NULL,
    closed_at INTEGER,
    -- How often the operator was told, and when last.
    told      INTEGER NOT NULL DEFAULT 0,
    told_at   INTEGER,
    -- NULL: there is nothing more to tell.
    tell_at   INTEGER,
    -- Who is telling at this moment.
    teller    TEXT,
    CONSTRAINT alarm_ends_after_its_start CHECK (closed_at >= opened_at)
) STRICT;
CREATE UNIQUE INDEX alarms_open ON alarms (kind, subject) WHERE closed_at IS NULL;
CREATE INDEX alarms_opened_at ON alarms (opened_at, id);
CREATE INDEX alarms_teller ON alarms (teller) WHERE teller IS NOT NULL;
CREATE INDEX alarms_to_tell ON alarms (tell_at) WHERE tell_at IS NOT NULL;

-- What is over stays over: the same trouble later is another alarm.
CREATE TRIGGER alarms_close_once BEFORE UPDATE OF closed_at ON alarms WHEN OLD.closed_at IS NOT NULL AND NEW.closed_at IS NOT OLD.closed_at
BEGIN SELECT RAISE(ABORT, 'alarm_is_over'); END;

-- For the key figures: what moved on a day, without reading all that ever moved.
CREATE INDEX credit_records_created_at ON credit_records (created_at);
CREATE INDEX subscription_periods_created_at ON subscription_periods (created_at);
