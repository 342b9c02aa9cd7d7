-- Makes sure that the end of each of these jobs will be told, and holds their rows until the end of the transaction: none
-- of them can end before what needs it is seen. Returns those that are not live any more, if there are any.
CREATE OR REPLACE FUNCTION {schema}.mark_needed(jobs bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off -- as in `submit_unique`
    SET jit = off            -- what has no statistics looks dear
    AS $$
#variable_conflict use_column
BEGIN
    UPDATE {schema}.job AS job SET needed = true
    WHERE job.ctid = ANY (ARRAY(
        SELECT mine.ctid FROM (SELECT DISTINCT id FROM unnest(jobs) AS id ORDER BY id) AS wanted
        CROSS JOIN LATERAL (
            SELECT job.ctid FROM {schema}.job AS job
            WHERE job.id = wanted.id AND job.needed IS NULL
            LIMIT 1 FOR NO KEY UPDATE
        ) AS mine));
    PERFORM FROM (SELECT DISTINCT id FROM unnest(jobs) AS id ORDER BY id) AS wanted
    CROSS JOIN LATERAL (SELECT FROM {schema}.job AS job WHERE job.id = wanted.id LIMIT 1 FOR KEY SHARE) AS held;
    RETURN (
        SELECT array_agg(wanted.id) FROM unnest(jobs) AS wanted (id)
        WHERE NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = wanted.id));
END
$$;

-- Adds the jobs of a flow: of each what it needs, by its place in here (from 1) or, below zero, by its id. Those that need
-- anything are blocked, their arguments in pieces. One that needs nothing that is still live is released at once; what has
-- to end because of a need is left to the workers' looks.
CREATE OR REPLACE FUNCTION {schema}.insert_flow(flow {schema}.flow, OUT ids bigint[], OUT at timestamptz)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET jit = off
    AS $$
#variable_conflict use_column
DECLARE
    bells text[];
    others bigint[];
    gone bigint[];
BEGIN
    at := {schema}.clock();
    ids := ARRAY(SELECT nextval('{schema}.job_id_seq') FROM generate_series(1, cardinality(flow.tasks)));
    WITH given AS MATERIALIZED (
        SELECT node.*, ids[node.nth] AS id, ARRAY(
                SELECT CASE WHEN need.place > 0 THEN ids[need.place] ELSE -need.place END
                FROM unnest(node.needs::bigint[]) WITH ORDINALITY AS need (place, nth)
                ORDER BY need.nth
            ) AS whom
        FROM unnest(flow.tasks, flow.queues, flow.priorities, flow.max_attempts, flow.run_at, flow.delays, flow.arguments,
                flow.retries, flow.limits, flow.gates, flow.metas, flow.needs, flow.kinds, flow.needed) WITH ORDINALITY
            AS node (task, queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates, meta, needs,
                kinds, needed, nth)
    ),
    inserted AS (
        INSERT INTO {schema}.job
            (id, task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits, gates,
             parked, meta, needs, needed)
        SELECT id, task, queue, priority, CASE WHEN needs IS NULL THEN 'ready' ELSE 'blocked' END::{schema}.state,
            max_attempts, coalesce(run_at, at + delay, at), at, arguments, retry, limits, gates,
            CASE WHEN needs IS NULL THEN gates->>'key' END, meta, nullif(whom, '{}'), needed
        FROM given
        ORDER BY nth
    ),
    edges AS (
        INSERT INTO {schema}.need (job, needs, kind)
        SELECT given.id, need.id, need.kind::"char"
        FROM given CROSS JOIN LATERAL unnest(given.whom, string_to_array(given.kinds, NULL)) AS need (id, kind)
    )
    SELECT array_agg(DISTINCT given.queue) FILTER (WHERE given.needs IS NULL),
        (SELECT array_agg(DISTINCT -need) FROM given AS node CROSS JOIN LATERAL unnest(node.needs::bigint[]) AS need WHERE need < 0)
    INTO bells, others
    FROM given;
    IF others IS NOT NULL THEN
        gone := {schema}.mark_needed(others);
        IF gone IS NOT NULL THEN
            PERFORM {schema}.unblock_late(gone, ids[1] - 1);
        END IF;
    END IF;
    PERFORM {schema}.ring(coalesce(bells, '{}'));
END
$$;

-- Looks at jobs that need one of these, which have ended: at up to `most` of them, behind `after`. Releases those that need
-- nothing that is live, with what their needs have come to; and says which have to end, since a need has not come to what
-- they need (`lost`, and because of whom), or since it has and they were to become it, or since what they would be given
-- is too large (of how many bytes).
-- Nothing is counted and nobody is waited for: that a job is free is read from the rows of what it needs. So whoever looks
-- last, after the last of those ends was committed, sees it; and who looks twice changes nothing.
-- `upto` is where the next look goes on, if there is one. `hints` are of some jobs which of their needs was live lately,
-- and `seen` is which is now: jobs end in about the order of their ids, but not all do.
CREATE OR REPLACE FUNCTION {schema}.unblock(
    ended bigint[], after bigint, most integer, hints bigint[],
    OUT released integer, OUT upto bigint, OUT seen bigint[], OUT lost bigint[], OUT culprits bigint[], OUT sizes bigint[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET jit = off
    AS $$
#variable_conflict use_column
DECLARE
    touched bigint[];
    failed bigint[];
    this record;
    free bigint[] := '{}';
    wholes text[] := '{}';
    queues text[];
    -- To look for an id in each day's index takes as long as all the rest: what ends is looked for in the last days first.
    lately timestamptz := {schema}.clock() - interval '6 hours';
    soon timestamptz := {schema}.clock() + interval '6 hours';
BEGIN
    released := 0;
    seen := '{}';
    lost := '{}';
    culprits := '{}';
    sizes := '{}';
    SELECT array_agg(part.job ORDER BY part.job) INTO touched FROM (
        SELECT DISTINCT waiting.job
        FROM unnest(ended) AS past (id)
        CROSS JOIN LATERAL (
            SELECT need.job FROM {schema}.need AS need
            WHERE need.needs = past.id AND need.job > after
            ORDER BY need.job LIMIT most
        ) AS waiting
        ORDER BY waiting.job LIMIT most
    ) AS part;
    IF touched IS NULL THEN
        RETURN;
    END IF;
    upto := CASE WHEN cardinality(touched) = most THEN touched[most] END;
    SELECT array_agg(past.id) INTO failed FROM unnest(ended) AS past (id)
    WHERE NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = past.id)
        AND NOT EXISTS (
            SELECT FROM {schema}.history AS won
            WHERE won.id = past.id AND won.state = 'succeeded' AND won.finished_at > lately AND won.finished_at < soon);
    IF failed IS NOT NULL THEN
        SELECT array_agg(past.id) INTO failed FROM unnest(failed) AS past (id)
        WHERE NOT EXISTS (SELECT FROM {schema}.history AS won WHERE won.id = past.id AND won.state = 'succeeded');
    END IF;
    -- One statement for all of them, since to begin one that reads the history takes as long as ten of its rows. JSON is
    -- only put together here and never read: Postgres could not look into one that has a NUL.
    FOR this IN
        SELECT blocked.id, blocked.becomes, doom.needs AS culprit, live.needs AS witness,
            CASE WHEN doom.needs IS NULL AND live.needs IS NULL AND blocked.becomes IS NULL THEN (
                SELECT CASE WHEN bool_and(part.text IS NOT NULL) THEN string_agg(part.text, '' ORDER BY part.nth) END
                FROM (
                    SELECT piece.nth, CASE
                        WHEN json_typeof(piece.value) = 'string' THEN piece.value #>> '{}'
                        ELSE (
                            SELECT CASE
                                WHEN piece.value::text::integer > 0 THEN CASE WHEN past.state = 'succeeded' THEN
                                    coalesce(past.result, (
                                        SELECT apart.result FROM {schema}.history_result AS apart
                                        WHERE apart.id = past.id AND apart.finished_at = past.finished_at))::text END
                                ELSE concat('{"job":', past.id, ',"state":"', past.state, '","result":',
                                    coalesce(past.result::text, 'null'), ',"errors":', coalesce(past.errors::text, '[]'), '}')
                                END
                            FROM (
                                SELECT * FROM {schema}.history AS late
                                WHERE late.id = blocked.needs[abs(piece.value::text::integer)]
                                    AND late.finished_at > lately AND late.finished_at < soon
                                UNION ALL
                                SELECT * FROM {schema}.history AS any_time
                                WHERE any_time.id = blocked.needs[abs(piece.value::text::integer)]
                            ) AS past
                            LIMIT 1
                        ) END AS text
                    FROM json_array_elements(blocked.arguments->'pieces') WITH ORDINALITY AS piece (value, nth)
                ) AS part
            ) END AS whole
        FROM unnest(touched) AS part (id)
        CROSS JOIN LATERAL (
            -- A long array that is as it is stored would be unpacked anew for each of its elements.
            SELECT job.id, job.arguments, job.becomes, job.needs || '{}'::bigint[] AS needs FROM {schema}.job AS job
            WHERE job.id = part.id AND job.state = 'blocked' LIMIT 1
        ) AS blocked
        LEFT JOIN LATERAL (
            SELECT need.needs FROM {schema}.need AS need
            WHERE failed IS NOT NULL AND need.job = part.id AND need.needs = ANY (failed) AND need.kind <> 'e' LIMIT 1
        ) AS doom ON true
        LEFT JOIN LATERAL (
            -- From the newest on, or from where the last look has found one that was live; and only where none is from
            -- there on, from the newest: one may have been requeued.
            SELECT found.needs FROM (
                SELECT hints[2 * nth] AS spot, 1 AS turn FROM generate_series(1, cardinality(hints) / 2) AS nth
                WHERE hints[2 * nth - 1] = part.id
                UNION ALL SELECT 9223372036854775807, 2
            ) AS start
            CROSS JOIN LATERAL (
                SELECT need.needs FROM {schema}.need AS need
                CROSS JOIN LATERAL (SELECT FROM {schema}.job AS job WHERE job.id = need.needs LIMIT 1) AS alive
                WHERE doom.needs IS NULL AND need.job = part.id AND need.needs <= start.spot
                ORDER BY need.needs DESC LIMIT 1
            ) AS found
            LIMIT 1
        ) AS live ON true
        WHERE doom.needs IS NOT NULL OR live.needs IS NULL OR cardinality(blocked.needs) > 1000
        ORDER BY part.id
    LOOP
        IF this.witness IS NOT NULL THEN
            seen := seen || ARRAY[this.id, this.witness];
            CONTINUE;
        END IF;
        IF this.culprit IS NULL AND this.becomes IS NULL THEN
            -- Of those that it was to come after, and of which no piece is: one that ended before anybody has looked. And
            -- of those of which it was to be told: one that is not there any more.
            SELECT need.needs INTO this.culprit FROM {schema}.need AS need
            WHERE need.job = this.id AND (need.kind IN ('a', 'e') OR this.whole IS NULL) AND NOT EXISTS (
                SELECT FROM {schema}.history AS won
                WHERE won.id = need.needs AND (need.kind = 'e' OR won.state = 'succeeded' AND (
                    need.kind = 'a' OR coalesce(won.result, (
                        SELECT apart.result FROM {schema}.history_result AS apart
                        WHERE apart.id = won.id AND apart.finished_at = won.finished_at)) IS NOT NULL)))
            ORDER BY need.needs LIMIT 1;
        END IF;
        IF this.whole IS NOT NULL AND this.culprit IS NULL AND octet_length(this.whole) <= 16777216 THEN
            free := free || this.id;
            wholes := wholes || this.whole;
        ELSE
            lost := lost || this.id;
            culprits := culprits || coalesce(this.culprit, this.becomes);
            sizes := sizes || octet_length(CASE WHEN this.culprit IS NULL THEN this.whole END)::bigint;
        END IF;
    END LOOP;
    IF free = '{}' THEN
        RETURN;
    END IF;
    WITH freed AS (
        UPDATE {schema}.job AS job
        -- Its place in the queue is that of its submit: or each step of a flow would wait behind all that came since.
        SET state = 'ready', arguments = wholes[array_position(free, job.id)]::json, parked = job.gates->>'key',
            run_at = coalesce({schema}.clock() + (job.arguments->>'delay')::interval, job.run_at)
        WHERE job.ctid = ANY (ARRAY(
            SELECT mine.ctid FROM unnest(free) AS part (id)
            CROSS JOIN LATERAL (
                SELECT job.ctid FROM {schema}.job AS job
                WHERE job.id = part.id AND job.state = 'blocked' LIMIT 1 FOR UPDATE SKIP LOCKED
            ) AS mine))
        RETURNING job.id, job.queue
    )
    SELECT array_agg(freed.id), array_agg(DISTINCT freed.queue) INTO free, queues FROM freed;
    IF free IS NOT NULL THEN
        released := cardinality(free);
        DELETE FROM {schema}.need AS need WHERE need.job = ANY (free);
        PERFORM {schema}.ring(queues);
    END IF;
END
$$;

-- Releases what is free of the jobs behind `after` that need one of these, which were over when they were submitted. With
-- the rights of its owner: who may submit may not change the state of a job.
CREATE OR REPLACE FUNCTION {schema}.unblock_late(ended bigint[], after bigint) RETURNS void
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    PERFORM {schema}.unblock(ended, after, 1000000, '{}');
END
$$;

REVOKE ALL ON FUNCTION {schema}.unblock_late(bigint[], bigint) FROM PUBLIC;

-- The first `most` jobs behind `after` that are needed and not live: what looks have missed because a worker died, or
-- because a job has ended otherwise. Reads needs and live jobs side by side, in the order of the ids.
CREATE OR REPLACE FUNCTION {schema}.missed(after bigint, most integer) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET enable_mergejoin = on
    SET enable_nestloop = off
    SET jit = off
    AS $$
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT need.needs FROM {schema}.need AS need
        WHERE need.needs > missed.after AND need.doomed_at IS NULL
            AND NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = need.needs)
        ORDER BY need.needs LIMIT most
    );
END
$$;

-- Makes a running job wait for another one, whose result is to be its own: for one of this flow, by its place, or below
-- zero by its id. All of it, or nothing: where the claim is no longer its own, or its end was asked for, `fate` is 'lost';
-- 'done' where it has happened already; 'cycle' where that job needs this one.
CREATE OR REPLACE FUNCTION {schema}.become(
    id bigint, fence integer, lease bigint, flow {schema}.flow, target bigint, others bigint[], OUT fate text,
    OUT other bigint
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET jit = off
    AS $$
#variable_conflict use_column
DECLARE
    mine record;
BEGIN
    IF others <> '{}' THEN
        -- One at a time: of two that become each other the second sees what the first has done.
        PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -2);
    END IF;
    SELECT job.state, job.becomes, job.worker, job.cancel_at INTO mine FROM {schema}.job AS job
    WHERE job.id = become.id AND job.claims = fence FOR NO KEY UPDATE;
    fate := CASE
        WHEN mine.state = 'blocked' AND mine.becomes IS NOT NULL THEN 'done'
        WHEN mine.state = 'running' AND mine.worker = lease AND mine.cancel_at IS NULL THEN 'became'
        ELSE 'lost' END;
    other := mine.becomes;
    IF fate <> 'became' THEN
        RETURN;
    END IF;
    IF others <> '{}' THEN
        -- Also by way of what was ended before its needs were met: it would wait again when it is requeued.
        WITH RECURSIVE above AS (
            SELECT given.id FROM unnest(others) AS given (id)
            UNION
            SELECT need.needs FROM above
            CROSS JOIN LATERAL (SELECT need.needs FROM {schema}.need AS need WHERE need.job = above.id) AS need
        )
        SELECT 'cycle' INTO fate FROM above WHERE above.id = become.id;
        IF fate IS NOT NULL THEN
            RETURN;
        END IF;
        fate := 'became';
    END IF;
    other := CASE WHEN target > 0 THEN (SELECT made.ids[target] FROM {schema}.insert_flow(flow) AS made) ELSE -target END;
    IF target < 0 THEN
        PERFORM {schema}.mark_needed(ARRAY[other]);
    END IF;
    UPDATE {schema}.job AS job
    SET state = 'blocked', becomes = other, worker = NULL, progress = NULL, parked = NULL, slots = NULL
    WHERE job.id = become.id;
    INSERT INTO {schema}.need (job, needs, kind) VALUES (become.id, other, 'r')
    ON CONFLICT ON CONSTRAINT need_pkey DO UPDATE SET kind = 'r', doomed_at = NULL, by_a_look = NULL;
END
$$;
