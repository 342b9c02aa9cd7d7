-- What workers have done: counted beside their rounds, by queue, task and outcome.

-- As workers say it, every few seconds. Folded once a minute into the three below, and gone from here then: so whoever
-- reads one of those and this one has read each job once.
-- A histogram is two arrays: the buckets in which there is anything, ascending, and how many are in each. A bucket is a
-- quarter of an octave, from a microsecond on (`chancy.tally`), so histograms are added up by adding equal buckets. They
-- are of the attempts that were measured, which are all but on a worker with more than five hundred a second.
CREATE TABLE {schema}.tally (
    at timestamptz NOT NULL, -- the minute in which it was said
    queue text NOT NULL,
    task text NOT NULL,
    outcome text NOT NULL,   -- a final state; or of an attempt: retried, snoozed, blocked, released, died, lost
    jobs bigint NOT NULL,
    waited double precision NOT NULL DEFAULT 0, -- seconds, of those that were measured, all together
    ran double precision NOT NULL DEFAULT 0,
    wait_buckets smallint[] NOT NULL DEFAULT '{}',
    wait_counts bigint[] NOT NULL DEFAULT '{}',
    run_buckets smallint[] NOT NULL DEFAULT '{}',
    run_counts bigint[] NOT NULL DEFAULT '{}'
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE {schema}.tally_minute (LIKE {schema}.tally INCLUDING DEFAULTS);
CREATE INDEX tally_minute_at ON {schema}.tally_minute (at);
CREATE TABLE {schema}.tally_hour (LIKE {schema}.tally INCLUDING DEFAULTS);
CREATE INDEX tally_hour_at ON {schema}.tally_hour (at);
CREATE TABLE {schema}.tally_day (LIKE {schema}.tally INCLUDING DEFAULTS); -- of UTC
CREATE INDEX tally_day_at ON {schema}.tally_day (at);

-- How much there was to do, once a minute; a queue of which nothing is live has no row. Each number is at most 10,000,
-- which stands for that and more.
CREATE TABLE {schema}.depth (
    at timestamptz,
    queue text,
    ready integer NOT NULL,     -- due, and could begin
    waiting integer NOT NULL,   -- for a limit or for their turn
    scheduled integer NOT NULL,
    blocked integer NOT NULL,   -- by jobs that they need
    running integer NOT NULL,
    oldest double precision,    -- for how many seconds the longest waiting of the ready ones was due
    PRIMARY KEY (at, queue)
);
