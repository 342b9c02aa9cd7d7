-- Whoever may create functions in a schema of the caller's `search_path` must not get his own called in here. So a
-- function pins the path; one that is inlined, which a setting would prevent, names each function's schema.

-- Every instant in Chancy's SQL comes from here. It is inlined and costs nothing; a test's clock replaces it.
CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT pg_catalog.now() $$;

-- Any job, live or finished. The two halves have the same types: else no condition would reach the indexes below. (A
-- result of None is JSON's null, so where there is none, it is kept elsewhere, or was.)
CREATE OR REPLACE VIEW {schema}.any_job AS
    SELECT id, task, queue, priority,
        CASE WHEN state = 'ready' AND run_at > {schema}.clock() THEN 'scheduled' ELSE state END AS state,
        attempt, max_attempts::smallint, claims, crashes, worker, run_at::timestamptz, submitted_at, started_at,
        NULL::timestamptz AS finished_at, arguments::json, retry, limits, NULL::json AS result, errors, cancel_at, progress,
        unique_key, batch, meta::json, needs, becomes
    FROM {schema}.job
    UNION ALL
    SELECT id, task, queue, priority, state,
        attempt, max_attempts, claims, crashes, worker, run_at, submitted_at, started_at,
        finished_at, arguments, retry, limits,
        CASE WHEN past.result IS NULL AND state = 'succeeded' THEN (
            SELECT apart.result FROM {schema}.history_result AS apart
            WHERE apart.id = past.id AND apart.finished_at = past.finished_at
        ) ELSE past.result END, errors, NULL, NULL,
        unique_key, batch, meta, needs, becomes
    FROM {schema}.history AS past;

-- The errors of a job with one more, the newest ten. (json and not jsonb: a message may hold a NUL.) What is no list is
-- no errors: it must not keep a worker from being rescued from.
CREATE OR REPLACE FUNCTION {schema}.with_error(errors json, error json) RETURNS json
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT json_agg(value ORDER BY position)
    FROM (
        SELECT value, position
        FROM (
            SELECT value, position FROM json_array_elements(
                CASE json_typeof(errors) WHEN 'array' THEN errors ELSE '[]' END) WITH ORDINALITY AS old (value, position)
            UNION ALL SELECT error, 1000
        ) AS every
        ORDER BY position DESC
        LIMIT 10
    ) AS newest
$$;

-- What the last of these errors says in a field, at most 2,000 characters of it; NULL if nothing. Looked for in the text of
-- the JSON, since Postgres refuses to look into one that has a NUL anywhere; in a message each quote has a backslash before
-- it. What is escaped stays so. Workers write "kind":"X", and this database "kind" : "X"; each error begins with its attempt.
CREATE OR REPLACE FUNCTION {schema}.of_last_error(errors json, field text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT substring(left(ltrim(CASE WHEN length(compact) < length(spaced) THEN compact ELSE spaced END), 2001)
        FROM E'^"((?:[^"\\\\]|\\\\.)*)') -- whatever standard_conforming_strings is
    FROM (SELECT split_part(errors::text, '{"attempt"', -1) AS said) AS last
    CROSS JOIN LATERAL (
        SELECT split_part(said, '"' || field || '":', -1) AS compact, split_part(said, '"' || field || '" :', -1) AS spaced
    ) AS after
    WHERE strpos(said, '"' || field || '"') > 0
$$;

-- What a worker makes of the same (`chancy_worker.fingerprint`); the message is an outline already.
CREATE OR REPLACE FUNCTION {schema}.fingerprint(kind text, place text, outline text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT left(encode(sha256(convert_to(concat_ws(chr(10), kind, place, outline), 'UTF8')), 'hex'), 12)
$$;
