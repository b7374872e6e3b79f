//! The statements of a run, for the crate and for the tests of migrations/0008.

/// Begins a run and answers where it goes on and when it began; no row: it is not due. `?1` id, `?2` job, `?3` seconds of the lease, `?4`
/// seconds since the start of the last one that went well (0: whenever). What a wrong clock has put into the future does not count, and the last
/// run is the one that was written last.
pub const START: &str = "INSERT INTO job_runs (id, job, started_at, leased_until, position) \
    SELECT ?1, ?2, unixepoch(), unixepoch() + ?3, \
        (SELECT position FROM job_runs WHERE job = ?2 ORDER BY rowid DESC LIMIT 1) \
    WHERE ?4 = 0 OR NOT EXISTS (SELECT 1 FROM job_runs \
        WHERE job = ?2 AND started_at > unixepoch() - ?4 AND started_at <= unixepoch() AND outcome = 'done') \
    RETURNING position, started_at";
/// Renews the lease; no row: it is lost. `?1` id, `?2` seconds.
pub const RENEW: &str = "UPDATE job_runs SET leased_until = unixepoch() + ?2 WHERE id = ?1 AND outcome = 'running' RETURNING 1";
/// The same, with a position (`?2`) and seconds (`?3`).
pub const REACHED: &str =
    "UPDATE job_runs SET position = ?2, leased_until = unixepoch() + ?3 WHERE id = ?1 AND outcome = 'running' RETURNING 1";
/// Ends a run. `?1` id, `?2` outcome, `?3` report.
pub const END: &str =
    "UPDATE job_runs SET outcome = ?2, ended_at = unixepoch(), report = ?3 WHERE id = ?1 AND outcome = 'running' RETURNING 1";
