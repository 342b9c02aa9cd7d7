-- For how many days to keep a job that has ended so, and its result; 0 is the schema's own retention, or of a result that
-- of its job; NULL leaves none. Asked only where there are any rules.
CREATE OR REPLACE FUNCTION {schema}.keep_days(queue text, state text) RETURNS smallint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    rule record;
    kept smallint[] := ARRAY[0, 0];
BEGIN
    FOR rule IN
        SELECT what, days FROM {schema}.retention
        WHERE queue = keep_days.queue AND what IN (keep_days.state, 'results')
    LOOP
        kept[CASE rule.what WHEN 'results' THEN 2 ELSE 1 END] := nullif(rule.days, 0);
    END LOOP;
    RETURN kept;
END
$$;

-- Makes the part of `history` or `history_result` for so many days, and returns its name.
CREATE OR REPLACE FUNCTION {schema}.make_class(parent text, days smallint) RETURNS text
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    name text := format('%s_%sd', parent, days);
BEGIN
    IF to_regclass('{schema}.' || name) IS NULL THEN
        PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, 0);
        EXECUTE format('LOCK TABLE ONLY {schema}.%I IN SHARE UPDATE EXCLUSIVE MODE', parent); -- see make_day
    END IF;
    IF to_regclass('{schema}.' || name) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE {schema}.%I (
                LIKE {schema}.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES, PRIMARY KEY (id, finished_at)
            ) PARTITION BY RANGE (finished_at)', name, parent);
        EXECUTE format('ALTER TABLE {schema}.%I ATTACH PARTITION {schema}.%I FOR VALUES IN (%s)', parent, name, days);
    END IF;
    RETURN name;
END
$$;

-- Makes the day (UTC) of a table whose parts are days, with the same indexes; returns 1, or 0 where there is one.
-- ATTACH and not PARTITION OF: that would lock the table exclusively and wait behind every open reader.
CREATE OR REPLACE FUNCTION {schema}.make_day(parent text, prefix text, day date) RETURNS integer
    LANGUAGE plpgsql
    -- What is written as text is read again by the same rules, whatever those of the session are.
    SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    name text := prefix || to_char(day::timestamp, '_YYYYMMDD');
    since timestamptz := day::timestamp AT TIME ZONE 'UTC';
    until timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    instant text;
BEGIN
    IF to_regclass('{schema}.' || name) IS NOT NULL THEN
        RETURN 0;
    END IF;
    -- One process at a time; whoever waited looks again. The lock of a table, which ATTACH takes anyway, is what makes a
    -- session hear of the tables that others have made: without it the second look is answered as the first one was.
    PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, 0);
    EXECUTE format('LOCK TABLE ONLY {schema}.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    IF to_regclass('{schema}.' || name) IS NOT NULL THEN
        RETURN 0;
    END IF;
    SELECT attname INTO instant
    FROM pg_partitioned_table JOIN pg_attribute ON attrelid = partrelid AND attnum = partattrs[0]
    WHERE partrelid = ('{schema}.' || parent)::regclass;
    EXECUTE format(
        'CREATE TABLE {schema}.%I (LIKE {schema}.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,
            CONSTRAINT day CHECK (%3$I >= %4$L AND %3$I < %5$L))', name, parent, instant, since, until);
    EXECUTE format(
        'ALTER TABLE {schema}.%I ATTACH PARTITION {schema}.%I FOR VALUES FROM (%L) TO (%L)', parent, name, since, until);
    EXECUTE format('ALTER TABLE {schema}.%I DROP CONSTRAINT day', name);
    RETURN 1;
END
$$;

-- Makes what is missing of the given days (UTC), for every retention in use, and returns how many it made. With the
-- rights of its owner, as all that makes and drops days: a role that works or completes has to own nothing.
CREATE OR REPLACE FUNCTION {schema}.make_partitions(first_day date, last_day date) RETURNS integer
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET timezone = 'UTC'
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    made integer := 0;
    kept record;
    day date;
BEGIN
    IF last_day - first_day > 400 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'history is made for at most 400 days at once';
    END IF;
    FOR kept IN
        SELECT 'history_default' AS parent, 'history' AS prefix, NULL::smallint AS days
        UNION ALL SELECT 'log', 'log', NULL
        UNION ALL SELECT 'step', 'step', NULL
        UNION ALL (
            SELECT DISTINCT CASE rule.what WHEN 'results' THEN 'history_result' ELSE 'history' END AS parent, NULL, rule.days
            FROM {schema}.retention AS rule
            WHERE rule.days > 0
            ORDER BY 1, 3
        )
    LOOP
        IF kept.days IS NOT NULL THEN
            kept.parent := {schema}.make_class(kept.parent, kept.days);
        END IF;
        FOR day IN SELECT generate_series(first_day::timestamp, last_day::timestamp, interval '1 day')::date LOOP
            made := made + {schema}.make_day(kept.parent, coalesce(kept.prefix, kept.parent), day);
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;

-- Whether any job of this day of the history has a result that another one waits for.
CREATE OR REPLACE FUNCTION {schema}.is_needed(day text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    found boolean := false;
BEGIN
    IF day LIKE 'history%' AND EXISTS (SELECT FROM {schema}.need) THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM {schema}.need AS need JOIN {schema}.%I AS past ON past.id = need.needs
            WHERE need.doomed_at IS NULL)', day) INTO found;
    END IF;
    RETURN found;
END
$$;

-- The days of history, results, logs and steps, and whether each may go because its whole day has been older than its
-- retention for so long: the name of a day says the retention where it is not the schema's own, and logs and steps stay as
-- long as any job may; a day that is needed stays. Some may be half detached, some not yet dropped.
CREATE OR REPLACE FUNCTION {schema}.kept_days(
    grace interval, OUT name text, OUT parent text, OUT detaching boolean, OUT over boolean
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT days.name, days.parent, days.detaching, CASE WHEN days.over THEN NOT {schema}.is_needed(days.name) ELSE false END
    FROM (SELECT child.relname::text AS name, parent.relname::text AS parent,
        coalesce(link.inhdetachpending, false) AS detaching, to_date(right(child.relname, 8), 'YYYYMMDD') + 1
            <= ({schema}.clock() AT TIME ZONE 'UTC') - kept_days.grace - CASE
                WHEN child.relname ~ '^(log|step)_' THEN greatest(setting.keep, (
                    SELECT max(rule.days) FROM {schema}.retention AS rule) * interval '1 day')
                ELSE coalesce(substring(child.relname FROM '_([0-9]+)d_')::integer * interval '1 day', setting.keep) END AS over
    FROM (SELECT value::interval AS keep FROM {schema}.setting AS setting WHERE setting.name = 'keep') AS setting
    CROSS JOIN pg_class AS child
    LEFT JOIN pg_inherits AS link ON link.inhrelid = child.oid
    LEFT JOIN pg_class AS parent ON parent.oid = link.inhparent
    WHERE child.relnamespace = '{schema}'::regnamespace AND child.relkind = 'r'
        AND child.relname ~ '^(history(_result)?(_[0-9]+d)?|log|step)_[0-9]{8}$') AS days
    ORDER BY days.name
$$;

-- Sets the rules of these queues to those given, and makes what they need, so that nobody sees a rule without the tables
-- that it names. One process at a time; a worker that starts and changes nothing waits for nobody.
CREATE OR REPLACE FUNCTION {schema}.keep_queues(queues text[], rule_queues text[], whats text[], days smallint[]) RETURNS void
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '5s'
    AS $$
BEGIN
    IF NOT EXISTS (
        (SELECT rule.queue, rule.what, rule.days FROM {schema}.retention AS rule WHERE rule.queue = ANY (queues)
         EXCEPT SELECT * FROM unnest(rule_queues, whats, keep_queues.days))
        UNION ALL
        (SELECT * FROM unnest(rule_queues, whats, keep_queues.days)
         EXCEPT SELECT rule.queue, rule.what, rule.days FROM {schema}.retention AS rule)
    ) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, 0);
    DELETE FROM {schema}.retention AS rule WHERE rule.queue = ANY (queues);
    INSERT INTO {schema}.retention (queue, what, days) SELECT * FROM unnest(rule_queues, whats, keep_queues.days);
    PERFORM {schema}.make_partitions(
        ({schema}.clock() AT TIME ZONE 'UTC')::date, ({schema}.clock() AT TIME ZONE 'UTC')::date + 7);
END
$$;

-- Drops a day that is over and whose retention is over, one process at a time, and says whether it did. Raises
-- lock_not_available when a reader is in the way. One of steps has to be carried before (75_steps).
CREATE OR REPLACE FUNCTION {schema}.drop_day(day text) RETURNS boolean
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '100ms' -- as long as a round waits for a row: behind this lock every completion has to queue
    AS $$
DECLARE
    needed boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -1)
        OR NOT EXISTS (SELECT FROM {schema}.kept_days('0') AS kept WHERE kept.name = drop_day.day AND kept.over) THEN
        RETURN false;
    END IF;
    IF day ~ '^step_' THEN
        EXECUTE format(
            'SELECT EXISTS (SELECT FROM {schema}.%I AS step WHERE EXISTS (SELECT FROM {schema}.any_job WHERE id = step.job))',
            day) INTO needed;
        IF needed THEN
            RETURN false;
        END IF;
    END IF;
    EXECUTE format('DROP TABLE {schema}.%I', day);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION {schema}.make_partitions(date, date), {schema}.drop_day(text),
    {schema}.keep_queues(text[], text[], text[], smallint[]) FROM PUBLIC;
