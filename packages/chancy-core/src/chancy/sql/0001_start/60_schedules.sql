-- Recurring jobs: what ticks, and when next.

CREATE TABLE {schema}.schedule (
    name text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 800),
    revision bigint GENERATED ALWAYS AS IDENTITY,
    task text NOT NULL CHECK (octet_length(task) BETWEEN 1 AND 500),
    arguments {schema}.arguments NOT NULL,
    changes {schema}.fields NOT NULL,
    recurrence {schema}.fields NOT NULL,
    declared boolean NOT NULL,
    since {schema}.instant NOT NULL,
    next_at {schema}.instant,
    paused_until {schema}.pause_end,
    due_at timestamptz NOT NULL GENERATED ALWAYS AS (coalesce(greatest(next_at, paused_until), '-infinity')) STORED,
    last_at {schema}.instant,
    last_job bigint,
    note text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX schedule_due_at ON {schema}.schedule (due_at);
