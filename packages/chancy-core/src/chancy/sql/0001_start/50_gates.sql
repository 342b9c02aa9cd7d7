-- Limits over all workers, and groups that take turns.
-- A job with gates is parked: it is no entry of the index that claims read, until it is admitted. So it keeps nobody
-- waiting, and jobs without gates cost what they did.

CREATE INDEX job_parked ON {schema}.job (queue, priority DESC, parked COLLATE "C", run_at, id)
    WHERE state = 'ready' AND parked IS NOT NULL;

-- A slot is owned by one claim of one job: from its admission (`claims` is the fence then) to the end of the claim that
-- follows. When the job ends, returns or is taken back, it is free: nobody has to give it back, so none can be lost.
-- Those of a rate are free again `per` after the claim. Rows are written under the lock that `admit` takes.
CREATE TABLE {schema}.slot (
    gate text COLLATE "C",
    n integer,
    job bigint NOT NULL,
    fence integer NOT NULL,
    per interval,          -- of a rate
    opens_at timestamptz,  -- of a rate, once its job was claimed
    PRIMARY KEY (gate, n)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- What a claim of rated jobs looks up.
CREATE INDEX slot_unclaimed ON {schema}.slot (job) WHERE per IS NOT NULL AND opens_at IS NULL;

-- How many of a queue may run at a time, over all workers, whatever their tasks are: for operators.
CREATE TABLE {schema}.queue_limit (
    queue text PRIMARY KEY CHECK (octet_length(queue) BETWEEN 1 AND 500),
    concurrency integer NOT NULL CHECK (concurrency >= 0)
);
