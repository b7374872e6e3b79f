-- Work that a scheduler asks for. A run is a row: it is the lease (no second run of a job while it lasts), the record of what was done,
-- and the place where the next run goes on.

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
CREATE INDEX job_runs_job ON job_runs (job, started_at);
CREATE INDEX job_runs_started_at ON job_runs (started_at);

CREATE TRIGGER job_runs_take_over BEFORE INSERT ON job_runs
BEGIN
    UPDATE job_runs SET outcome = 'cut_off', ended_at = leased_until
    WHERE job = NEW.job AND outcome = 'running' AND leased_until <= NEW.started_at;
END;
-- Who was taken over from finds out at its next word, and stops.
CREATE TRIGGER job_runs_end_once BEFORE UPDATE ON job_runs WHEN OLD.outcome <> 'running'
BEGIN SELECT RAISE(ABORT, 'run_has_ended'); END;
