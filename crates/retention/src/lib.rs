//! How long what is kept, and the statements that find and remove what has had its time.
//!
//! Each statement takes a bounded batch and finds it by an index, so a sweep costs the same over a thousand rows and over a million; a
//! test asks the query planner. What is not named here stays: docs/retention.md says what and why.

/// Seconds of a day.
pub const DAY: i64 = 86_400;
/// Most rows that one of the statements takes.
pub const BATCH: usize = 5_000;

/// Rows of one kind that go when they are old enough.
pub struct Rule {
    /// The member of the sweep's report that counts them.
    pub name: &'static str,
    /// Seconds that they stay after the time that the statement looks at.
    pub kept: i64,
    /// Removes up to [`BATCH`] of them and answers a row for each. `?1`: what lies at or before this (Unix seconds) goes.
    pub sql: &'static str,
}

/// Everything that goes by its age alone.
pub const RULES: [Rule; 8] = [
    Rule {
        name: "expired_tokens",
        kept: 0,
        sql: "DELETE FROM one_time_tokens WHERE rowid IN (SELECT rowid FROM one_time_tokens WHERE expires_at <= ?1 LIMIT 5000) RETURNING 1",
    },
    Rule {
        name: "expired_keys",
        kept: 0,
        sql: "DELETE FROM idempotency_keys WHERE rowid IN (SELECT rowid FROM idempotency_keys WHERE expires_at <= ?1 LIMIT 5000) RETURNING 1",
    },
    Rule {
        name: "expired_counters",
        kept: 0,
        sql: "DELETE FROM rate_counters WHERE (class, subject) IN \
                  (SELECT class, subject FROM rate_counters WHERE window_ends <= ?1 LIMIT 5000) RETURNING 1",
    },
    Rule {
        name: "old_sign_ins",
        kept: 90 * DAY,
        sql: "DELETE FROM signin_logs WHERE rowid IN (SELECT rowid FROM signin_logs WHERE created_at <= ?1 LIMIT 5000) RETURNING 1",
    },
    Rule {
        name: "old_verdicts",
        kept: 180 * DAY,
        sql: "DELETE FROM prompt_verdicts WHERE rowid IN (SELECT rowid FROM prompt_verdicts WHERE created_at <= ?1 LIMIT 5000) RETURNING 1",
    },
    // The mailbox stays known, or going and coming back would be worth credits; the address counts for a day only.
    Rule {
        name: "forgotten_addresses",
        kept: 7 * DAY,
        sql: "UPDATE signup_grants SET address_hash = NULL WHERE rowid IN \
                  (SELECT rowid FROM signup_grants WHERE address_hash IS NOT NULL AND created_at <= ?1 LIMIT 5000) RETURNING 1",
    },
    Rule {
        name: "old_spend",
        kept: 400 * DAY,
        sql: "DELETE FROM provider_spend WHERE day IN (SELECT day FROM provider_spend WHERE day <= ?1 / 86400 LIMIT 5000) RETURNING 1",
    },
    // Never the last of a job: it is where the next one goes on.
    Rule {
        name: "old_runs",
        kept: 30 * DAY,
        sql: "DELETE FROM job_runs WHERE rowid IN (\
                  SELECT rowid FROM job_runs AS old WHERE started_at <= ?1 AND outcome <> 'running' \
                  AND EXISTS (SELECT 1 FROM job_runs WHERE job = old.job AND started_at > old.started_at) LIMIT 5000) RETURNING 1",
    },
];

/// Sessions: an ended one is taken out of the cache before its row goes (crates/session).
pub mod sessions {
    /// Those that were ended.
    pub const ENDED: &str = "SELECT id_hash FROM sessions WHERE expires_at = 0 LIMIT 1000";
    /// Those whose 30 days are over. `?1`: now.
    pub const OVER: &str = "DELETE FROM sessions WHERE rowid IN \
        (SELECT rowid FROM sessions WHERE expires_at > 0 AND expires_at <= ?1 LIMIT 5000) RETURNING 1";
    /// Those that nobody has used since `?1`.
    pub const UNUSED: &str = "DELETE FROM sessions WHERE rowid IN \
        (SELECT rowid FROM sessions WHERE coalesce(last_seen_at, created_at) <= ?1 AND expires_at > 0 LIMIT 5000) RETURNING 1";
}

/// Lots of credits that expire: `users.credits` is written with their end.
pub mod lots {
    /// Most lots that one statement looks at.
    pub const BATCH: usize = 2_000;
    /// The next lots that have expired: owner, when, row. `?1`: now; `?2`, `?3`: when and row of the last one that was looked at.
    pub const EXPIRED: &str = "SELECT user_id, expires_at, rowid FROM credit_lots \
        WHERE remaining > 0 AND expires_at >= ?2 AND expires_at <= ?1 AND (expires_at > ?2 OR rowid > ?3) ORDER BY expires_at, rowid LIMIT 2000";
    /// Brings the balances of these users (`?2`: JSON list of ids) to what their lots hold at `?1`.
    pub const BALANCES: &str = "UPDATE users SET updated_at = ?1, credits = (\
            SELECT coalesce(sum(remaining), 0) FROM credit_lots \
            WHERE user_id = users.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1)) \
        WHERE id IN (SELECT value FROM json_each(?2)) \
          AND credits <> (\
            SELECT coalesce(sum(remaining), 0) FROM credit_lots \
            WHERE user_id = users.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1)) \
        RETURNING 1";
}

/// Files and the rows they belong to, compared both ways.
pub mod files {
    /// Keys of uploads whose week is over (at `?1`) or that have been pending since `?2` and are being looked at by nobody. What was pending
    /// is over with this, so that nobody completes it while its files are removed.
    pub const DUE: &str = "UPDATE uploads SET expires_at = min(expires_at, 0) WHERE key IN (\
            SELECT key FROM (SELECT key FROM uploads WHERE expires_at <= ?1 ORDER BY expires_at LIMIT 1000) \
            UNION SELECT key FROM (SELECT key FROM uploads \
                WHERE status = 'pending' AND created_at <= ?2 AND claimed_until <= ?1 ORDER BY created_at LIMIT 1000) LIMIT 1000) RETURNING key";
    /// Removes the uploads with these keys (`?1`: JSON list).
    pub const GONE: &str = "DELETE FROM uploads WHERE key IN (SELECT value FROM json_each(?1)) RETURNING 1";

    /// Of these photos (`?1`: JSON list of pairs, the object's key and its upload's) those that no upload needs (it has
    /// no row, or the object is the raw file of an upload that is stored), each with whether the row is missing.
    pub const STRAY_PHOTOS: &str = "SELECT value ->> 0, uploads.id IS NULL FROM json_each(?1) LEFT JOIN uploads ON uploads.key = value ->> 1 \
        WHERE uploads.id IS NULL OR (value ->> 0 <> value ->> 1 AND uploads.status = 'stored')";
    /// Of these results (pairs of key and task) those that nobody was promised (there is no such task, it failed, or its owner
    /// is gone), each with whether the task is missing.
    pub const STRAY_RESULTS: &str = "SELECT value ->> 0, ai_tasks.id IS NULL FROM json_each(?1) LEFT JOIN ai_tasks ON ai_tasks.id = value ->> 1 \
        LEFT JOIN users ON users.id = ai_tasks.user_id \
        WHERE ai_tasks.id IS NULL OR ai_tasks.status = 'failed' OR users.erased_at IS NOT NULL";
    /// Of these portraits (pairs of key and user) those of nobody, each with whether there never was such a user.
    pub const STRAY_AVATARS: &str = "SELECT value ->> 0, users.id IS NULL FROM json_each(?1) LEFT JOIN users ON users.id = value ->> 1 \
        WHERE users.id IS NULL OR users.erased_at IS NOT NULL";

    /// Most uploads that [`LOST_PHOTOS`] answers.
    pub const LOST: usize = 1_000;
    /// Stored uploads from before `?3` with keys after `?1` and up to `?2` that are not among the objects (`?4`: JSON list of keys).
    pub const LOST_PHOTOS: &str = "SELECT key FROM uploads WHERE key > ?1 AND key <= ?2 AND status = 'stored' AND created_at <= ?3 \
        AND key NOT IN (SELECT value FROM json_each(?4)) ORDER BY key LIMIT 1000";
    /// Most tasks that [`LOST_RESULTS`] looks at.
    pub const TASKS: usize = 2_000;
    /// Of the next tasks with ids from `?1` to `?2`: how many there are, the last one's id, and (JSON list) those completed before `?3` that
    /// promise a file with a key after `?4` and up to `?5` that is not among the objects (`?6`: JSON list of keys).
    pub const LOST_RESULTS: &str = "WITH part AS MATERIALIZED (\
            SELECT id, status, completed_at, result_urls FROM ai_tasks WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT 2000), \
        promised AS (SELECT part.id, substr(url.value, 8) AS key FROM part, json_each(part.result_urls) AS url \
            WHERE part.status = 'completed' AND part.completed_at <= ?3) \
        SELECT count(*), max(id), (SELECT json_group_array(DISTINCT id) FROM promised \
            WHERE key > ?4 AND key <= ?5 AND key NOT IN (SELECT value FROM json_each(?6))) FROM part";
}
