-- Work that a scheduler asks for. A run is a row: it is the lease (no second run of a job while it lasts), the record of what was done,
-- and the place where the next run goes on.
--
-- All times here are the database's own clock (`unixepoch()` in the statement), never a host's: two hosts whose clocks differ share
-- one database, and must agree on whether a lease has passed.

CREATE TABLE job_runs (
    id           TEXT    NOT NULL PRIMARY KEY,
    job          TEXT    NOT NULL,
    started_at   INTEGER NOT NULL,
    -- While this lies ahead, the run has the job to itself. A run moves it forward as it goes; one that was cut off lets it pass.
    leased_until INTEGER NOT NULL,
    ended_at     INTEGER,
    outcome      TEXT    NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'failed', 'cut_off')),
    -- Where the next run goes on: JSON that only the job itself reads. NULL: at the beginning.
    position     TEXT    CHECK (position IS NULL OR json_valid(position)),
    -- What was done: counts and durations.
    report       TEXT    CHECK (report IS NULL OR json_valid(report)),
    CONSTRAINT ended_run_has_an_outcome CHECK ((outcome = 'running') = (ended_at IS NULL))
) STRICT;
-- The lease itself.
CREATE UNIQUE INDEX job_runs_one_at_a_time ON job_runs (job) WHERE outcome = 'running';
-- The last run of a job: by time, and within a second by the order of the rows.
CREATE INDEX job_runs_job ON job_runs (job, started_at);
CREATE INDEX job_runs_started_at ON job_runs (started_at);

-- A run begins as one that is running; who comes after its lease has passed takes over from it.
CREATE TRIGGER job_runs_take_over BEFORE INSERT ON job_runs
BEGIN
    SELECT RAISE(ABORT, 'run_starts_running') WHERE NEW.outcome <> 'running' OR NEW.leased_until <= NEW.started_at;
    -- `INSERT OR REPLACE` would be a way around the lease.
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: job_runs.job')
    WHERE EXISTS (SELECT 1 FROM job_runs WHERE job = NEW.job AND outcome = 'running' AND leased_until > NEW.started_at);
    UPDATE job_runs SET outcome = 'cut_off', ended_at = leased_until
    WHERE job = NEW.job AND outcome = 'running' AND leased_until <= NEW.started_at;
END;
-- A run ends once. Who was taken over from finds out at its next word, and stops.
CREATE TRIGGER job_runs_end_once BEFORE UPDATE OF id, job, outcome, leased_until, position, report ON job_runs
WHEN OLD.outcome <> 'running' OR NEW.id <> OLD.id OR NEW.job <> OLD.job
BEGIN SELECT RAISE(ABORT, 'run_has_ended'); END;

-- ---------------------------------------------------------------------------------------------------------------------
-- What has had its time is found without reading what has not (crates/retention).

CREATE INDEX sessions_last_used ON sessions (coalesce(last_seen_at, created_at));
CREATE INDEX prompt_verdicts_created_at ON prompt_verdicts (created_at);
CREATE INDEX signup_grants_created_at ON signup_grants (created_at) WHERE address_hash IS NOT NULL;
