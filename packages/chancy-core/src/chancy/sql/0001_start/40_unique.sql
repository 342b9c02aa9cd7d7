-- Unique jobs: one live job a key, and at most one submit within a time.

-- `claims` only ever grows: a key held until the start leaves this index with the first claim, and never comes back.
CREATE UNIQUE INDEX job_unique ON {schema}.job (task, unique_key)
    WHERE unique_key IS NOT NULL AND (claims = 0 OR unique_until = 'finished');

-- The last submit of a key that asked for `within`, whatever has become of its job.
CREATE TABLE {schema}.unique_window (
    task text,
    key text COLLATE "C",
    job bigint NOT NULL,
    expires_at {schema}.instant NOT NULL,
    PRIMARY KEY (task, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX unique_window_expires_at ON {schema}.unique_window (expires_at);

-- A job on its way into the table.
CREATE TYPE {schema}.submission AS (
    position integer, -- in the call, from 1
    id bigint,        -- that it has if it is inserted
    task text,
    queue text,
    priority smallint,
    max_attempts smallint,
    run_at timestamptz,
    delay interval,
    arguments json,
    retry json,
    limits json,
    gates json,
    key text,
    until text,
    within interval,
    on_conflict text, -- 'existing', 'replace' or 'raise'
    meta json
);
