-- Steps: what a job has done of itself. A job without steps pays nothing: no column, no look.

-- Rows are added, moved and deleted, and never changed. Its parts are days, as those of `log`; `kept_at` is the day's, and
-- moves on as long as the job is there (75_steps), so that a job which sleeps for a year keeps its steps, and no old day is
-- kept for it.
CREATE TABLE {schema}.step (
    job bigint NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 500),
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('step', 'sleep', 'wait', 'signal', 'timeout')),
    at timestamptz NOT NULL,       -- not before its job was submitted: ids may come again after a failover
    attempt smallint NOT NULL,     -- 0: from outside
    until timestamptz,             -- of 'sleep', and of a 'wait' that has an end
    result json CHECK (pg_column_size(result) <= 1048580), -- of 'step' and 'signal': `chancy.steps.values.MAX_RESULT_BYTES`
    kept_at timestamptz NOT NULL,
    PRIMARY KEY (job, name, kind, kept_at)
) PARTITION BY RANGE (kept_at);

-- Who waits: for whoever looks after them.
CREATE INDEX step_wait ON {schema}.step (job) WHERE kind = 'wait';
