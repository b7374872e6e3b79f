-- A clock that was ahead for a while (by a month, say) leaves times behind that have not come yet. Once it is right again they must switch
-- nothing off: no job that is due, no lease, no alarm.

-- Which run of a job was the last one is told by the order of the rows, whatever times they carry.
CREATE INDEX job_runs_order ON job_runs (job);

-- As in migrations/0008. A lease is two minutes long (crates/job); one that reaches further ahead than two leases was taken by a clock that
-- was wrong, and nobody renews it: it has passed. Why two: a clock may be set back by some seconds while a run works.
DROP TRIGGER job_runs_take_over;
CREATE TRIGGER job_runs_take_over BEFORE INSERT ON job_runs
BEGIN
    SELECT RAISE(ABORT, 'run_starts_running') WHERE NEW.outcome <> 'running' OR NEW.leased_until <= NEW.started_at;
    -- `INSERT OR REPLACE` would be a way around the lease.
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: job_runs.job')
    WHERE EXISTS (
        SELECT 1 FROM job_runs WHERE job = NEW.job AND outcome = 'running' AND leased_until > NEW.started_at
            AND leased_until <= NEW.started_at + max(240, 2 * (NEW.leased_until - NEW.started_at))
    );
    UPDATE job_runs SET outcome = 'cut_off', ended_at = min(leased_until, NEW.started_at) WHERE job = NEW.job AND outcome = 'running';
END;

-- Erasures that have not come to their end, for the alarms: whoever sweeps moves `next_look_at` on, whether it came to anything or not.
CREATE INDEX erasures_open ON erasures (asked_at) WHERE done_at IS NULL;
