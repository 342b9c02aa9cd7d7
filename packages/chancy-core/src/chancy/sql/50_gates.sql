CREATE OR REPLACE FUNCTION {schema}.is_owned(job bigint, fence integer) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT EXISTS (
        SELECT FROM {schema}.job AS owner
        WHERE owner.id = is_owned.job AND owner.parked IS NULL
            AND owner.claims = is_owned.fence + CASE WHEN owner.state = 'running' THEN 1 ELSE 0 END
    )
$$;

-- The numbers of the slots of a gate that are taken.
CREATE OR REPLACE FUNCTION {schema}.taken(gate text) RETURNS SETOF integer
    LANGUAGE sql STABLE
    AS $$
    SELECT slot.n FROM {schema}.slot AS slot
    WHERE slot.gate = taken.gate
        AND CASE WHEN slot.opens_at IS NULL THEN {schema}.is_owned(slot.job, slot.fence)
            ELSE slot.opens_at > {schema}.clock() END
$$;

-- Admits up to `most` jobs of one queue and priority that are parked under `key`, as far as the `gates` have room; none of
-- a paused task. `used` is how many places of each gate are taken, as far as it was counted. If a gate is full, `full_to`
-- is the length of the key up to and with it, and `opens_at` when time will open it, if it will. Under the lock of `admit`.
CREATE OR REPLACE FUNCTION {schema}.let_in(
    queue text, lane smallint, key text, gates json, most integer, INOUT used jsonb, OUT admitted integer,
    OUT full_to integer, OUT opens_at timestamptz
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    gate record;
    room integer := most;
    ids bigint[];
    fences integer[];
BEGIN
    admitted := 0;
    FOR gate IN SELECT * FROM json_to_recordset(gates) AS each (name text, most integer, "to" integer)
    LOOP
        IF NOT used ? gate.name THEN
            used := used || jsonb_build_object(gate.name, (SELECT count(*) FROM {schema}.taken(gate.name)));
        END IF;
        room := least(room, gate.most - (used->>gate.name)::integer);
        IF room <= 0 THEN
            full_to := gate."to";
            SELECT min(slot.opens_at) INTO opens_at FROM {schema}.slot AS slot
            WHERE slot.gate = gate.name AND slot.opens_at > {schema}.clock();
            RETURN;
        END IF;
    END LOOP;
    SELECT array_agg(first.id), array_agg(first.claims) INTO ids, fences FROM (
        SELECT job.id, job.claims FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = let_in.queue AND job.priority = lane
            AND job.parked COLLATE "C" = key AND job.run_at <= {schema}.clock()
            AND job.task <> ALL (ARRAY(
                SELECT pause.name FROM {schema}.pause AS pause WHERE pause.kind = 'task' AND pause.until > {schema}.clock()))
        ORDER BY job.run_at, job.id
        LIMIT room
        FOR UPDATE SKIP LOCKED
    ) AS first;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    admitted := cardinality(ids);
    UPDATE {schema}.job AS job SET parked = NULL WHERE job.id = ANY (ids);
    FOR gate IN SELECT * FROM json_to_recordset(gates) AS each (name text, per double precision)
    LOOP
        INSERT INTO {schema}.slot (gate, n, job, fence, per)
        SELECT gate.name, free.n, owner.id, owner.fence, gate.per * interval '1 s'
        FROM unnest(ids, fences) WITH ORDINALITY AS owner (id, fence, nth)
        JOIN (
            SELECT n, row_number() OVER () AS nth
            FROM generate_series(1, (used->>gate.name)::integer + admitted) AS n
            WHERE n <> ALL (ARRAY(SELECT {schema}.taken(gate.name)))
        ) AS free USING (nth)
        ON CONFLICT (gate, n) DO UPDATE
        SET job = excluded.job, fence = excluded.fence, per = excluded.per, opens_at = NULL;
        used := jsonb_set(used, ARRAY[gate.name], to_jsonb((used->>gate.name)::integer + admitted));
    END LOOP;
END
$$;

-- Admits up to `want` parked jobs of one queue that may run now. `ended` are the keys of jobs that have ended: where
-- each is one gate, and others wait under it, those alone are asked. Otherwise it goes through priorities from the top, and in each
-- through the keys in a circle that goes on behind `after`; a group gives one job each time round.
-- One admission at a time: whoever waited for the lock sees what was committed before, since each statement here has a
-- snapshot of its own.
-- Returns how many were admitted; where the circle was left, or null if it was not gone; in how many seconds time alone
-- may make more possible (null: not by time); and whether it stopped before it had come round.
CREATE OR REPLACE FUNCTION {schema}.admit(
    queue text, want integer, after text, ended text[], OUT admitted integer, OUT stopped_at text,
    OUT next_in double precision, OUT more boolean
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    looks integer := 500;
    lanes smallint[];
    lane smallint;
    spot text := after;
    origin text;
    wrapped boolean;
    again boolean;
    head record;
    gone record;
    passed record;
    left_over boolean := ended = '{}';
    used jsonb := '{}';
    next_at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -2);
    admitted := 0;
    more := false;
    WITH RECURSIVE in_use AS (
        (SELECT job.priority FROM {schema}.job AS job
         WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = admit.queue
         ORDER BY job.priority DESC LIMIT 1)
        UNION ALL
        SELECT below.priority FROM in_use CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = admit.queue
                AND job.priority < in_use.priority
            ORDER BY job.priority DESC LIMIT 1) AS below
    )
    SELECT array_agg(priority) INTO lanes FROM in_use;
    FOR gone IN SELECT key, count(*)::integer AS places FROM unnest(ended) AS key GROUP BY key LOOP
        -- Who passes several gates may have given up a place that others wait for under other keys, and sooner.
        FOREACH lane IN ARRAY CASE WHEN gone.key NOT LIKE E'%\x1f%' THEN coalesce(lanes, '{}') ELSE '{}' END LOOP
            EXIT WHEN gone.places = 0 OR admitted >= want;
            SELECT job.parked, job.gates INTO head FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = admit.queue AND job.priority = lane
                AND job.parked COLLATE "C" = gone.key AND job.run_at <= {schema}.clock()
            ORDER BY job.run_at, job.id
            LIMIT 1;
            CONTINUE WHEN head.parked IS NULL OR head.gates->>'turn' IS NOT NULL; -- it may be another group's turn
            SELECT * INTO passed FROM {schema}.let_in(
                admit.queue, lane, gone.key, head.gates->'gates', least(gone.places, want - admitted), used);
            used := passed.used;
            admitted := admitted + passed.admitted;
            gone.places := CASE WHEN passed.full_to IS NULL THEN gone.places - passed.admitted ELSE 0 END;
        END LOOP;
        left_over := left_over OR gone.places > 0; -- for somebody under another key
    END LOOP;
    IF NOT left_over THEN
        RETURN;
    END IF;
    FOREACH lane IN ARRAY coalesce(lanes, '{}') LOOP
        LOOP -- once round, from where the circle was left; and again while there are groups that had one turn each
            origin := spot;
            wrapped := origin = '';
            again := false;
            LOOP
                more := looks = 0 OR admitted >= want;
                EXIT WHEN more;
                looks := looks - 1;
                SELECT job.parked, job.run_at, job.gates INTO head FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = admit.queue
                    AND job.priority = lane AND job.parked COLLATE "C" > spot
                ORDER BY job.parked COLLATE "C", job.run_at, job.id
                LIMIT 1;
                IF head.parked IS NULL THEN
                    spot := '';
                    EXIT WHEN wrapped;
                    wrapped := true;
                    CONTINUE;
                END IF;
                EXIT WHEN wrapped AND origin <> '' AND head.parked COLLATE "C" > origin;
                spot := head.parked;
                IF head.run_at > {schema}.clock() THEN
                    next_at := least(next_at, head.run_at);
                    CONTINUE;
                END IF;
                SELECT * INTO passed FROM {schema}.let_in(
                    admit.queue, lane, head.parked, head.gates->'gates',
                    CASE WHEN head.gates->>'turn' IS NULL THEN want - admitted ELSE 1 END, used);
                used := passed.used;
                admitted := admitted + passed.admitted;
                next_at := least(next_at, passed.opens_at);
                IF passed.full_to IS NOT NULL THEN -- past all who wait for this gate
                    spot := left(head.parked, passed.full_to) || ' ';
                ELSIF passed.admitted > 0 AND head.gates->>'turn' IS NOT NULL THEN -- the next group's turn
                    again := true;
                    spot := left(head.parked, (head.gates->>'turn')::integer) || ' ';
                END IF;
            END LOOP;
            EXIT WHEN more OR NOT again;
        END LOOP;
        EXIT WHEN more;
        spot := '';
    END LOOP;
    stopped_at := spot;
    next_in := extract(epoch FROM next_at - {schema}.clock());
END
$$;

-- How many of `free` a claim may take of a queue with a limit. Holds the lock until the claim commits: whoever waited
-- for it sees, with the snapshot of a statement of its own, what was claimed before.
CREATE OR REPLACE FUNCTION {schema}.allowance(queue text, free integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    most integer;
    now_running integer;
BEGIN
    SELECT concurrency INTO most FROM {schema}.queue_limit AS queue_limit WHERE queue_limit.queue = allowance.queue;
    IF most IS NULL THEN
        RETURN free;
    END IF;
    PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -3);
    SELECT concurrency INTO most FROM {schema}.queue_limit AS queue_limit WHERE queue_limit.queue = allowance.queue;
    SELECT count(*) INTO now_running FROM {schema}.job AS job
    WHERE job.state = 'running' AND job.worker IS NOT NULL AND job.queue = allowance.queue;
    RETURN least(free, greatest(coalesce(most - now_running, free), 0));
END
$$;

-- Deletes slots that are nobody's, up to `most`, and returns how many. Under the lock of `admit`, or one that is just
-- being taken might look as if it were nobody's.
CREATE OR REPLACE FUNCTION {schema}.sweep_slots(most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    swept integer;
BEGIN
    PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -2);
    DELETE FROM {schema}.slot AS slot
    WHERE slot.ctid = ANY (ARRAY(
        SELECT old.ctid FROM {schema}.slot AS old
        WHERE NOT coalesce(old.opens_at > {schema}.clock(), {schema}.is_owned(old.job, old.fence))
        LIMIT most
    ));
    GET DIAGNOSTICS swept = ROW_COUNT;
    RETURN swept;
END
$$;
