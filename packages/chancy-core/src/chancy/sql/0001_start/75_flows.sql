-- Flows: jobs that need others, and are given what those have come to.

-- Jobs that are submitted together, an array a column. Of each what it needs, as the text of an array: by places in here
-- (from 1) or, below zero, by ids; and a letter for each of those, as in `need.kind`.
CREATE TYPE {schema}.flow AS (
    tasks text[], queues text[], priorities smallint[], max_attempts smallint[], run_at timestamptz[], delays interval[],
    arguments json[], retries json[], limits json[], gates json[], metas json[], needs text[], kinds text[],
    needed boolean[]
);

-- What blocked jobs need. The rows of a job go when it is released. Those of one that was ended because of what it needed
-- stay, so that it can come back together with that, until `doomed_at` is as long ago as any job is kept.
CREATE TABLE {schema}.need (
    job bigint,
    needs bigint,
    kind "char" NOT NULL, -- 's': its result; 'a': that it succeeds; 'e': its outcome; 'r': to become what it comes to
    doomed_at {schema}.instant,
    by_a_look boolean,    -- of one that was ended: because of its needs, and not by somebody. It comes back with them
    PRIMARY KEY (job, needs)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Who needs this one.
CREATE INDEX need_needs ON {schema}.need (needs, job);

-- Blocked jobs, for who looks at them. Only looks say `worker IS NULL`, which they all have: so no plan that was made while
-- there were none takes it for the shorter way to a single job.
CREATE INDEX job_blocked ON {schema}.job (queue, id) WHERE state = 'blocked' AND worker IS NULL;

CREATE INDEX need_doomed_at ON {schema}.need (doomed_at) WHERE doomed_at IS NOT NULL;
