-- What an operator asks: which jobs there are, and how many. Nothing here reads more than it shows, or for longer than it
-- is given: it goes piece by piece from the newest on, larger pieces where they cost less, and says how far it came.
--
-- Each piece is a statement of its own text, with the conditions that were given and no others, and its states as
-- literals: so the planner knows which of the tables, days and indexes it needs. All see what the caller's statement
-- sees. `jit` would take seconds over plans that run for milliseconds, and other processors belong to the workers.

-- The conditions, each with its parameter: 1 queue, 2 tasks, 3 batch, 4 kind, 5 fingerprint, 6 since, 7 until, 8 words,
-- 9 until when there is time to look for those: then any job will do, so that the limit ends the piece, which is not
-- shown. Whoever looks for words could guess a secret by them: jobs of tasks with secrets are passed by.
CREATE OR REPLACE FUNCTION {schema}.conditions(
    live boolean, queue text, tasks text[], batch bigint, kind text, fingerprint text, since timestamptz, until timestamptz,
    words text
) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT concat_ws(' AND ', 'true',
        CASE WHEN batch IS NOT NULL THEN 'batch = $3' END,
        CASE WHEN since IS NULL THEN NULL WHEN live THEN 'submitted_at >= $6' ELSE 'finished_at >= $6' END,
        CASE WHEN until IS NULL THEN NULL WHEN live THEN 'submitted_at < $7' ELSE 'finished_at < $7' END,
        CASE WHEN words IS NULL THEN nullif(each.conditions, '') ELSE
            'CASE WHEN clock_timestamp() >= $9 THEN true ELSE ' || each.conditions || ' END' END)
    FROM concat_ws(' AND ',
        CASE WHEN queue IS NOT NULL THEN 'queue = $1' END,
        CASE WHEN tasks IS NOT NULL THEN 'task = ANY ($2)' END,
        CASE WHEN kind IS NULL THEN NULL WHEN live THEN
            'strpos(errors::text, $4) > 0 AND {schema}.of_last_error(errors, ''kind'') = $4'
            ELSE 'error_kind = $4' END,
        CASE WHEN fingerprint IS NULL THEN NULL WHEN live THEN
            'strpos(errors::text, $5) > 0 AND {schema}.of_last_error(errors, ''fingerprint'') = $5'
            ELSE 'fingerprint = $5' END,
        CASE WHEN words IS NOT NULL THEN
            '(strpos(arguments::text, $8) > 0 OR strpos(errors::text, $8) > 0)
                AND task <> ALL (ARRAY(SELECT name FROM {schema}.task AS declared WHERE secrets IS NOT NULL))' END
        ) AS each (conditions)
$$;

-- The condition that a live job is in one of these states; NULL if none of them is a live one's. What is ready and what is
-- scheduled are one state of the row.
CREATE OR REPLACE FUNCTION {schema}.live_states(states text[]) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT CASE WHEN states @> ARRAY['blocked', 'ready', 'scheduled', 'running'] THEN 'true'
        ELSE string_agg(CASE
            WHEN state IN ('ready', 'scheduled') AND states @> ARRAY['ready', 'scheduled'] THEN 'state = ''ready'''
            WHEN state = 'ready' THEN 'state = ''ready'' AND run_at <= {schema}.clock()'
            WHEN state = 'scheduled' THEN 'state = ''ready'' AND run_at > {schema}.clock()'
            WHEN state = 'running' THEN 'state = ''running'' AND worker IS NOT NULL'
            WHEN state = 'blocked' THEN 'state = ''blocked'' AND worker IS NULL'
            ELSE 'state = ' || quote_literal(state) END, ' OR ') END
    FROM unnest(states) AS state
    WHERE state NOT IN ('succeeded', 'failed', 'discarded', 'cancelled')
$$;

-- The same of finished ones. What did not succeed says so twice: the second time for the index of those.
CREATE OR REPLACE FUNCTION {schema}.past_states(states text[]) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT CASE WHEN states @> ARRAY['succeeded', 'failed', 'discarded', 'cancelled'] THEN 'true'
        WHEN count(*) = 0 THEN NULL
        ELSE concat('state IN (', string_agg(quote_literal(state), ', '), ')',
            CASE WHEN 'succeeded' <> ALL (states) THEN ' AND state <> ''succeeded''' END) END
    FROM unnest(states) AS state
    WHERE state IN ('succeeded', 'failed', 'discarded', 'cancelled')
$$;

-- How large the next piece may be, so that it takes a thirtieth of a second, or what is left.
CREATE OR REPLACE FUNCTION {schema}.next_piece(size double precision, took interval, time_left interval)
    RETURNS double precision
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT greatest(1, least(size * 8,
        size * least(0.03, extract(epoch FROM time_left)) / greatest(extract(epoch FROM took), 0.0001)))
$$;

-- The jobs that fit, at most so many. Live ones, and all where any that succeeded are asked for, by their ids, the newest
-- first; where finished ones are asked for of which none succeeded, these by when they finished, the last first, and
-- behind the live ones. `before` is the id of a job, behind which to begin. Where the time was over before all was looked
-- at, a last row without an id says behind which job to go on, and when that was submitted, or finished.
CREATE OR REPLACE FUNCTION {schema}.find_jobs(
    states text[], queue text, tasks text[], batch bigint, kind text, fingerprint text, since timestamptz, until timestamptz,
    words text, before bigint, most integer, seconds double precision,
    OUT id bigint, OUT finished_at timestamptz, OUT looked_to bigint, OUT looked_back_to timestamptz
) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    ROWS 50
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0 SET lock_timeout = '1s'
    AS $$
#variable_conflict use_variable
DECLARE
    over_at constant timestamptz := clock_timestamp() + seconds * interval '1 second';
    patience timestamptz := 'infinity'; -- of the first piece: so whoever goes on gets further
    live constant text := {schema}.live_states(states)
        || ') AND (' || {schema}.conditions(true, queue, tasks, batch, kind, fingerprint, since, until, words);
    past text := {schema}.past_states(states)
        || ') AND (' || {schema}.conditions(false, queue, tasks, batch, kind, fingerprint, since, until, words);
    by_finish constant boolean := past IS NOT NULL AND 'succeeded' <> ALL (states);
    is_blocked constant boolean := states = ARRAY['blocked']
        AND coalesce(tasks::text, batch::text, kind, fingerprint, since::text, until::text, words) IS NULL;
    left_over integer := most;
    query text;
    began timestamptz;
    piece double precision;
    ids bigint[];
    instants timestamptz[];
    low bigint;
    high bigint;
    lowest bigint;
    from_at timestamptz;
    to_at timestamptz;
    earliest timestamptz;
    before_at timestamptz;
BEGIN
    IF before IS NOT NULL AND past IS NOT NULL THEN
        SELECT past.finished_at INTO before_at FROM {schema}.history AS past WHERE past.id = before LIMIT 1;
    END IF;

    IF before IS NOT NULL AND before_at IS NULL AND by_finish AND live IS NULL THEN
        past := past || ') AND (id < ' || before; -- it has gone, and nobody knows when it finished
    END IF;

    IF live IS NOT NULL AND NOT (by_finish AND before_at IS NOT NULL) OR past IS NOT NULL AND NOT by_finish THEN
        query := 'SELECT array_agg(id), array_agg(finished_at) FROM (SELECT id, finished_at FROM (' || concat_ws(' UNION ALL ',
            '(SELECT id, NULL::timestamptz AS finished_at FROM {schema}.job WHERE id >= $10 AND id < $11 AND ('
                || live || ') ORDER BY id DESC LIMIT $12)',
            CASE WHEN NOT by_finish THEN
                '(SELECT id, finished_at FROM {schema}.history WHERE id >= $10 AND id < $11 AND ('
                    || past || ') ORDER BY id DESC LIMIT $12)' END
            ) || ') AS either ORDER BY id DESC LIMIT $12) AS found';
        IF states = ARRAY['running'] THEN -- by the index of these
            query := 'SELECT array_agg(id), array_agg(NULL::timestamptz) FROM (SELECT id FROM (SELECT id FROM {schema}.job
                WHERE id >= $10 AND id < $11 AND (' || live || ') OFFSET 0) AS each ORDER BY id DESC LIMIT $12) AS found';
        ELSIF is_blocked THEN -- by the index of these, queue by queue
            query := 'WITH RECURSIVE blocked_queue AS (
                    (SELECT queue FROM {schema}.job WHERE state = ''blocked'' AND worker IS NULL ORDER BY queue LIMIT 1)
                    UNION ALL
                    SELECT following.queue FROM blocked_queue CROSS JOIN LATERAL (
                        SELECT job.queue FROM {schema}.job AS job
                        WHERE state = ''blocked'' AND worker IS NULL AND job.queue > blocked_queue.queue
                        ORDER BY job.queue LIMIT 1) AS following
                )
                SELECT array_agg(id), array_agg(NULL::timestamptz) FROM (
                    SELECT each.id FROM blocked_queue CROSS JOIN LATERAL (
                        SELECT job.id FROM {schema}.job AS job
                        WHERE job.queue = blocked_queue.queue AND id >= $10 AND id < $11 AND (' || live || ')
                        ORDER BY id DESC LIMIT $12) AS each
                    ORDER BY each.id DESC LIMIT $12) AS found';
        END IF;
        SELECT coalesce(before, 1 + least(9223372036854775806, greatest(
            CASE WHEN live IS NOT NULL THEN (SELECT max(job.id) FROM {schema}.job) END,
            CASE WHEN past IS NOT NULL AND NOT by_finish THEN (SELECT max(history.id) FROM {schema}.history) END)))
            INTO high;
        piece := CASE WHEN words IS NOT NULL THEN 1000 WHEN batch IS NOT NULL OR states = ARRAY['running'] OR is_blocked THEN 9e18
            ELSE 20000 END;
        WHILE high > coalesce(lowest, -9223372036854775808) AND left_over > 0 LOOP
            began := clock_timestamp();
            low := greatest(high - trunc(piece::numeric), coalesce(lowest, -9223372036854775808))::bigint;
            EXECUTE query INTO ids, instants
                USING queue, tasks, batch, kind, fingerprint, since, until, words, patience, low, high, left_over;
            IF words IS NULL OR clock_timestamp() < patience THEN
                FOR n IN 1 .. coalesce(cardinality(ids), 0) LOOP
                    id := ids[n];
                    finished_at := instants[n];
                    RETURN NEXT;
                END LOOP;
                left_over := left_over - coalesce(cardinality(ids), 0);
                high := low;
            END IF;
            EXIT WHEN left_over = 0;
            IF lowest IS NULL THEN
                SELECT coalesce(least(
                    CASE WHEN live IS NOT NULL THEN (SELECT min(job.id) FROM {schema}.job) END,
                    CASE WHEN past IS NOT NULL AND NOT by_finish THEN (SELECT min(history.id) FROM {schema}.history) END),
                    high) INTO lowest;
            END IF;
            IF clock_timestamp() >= over_at AND high > lowest THEN
                looked_to := high;
                IF by_finish THEN -- a live one's: behind it come the others, too
                    SELECT job.id INTO looked_to FROM {schema}.job WHERE job.id >= high ORDER BY job.id LIMIT 1;
                END IF;
                IF looked_to IS NOT DISTINCT FROM before THEN -- to begin there again would lead nowhere
                    looked_to := NULL;
                    piece := piece * 2;
                    patience := 'infinity';
                    CONTINUE;
                END IF;
                id := NULL;
                finished_at := NULL;
                SELECT either.submitted_at INTO looked_back_to FROM (
                    (SELECT job.id, submitted_at FROM {schema}.job WHERE job.id >= high ORDER BY job.id LIMIT 1)
                    UNION ALL
                    (SELECT past.id, submitted_at FROM {schema}.history AS past WHERE past.id >= high ORDER BY past.id LIMIT 1)
                ) AS either ORDER BY either.id LIMIT 1;
                RETURN NEXT;
                RETURN;
            END IF;
            piece := {schema}.next_piece(piece, clock_timestamp() - began, over_at - clock_timestamp());
            IF words IS NULL AND (past IS NULL OR by_finish) AND pg_relation_size('{schema}.job') < 1000000000 THEN
                piece := 9e18; -- to read the table through is faster than to go along its ids
            END IF;
            patience := over_at;
        END LOOP;
    END IF;

    IF by_finish AND left_over > 0 THEN
        query := 'SELECT array_agg(id), array_agg(finished_at) FROM (
            SELECT id, finished_at FROM {schema}.history
            WHERE finished_at >= $10 AND finished_at <= $11 AND (finished_at, id) < ($11, $13) AND ('
            || past || ') ORDER BY finished_at DESC, id DESC LIMIT $12) AS found';
        high := CASE WHEN before_at IS NOT NULL THEN before ELSE 9223372036854775807 END;
        to_at := coalesce(before_at, least(until, (
            SELECT past.finished_at FROM {schema}.history AS past
            WHERE past.state <> 'succeeded' ORDER BY past.finished_at DESC, past.id DESC LIMIT 1)));
        piece := CASE WHEN words IS NULL THEN 86400 ELSE 3600 END; -- seconds
        patience := 'infinity';
        LOOP
            EXIT WHEN to_at IS NULL;
            began := clock_timestamp();
            from_at := greatest(to_at - least(piece, 1e9) * interval '1 second', since);
            IF batch IS NOT NULL AND words IS NULL THEN
                from_at := coalesce(since, '-infinity');
            END IF;
            EXECUTE query INTO ids, instants
                USING queue, tasks, batch, kind, fingerprint, since, until, words, patience, from_at, to_at, left_over, high;
            IF words IS NULL OR clock_timestamp() < patience THEN
                FOR n IN 1 .. coalesce(cardinality(ids), 0) LOOP
                    id := ids[n];
                    finished_at := instants[n];
                    RETURN NEXT;
                END LOOP;
                left_over := left_over - coalesce(cardinality(ids), 0);
                to_at := from_at;
                high := -9223372036854775808; -- what finished at that very instant was in this piece
            END IF;
            EXIT WHEN left_over = 0;
            IF earliest IS NULL THEN
                SELECT greatest(coalesce((
                    SELECT past.finished_at FROM {schema}.history AS past
                    WHERE past.state <> 'succeeded' ORDER BY past.finished_at, past.id LIMIT 1), to_at), since) INTO earliest;
            END IF;
            EXIT WHEN to_at <= earliest;
            IF clock_timestamp() >= over_at THEN
                SELECT past.id, past.finished_at INTO looked_to, looked_back_to FROM {schema}.history AS past
                WHERE past.state <> 'succeeded' AND past.finished_at >= to_at ORDER BY past.finished_at, past.id LIMIT 1;
                IF looked_to IS DISTINCT FROM before THEN
                    id := NULL;
                    finished_at := NULL;
                    RETURN NEXT;
                    RETURN;
                END IF;
                looked_to := NULL; -- nothing ended in this time: to begin there again would lead nowhere
                looked_back_to := NULL;
                piece := piece * CASE WHEN words IS NULL THEN 8 ELSE 2 END;
                patience := 'infinity';
                CONTINUE;
            END IF;
            piece := {schema}.next_piece(piece, clock_timestamp() - began, over_at - clock_timestamp());
            patience := over_at;
        END LOOP;
    END IF;
END
$$;

-- The queues and priorities in which jobs are ready that wait for no limit and no turn, from the top of each; of one queue
-- alone if it is said. Found by skipping through the index of what is ready, as the queues of the next two by theirs.
CREATE OR REPLACE FUNCTION {schema}.ready_lanes(only_queue text) RETURNS TABLE (queue text, priority smallint)
    LANGUAGE sql STABLE
    AS $$
    WITH RECURSIVE lane AS (
        SELECT first.queue, first.priority FROM (
            SELECT job.queue, job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue >= coalesce(only_queue, '')
            ORDER BY job.queue, job.priority DESC LIMIT 1) AS first
        WHERE first.queue = coalesce(only_queue, first.queue)
        UNION ALL
        SELECT coalesce(below.queue, following.queue), coalesce(below.priority, following.priority) FROM lane
        LEFT JOIN LATERAL (
            SELECT job.queue, job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue AND job.priority < lane.priority
            ORDER BY job.priority DESC LIMIT 1) AS below ON true
        LEFT JOIN LATERAL (
            SELECT job.queue, job.priority FROM {schema}.job AS job
            WHERE below.queue IS NULL AND only_queue IS NULL
                AND job.state = 'ready' AND job.parked IS NULL AND job.queue > lane.queue
            ORDER BY job.queue, job.priority DESC LIMIT 1) AS following ON true
        WHERE coalesce(below.queue, following.queue) IS NOT NULL
    )
    SELECT lane.queue, lane.priority FROM lane
$$;

-- The queues in which jobs wait for a limit or their turn; or one of them.
CREATE OR REPLACE FUNCTION {schema}.parked_queues(only_queue text) RETURNS TABLE (queue text)
    LANGUAGE sql STABLE
    AS $$
    WITH RECURSIVE parked_queue AS (
        SELECT first.queue FROM (
            SELECT job.queue FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue >= coalesce(only_queue, '')
            ORDER BY job.queue LIMIT 1) AS first
        WHERE first.queue = coalesce(only_queue, first.queue)
        UNION ALL
        SELECT following.queue FROM parked_queue CROSS JOIN LATERAL (
            SELECT job.queue FROM {schema}.job AS job
            WHERE only_queue IS NULL AND job.state = 'ready' AND job.parked IS NOT NULL AND job.queue > parked_queue.queue
            ORDER BY job.queue LIMIT 1) AS following
    )
    SELECT parked_queue.queue FROM parked_queue
$$;

-- The queues in which jobs wait for other jobs; or one of them.
CREATE OR REPLACE FUNCTION {schema}.blocked_queues(only_queue text) RETURNS TABLE (queue text)
    LANGUAGE sql STABLE
    AS $$
    WITH RECURSIVE blocked_queue AS (
        SELECT first.queue FROM (
            SELECT job.queue FROM {schema}.job AS job
            WHERE job.state = 'blocked' AND job.worker IS NULL AND job.queue >= coalesce(only_queue, '')
            ORDER BY job.queue LIMIT 1) AS first
        WHERE first.queue = coalesce(only_queue, first.queue)
        UNION ALL
        SELECT following.queue FROM blocked_queue CROSS JOIN LATERAL (
            SELECT job.queue FROM {schema}.job AS job
            WHERE only_queue IS NULL AND job.state = 'blocked' AND job.worker IS NULL AND job.queue > blocked_queue.queue
            ORDER BY job.queue LIMIT 1) AS following
    )
    SELECT blocked_queue.queue FROM blocked_queue
$$;

-- How many jobs wait, of each kind up to `most` and one more, of all queues together or of one, by the claim's
-- indexes. Of jobs that wait for a limit or their turn there may be `more` of either kind.
CREATE OR REPLACE FUNCTION {schema}.count_waiting(
    most integer, only_queue text, OUT ready bigint, OUT scheduled bigint, OUT blocked bigint, OUT more boolean
)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0 SET lock_timeout = '1s'
    AS $$
    WITH lane AS MATERIALIZED (
        SELECT each.queue, each.priority FROM {schema}.ready_lanes(only_queue) AS each
    ),
    due AS (
        SELECT count(*) AS jobs FROM (
            SELECT FROM lane CROSS JOIN LATERAL (
                SELECT FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue AND job.priority = lane.priority
                    AND job.run_at <= {schema}.clock()
                ORDER BY job.run_at, job.id LIMIT most + 1) AS each
            LIMIT most + 1) AS few
    ),
    ahead AS (
        SELECT count(*) AS jobs FROM (
            SELECT FROM lane CROSS JOIN LATERAL (
                SELECT FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue AND job.priority = lane.priority
                    AND job.run_at > {schema}.clock()
                ORDER BY job.run_at, job.id LIMIT most + 1) AS each
            LIMIT most + 1) AS few
    ),
    parked AS (
        SELECT count(*) FILTER (WHERE few.run_at <= {schema}.clock()) AS due,
            count(*) FILTER (WHERE few.run_at > {schema}.clock()) AS ahead, count(*) > most AS more
        FROM (
            SELECT each.run_at FROM {schema}.parked_queues(only_queue) AS parked_queue CROSS JOIN LATERAL (
                SELECT job.run_at FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = parked_queue.queue
                ORDER BY job.priority DESC, job.parked COLLATE "C", job.run_at, job.id LIMIT most + 1) AS each
            LIMIT most + 1) AS few
    ),
    blocked AS (
        SELECT count(*) AS jobs FROM (
            SELECT FROM {schema}.blocked_queues(only_queue) AS blocked_queue CROSS JOIN LATERAL (
                SELECT FROM {schema}.job AS job
                WHERE job.state = 'blocked' AND job.worker IS NULL AND job.queue = blocked_queue.queue
                ORDER BY job.id LIMIT most + 1) AS each
            LIMIT most + 1) AS few
    )
    SELECT due.jobs + parked.due, ahead.jobs + parked.ahead, blocked.jobs, parked.more FROM due, ahead, parked, blocked
$$;

-- How many jobs fit, by state: those of which there are any. Of each state it counts up to `most`, and as long as there
-- is time; `more` says that there are more, or that nobody knows.
CREATE OR REPLACE FUNCTION {schema}.count_jobs(
    states text[], queue text, tasks text[], batch bigint, kind text, fingerprint text, since timestamptz, until timestamptz,
    most integer, seconds double precision,
    OUT state text, OUT jobs bigint, OUT more boolean
) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    ROWS 7
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0 SET lock_timeout = '1s'
    AS $$
#variable_conflict use_variable
DECLARE
    over_at constant timestamptz := clock_timestamp() + seconds * interval '1 second';
    of_live constant text := {schema}.conditions(true, queue, tasks, batch, kind, fingerprint, since, until, NULL);
    of_past constant text := {schema}.conditions(false, queue, tasks, batch, kind, fingerprint, since, until, NULL);
    counted jsonb := '{}';
    open_live text[] := ARRAY(SELECT each FROM unnest(states) AS each
        WHERE each NOT IN ('running', 'succeeded', 'failed', 'discarded', 'cancelled'));
    open_ends text[] := ARRAY(SELECT each FROM unnest(states) AS each WHERE each IN ('failed', 'discarded', 'cancelled'));
    unsure text[] := '{}';
    looks bigint := 10 * most;
    before bigint;
    is_capped boolean;
    found record;
    block_bytes constant integer := current_setting('block_size');
    began timestamptz;
    piece double precision;
    block double precision := 1 + pg_relation_size('{schema}.job') / block_bytes;
    -- What is asked for by its age alone lies near the end.
    first_block constant double precision := CASE
        WHEN coalesce(since, until) IS NOT NULL AND coalesce(tasks::text, batch::text, kind, fingerprint) IS NULL
        THEN greatest(block - 2000, 0) ELSE 0 END;
    behind bigint := -9223372036854775808;
    seen bigint;
    day record;
    earliest timestamptz;
    from_at timestamptz;
    to_at timestamptz;
BEGIN
    IF 'running' = ANY (states) THEN
        EXECUTE 'SELECT count(*) FROM (SELECT FROM {schema}.job WHERE state = ''running'' AND worker IS NOT NULL AND '
            || of_live || ' LIMIT $10) AS few' INTO jobs
            USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz, most + 1;
        counted := jsonb_build_object('running', jobs);
    END IF;
    IF 'blocked' = ANY (states) AND coalesce(tasks::text, batch::text, kind, fingerprint, since::text, until::text) IS NOT NULL THEN
        EXECUTE 'SELECT count(*) FROM (SELECT FROM {schema}.job WHERE state = ''blocked'' AND worker IS NULL AND '
            || of_live || ' LIMIT $10) AS few' INTO jobs
            USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz, most + 1;
        counted := counted || jsonb_build_object('blocked', jobs);
        open_live := array_remove(open_live, 'blocked');
    END IF;

    -- What did not succeed, by the index of those, the newest first. Of all, or of a queue, ten times as many are looked at as
    -- are counted: nobody waits for the last of a hundred thousand.
    IF open_ends <> '{}' THEN
        SELECT least(until, past.finished_at) + interval '1 microsecond' INTO to_at FROM {schema}.history AS past
            WHERE past.state <> 'succeeded' ORDER BY past.finished_at DESC, past.id DESC LIMIT 1;
        SELECT greatest(since, past.finished_at) INTO earliest FROM {schema}.history AS past
            WHERE past.state <> 'succeeded' ORDER BY past.finished_at, past.id LIMIT 1;
        piece := CASE WHEN batch IS NULL THEN 86400 ELSE 1e9 END; -- seconds
        is_capped := cardinality(open_ends) > 1 AND coalesce(tasks::text, batch::text, kind, fingerprint) IS NULL;
        WHILE to_at > earliest AND open_ends <> '{}' AND looks > 0 LOOP
            EXIT WHEN began IS NOT NULL AND clock_timestamp() >= over_at; -- of each there is a first piece
            began := clock_timestamp();
            from_at := to_at - least(piece, 1e9) * interval '1 second';
            before := looks;
            FOR found IN EXECUTE CASE WHEN is_capped
                THEN 'SELECT state::text AS state, count(*) FILTER (WHERE ' || of_past || ') AS jobs, count(*) AS looked_at
                    FROM {schema}.history WHERE finished_at >= $10 AND finished_at < $11 AND state <> ''succeeded'' GROUP BY state'
                ELSE 'SELECT state::text AS state, count(*) AS jobs, 0::bigint AS looked_at FROM {schema}.history
                    WHERE finished_at >= $10 AND finished_at < $11 AND (' || {schema}.past_states(open_ends) || ') AND '
                    || of_past || ' GROUP BY state' END
                USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz, from_at, to_at
            LOOP
                looks := looks - found.looked_at;
                CONTINUE WHEN found.state <> ALL (open_ends);
                jobs := found.jobs + coalesce((counted->>found.state)::bigint, 0);
                counted := counted || jsonb_build_object(found.state, jobs);
                IF jobs > most THEN
                    open_ends := array_remove(open_ends, found.state);
                END IF;
            END LOOP;
            to_at := from_at;
            piece := least({schema}.next_piece(piece, clock_timestamp() - began, over_at - clock_timestamp()),
                CASE WHEN is_capped THEN piece * greatest(looks, 1) / greatest(before - looks, 1) ELSE 1e9 END);
        END LOOP;
        IF to_at > earliest OR looks <= 0 THEN
            unsure := unsure || open_ends;
        END IF;
    END IF;

    -- What waits: by the indexes of the claim, where these have all that is asked for; else as it lies in the table, from its end.
    IF open_live <> '{}' AND coalesce(tasks::text, batch::text, kind, fingerprint, since::text, until::text) IS NULL THEN
        SELECT * INTO found FROM {schema}.count_waiting(most, queue);
        counted := counted || jsonb_build_object('ready', found.ready, 'scheduled', found.scheduled, 'blocked', found.blocked);
        counted := counted - ARRAY(
            SELECT each FROM unnest(ARRAY['ready', 'scheduled', 'blocked']) AS each WHERE each <> ALL (open_live));
        unsure := unsure || CASE WHEN found.more THEN array_remove(open_live, 'blocked') ELSE '{}' END;
        open_live := '{}';
    END IF;
    IF batch IS NOT NULL THEN -- by the index of batches, twice as many as are counted
        looks := 2 * most;
        seen := 10000;
        WHILE open_live <> '{}' AND seen = 10000 AND looks > 0 LOOP
            looks := looks - seen;
            seen := 0;
            FOR found IN EXECUTE 'SELECT CASE WHEN state = ''ready'' AND run_at > {schema}.clock() THEN ''scheduled''
                    ELSE state::text END AS state, count(*) AS jobs, max(id) AS last
                FROM (SELECT id, state, run_at FROM {schema}.job WHERE id > $10 AND (' || {schema}.live_states(open_live)
                || ') AND ' || of_live || ' ORDER BY id LIMIT 10000) AS few GROUP BY 1'
                USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz, behind
            LOOP
                seen := seen + found.jobs;
                behind := greatest(behind, found.last);
                jobs := found.jobs + coalesce((counted->>found.state)::bigint, 0);
                counted := counted || jsonb_build_object(found.state, jobs);
            END LOOP;
            open_live := ARRAY(SELECT each FROM unnest(open_live) AS each
                WHERE coalesce((counted->>each)::bigint, 0) <= most);
        END LOOP;
        unsure := unsure || CASE WHEN seen = 10000 THEN open_live ELSE '{}' END;
        open_live := '{}';
    END IF;
    piece := 1000;
    began := NULL;
    WHILE block > first_block AND open_live <> '{}' LOOP
        EXIT WHEN began IS NOT NULL AND clock_timestamp() >= over_at;
        began := clock_timestamp();
        FOR found IN EXECUTE 'SELECT CASE WHEN state = ''ready'' AND run_at > {schema}.clock() THEN ''scheduled''
                ELSE state::text END AS state, count(*) AS jobs
            FROM {schema}.job WHERE ctid >= $10 AND ctid < $11 AND ('
            || {schema}.live_states(open_live) || ') AND ' || of_live || ' GROUP BY 1'
            USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz,
                format('(%s,0)', greatest(block - piece, first_block)::bigint)::tid, format('(%s,0)', block::bigint)::tid
        LOOP
            jobs := found.jobs + coalesce((counted->>found.state)::bigint, 0);
            counted := counted || jsonb_build_object(found.state, jobs);
            IF jobs > most THEN
                open_live := array_remove(open_live, found.state);
            END IF;
        END LOOP;
        block := greatest(block - piece, first_block)::bigint;
        piece := {schema}.next_piece(piece, clock_timestamp() - began, over_at - clock_timestamp());
    END LOOP;
    IF block > 0 THEN
        unsure := unsure || open_live;
    END IF;

    -- What succeeded, day by day, and each from the end of its table; those of a batch by their index.
    IF 'succeeded' = ANY (states) THEN
        jobs := 0;
        began := NULL;
        piece := 500;
        <<days>>
        FOR day IN
            SELECT to_date(right(child.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS begins,
                1 + max(pg_relation_size(child.oid)) / block_bytes AS blocks
            FROM pg_class AS child
            WHERE child.relnamespace = '{schema}'::regnamespace AND child.relkind = 'r'
                AND child.relname ~ '^history(_[0-9]+d)?_[0-9]{8}$'
            GROUP BY begins
            HAVING max(pg_relation_size(child.oid)) > 0
            ORDER BY begins DESC
        LOOP
            CONTINUE WHEN day.begins >= until;
            EXIT WHEN day.begins + interval '1 day' <= since;
            block := day.blocks;
            WHILE block > 0 LOOP
                EXIT days WHEN jobs > most;
                IF began IS NOT NULL AND clock_timestamp() >= over_at THEN
                    unsure := unsure || 'succeeded'::text;
                    EXIT days;
                END IF;
                began := clock_timestamp();
                EXECUTE 'SELECT count(*) FROM (SELECT FROM {schema}.history
                    WHERE finished_at >= $10 AND finished_at < $11 AND state = ''succeeded'' AND '
                    || CASE WHEN batch IS NULL THEN 'ctid >= $13 AND ctid < $14 AND ' ELSE '' END
                    || of_past || ' LIMIT $12) AS few' INTO found
                    USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz,
                        day.begins, day.begins + interval '1 day', most + 1 - jobs,
                        format('(%s,0)', greatest(block - piece, 0)::bigint)::tid, format('(%s,0)', block::bigint)::tid;
                jobs := jobs + found.count;
                piece := least(piece, block); -- a day that is nearly empty says nothing about the next one
                block := CASE WHEN batch IS NULL THEN block - piece ELSE 0 END;
                piece := greatest(500, {schema}.next_piece(piece, clock_timestamp() - began, over_at - clock_timestamp()));
            END LOOP;
        END LOOP;
        counted := counted || jsonb_build_object('succeeded', jobs);
    END IF;

    FOREACH state IN ARRAY states LOOP
        jobs := coalesce((counted->>state)::bigint, 0);
        more := jobs > most OR state = ANY (unsure);
        jobs := least(jobs, most);
        IF jobs > 0 OR more THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- The ids of jobs that fit, ascending, behind that one: all of them, for verbs that change them.
CREATE OR REPLACE FUNCTION {schema}.choose_jobs(
    states text[], queue text, tasks text[], batch bigint, kind text, fingerprint text, since timestamptz, until timestamptz,
    after bigint, most integer
) RETURNS SETOF bigint
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0
    AS $$
#variable_conflict use_variable
DECLARE
    live constant text := {schema}.live_states(states);
BEGIN
    RETURN QUERY EXECUTE 'SELECT id FROM {schema}.' || CASE WHEN live IS NULL THEN 'history' ELSE 'job' END
        || ' WHERE id > $10 AND (' || coalesce(live, {schema}.past_states(states)) || ') AND '
        || {schema}.conditions(live IS NOT NULL, queue, tasks, batch, kind, fingerprint, since, until, NULL)
        || ' ORDER BY id LIMIT $11'
        USING queue, tasks, batch, kind, fingerprint, since, until, NULL::text, NULL::timestamptz, after, most;
END
$$;

-- What failed or was discarded, by what went wrong: of the last `most` that fit. The message is that of the newest.
CREATE OR REPLACE FUNCTION {schema}.look_at_failures(
    since timestamptz, until timestamptz, queue text, tasks text[], groups integer, most integer,
    OUT fingerprint text, OUT error_kind text, OUT jobs bigint, OUT first_at timestamptz, OUT last_at timestamptz,
    OUT names text[], OUT job bigint, OUT message text, OUT looked_back_to timestamptz
) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0 SET lock_timeout = '1s'
    SET plan_cache_mode = force_custom_plan
    AS $$
#variable_conflict use_column
DECLARE
    nearest timestamptz := since;
BEGIN
    -- Of a task or a queue the newest hundred thousand of all are looked through first, and the others if none of those fits.
    IF coalesce(look_at_failures.queue, look_at_failures.tasks::text) IS NOT NULL THEN
        SELECT greatest(since, past.finished_at) INTO nearest FROM {schema}.history AS past
        WHERE past.state <> 'succeeded' AND past.finished_at < coalesce(look_at_failures.until, 'infinity')
        ORDER BY past.finished_at DESC, past.id DESC OFFSET 100000 LIMIT 1;
        nearest := coalesce(nearest, since);
    END IF;
    LOOP
        RETURN QUERY
        WITH looked_at AS MATERIALIZED (
            SELECT past.id, past.task, past.error_kind, past.fingerprint, past.finished_at FROM {schema}.history AS past
            WHERE past.state <> 'succeeded' AND past.state IN ('failed', 'discarded')
                AND past.finished_at >= coalesce(nearest, '-infinity')
                AND past.finished_at < coalesce(look_at_failures.until, 'infinity')
                AND (look_at_failures.queue IS NULL OR past.queue = look_at_failures.queue)
                AND (look_at_failures.tasks IS NULL OR past.task = ANY (look_at_failures.tasks))
            ORDER BY past.finished_at DESC, past.id DESC
            LIMIT look_at_failures.most
        ),
        by_task AS (
            SELECT each.fingerprint, each.error_kind, each.task, count(*) AS jobs, min(each.finished_at) AS first_at,
                max(each.finished_at) AS last_at
            FROM looked_at AS each
            GROUP BY each.fingerprint, each.error_kind, each.task
        ),
        alike AS (
            SELECT each.fingerprint, each.error_kind, sum(each.jobs)::bigint AS jobs, min(each.first_at) AS first_at,
                max(each.last_at) AS last_at, array_agg(each.task ORDER BY each.task) AS tasks
            FROM by_task AS each
            GROUP BY each.fingerprint, each.error_kind
            ORDER BY jobs DESC, last_at DESC
            LIMIT look_at_failures.groups
        )
        SELECT alike.fingerprint, alike.error_kind, alike.jobs, alike.first_at, alike.last_at, alike.tasks, newest.id,
            {schema}.of_last_error(newest.errors, 'message'),
            (SELECT CASE WHEN count(*) >= look_at_failures.most THEN min(each.finished_at)
                WHEN nearest IS DISTINCT FROM since THEN nearest END FROM looked_at AS each)
        FROM alike
        CROSS JOIN LATERAL (
            SELECT past.id, past.errors FROM {schema}.history AS past
            WHERE past.state <> 'succeeded' AND past.finished_at = alike.last_at
                AND past.fingerprint IS NOT DISTINCT FROM alike.fingerprint
                AND past.error_kind IS NOT DISTINCT FROM alike.error_kind
            ORDER BY past.finished_at DESC, past.id DESC
            LIMIT 1
        ) AS newest
        ORDER BY alike.jobs DESC, alike.last_at DESC;
        EXIT WHEN FOUND OR nearest IS NOT DISTINCT FROM since;
        nearest := since;
    END LOOP;
END
$$;

-- Whether a gate of `most` has a place that nobody has, or is about to take. One of a rate that has only just become free is
-- as good as taken: where jobs wait for it, there always is one.
CREATE OR REPLACE FUNCTION {schema}.has_room(gate text, most integer) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT most > (
        SELECT count(*) FROM (
            SELECT FROM {schema}.slot AS slot
            WHERE slot.gate = has_room.gate
                AND CASE WHEN slot.opens_at IS NULL THEN {schema}.is_owned(slot.job, slot.fence)
                    ELSE slot.opens_at > {schema}.clock() - interval '10 seconds' END
            LIMIT greatest(most, 0)) AS held
    ) + (
        SELECT count(*) FROM (
            SELECT FROM {schema}.share WHERE share.kind = 'gate' AND share.name = has_room.gate LIMIT 1) AS shared
        CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'running' AND job.worker IS NOT NULL AND job.parked = has_room.gate AND job.slots IS NULL
        ) AS within
    )
$$;

-- Of the due jobs of a queue that have gates, the one that waits longest although all of its gates have room: what keeps
-- it waiting is neither its limits nor its group. Looks at the first 200 keys, each of which says for all who wait under it,
-- and for a tenth of a second at most, since whoever asks does so every few seconds.
CREATE OR REPLACE FUNCTION {schema}.oldest_with_room(
    queue text, OUT run_at timestamptz, OUT job bigint, OUT task text
)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    over_at constant timestamptz := clock_timestamp() + interval '100 ms';
    looks integer := 200;
    lane smallint;
    spot text;
    head record;
    gate record;
    full_to integer;
BEGIN
    FOREACH lane IN ARRAY {schema}.parked_lanes(oldest_with_room.queue) LOOP
        spot := '';
        WHILE looks > 180 OR looks > 0 AND clock_timestamp() < over_at LOOP
            looks := looks - 1;
            SELECT job.id, job.task, job.parked, job.run_at, job.gates INTO head FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = oldest_with_room.queue
                AND job.priority = lane AND job.parked COLLATE "C" > spot
            ORDER BY job.parked COLLATE "C", job.run_at, job.id
            LIMIT 1;
            EXIT WHEN head.parked IS NULL;
            spot := head.parked;
            CONTINUE WHEN head.run_at > {schema}.clock() OR head.run_at >= oldest_with_room.run_at;
            full_to := NULL;
            FOR gate IN SELECT * FROM json_to_recordset(head.gates->'gates') AS each (name text, most integer, "to" integer)
            LOOP
                IF NOT {schema}.has_room(gate.name, gate.most) THEN
                    full_to := gate."to";
                    EXIT;
                END IF;
            END LOOP;
            IF full_to IS NULL THEN
                oldest_with_room.run_at := head.run_at;
                oldest_with_room.job := head.id;
                oldest_with_room.task := head.task;
            ELSE
                spot := left(head.parked, full_to) || ' '; -- past all who wait for this gate
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The queues that have live jobs, are taken by a worker, or are paused or limited; or one of them. Of each queue at most so
-- many jobs of a kind are counted, and one more. Of jobs that wait for a limit or their turn there may be more of each kind
-- than was counted of both.
CREATE OR REPLACE FUNCTION {schema}.look_at_queues(
    most integer, only_queue text,
    OUT queue text, OUT ready bigint, OUT scheduled bigint, OUT running bigint, OUT waiting bigint, OUT waiting_ahead bigint,
    OUT more_waiting boolean, OUT blocked bigint, OUT oldest_at timestamptz, OUT paused_until timestamptz,
    OUT concurrency integer, OUT workers bigint
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0 SET lock_timeout = '1s'
    AS $$
    WITH lane AS MATERIALIZED (
        SELECT each.queue, each.priority FROM {schema}.ready_lanes(only_queue) AS each
    ),
    ready_queue AS (
        SELECT DISTINCT lane.queue FROM lane
    ),
    unparked AS (
        SELECT ready_queue.queue,
            (SELECT count(*) FROM (
                SELECT FROM lane CROSS JOIN LATERAL (
                    SELECT FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue
                        AND job.priority = lane.priority AND job.run_at <= {schema}.clock()
                    ORDER BY job.run_at, job.id LIMIT most + 1) AS due
                WHERE lane.queue = ready_queue.queue LIMIT most + 1) AS few) AS due,
            (SELECT count(*) FROM (
                SELECT FROM lane CROSS JOIN LATERAL (
                    SELECT FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue
                        AND job.priority = lane.priority AND job.run_at > {schema}.clock()
                    ORDER BY job.run_at, job.id LIMIT most + 1) AS ahead
                WHERE lane.queue = ready_queue.queue LIMIT most + 1) AS few) AS ahead,
            (SELECT min(first.run_at) FROM lane CROSS JOIN LATERAL (
                SELECT job.run_at FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue
                    AND job.priority = lane.priority AND job.run_at <= {schema}.clock()
                ORDER BY job.run_at, job.id LIMIT 1) AS first
             WHERE lane.queue = ready_queue.queue) AS oldest_at
        FROM ready_queue
    ),
    parked AS (
        SELECT parked_queue.queue, count(*) FILTER (WHERE few.run_at <= {schema}.clock()) AS due,
            count(*) FILTER (WHERE few.run_at > {schema}.clock()) AS ahead, count(*) > most AS more
        FROM {schema}.parked_queues(only_queue) AS parked_queue CROSS JOIN LATERAL (
            SELECT job.run_at FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = parked_queue.queue
            ORDER BY job.priority DESC, job.parked COLLATE "C", job.run_at, job.id LIMIT most + 1) AS few
        GROUP BY parked_queue.queue
    ),
    blocked AS (
        SELECT blocked_queue.queue, count(*) AS jobs
        FROM {schema}.blocked_queues(only_queue) AS blocked_queue CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'blocked' AND job.worker IS NULL AND job.queue = blocked_queue.queue
            ORDER BY job.id LIMIT most + 1) AS few
        GROUP BY blocked_queue.queue
    ),
    at_work AS (
        SELECT job.queue, count(*) AS jobs FROM {schema}.job AS job
        WHERE job.state = 'running' AND job.worker IS NOT NULL GROUP BY job.queue
    ),
    taken AS (
        SELECT each AS queue, count(*) AS workers
        FROM {schema}.offer AS offer
        JOIN {schema}.worker AS worker ON worker.id = offer.worker AND worker.expires_at > {schema}.clock()
        CROSS JOIN unnest(offer.queues) AS each
        GROUP BY each
    ),
    paused AS (
        SELECT name AS queue, until FROM {schema}.pause WHERE kind = 'queue' AND until > {schema}.clock()
    )
    SELECT queue, coalesce(unparked.due, 0), coalesce(unparked.ahead, 0), coalesce(at_work.jobs, 0), coalesce(parked.due, 0),
        coalesce(parked.ahead, 0), coalesce(parked.more, false), coalesce(blocked.jobs, 0),
        least(unparked.oldest_at, (
            SELECT waits.run_at FROM {schema}.oldest_with_room(queue) AS waits WHERE parked.due > 0)), paused.until,
        queue_limit.concurrency, coalesce(taken.workers, 0)
    FROM unparked
    FULL JOIN parked USING (queue)
    FULL JOIN blocked USING (queue)
    FULL JOIN at_work USING (queue)
    FULL JOIN taken USING (queue)
    FULL JOIN paused USING (queue)
    FULL JOIN {schema}.queue_limit AS queue_limit USING (queue)
    WHERE queue = coalesce(only_queue, queue)
    ORDER BY queue
$$;

-- What is due, by queue and task, for whoever looks whether somebody takes it: of each queue and priority the first `most`
-- that could begin, and of each queue so many that wait for a limit or their turn. There may be `more` where so many were
-- found. `oldest_at` is of those that could begin.
CREATE OR REPLACE FUNCTION {schema}.look_at_work(
    most integer, OUT queue text, OUT task text, OUT due bigint, OUT more boolean, OUT oldest_at timestamptz
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET jit = off SET max_parallel_workers_per_gather = 0 SET lock_timeout = '1s'
    SET enable_seqscan = off SET enable_bitmapscan = off
    AS $$
    WITH each AS (
        SELECT lane.queue, few.task, count(*) AS due, min(few.run_at) AS oldest_at, sum(count(*)) OVER few >= most AS more
        FROM {schema}.ready_lanes(NULL) AS lane CROSS JOIN LATERAL (
            SELECT job.task, job.run_at FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = lane.queue
                AND job.priority = lane.priority AND job.run_at <= {schema}.clock()
            ORDER BY job.run_at, job.id LIMIT most) AS few
        GROUP BY lane.queue, lane.priority, few.task
        WINDOW few AS (PARTITION BY lane.queue, lane.priority)
        UNION ALL
        SELECT parked_queue.queue, few.task, count(*) FILTER (WHERE few.run_at <= {schema}.clock()), NULL,
            sum(count(*)) OVER few >= most
        FROM {schema}.parked_queues(NULL) AS parked_queue CROSS JOIN LATERAL (
            SELECT job.task, job.run_at FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = parked_queue.queue
            ORDER BY job.priority DESC, job.parked COLLATE "C", job.run_at, job.id LIMIT most) AS few
        GROUP BY parked_queue.queue, few.task
        WINDOW few AS (PARTITION BY parked_queue.queue)
    )
    SELECT each.queue, each.task, sum(each.due)::bigint, bool_or(each.more), min(each.oldest_at)
    FROM each
    WHERE each.due > 0
    GROUP BY each.queue, each.task
    ORDER BY each.queue, each.task
$$;
