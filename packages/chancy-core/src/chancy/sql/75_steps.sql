-- A job that sleeps, or waits for a signal. Each first locks the job's row and then looks, in a statement of its own: so of a
-- signal and a wait that meet, the later one sees the other.

-- What an attempt has to do at a step that takes time, and until when that is: 'lost' if the job is no longer this claim's,
-- 'signal' if somebody has told it something, which is the value; 'over' if its time has come; and else 'rest'. Then the
-- attempt ends, and its row says from when on there is the next: the verdict leaves `run_at` as it is. Several at once, as
-- in a gather, go on with the first of them: `run_at` is later than the start of the attempt only if one of them has set it.
CREATE OR REPLACE FUNCTION {schema}.rest(
    job bigint, fence integer, lease bigint, name text, kind text, delay interval,
    OUT fate text, OUT value json, OUT until timestamptz
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    mine record;
    word record;
BEGIN
    SELECT live.submitted_at, live.attempt INTO mine FROM {schema}.job AS live
    WHERE live.id = rest.job AND live.claims = rest.fence AND live.worker = rest.lease
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        fate := 'lost';
        RETURN;
    END IF;
    SELECT step.kind, step.result INTO word FROM {schema}.step AS step
    WHERE step.job = rest.job AND step.name = rest.name AND step.kind IN ('signal', 'timeout')
        AND step.at >= mine.submitted_at AND step.kept_at >= mine.submitted_at
    ORDER BY step.at LIMIT 1;
    IF FOUND THEN
        fate := CASE word.kind WHEN 'signal' THEN 'signal' ELSE 'over' END;
        value := word.result;
        RETURN;
    END IF;
    SELECT step.until INTO rest.until FROM {schema}.step AS step
    WHERE step.job = rest.job AND step.name = rest.name AND step.kind = rest.kind
        AND step.at >= mine.submitted_at AND step.kept_at >= mine.submitted_at
    ORDER BY step.at LIMIT 1;
    IF NOT FOUND THEN
        rest.until := {schema}.clock() + rest.delay;
        INSERT INTO {schema}.step (job, name, kind, at, attempt, until, kept_at)
        VALUES (rest.job, rest.name, rest.kind, greatest({schema}.clock(), mine.submitted_at), mine.attempt, rest.until,
            greatest({schema}.clock(), mine.submitted_at));
    END IF;
    IF rest.until <= {schema}.clock() THEN
        IF rest.kind = 'wait' THEN -- who speaks now speaks too late
            INSERT INTO {schema}.step (job, name, kind, at, attempt, kept_at)
            VALUES (rest.job, rest.name, 'timeout', greatest({schema}.clock(), mine.submitted_at), mine.attempt,
                greatest({schema}.clock(), mine.submitted_at));
        END IF;
        fate := 'over';
        RETURN;
    END IF;
    UPDATE {schema}.job AS live
    SET run_at = least(CASE WHEN live.run_at > live.started_at THEN live.run_at END,
        rest.until, timestamptz '9999-12-31 00:00:00+00')
    WHERE live.id = rest.job;
    fate := 'rest';
END
$$;

-- Tells a job something that it waits for, or will wait for, or that it need not sleep on; true if it is the first word of
-- this name, and comes in time. The job's row is locked until the end of the transaction. One that waits is due then.
CREATE OR REPLACE FUNCTION {schema}.signal(job bigint, name text, value json DEFAULT 'null') RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    its record;
    today date := ({schema}.clock() AT TIME ZONE 'UTC')::date;
BEGIN
    SELECT live.queue, live.state, live.submitted_at INTO its FROM {schema}.job AS live
    WHERE live.id = signal.job
    FOR NO KEY UPDATE;
    IF NOT FOUND OR EXISTS (
        SELECT FROM {schema}.step AS step
        WHERE step.job = signal.job AND step.name = signal.name AND step.kind IN ('signal', 'timeout')
            AND step.at >= its.submitted_at AND step.kept_at >= its.submitted_at
    ) THEN
        RETURN false;
    END IF;
    IF to_regclass('{schema}.step' || to_char(today::timestamp, '_YYYYMMDD')) IS NULL THEN
        PERFORM {schema}.make_partitions(today, today + 1); -- no worker has been there for a week
    END IF;
    INSERT INTO {schema}.step (job, name, kind, at, attempt, result, kept_at)
    VALUES (signal.job, signal.name, 'signal', greatest({schema}.clock(), its.submitted_at), 0,
        coalesce(signal.value, 'null'), greatest({schema}.clock(), its.submitted_at));
    IF EXISTS (
        SELECT FROM {schema}.step AS step
        WHERE step.job = signal.job AND step.name = signal.name AND step.kind IN ('sleep', 'wait')
            AND step.at >= its.submitted_at AND step.kept_at >= its.submitted_at
    ) THEN
        -- Of an attempt that is about to end, too, whose verdict will leave this as it is.
        UPDATE {schema}.job AS live
        SET run_at = CASE live.state WHEN 'running'
            THEN greatest({schema}.clock(), live.started_at + interval '1 microsecond') ELSE {schema}.clock() END
        WHERE live.id = signal.job AND live.run_at > CASE live.state WHEN 'running'
            THEN live.started_at ELSE {schema}.clock() END;
        IF FOUND AND its.state = 'ready' THEN
            PERFORM {schema}.ring(its.queue);
        END IF;
    END IF;
    RETURN true;
END
$$;

-- Moves the steps of jobs that are still there, live or finished, out of a day that is to be dropped: of up to 1,000 jobs
-- with an id above this one. Returns the last id that it has looked at, or NULL if that were all.
CREATE OR REPLACE FUNCTION {schema}.carry_steps(day text, after bigint) RETURNS bigint
    LANGUAGE plpgsql
    SET timezone = 'UTC'
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    since timestamptz := to_date(right(carry_steps.day, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := since + interval '24 hours';
    jobs bigint[] := ARRAY(
        SELECT DISTINCT step.job FROM {schema}.step AS step
        WHERE step.kept_at >= since AND step.kept_at < ends AND step.job > carry_steps.after
        ORDER BY step.job LIMIT 1000);
BEGIN
    UPDATE {schema}.step AS step SET kept_at = {schema}.clock()
    WHERE step.kept_at >= since AND step.kept_at < ends AND step.job = ANY (ARRAY(
        SELECT one.job FROM unnest(jobs) AS one (job)
        CROSS JOIN LATERAL ( -- by the index, whatever is thought of the tables
            (SELECT live.id FROM {schema}.job AS live WHERE live.id = one.job LIMIT 1)
            UNION ALL (SELECT past.id FROM {schema}.history AS past WHERE past.id = one.job LIMIT 1)
            LIMIT 1
        ) AS there));
    RETURN CASE WHEN cardinality(jobs) = 1000 THEN jobs[1000] END;
END
$$;
