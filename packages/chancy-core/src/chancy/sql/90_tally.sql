-- Takes up to so many rows of what workers have said, of minutes that are over, into the tables by minute, hour and day;
-- and drops what is older than each of them is kept. Returns whether there may be more. One process at a time.
-- What belongs together has a number, by which it is grouped; nothing is joined, whatever the planner knows of how many
-- there are.
CREATE OR REPLACE FUNCTION {schema}.fold_tally(most integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    SET enable_sort = on SET enable_hashagg = on
    AS $$
DECLARE
    folded integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -5) THEN
        RETURN false;
    END IF;
    WITH said AS MATERIALIZED (
        DELETE FROM {schema}.tally WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}.tally WHERE at < date_trunc('minute', {schema}.clock()) LIMIT most))
        RETURNING *
    ),
    of_hour AS (
        DELETE FROM {schema}.tally_hour WHERE at = ANY (ARRAY(SELECT DISTINCT date_trunc('hour', at, 'UTC') FROM said))
        RETURNING *
    ),
    of_day AS (
        DELETE FROM {schema}.tally_day WHERE at = ANY (ARRAY(SELECT DISTINCT date_trunc('day', at, 'UTC') FROM said))
        RETURNING *
    ),
    each AS MATERIALIZED (
        SELECT dense_rank() OVER (ORDER BY span, at, queue, task, outcome) AS place, every.*
        FROM (
            SELECT span, CASE span WHEN 'minute' THEN at ELSE date_trunc(span, at, 'UTC') END AS at, queue, task,
                outcome, jobs, waited, ran, wait_buckets, wait_counts, run_buckets, run_counts
            FROM said CROSS JOIN unnest(ARRAY['minute', 'hour', 'day']) AS span
            UNION ALL SELECT 'hour', * FROM of_hour
            UNION ALL SELECT 'day', * FROM of_day
        ) AS every
    ),
    number AS (
        SELECT place, min(span) AS span, min(at) AS at, min(queue) AS queue, min(task) AS task, min(outcome) AS outcome,
            sum(jobs)::bigint AS jobs, sum(waited) AS waited, sum(ran) AS ran,
            'jobs' AS kind, NULL::smallint AS bucket, NULL::bigint AS n
        FROM each GROUP BY place
        UNION ALL
        SELECT place, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'wait', wait.bucket, sum(wait.n)::bigint
        FROM each CROSS JOIN unnest(wait_buckets, wait_counts) AS wait (bucket, n)
        GROUP BY place, wait.bucket
        UNION ALL
        SELECT place, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'run', run.bucket, sum(run.n)::bigint
        FROM each CROSS JOIN unnest(run_buckets, run_counts) AS run (bucket, n)
        GROUP BY place, run.bucket
    ),
    summed AS MATERIALIZED (
        SELECT min(span) AS span, min(at) AS at, min(queue) AS queue, min(task) AS task, min(outcome) AS outcome,
            sum(jobs)::bigint AS jobs, sum(waited) AS waited, sum(ran) AS ran,
            coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE kind = 'wait'), '{}') AS wait_buckets,
            coalesce(array_agg(n ORDER BY bucket) FILTER (WHERE kind = 'wait'), '{}') AS wait_counts,
            coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE kind = 'run'), '{}') AS run_buckets,
            coalesce(array_agg(n ORDER BY bucket) FILTER (WHERE kind = 'run'), '{}') AS run_counts
        FROM number
        GROUP BY place
    ),
    by_minute AS (
        INSERT INTO {schema}.tally_minute
        SELECT at, queue, task, outcome, jobs, waited, ran, wait_buckets, wait_counts, run_buckets, run_counts
        FROM summed WHERE span = 'minute'
    ),
    by_hour AS (
        INSERT INTO {schema}.tally_hour
        SELECT at, queue, task, outcome, jobs, waited, ran, wait_buckets, wait_counts, run_buckets, run_counts
        FROM summed WHERE span = 'hour'
    ),
    by_day AS (
        INSERT INTO {schema}.tally_day
        SELECT at, queue, task, outcome, jobs, waited, ran, wait_buckets, wait_counts, run_buckets, run_counts
        FROM summed WHERE span = 'day'
    )
    SELECT count(*) INTO folded FROM said;
    DELETE FROM {schema}.tally_minute WHERE at < {schema}.clock() - interval '2 days';
    DELETE FROM {schema}.tally_hour WHERE at < {schema}.clock() - interval '35 days';
    DELETE FROM {schema}.tally_day WHERE at < {schema}.clock() - interval '400 days';
    RETURN folded >= most;
END
$$;

-- Writes down how deep the queues are, if nobody has in this minute, as `look_at_queues` has it: each number up to 10,000, of
-- 200 queues at most. Samples are kept for two days, and those of full hours for 35.
CREATE OR REPLACE FUNCTION {schema}.sample_depth() RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    SET enable_seqscan = off SET enable_bitmapscan = off
    SET max_parallel_workers_per_gather = 0
    AS $$
DECLARE
    minute timestamptz := date_trunc('minute', {schema}.clock());
BEGIN
    IF NOT pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -5)
        OR EXISTS (SELECT FROM {schema}.depth WHERE at = minute) THEN
        RETURN;
    END IF;
    INSERT INTO {schema}.depth (at, queue, ready, waiting, scheduled, blocked, running, oldest)
    SELECT minute, each.queue, least(each.ready + each.waiting, 10000), least(each.waiting, 10000),
        least(each.scheduled + each.waiting_ahead, 10000), least(each.blocked, 10000), least(each.running, 10000),
        extract(epoch FROM {schema}.clock() - each.oldest_at)::float8
    FROM {schema}.look_at_queues(10000, NULL) AS each
    WHERE each.ready + each.waiting + each.waiting_ahead + each.scheduled + each.blocked + each.running > 0
    ORDER BY each.queue
    LIMIT 200
    ON CONFLICT DO NOTHING;
    DELETE FROM {schema}.depth WHERE at < {schema}.clock() - interval '35 days'
        OR at < {schema}.clock() - interval '2 days' AND at <> date_trunc('hour', at, 'UTC');
END
$$;
