-- Recurring jobs: what ticks, and when next.

CREATE TABLE {schema}.schedule (
    name text PRIMARY KEY,
    revision bigint GENERATED ALWAYS AS IDENTITY,
    task text NOT NULL,
    arguments json NOT NULL,
    changes json NOT NULL,
    recurrence json NOT NULL,
    declared boolean NOT NULL,
    since timestamptz NOT NULL,
    next_at timestamptz,
    paused_until timestamptz,
    due_at timestamptz NOT NULL GENERATED ALWAYS AS (coalesce(greatest(next_at, paused_until), '-infinity')) STORED,
    last_at timestamptz,
    last_job bigint,
    note text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX schedule_due_at ON {schema}.schedule (due_at);
