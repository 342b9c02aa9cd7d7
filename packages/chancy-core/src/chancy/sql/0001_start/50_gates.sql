-- Limits over all workers, and groups that take turns.
-- A job with gates is parked: it is no entry of the index that claims read, until it is admitted. So it keeps nobody
-- waiting, and jobs without gates cost what they did. To be admitted is to be claimed, with a slot of each gate.

CREATE INDEX job_parked ON {schema}.job (queue, priority DESC, parked COLLATE "C", run_at, id)
    WHERE state = 'ready' AND parked IS NOT NULL;

-- A slot belongs to one claim of one job for as long as that lasts. When the job ends, returns or is taken back, it is
-- free: nobody has to give it back, so none can be lost. A worker that ends a claim does so all the same, or hands it on,
-- because that spares others the search. Those of a rate are free again `per` after the claim.
-- The numbers of a gate are 1, 2, 3 … without a gap, up to what its limit says. Whoever adds or removes numbers holds a
-- lock; who takes a free one locks its row, and passes by those that are locked.
CREATE TABLE {schema}.slot (
    gate text COLLATE "C",
    n integer,
    job bigint,
    fence integer,
    opens_at timestamptz,  -- from then on it is free; null: when the claim is over
    PRIMARY KEY (gate, n)
) WITH (
    fillfactor = 20, -- each job makes a version, and one on another page is told from all others
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX slot_free ON {schema}.slot (gate, opens_at) WHERE opens_at IS NOT NULL;

-- A claim that this statement has ended: what `admit` hands on. Of one that was refused nothing has begun, so that it does
-- not count against a rate.
CREATE TYPE {schema}.leaving AS (job bigint, fence integer, parked text, gates text, slots integer[], refused boolean);

-- Who claims parked jobs, of which queue: of these tasks (empty is of any) or of such that nobody has, and not of those;
-- if the first that may run is of one of `no_room`, nothing is claimed: it is not passed by;
-- one suspect at most (0: none, 1: one that may run beside others, 2: of any kind); so many bytes in large jobs, and the one
-- that goes above it; or this job alone.
-- Which jobs without gates it has in view, in the order in which it would claim them: those that come before a parked one
-- are claimed before it. And the last (run_at, id) that it has claimed of some keys and priorities: where to go on, so that
-- dead index entries are read once.
CREATE TYPE {schema}.claim AS (
    worker bigint,
    queue text,
    known text[],
    without text[],
    no_room text[],
    suspects smallint,
    bytes integer,
    sole bigint,
    priorities smallint[],
    instants timestamptz[],
    jobs bigint[],
    marked text[],
    marked_lanes smallint[],
    marked_instants timestamptz[],
    marked_jobs bigint[]
);

-- How many of a queue may run at a time, over all workers, whatever their tasks are: for operators.
CREATE TABLE {schema}.queue_limit (
    queue text PRIMARY KEY CHECK (octet_length(queue) BETWEEN 1 AND 500),
    concurrency integer NOT NULL CHECK (concurrency >= 0),
    revision xid8 NOT NULL DEFAULT pg_current_xact_id() -- which `chancy.limit` has set it
);

-- What a worker may use of a limit without asking anybody: of that of a queue; and of a gate that is far from full, beside
-- those who have slots of it. A job that runs so has no slot.
CREATE TABLE {schema}.share (
    kind text,              -- 'queue' or 'gate'
    name text COLLATE "C",
    worker bigint,
    most integer NOT NULL,
    revision xid8 NOT NULL, -- of the limit that it is a part of
    PRIMARY KEY (kind, name, worker)
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);
