-- Whether a row that is seen here was written by this very transaction, in a savepoint or not: what is seen and is not
-- committed is one's own. `xmin` has lost its upper half; ids of savepoints come after that of their transaction.
CREATE OR REPLACE FUNCTION {schema}.is_own(writer xid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT CASE WHEN after < 1000000 THEN pg_xact_status((top + after)::text::xid8) = 'in progress' ELSE false END
    FROM (SELECT top, (writer::text::bigint - top % 4294967296 + 4294967296) % 4294967296 AS after
          FROM (SELECT pg_current_xact_id_if_assigned()::text::bigint AS top) AS current) AS distance
$$;

-- Gives a job that waits what `new` brings, and says whether it did: not where it runs or has gone meanwhile.
-- Its queue, its key, its attempts and, unless `new` names another, its time stay. Admitted by its gates, it has to pass
-- them anew. `rings` is whether an idle worker has to know.
CREATE OR REPLACE FUNCTION {schema}.replace_waiting(job bigint, new {schema}.submission, OUT replaced boolean, OUT rings boolean)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    former record;
BEGIN
    SELECT run_at, parked INTO former FROM {schema}.job
    WHERE id = replace_waiting.job AND state = 'ready'
        AND (claims = 0 OR unique_until = 'finished' OR new.within IS NOT NULL)
    FOR UPDATE;
    replaced := FOUND;
    IF replaced THEN
        UPDATE {schema}.job
        SET arguments = new.arguments, priority = new.priority, max_attempts = new.max_attempts,
            retry = new.retry, limits = new.limits, gates = new.gates, parked = new.gates->>'key', meta = new.meta,
            run_at = coalesce(new.run_at, {schema}.clock() + new.delay, run_at)
        WHERE id = replace_waiting.job
        RETURNING run_at < former.run_at OR parked IS DISTINCT FROM former.parked INTO rings;
    END IF;
END
$$;

-- Adds jobs, and says of each by its position what became of it: inserted, existing, replaced; or refused, which ends
-- the call. `own` is what nobody else can see yet, `instants` are when they were submitted. Keys are taken one after the other in their order, each with all its
-- locks before the first of the next, so that no two calls ever wait for each other. Each statement in here has a
-- snapshot of its own: who has waited for another transaction sees what that has committed.
CREATE OR REPLACE FUNCTION {schema}.submit_unique(
    jobs {schema}.submission[],
    OUT ids bigint[], OUT outcomes text[], OUT queues text[], OUT own boolean[], OUT instants timestamptz[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off -- a plan that was made while the table was empty serves for a full one
    AS $$
#variable_conflict use_column
DECLARE
    new {schema}.submission;
    windowed boolean; -- nothing but a live job can be in the way any more
    other bigint;     -- what is in the way
    waits boolean;    -- whether it could be replaced
    its_queue text;
    its_instant timestamptz;
    unseen boolean;   -- by all but this transaction
    outcome text;
    rings boolean;
    bells text[] := '{}';
BEGIN
    ids := array_fill(NULL::bigint, ARRAY[cardinality(jobs)]);
    outcomes := array_fill(NULL::text, ARRAY[cardinality(jobs)]);
    queues := outcomes;
    own := array_fill(true, ARRAY[cardinality(jobs)]);
    instants := array_fill({schema}.clock(), ARRAY[cardinality(jobs)]);
    FOR new IN
        SELECT * FROM unnest(jobs) AS given ORDER BY given.task COLLATE "C", given.key COLLATE "C", given.position
    LOOP
        windowed := new.within IS NULL;
        FOR try IN 1..100 LOOP -- again when what was in the way has gone before it could be looked at
            outcome := NULL;
            other := NULL;
            waits := true;
            IF NOT windowed THEN
                UPDATE {schema}.unique_window SET job = new.id, expires_at = {schema}.clock() + new.within
                WHERE task = new.task AND key = new.key AND expires_at <= {schema}.clock();
                windowed := FOUND;
            END IF;
            IF NOT windowed THEN
                INSERT INTO {schema}.unique_window (task, key, job, expires_at)
                VALUES (new.task, new.key, new.id, {schema}.clock() + new.within)
                ON CONFLICT (task, key) DO NOTHING;
                windowed := FOUND;
            END IF;
            IF NOT windowed THEN
                SELECT job INTO other FROM {schema}.unique_window WHERE task = new.task AND key = new.key;
                CONTINUE WHEN other IS NULL;
            ELSE
                INSERT INTO {schema}.job
                    (id, task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits,
                     gates, parked, unique_key, unique_until, meta)
                VALUES (new.id, new.task, new.queue, new.priority, 'ready', new.max_attempts,
                    coalesce(new.run_at, {schema}.clock() + new.delay, {schema}.clock()), {schema}.clock(),
                    new.arguments, new.retry, new.limits, new.gates, new.gates->>'key', new.key, new.until, new.meta)
                ON CONFLICT (task, unique_key)
                    WHERE unique_key IS NOT NULL AND (claims = 0 OR unique_until = 'finished')
                    DO NOTHING;
                IF FOUND THEN
                    outcome := 'inserted';
                    bells := bells || new.queue;
                    EXIT;
                END IF;
                SELECT id, state = 'ready', queue, submitted_at, {schema}.is_own(xmin)
                INTO other, waits, its_queue, its_instant, unseen
                FROM {schema}.job
                WHERE task = new.task AND unique_key = new.key AND (claims = 0 OR unique_until = 'finished');
                CONTINUE WHEN other IS NULL;
            END IF;
            outcome := CASE new.on_conflict WHEN 'raise' THEN 'refused' ELSE 'existing' END;
            IF new.on_conflict = 'replace' AND waits THEN
                SELECT CASE WHEN replaced THEN 'replaced' ELSE outcome END, rings INTO outcome, rings
                FROM {schema}.replace_waiting(other, new);
                IF outcome = 'existing' AND windowed THEN -- it was claimed, or has gone
                    outcome := NULL;
                    CONTINUE;
                END IF;
            END IF;
            EXIT;
        END LOOP;
        IF outcome IS NULL THEN
            RAISE serialization_failure USING
                MESSAGE = format('the key %L of task %s was taken and given back a hundred times', new.key, new.task),
                HINT = 'Try again.';
        END IF;
        outcomes[new.position] := outcome;
        ids[new.position] := coalesce(other, new.id);
        queues[new.position] := new.queue;
        CONTINUE WHEN outcome = 'inserted';
        IF NOT windowed THEN -- the job may be anywhere
            SELECT queue, submitted_at, {schema}.is_own(xmin) INTO its_queue, its_instant, unseen
            FROM {schema}.job WHERE id = other;
            IF NOT FOUND THEN
                unseen := false;
                SELECT queue, submitted_at INTO its_queue, its_instant FROM {schema}.history WHERE id = other;
                its_queue := coalesce(its_queue, new.queue);
            END IF;
        ELSIF new.within IS NOT NULL THEN -- no time begins with a submit that added nothing
            DELETE FROM {schema}.unique_window WHERE task = new.task AND key = new.key AND job = new.id;
        END IF;
        queues[new.position] := its_queue;
        instants[new.position] := CASE
            WHEN its_instant BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-31 00:00:00+00' THEN its_instant END;
        own[new.position] := unseen OR outcome = 'replaced';
        IF outcome = 'replaced' AND rings THEN
            bells := bells || its_queue;
        END IF;
        EXIT WHEN outcome = 'refused';
    END LOOP;
    PERFORM {schema}.ring(ARRAY(SELECT DISTINCT queue FROM unnest(bells) AS queue));
END
$$;

-- The same, but if one is refused nothing has been added or changed.
CREATE OR REPLACE FUNCTION {schema}.submit_unique_or_none(
    jobs {schema}.submission[],
    OUT ids bigint[], OUT outcomes text[], OUT queues text[], OUT own boolean[], OUT instants timestamptz[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    SELECT * INTO ids, outcomes, queues, own, instants FROM {schema}.submit_unique(jobs);
    IF 'refused' = ANY (outcomes) THEN
        RAISE unique_violation;
    END IF;
EXCEPTION WHEN unique_violation THEN
    IF outcomes IS NULL OR NOT 'refused' = ANY (outcomes) THEN
        RAISE;
    END IF;
END
$$;

-- A single one, for who has no parser: one that is refused raises.
CREATE OR REPLACE FUNCTION {schema}.submit_unique_one(
    job {schema}.submission, OUT id bigint, OUT xact text, OUT submitted_at timestamptz, OUT outcome text
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    SELECT made.ids[1], made.instants[1], made.outcomes[1], pg_current_xact_id_if_assigned()::text
    INTO id, submitted_at, outcome, xact
    FROM {schema}.submit_unique(ARRAY[job]) AS made;
    IF outcome = 'refused' THEN
        RAISE unique_violation USING
            MESSAGE = format('the unique key %L of task %s belongs to job %s', job.key, job.task, id),
            HINT = 'Wait for that job or cancel it, or submit with on_conflict "existing" or "replace".';
    END IF;
END
$$;
