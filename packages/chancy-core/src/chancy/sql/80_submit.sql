-- What a job of a task has to pass, with this text as the key of whatever has one: as `chancy.gates` makes it.
CREATE OR REPLACE FUNCTION {schema}.passes(task text, declared json, key text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    part record;
    keys integer;
    parked text;
    name text;
    gates json[] := '{}';
    turn integer;
BEGIN
    SELECT count(DISTINCT each.names::text) INTO keys FROM json_to_recordset(declared) AS each (names json)
    WHERE json_typeof(each.names) = 'array';
    IF keys > 1 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('task %s has limits or a group with different keys, and here is one: submit it from Python', task);
    ELSIF keys = 1 AND key IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('task %s declares a limit or a group with a key: give concurrency_key', task),
            HINT = 'It is the text, or the JSON, that the key function of the task would return.';
    ELSIF keys = 0 AND key IS NOT NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('no worker knows of a limit or a group with a key of task %s: leave concurrency_key out', task);
    ELSIF octet_length(key) > 400 THEN
        RAISE string_data_right_truncation USING MESSAGE = 'a concurrency_key has at most 400 bytes';
    END IF;
    IF declared IS NULL THEN
        RETURN NULL;
    END IF;
    FOR part IN SELECT * FROM json_to_recordset(declared)
        AS each (start text, names json, most integer, per double precision)
    LOOP
        name := part.start;
        IF json_typeof(part.names) = 'array' THEN
            name := name || replace(key, E'\x1f', ' ') || ')';
        END IF;
        parked := concat_ws(E'\x1f', parked, name);
        IF part.most IS NULL THEN
            turn := length(parked);
        ELSE
            gates := gates || json_strip_nulls(
                json_build_object('name', name, 'most', part.most, 'to', length(parked), 'per', part.per));
        END IF;
    END LOOP;
    IF octet_length(parked) > 2000 THEN
        RAISE string_data_right_truncation USING
            MESSAGE = format('task %s has limits and a group whose names have more than 2000 bytes with this key', task);
    END IF;
    RETURN json_strip_nulls(json_build_object('key', parked, 'gates', array_to_json(gates), 'turn', turn));
END
$$;

-- Adds one job: a single submit of a client, which has checked all of it. As a function it keeps its plan on connections
-- where drivers cannot prepare, and behind a pooler. It says [id, transaction, instant in UTC] as one text, since to give
-- back a row of three columns costs a fifth of the whole. It does not set the path, which would cost something, too, and
-- would be that of the triggers that others have on the table: it names the schema of all that it uses.
CREATE OR REPLACE FUNCTION {schema}.insert_job(
    task text,
    queue text,
    priority smallint,
    max_attempts smallint,
    run_at timestamptz,
    delay interval,
    arguments json,
    retry json,
    limits json,
    gates json,
    meta json
) RETURNS text
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
DECLARE
    made pg_catalog.text;
    rung pg_catalog.text;
BEGIN
    INSERT INTO {schema}.job AS job
        (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits, gates, parked,
         meta)
    VALUES (insert_job.task, insert_job.queue, insert_job.priority, 'ready', insert_job.max_attempts,
        coalesce(insert_job.run_at, {schema}.clock() OPERATOR(pg_catalog.+) insert_job.delay, {schema}.clock()),
        {schema}.clock(), insert_job.arguments, insert_job.retry, insert_job.limits, insert_job.gates,
        insert_job.gates OPERATOR(pg_catalog.->>) 'key'::pg_catalog.text, insert_job.meta)
    RETURNING pg_catalog.json_build_array(
            job.id, pg_catalog.pg_current_xact_id(), job.submitted_at AT TIME ZONE 'UTC')::pg_catalog.text,
        {schema}.ring(job.queue)::pg_catalog.text
    INTO made, rung;
    RETURN made;
END
$$;

-- For triggers, psql and other languages: adds one job in the caller's transaction and returns its id; or, of a key that
-- a live job has, that job's. What is not given, or null, is as the task declares it, as the last worker that knew it has
-- written down, and else as `@task` has it by default. A task that declares keys is refused without them.
CREATE OR REPLACE FUNCTION {schema}.submit(
    task text,
    arguments json DEFAULT '{}',
    queue text DEFAULT NULL,
    priority integer DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    unique_key text DEFAULT NULL,
    unique_until text DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    meta json DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    declared record;
    gates json;
    wrong text;
BEGIN
    SELECT * INTO declared FROM {schema}.task WHERE name = submit.task;
    submit.queue := coalesce(submit.queue, declared.queue, 'default');
    submit.priority := coalesce(submit.priority, declared.priority, 0);
    submit.max_attempts := coalesce(submit.max_attempts, declared.max_attempts, 3);
    -- What its row or an index could not hold, or no worker read; `Options` says the same in Python.
    wrong := CASE
        WHEN (octet_length(submit.task) BETWEEN 1 AND 500) IS NOT TRUE
            THEN format('a task has a name of 1 to 500 bytes, got %L', left(submit.task, 100))
        WHEN octet_length(submit.queue) NOT BETWEEN 1 AND 500
            THEN format('a queue has a name of 1 to 500 bytes, got %L', left(submit.queue, 100))
        WHEN submit.priority NOT BETWEEN -100 AND 100
            THEN format('priority is from -100 to 100, got %s', submit.priority)
        WHEN submit.max_attempts NOT BETWEEN 1 AND 32767
            THEN format('max_attempts is from 1 to 32767 (the first one counts), got %s', submit.max_attempts)
        WHEN submit.run_at NOT BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-31 00:00:00+00'
            THEN format('run_at is an instant in the years 1 to 9999, got %s: leave it out for "as soon as possible"; '
                'to hold jobs back, pause their queue or their task', submit.run_at)
        WHEN json_typeof(submit.arguments) IS DISTINCT FROM 'object'
            THEN format('arguments is a JSON object, each argument by its name, got %s',
                coalesce('a JSON ' || json_typeof(submit.arguments), 'null'))
        WHEN octet_length(submit.arguments::text) > 16777216
            THEN format('arguments has at most 16777216 bytes, got %s: store them elsewhere and pass where they are',
                octet_length(submit.arguments::text))
        WHEN json_typeof(submit.meta) <> 'object'
            THEN format('meta is a JSON object, got a JSON %s', json_typeof(submit.meta))
        WHEN octet_length(submit.meta::text) > 4096
            THEN format('meta has at most 4096 bytes, got %s: it comes with each claim', octet_length(submit.meta::text))
    END;
    IF wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = wrong;
    END IF;
    gates := {schema}.passes(submit.task, declared.gates, submit.concurrency_key);
    IF submit.unique_key IS NULL THEN
        IF declared.unique_until IS NOT NULL THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('task %s declares its jobs unique: give unique_key', submit.task),
                HINT = 'It is the text, or the JSON, that the key function of the task would return.';
        ELSIF submit.unique_until IS NOT NULL THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('unique_until is about a unique_key, got %L without one', submit.unique_until);
        END IF;
        RETURN {schema}.insert_job(
            submit.task, submit.queue, submit.priority::smallint, submit.max_attempts::smallint, submit.run_at, NULL,
            submit.arguments, NULL, NULL, gates, submit.meta)::json->>0;
    END IF;
    IF octet_length(submit.unique_key) > 400 THEN
        RAISE string_data_right_truncation USING MESSAGE = 'a unique_key has at most 400 bytes';
    ELSIF submit.unique_until NOT IN ('started', 'finished') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('unique_until is ''started'' or ''finished'', got %L', submit.unique_until);
    END IF;
    IF declared.names IS NOT NULL THEN -- a job goes under the name of its task under which its key is held, and finds it
        submit.task := coalesce(
            (SELECT held.task FROM {schema}.unique_window AS held
             WHERE held.task IN (SELECT json_array_elements_text(declared.names)) AND held.key = submit.unique_key
                AND declared.unique_within IS NOT NULL AND held.expires_at > {schema}.clock()
             ORDER BY held.task LIMIT 1),
            (SELECT holder.task FROM {schema}.job AS holder
             WHERE holder.task IN (SELECT json_array_elements_text(declared.names))
                AND holder.unique_key = submit.unique_key
                AND (holder.claims = 0 OR holder.unique_until = 'finished')
             ORDER BY holder.task LIMIT 1),
            submit.task);
    END IF;
    RETURN (SELECT id FROM {schema}.submit_unique_one(ROW(
        1, nextval('{schema}.job_id_seq'), submit.task, submit.queue, submit.priority, submit.max_attempts,
        submit.run_at, NULL, submit.arguments, NULL, NULL, gates, submit.unique_key,
        coalesce(submit.unique_until, declared.unique_until, 'finished'), declared.unique_within,
        coalesce(declared.unique_on_conflict, 'existing'), submit.meta)::{schema}.submission));
END
$$;
