-- Queues and tasks that are paused, and what each worker takes.

CREATE TABLE {schema}.pause (
    kind text,                   -- 'queue' or 'task'
    name text,
    until timestamptz NOT NULL,  -- 'infinity' until somebody resumes it
    paused_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
);

-- As before, but jobs of a paused task are not admitted.
CREATE OR REPLACE FUNCTION {schema}.let_in(
    queue text, lane smallint, key text, gates json, most integer, INOUT used jsonb, OUT admitted integer,
    OUT full_to integer, OUT opens_at timestamptz
)
    LANGUAGE plpgsql
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

-- What a worker takes, as it says when it begins. A lease of an older version has no row here.
CREATE TABLE {schema}.offer (
    worker bigint PRIMARY KEY REFERENCES {schema}.worker ON DELETE CASCADE,
    queues text[] NOT NULL,
    tasks text[] NOT NULL,
    version text NOT NULL,
    listens boolean NOT NULL -- at the doorbell; otherwise it looks for work by the clock
);

-- By how many seconds the worker's own clock is ahead of the database's, when it extended its lease last.
ALTER TABLE {schema}.worker ADD COLUMN clock_ahead double precision;

-- Whether the last of these errors is of this kind. Looked for in the text of the JSON, since Postgres refuses to look
-- into one that has a NUL anywhere; in a message each quote has a backslash before it. Workers write "kind":"X", and this
-- database "kind" : "X". One expression, so that it is inlined; and unsafe to run in parallel, so that an operator's look
-- through the history has one processor and leaves the others to the workers.
CREATE FUNCTION {schema}.last_error_is(errors json, kind text) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL UNSAFE
    AS $$
    SELECT starts_with(
        ltrim(CASE WHEN length(split_part(errors::text, '"kind":', -1)) < length(split_part(errors::text, '"kind" :', -1))
            THEN split_part(errors::text, '"kind":', -1) ELSE split_part(errors::text, '"kind" :', -1) END),
        to_json(kind)::text)
$$;
