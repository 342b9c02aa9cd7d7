-- Whether a claim lasts: the job runs, under this fence.
CREATE OR REPLACE FUNCTION {schema}.is_owned(job bigint, fence integer) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT EXISTS (
        SELECT FROM {schema}.job AS owner
        WHERE owner.id = is_owned.job AND owner.claims = is_owned.fence AND owner.worker IS NOT NULL
    )
$$;

-- The numbers of the slots of a gate that are taken.
CREATE OR REPLACE FUNCTION {schema}.taken(gate text) RETURNS SETOF integer
    LANGUAGE sql STABLE
    AS $$
    SELECT slot.n FROM {schema}.slot AS slot
    WHERE slot.gate = taken.gate
        AND CASE WHEN slot.opens_at IS NULL THEN EXISTS ( -- as `is_owned`, without a call for each
                SELECT FROM {schema}.job AS owner
                WHERE owner.id = slot.job AND owner.claims = slot.fence AND owner.worker IS NOT NULL)
            ELSE slot.opens_at > {schema}.clock() END
$$;

-- The key of the lock under which a gate gets more numbers, or fewer. There are 64, so that a round that passes hundreds
-- of gates cannot fill the lock table. It is only ever tried, and held until the commit.
CREATE OR REPLACE FUNCTION {schema}.gate_key(gate text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT -100 - (pg_catalog.hashtext(gate) & 63) $$;

-- Numbers of slots of a gate whose claims are over and that nobody has freed, up to `want`, with their rows locked: of a
-- gate of up to 100 all, of a larger one those among 100 that chance picks. That each is still the slot of the claim that is
-- over, is looked at with its row locked: its next owner may be too new to be seen as one.
CREATE OR REPLACE FUNCTION {schema}.stale_slots(gate text, most integer, want integer) RETURNS integer[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    over record;
BEGIN
    SELECT array_agg(held.n) AS numbers, array_agg(held.job) AS jobs, array_agg(held.fence) AS fences INTO over
    FROM (
        SELECT slot.n, slot.job, slot.fence FROM {schema}.slot AS slot
        WHERE slot.gate = stale_slots.gate AND slot.n <= most AND slot.opens_at IS NULL
            AND slot.n > CASE WHEN most > 100 THEN floor(random() * (most - 99)) ELSE 0 END
        ORDER BY slot.n
        LIMIT 100
    ) AS held
    WHERE NOT {schema}.is_owned(held.job, held.fence);
    RETURN CASE WHEN over.numbers IS NULL THEN '{}' ELSE ARRAY(
        SELECT slot.n
        FROM unnest(over.numbers, over.jobs, over.fences) AS held (n, job, fence)
        CROSS JOIN LATERAL (
            SELECT slot.n FROM {schema}.slot AS slot
            WHERE slot.gate = stale_slots.gate AND slot.n = held.n AND slot.job = held.job AND slot.fence = held.fence
            FOR UPDATE SKIP LOCKED
        ) AS slot
        LIMIT want) END;
END
$$;

-- Numbers of up to `want` free slots of a gate of `most`, for jobs that wait under `key`, with their rows locked; those
-- without a row yet come last, and the caller adds their rows from the first on. If there is none, `opens_at` is when time
-- will free one, if it will. `again` is whether somebody else may be about to free one: what they have locked is passed by.
CREATE OR REPLACE FUNCTION {schema}.free_slots(
    gate text, most integer, want integer, queue text, key text,
    OUT numbers integer[], OUT opens_at timestamptz, OUT again boolean
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    highest integer;
    shares integer;
    missing integer;
BEGIN
    again := false;
    SELECT coalesce((SELECT slot.n FROM {schema}.slot AS slot WHERE slot.gate = free_slots.gate ORDER BY slot.n DESC LIMIT 1), 0),
        (SELECT coalesce(sum(share.most), 0) FROM {schema}.share AS share
         WHERE share.kind = 'gate' AND share.name = free_slots.gate),
        ARRAY(
            SELECT slot.n FROM {schema}.slot AS slot
            WHERE slot.gate = free_slots.gate AND slot.opens_at <= {schema}.clock() AND slot.n <= most
            ORDER BY slot.opens_at DESC -- behind the newest lie the index entries of what was taken, dead and not yet removed
            LIMIT want
            FOR UPDATE SKIP LOCKED)
    INTO highest, shares, numbers;
    IF cardinality(numbers) < want AND highest > 0 THEN
        numbers := numbers || {schema}.stale_slots(gate, least(most, highest), want - cardinality(numbers));
    END IF;
    missing := want - cardinality(numbers);
    IF missing = 0 AND highest <= most - shares THEN
        RETURN;
    END IF;
    IF highest <> most OR shares > 0 THEN
        IF NOT pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer, {schema}.gate_key(gate)) THEN
            numbers := CASE WHEN highest <= most - shares THEN numbers ELSE '{}' END;
            again := numbers = '{}';
            RETURN;
        END IF;
        IF shares > 0 AND highest + missing > most - shares THEN
            PERFORM {schema}.trim_shares('gate', gate, 0);
        END IF;
        SELECT coalesce((SELECT slot.n FROM {schema}.slot AS slot WHERE slot.gate = free_slots.gate ORDER BY slot.n DESC LIMIT 1), 0),
            most - (SELECT coalesce(sum(share.most), 0) FROM {schema}.share AS share
                    WHERE share.kind = 'gate' AND share.name = free_slots.gate)
        INTO highest, most;
    END IF;
    IF highest > most THEN -- others have a higher limit of the same name: whoever says less counts
        numbers := numbers[1:greatest(
            most - (SELECT count(*) FROM (SELECT FROM {schema}.taken(gate) LIMIT greatest(most, 0)) AS taken), 0)];
    ELSIF highest < most AND missing > 0 THEN
        numbers := numbers || ARRAY(SELECT generate_series(highest + 1, least(most, highest + missing)));
        -- As many more as there are jobs to come, so that others need not wait for that lock.
        INSERT INTO {schema}.slot (gate, n, opens_at)
        SELECT gate, n, '-infinity'
        FROM (
            SELECT count(*)::integer AS jobs FROM (
                SELECT FROM unnest({schema}.parked_lanes(queue)) AS lane (priority)
                CROSS JOIN LATERAL (
                    SELECT FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = free_slots.queue
                        AND job.priority = lane.priority AND job.parked COLLATE "C" = key
                    LIMIT 1000) AS job
                LIMIT 1000) AS job
        ) AS waiting, generate_series(highest + 1, least(most, highest + waiting.jobs)) AS n
        WHERE waiting.jobs > missing;
    END IF;
    IF numbers = '{}' THEN
        SELECT EXISTS (
                SELECT FROM {schema}.slot AS slot
                WHERE slot.gate = free_slots.gate AND slot.opens_at <= {schema}.clock() AND slot.n <= most),
            (SELECT slot.opens_at FROM {schema}.slot AS slot
             WHERE slot.gate = free_slots.gate AND slot.opens_at > {schema}.clock()
             ORDER BY slot.opens_at LIMIT 1)
        INTO again, opens_at;
        again := again AND highest <= most;
    END IF;
END
$$;

-- Claims these jobs, whose rows are locked and seen at `places`, for a worker whose lease is still there, and gives them
-- their slots: of each job one for each gate, job by job. `names` and `opening` are the gates of the slots and when time
-- will free them, and begin anew where they are shorter.
CREATE OR REPLACE FUNCTION {schema}.enter(
    worker bigint, places tid[], jobs bigint[], fences integer[], slots integer[], names text[], opening timestamptz[]
) RETURNS {schema}.job[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    each integer := cardinality(slots) / cardinality(jobs);
    entered {schema}.job[];
BEGIN
    WITH lease AS MATERIALIZED (
        SELECT FROM {schema}.worker AS lease WHERE lease.id = enter.worker FOR KEY SHARE
    ),
    moved AS (
        UPDATE {schema}.job AS job
        SET state = 'running', attempt = job.attempt + 1, claims = job.claims + 1, worker = enter.worker,
            started_at = {schema}.clock(),
            slots = enter.slots[(array_position(jobs, job.id) - 1) * each + 1 : array_position(jobs, job.id) * each]
        WHERE job.ctid = ANY (places) AND EXISTS (SELECT FROM lease)
        RETURNING job AS entry
    ),
    taken AS (
        INSERT INTO {schema}.slot (gate, n, job, fence, opens_at)
        SELECT names[1 + x % cardinality(names)], enter.slots[1 + x], jobs[1 + x / each], fences[1 + x / each] + 1,
            opening[1 + x % cardinality(opening)]
        FROM generate_series(0, cardinality(enter.slots) - 1) AS x
        WHERE EXISTS (SELECT FROM lease)
        ON CONFLICT (gate, n) DO UPDATE
        SET job = excluded.job, fence = excluded.fence, opens_at = excluded.opens_at
    )
    SELECT coalesce(array_agg(entry), '{}') INTO entered FROM moved;
    RETURN entered;
END
$$;

-- How many of the jobs without gates that a claim has in view come before this one.
CREATE OR REPLACE FUNCTION {schema}.come_first(this {schema}.claim, priority smallint, run_at timestamptz, job bigint)
    RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
    SELECT pg_catalog.count(*)
    FROM ROWS FROM (
        pg_catalog.unnest(this.priorities), pg_catalog.unnest(this.instants), pg_catalog.unnest(this.jobs)
    ) AS plain (priority, run_at, job)
    WHERE plain.priority > come_first.priority
        OR plain.priority = come_first.priority AND (plain.run_at, plain.job) < (come_first.run_at, come_first.job)
$$;

-- The bytes of a large job as a claim counts them, 0 of any other: see `chancy_worker.claims`.
CREATE OR REPLACE FUNCTION {schema}.weight(arguments json, errors json) RETURNS integer
    LANGUAGE sql STABLE
    AS $$
    SELECT greatest(0, CASE WHEN pg_catalog.pg_column_compression(arguments) IS NULL THEN 1 ELSE 8 END
        * pg_catalog.pg_column_size(arguments) + coalesce(pg_catalog.pg_column_size(errors), 0) - 4096)
$$;

-- Whether no worker offers this task. Its jobs are claimed like those of others, and refused, and fail in the end.
CREATE OR REPLACE FUNCTION {schema}.is_nobodys(task text) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$ SELECT NOT EXISTS (SELECT FROM {schema}.offer AS offer WHERE is_nobodys.task = ANY (offer.tasks)) $$;

-- Admits up to `want` jobs of one priority that are parked under `key`, as far as its gates have room, and no more than
-- `free` less the jobs without gates that come first. If a gate is full, `full_to` is the length of the key up to and
-- with it, and `opens_at` when time will open it, if it will. `again` is whether it is worth another try soon. It
-- begins behind the mark of that number, if there is one. A suspect is admitted alone, when it is the first. `bytes` are
-- those of large jobs. `held_up` is whether the first would be admitted, and has no room where it runs.
CREATE OR REPLACE FUNCTION {schema}.let_in(
    this {schema}.claim, lane smallint, key text, want integer, free integer, mark integer,
    OUT entered {schema}.job[], OUT full_to integer, OUT opens_at timestamptz, OUT again boolean, OUT suspect boolean,
    OUT bytes bigint, OUT held_up boolean
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    head record;
    after_instant timestamptz := coalesce(this.marked_instants[mark], '-infinity');
    after_job bigint := coalesce(this.marked_jobs[mark], 0);
    passes json;
    gate record;
    vacant record;
    first record;
    numbers integer[] := '{}';  -- of all gates, one after the other
    starts integer[] := '{}';   -- where those of each gate begin, less one
    names text[] := '{}';
    opening timestamptz[] := '{}';
BEGIN
    entered := '{}';
    again := false;
    suspect := false;
    bytes := 0;
    held_up := false;
    SELECT job.id, job.crashes > 0 AS suspect, job.gates::text AS gates INTO head FROM {schema}.job AS job
    WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = this.queue AND job.priority = lane
        AND job.parked COLLATE "C" = key AND (job.run_at, job.id) > (after_instant, after_job)
        AND job.run_at <= {schema}.clock()
        AND job.task <> ALL (this.without)
        AND (this.known = '{}' OR job.task = ANY (this.known) OR {schema}.is_nobodys(job.task))
        AND (job.crashes = 0
            OR this.suspects > CASE WHEN job.crashes = 1 AND job.max_attempts - job.attempt > 1 THEN 0 ELSE 1 END)
        AND (this.sole IS NULL OR job.id = this.sole)
    ORDER BY job.run_at, job.id
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    passes := head.gates::json->'gates';
    IF head.suspect THEN
        want := 1;
    END IF;
    FOR gate IN SELECT * FROM json_to_recordset(passes) AS each (name text, most integer, "to" integer, per double precision)
    LOOP
        SELECT * INTO vacant FROM {schema}.free_slots(gate.name, gate.most, want, this.queue, key);
        IF vacant.numbers = '{}' THEN
            full_to := gate."to";
            opens_at := vacant.opens_at;
            again := vacant.again;
            RETURN;
        END IF;
        want := cardinality(vacant.numbers);
        starts := starts || cardinality(numbers);
        numbers := numbers || vacant.numbers;
        names := names || gate.name;
        opening := opening || {schema}.clock() + gate.per * interval '1 s'
            + least(gate.per * interval '1 s' / 20, interval '50 ms');
    END LOOP;
    SELECT array_agg(seen.place) AS places, array_agg(seen.id) AS jobs, array_agg(seen.claims) AS fences,
        sum(seen.bytes) AS bytes, (array_agg(seen.task))[1] AS task
    INTO first
    FROM (
        SELECT each.*, row_number() OVER so_far AS nth, sum(each.bytes) OVER so_far AS total FROM (
            SELECT job.ctid AS place, job.id, job.claims, job.task, job.run_at,
                {schema}.weight(job.arguments, job.errors) AS bytes
            FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = this.queue AND job.priority = lane
                AND job.parked COLLATE "C" = key AND (job.run_at, job.id) > (after_instant, after_job)
                AND job.run_at <= {schema}.clock()
                AND CASE WHEN head.suspect OR this.sole IS NOT NULL THEN job.id = head.id ELSE job.crashes = 0 END
                AND job.task <> ALL (this.without)
                AND (this.known = '{}' OR job.task = ANY (this.known) OR {schema}.is_nobodys(job.task))
                AND job.gates::text = head.gates
            ORDER BY job.run_at, job.id
            LIMIT want
            FOR UPDATE SKIP LOCKED
        ) AS each
        WINDOW so_far AS (ROWS UNBOUNDED PRECEDING)
    ) AS seen
    WHERE (seen.total <= this.bytes OR seen.total - seen.bytes < this.bytes)
        AND seen.nth + CASE WHEN this.jobs = '{}' THEN 0 ELSE {schema}.come_first(this, lane, seen.run_at, seen.id) END <= free;
    IF first.jobs IS NULL THEN
        again := true;
        RETURN;
    END IF;
    IF first.task = ANY (this.no_room) THEN
        held_up := true;
        RETURN;
    END IF;
    entered := {schema}.enter(this.worker, first.places, first.jobs, first.fences, ARRAY(
        SELECT numbers[starts[1 + x % cardinality(starts)] + 1 + x / cardinality(starts)]
        FROM generate_series(0, cardinality(first.jobs) * cardinality(starts) - 1) AS x
    ), names, opening);
    suspect := head.suspect AND cardinality(entered) > 0;
    bytes := first.bytes;
END
$$;

-- Whether a text that jobs are parked under is the name of one limit of concurrency, and nothing else: see `chancy.gates`.
CREATE OR REPLACE FUNCTION {schema}.is_one_limit(parked text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT parked ^@ 'concurrency(' AND pg_catalog.strpos(parked, E'\x1f') = 0 $$;

-- The priorities of a queue in which jobs are parked, from the top.
CREATE OR REPLACE FUNCTION {schema}.parked_lanes(queue text) RETURNS smallint[]
    LANGUAGE sql STABLE
    AS $$
    WITH RECURSIVE in_use AS (
        (SELECT job.priority FROM {schema}.job AS job
         WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = parked_lanes.queue
         ORDER BY job.priority DESC LIMIT 1)
        UNION ALL
        SELECT below.priority FROM in_use CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = parked_lanes.queue
                AND job.priority < in_use.priority
            ORDER BY job.priority DESC LIMIT 1) AS below
    )
    SELECT ARRAY(SELECT in_use.priority FROM in_use)
$$;

-- Where a circle through the keys of a priority goes on behind `after`, and up to `until` if that is said: at the first key
-- of which a job is due whose first gate is not full. `parked` is that key, or null if there is none; `spot` is what was
-- passed until then, `looked` how many keys that took, of up to `looks`; `next_at` when time alone may open one of those.
-- A gate of more than 100 is not counted here, and taken for open.
CREATE OR REPLACE FUNCTION {schema}.next_open(queue text, lane smallint, after text, until text, looks integer)
    RETURNS TABLE (parked text, gates json, spot text, looked integer, next_at timestamptz)
    LANGUAGE sql STABLE ROWS 1
    AS $$
    WITH RECURSIVE walk AS (
        SELECT NULL::text AS parked, NULL::json AS gates, next_open.after AS past, 0 AS looked, NULL::timestamptz AS opens_at
        UNION ALL
        SELECT head.parked, head.gates,
            CASE WHEN head.run_at > {schema}.clock() THEN head.parked
                WHEN first.is_full THEN pg_catalog.concat(pg_catalog."left"(head.parked, first."to"), ' ') END,
            walk.looked + 1,
            CASE WHEN head.run_at > {schema}.clock() THEN head.run_at
                WHEN first.is_full AND first.per IS NOT NULL THEN (
                    SELECT slot.opens_at FROM {schema}.slot AS slot
                    WHERE slot.gate = first.name AND slot.opens_at > {schema}.clock()
                    ORDER BY slot.opens_at LIMIT 1) END
        FROM walk
        CROSS JOIN LATERAL (
            SELECT job.parked, job.run_at, job.gates::json AS gates FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = next_open.queue
                AND job.priority = next_open.lane AND job.parked COLLATE "C" > walk.past
            ORDER BY job.parked COLLATE "C", job.run_at, job.id
            LIMIT 1
        ) AS head
        LEFT JOIN LATERAL (
            SELECT gate.name, gate."to", gate.per, gate.most <= 100 AND gate.most <= (
                SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.taken(gate.name) LIMIT gate.most) AS taken) AS is_full
            FROM pg_catalog.json_to_record(head.gates->'gates'->0)
                AS gate (name text, most integer, "to" integer, per double precision)
            WHERE head.run_at <= {schema}.clock()
        ) AS first ON true
        WHERE walk.past IS NOT NULL AND walk.looked < looks
            AND (next_open.until IS NULL OR head.parked COLLATE "C" <= next_open.until)
    )
    SELECT last.parked, last.gates, passed.spot, last.looked, passed.next_at
    FROM (
        SELECT pg_catalog.max(walk.looked) AS looked, pg_catalog.min(walk.opens_at) AS next_at,
            (pg_catalog.array_agg(walk.past ORDER BY walk.looked DESC) FILTER (WHERE walk.past IS NOT NULL))[1] AS spot
        FROM walk
    ) AS passed
    CROSS JOIN LATERAL (
        SELECT CASE WHEN walk.past IS NULL THEN walk.parked END AS parked, walk.gates, walk.looked
        FROM walk WHERE walk.looked = passed.looked
    ) AS last
$$;

-- The slots that are left go to the next that wait for the same gate, where each is the job's only one: to those of the
-- highest priority, as `let_in` would, and up to the first suspect or large job. The gate need not be looked at, since as
-- many leave it as enter; except where not all say the same limit. (A round that does nothing else has this among its own
-- pieces: `chancy_worker.claims.pieces`.)
CREATE OR REPLACE FUNCTION {schema}.hand_on(
    this {schema}.claim, leaving {schema}.leaving[], free integer
) RETURNS {schema}.job[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    next record;
BEGIN
    WITH gate AS MATERIALIZED (
        SELECT gone.parked, gone.gates, array_agg(gone.slots[1]) AS numbers
        FROM unnest(leaving) AS gone
        CROSS JOIN LATERAL ( -- no lock: it belongs to the claim that has ended in this transaction
            SELECT FROM {schema}.slot AS slot
            WHERE slot.gate = gone.parked AND slot.n = gone.slots[1] AND slot.job = gone.job AND slot.fence = gone.fence
        ) AS slot
        WHERE {schema}.is_one_limit(gone.parked)
        GROUP BY gone.parked, gone.gates
    ),
    vacant AS MATERIALIZED (
        SELECT gate.parked, gate.gates, gate.numbers
        FROM gate
        CROSS JOIN LATERAL (SELECT (gate.gates::json->'gates'->0->>'most')::integer AS most OFFSET 0) AS each
        WHERE NOT EXISTS (
            SELECT FROM {schema}.slot AS slot
            WHERE slot.gate = gate.parked AND slot.n > each.most - (
                SELECT coalesce(sum(share.most), 0)::integer FROM {schema}.share AS share
                WHERE share.kind = 'gate' AND share.name = gate.parked))
    ),
    mark AS MATERIALIZED (
        SELECT * FROM unnest(this.marked, this.marked_lanes, this.marked_instants, this.marked_jobs)
            AS mark (key, priority, run_at, job)
    ),
    in_use AS MATERIALIZED (
        SELECT {schema}.parked_lanes(this.queue) AS lanes
    )
    SELECT array_agg(each.place) AS places, array_agg(each.id) AS jobs, array_agg(each.claims) AS fences,
        array_agg(each.n) AS numbers, array_agg(each.parked) AS gates
    INTO next
    FROM (
        SELECT vacant.parked, job.*
        FROM vacant
        CROSS JOIN LATERAL (
            SELECT array_agg(job.ctid) AS places, array_agg(job.id) AS jobs, array_agg(job.claims) AS fences
            FROM (
                SELECT job.*, bool_or(job.is_special) OVER (ROWS UNBOUNDED PRECEDING) AS is_behind
                FROM ( -- in the priorities that have marks for it, behind those, or in all
                    SELECT mark.priority, mark.run_at, mark.job FROM mark WHERE mark.key = vacant.parked
                    UNION ALL
                    SELECT lane, '-infinity', 0 FROM unnest((SELECT lanes FROM in_use)) AS lane
                    WHERE vacant.parked <> ALL (this.marked)
                ) AS lane
                CROSS JOIN LATERAL (
                    SELECT job.ctid, job.id, job.claims, job.gates::text AS gates,
                        job.crashes > 0 OR {schema}.weight(job.arguments, job.errors) > 0 AS is_special
                    FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = this.queue
                        AND job.priority = lane.priority AND job.parked COLLATE "C" = vacant.parked
                        AND (job.run_at, job.id) > (lane.run_at, lane.job) AND job.run_at <= {schema}.clock()
                        AND job.task <> ALL (this.without) AND (this.known = '{}' OR job.task = ANY (this.known))
                        AND (job.crashes = 0 OR this.suspects
                            > CASE WHEN job.crashes = 1 AND job.max_attempts - job.attempt > 1 THEN 0 ELSE 1 END)
                    ORDER BY job.run_at, job.id
                    LIMIT cardinality(vacant.numbers)
                    FOR UPDATE SKIP LOCKED
                ) AS job
                LIMIT cardinality(vacant.numbers)
            ) AS job
            WHERE job.gates = vacant.gates AND NOT job.is_behind
        ) AS first
        CROSS JOIN LATERAL unnest(first.places, first.jobs, first.fences, vacant.numbers[1:cardinality(first.jobs)])
            AS job (place, id, claims, n)
        LIMIT free
    ) AS each;
    RETURN CASE WHEN next.jobs IS NULL THEN '{}' ELSE {schema}.enter(
        this.worker, next.places, next.jobs, next.fences, next.numbers, next.gates, ARRAY[NULL::timestamptz]) END;
END
$$;

-- Claims up to `free` parked jobs of one queue that may run now. First the slots of claims that this statement has ended
-- are handed on, or freed. Then, if it `flows`, the marked keys are asked that it has filled its room from until now; and
-- if that leaves room, or if it `goes_round`, or if slots were left that nobody has taken under the same key, it goes
-- through priorities from the top, and in each through the keys in a circle that goes on behind `after`; a group gives one
-- job each time round.
-- Nobody waits for anybody: what others have locked is passed by, slots as jobs. Each statement here has a snapshot of its
-- own, which sees what the claim has ended.
-- Returns the jobs as they are now; where the circle was left, or null if it was not gone; in how many seconds time alone
-- may make more possible (null: not by time); whether it stopped before it had come round; whether it is worth another
-- try soon all the same; and whether the next one has no room and may not be passed by.
CREATE OR REPLACE FUNCTION {schema}.admit(
    this {schema}.claim, free integer, flows boolean, goes_round boolean, after text, leaving {schema}.leaving[],
    OUT entered {schema}.job[], OUT stopped_at text, OUT next_in double precision, OUT more boolean, OUT again boolean,
    OUT held_up boolean
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    looks integer := 500;
    lane smallint;
    spot text := after;
    origin text;
    wrapped boolean;
    had_turns boolean;
    head record;
    passed record;
    next_at timestamptz;
BEGIN
    entered := '{}';
    more := false;
    again := false;
    held_up := false;
    flows := flows AND this.no_room = '{}'; -- behind the marks are those that must not be passed by
    IF free > 0 AND cardinality(leaving) > 0 AND this.jobs = '{}' AND this.no_room = '{}' THEN
        entered := {schema}.hand_on(this, leaving, free);
    END IF;
    IF cardinality(entered) < cardinality(leaving) THEN
        UPDATE {schema}.slot AS slot SET opens_at = '-infinity'
        WHERE slot.ctid = ANY (ARRAY(
            SELECT own.ctid
            FROM unnest(leaving) AS gone
            CROSS JOIN LATERAL json_array_elements(gone.gates::json->'gates') WITH ORDINALITY AS gate (gate, nth)
            CROSS JOIN LATERAL (
                SELECT slot.ctid FROM {schema}.slot AS slot
                WHERE slot.gate = gate.gate->>'name' AND slot.n = gone.slots[gate.nth]
                    AND slot.job = gone.job AND slot.fence = gone.fence
            ) AS own
            WHERE gate.gate->>'per' IS NULL OR gone.refused
        ));
        goes_round := true; -- for somebody under another key
        IF cardinality(entered) >= free AND EXISTS (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = this.queue
        ) THEN
            again := true;
            PERFORM {schema}.ring(this.queue); -- this worker has no room for whoever may have it
        END IF;
    END IF;
    IF flows AND cardinality(entered) < free THEN
        FOR mark IN 1 .. cardinality(this.marked) LOOP
            EXIT WHEN cardinality(entered) >= free;
            SELECT * INTO passed FROM {schema}.let_in(
                this, this.marked_lanes[mark], this.marked[mark],
                free - cardinality(entered), free - cardinality(entered), mark);
            entered := entered || passed.entered;
            this.bytes := greatest(this.bytes - passed.bytes, 0);
            this.suspects := CASE WHEN passed.suspect THEN 0 ELSE this.suspects END;
        END LOOP;
    END IF;
    more := more OR goes_round AND free > 0 AND cardinality(entered) >= free;
    IF NOT goes_round OR cardinality(entered) >= free THEN
        RETURN;
    END IF;
    FOREACH lane IN ARRAY {schema}.parked_lanes(this.queue) LOOP
        LOOP -- once round, from where the circle was left; and again while there are groups that had one turn each
            origin := spot;
            wrapped := origin = '';
            had_turns := false;
            LOOP
                more := looks = 0 OR cardinality(entered) >= free;
                EXIT WHEN more;
                SELECT * INTO head FROM {schema}.next_open(
                    this.queue, lane, spot, CASE WHEN wrapped AND origin <> '' THEN origin END, looks);
                next_at := least(next_at, head.next_at);
                IF head.parked IS NULL THEN
                    spot := head.spot;
                    looks := looks - head.looked;
                    CONTINUE WHEN looks = 0;
                    looks := looks - 1; -- which has found nobody
                    spot := CASE WHEN wrapped AND origin <> '' THEN spot ELSE '' END;
                    EXIT WHEN wrapped;
                    wrapped := true;
                    CONTINUE;
                END IF;
                looks := looks - head.looked;
                spot := head.parked;
                SELECT * INTO passed FROM {schema}.let_in(
                    this, lane, head.parked,
                    CASE WHEN head.gates->>'turn' IS NULL THEN free - cardinality(entered) ELSE 1 END,
                    free - cardinality(entered), NULL);
                IF passed.held_up THEN -- the circle stays where it was
                    held_up := true;
                    more := false;
                    RETURN;
                END IF;
                entered := entered || passed.entered;
                this.bytes := greatest(this.bytes - passed.bytes, 0);
                this.suspects := CASE WHEN passed.suspect THEN 0 ELSE this.suspects END;
                next_at := least(next_at, passed.opens_at);
                again := again OR passed.again;
                IF passed.full_to IS NOT NULL THEN -- past all who wait for this gate
                    spot := left(head.parked, passed.full_to) || ' ';
                ELSIF cardinality(passed.entered) > 0 AND head.gates->>'turn' IS NOT NULL THEN -- the next group's turn
                    had_turns := true;
                    spot := left(head.parked, (head.gates->>'turn')::integer) || ' ';
                END IF;
            END LOOP;
            EXIT WHEN more OR NOT had_turns;
        END LOOP;
        EXIT WHEN more;
        spot := '';
    END LOOP;
    stopped_at := spot;
    next_in := extract(epoch FROM next_at - {schema}.clock());
END
$$;

-- How many jobs run now that a worker's share of a limit is for.
CREATE OR REPLACE FUNCTION {schema}.running_under(kind text, name text, worker bigint) RETURNS integer
    LANGUAGE sql STABLE
    AS $$
    SELECT pg_catalog.count(*)::integer FROM {schema}.job AS job
    WHERE job.state = 'running' AND job.worker = running_under.worker
        AND CASE running_under.kind WHEN 'queue' THEN job.queue = running_under.name
            ELSE job.parked = running_under.name AND job.slots IS NULL END
$$;

-- Takes what others than `worker` do not use of their shares of a limit. With a share locked its owner claims nothing; one
-- that is locked because its owner is just claiming is left alone. Under the lock of `part_of`.
CREATE OR REPLACE FUNCTION {schema}.trim_shares(kind text, name text, worker bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    idle bigint[];
BEGIN
    idle := ARRAY(
        SELECT share.worker FROM {schema}.share AS share
        WHERE share.kind = trim_shares.kind AND share.name = trim_shares.name AND share.worker <> trim_shares.worker
        FOR UPDATE SKIP LOCKED);
    UPDATE {schema}.share AS share SET most = least(
        CASE share.kind WHEN 'queue' THEN share.most END, {schema}.running_under(share.kind, share.name, share.worker))
    WHERE share.kind = trim_shares.kind AND share.name = trim_shares.name AND share.worker = ANY (idle);
    DELETE FROM {schema}.share AS share
    WHERE share.kind = trim_shares.kind AND share.name = trim_shares.name AND share.worker = ANY (idle)
        AND share.most = 0;
END
$$;

-- How many of `free` a claim may take of what `most` limits, of which it `holds` so many already, or null where that has to
-- be counted.
--
-- A worker may have as many as its share says, and looks at nobody else's. Where that is used up, or too small and it
-- `presses`, it takes of what is nobody's, and then of what others do not use: under a lock. That is only tried for, as
-- everything here, since a round waits for nobody; whoever does not get it looks again soon.
-- A share is good for the limit that it was made for, so `chancy.limit` has none to look for. Where more runs than a queue
-- may have by now, a share is for less than its worker has, and both are counted. Of a gate, the lower half is left for
-- slots.
CREATE OR REPLACE FUNCTION {schema}.part_of(
    kind text, name text, most integer, revision xid8, free integer, worker bigint, holds integer, presses boolean
) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    own record;
    others integer;
    spare integer;
BEGIN
    SELECT share.most, share.revision INTO own FROM {schema}.share AS share
    WHERE share.kind = part_of.kind AND share.name = part_of.name AND share.worker = part_of.worker
    FOR UPDATE SKIP LOCKED;
    holds := coalesce(holds, {schema}.running_under(kind, name, worker));
    spare := CASE WHEN own.revision = part_of.revision AND own.most <= most THEN own.most - holds ELSE 0 END;
    IF spare >= free OR spare > 0 AND NOT presses THEN
        RETURN least(spare, free);
    END IF;
    IF NOT pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer,
            CASE kind WHEN 'queue' THEN -3 ELSE {schema}.gate_key(name) END)
        OR own IS NULL AND EXISTS ( -- another claim of this worker is under way, by a connection that it has lost
            SELECT FROM {schema}.share AS share
            WHERE share.kind = part_of.kind AND share.name = part_of.name AND share.worker = part_of.worker)
    THEN
        RETURN greatest(spare, 0);
    END IF;
    IF kind = 'gate' THEN
        most := least(most / 2, most - coalesce((
            SELECT slot.n FROM {schema}.slot AS slot WHERE slot.gate = part_of.name ORDER BY slot.n DESC LIMIT 1), 0));
    END IF;
    FOR try IN 1..2 LOOP
        SELECT coalesce(sum(CASE WHEN part_of.kind = 'gate' THEN share.most
                ELSE greatest(share.most, {schema}.running_under(share.kind, share.name, share.worker)) END), 0)
            + CASE part_of.kind WHEN 'queue' THEN ( -- of workers that have had no need for a share yet
                SELECT count(*) FROM {schema}.job AS job
                WHERE job.state = 'running' AND job.worker <> part_of.worker AND job.queue = part_of.name
                    AND NOT EXISTS (
                        SELECT FROM {schema}.share AS share
                        WHERE share.kind = 'queue' AND share.name = part_of.name AND share.worker = job.worker))
                ELSE 0 END
        INTO others
        FROM {schema}.share AS share
        WHERE share.kind = part_of.kind AND share.name = part_of.name AND share.worker <> part_of.worker;
        spare := greatest(most - others - holds, 0);
        EXIT WHEN spare >= free OR try = 2;
        PERFORM {schema}.trim_shares(kind, name, worker);
    END LOOP;
    -- Where there is enough, twice as many: a worker that claims ahead comes to that.
    INSERT INTO {schema}.share (kind, name, worker, most, revision)
    VALUES (kind, name, worker,
        least(holds + least(spare, 2 * free), CASE kind WHEN 'queue' THEN greatest(most - others, 0) END), revision)
    ON CONFLICT ON CONSTRAINT share_pkey DO UPDATE SET most = excluded.most, revision = excluded.revision;
    RETURN least(spare, free);
END
$$;

-- How many of `free` a claim may take of a queue that may have a limit.
CREATE OR REPLACE FUNCTION {schema}.allowance(queue text, free integer, worker bigint, holds integer, presses boolean)
    RETURNS integer
    LANGUAGE sql
    AS $$
    SELECT coalesce((
        SELECT {schema}.part_of('queue', queue_limit.queue, queue_limit.concurrency, queue_limit.revision,
            allowance.free, allowance.worker, allowance.holds, allowance.presses)
        FROM {schema}.queue_limit AS queue_limit WHERE queue_limit.queue = allowance.queue), allowance.free)
$$;

-- Deletes slots that are nobody's and have the highest numbers of their gates, up to `most` and perhaps a thousand more,
-- and returns how many. Gates that others are just changing are left for another time. And the shares of workers that are
-- gone.
CREATE OR REPLACE FUNCTION {schema}.sweep_slots(most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    name text := '';
    kept integer;
    own integer[];
    gone integer;
    swept integer := 0;
BEGIN
    DELETE FROM {schema}.share AS share
    WHERE NOT EXISTS (SELECT FROM {schema}.worker AS lease WHERE lease.id = share.worker)
        AND {schema}.running_under(share.kind, share.name, share.worker) = 0;
    WHILE swept < most LOOP
        name := (
            SELECT slot.gate FROM {schema}.slot AS slot WHERE slot.gate > name COLLATE "C" ORDER BY slot.gate LIMIT 1);
        EXIT WHEN name IS NULL;
        CONTINUE WHEN NOT pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer, {schema}.gate_key(name));
        kept := coalesce((
            SELECT slot.n FROM {schema}.slot AS slot
            WHERE slot.gate = name
                AND coalesce(slot.opens_at > {schema}.clock(), {schema}.is_owned(slot.job, slot.fence))
            ORDER BY slot.n DESC LIMIT 1), 0);
        own := ARRAY(
            SELECT slot.n FROM {schema}.slot AS slot
            WHERE slot.gate = name AND slot.n > kept
            ORDER BY slot.n DESC LIMIT 1000
            FOR UPDATE SKIP LOCKED);
        -- Whoever took one before it was locked is seen from here on.
        kept := coalesce((
            SELECT slot.n FROM {schema}.slot AS slot
            WHERE slot.gate = name AND slot.n > kept
                AND (slot.n <> ALL (own)
                    OR coalesce(slot.opens_at > {schema}.clock(), {schema}.is_owned(slot.job, slot.fence)))
            ORDER BY slot.n DESC LIMIT 1), kept);
        DELETE FROM {schema}.slot AS slot WHERE slot.gate = name AND slot.n > kept;
        GET DIAGNOSTICS gone = ROW_COUNT;
        swept := swept + gone;
    END LOOP;
    RETURN swept;
END
$$;
