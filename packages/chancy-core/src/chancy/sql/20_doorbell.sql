-- The doorbell. An idle worker holds, or waits in line for, the exclusive session lock on its queues' keys;
-- who adds work tries each key shared, until commit, and notifies only where that fails. So nobody pays for a
-- notification while every worker is busy, and Postgres' own lock queue hands the key on when its holder dies.
CREATE OR REPLACE FUNCTION {schema}.bell_key(queue text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    -- 64 keys, so that a transaction that submits to thousands of queues cannot fill the lock table.
    AS $$ SELECT 1 + (pg_catalog.hashtext(queue) & 63) $$;

-- After `SET LOCAL chancy.quiet = on` nobody is told and no key is taken: a transaction that has notified cannot be
-- prepared, and one that is prepared would hold its key until its second phase.
CREATE OR REPLACE FUNCTION {schema}.ring(queue text) RETURNS void
    LANGUAGE sql
    -- As an expression it is inlined: nothing is called.
    AS $$
    SELECT CASE
        WHEN pg_catalog.current_setting('chancy.quiet', true) = 'on' THEN NULL
        WHEN NOT pg_catalog.pg_try_advisory_xact_lock_shared(
            '{schema}'::pg_catalog.regnamespace::pg_catalog.oid::integer, {schema}.bell_key(queue))
        THEN pg_catalog.pg_notify('{name}', pg_catalog.left(queue, 2000)) END
$$;

CREATE OR REPLACE FUNCTION {schema}.ring(queues text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    queue text;
BEGIN
    IF current_setting('chancy.quiet', true) = 'on' THEN
        RETURN;
    END IF;
    FOREACH queue IN ARRAY queues LOOP
        IF NOT pg_try_advisory_xact_lock_shared('{schema}'::regnamespace::oid::integer, {schema}.bell_key(queue)) THEN
            PERFORM pg_notify('{name}', left(queue, 2000));
        END IF;
    END LOOP;
END
$$;

-- Takes whichever of the missing keys are free, and returns those. Where none is, waits in line for the first: at most
-- twice 0.9 s, below deadlock_timeout, because a waiter pins xmin. It used to wait for the first that was held, and left
-- those behind it to nobody: their jobs began with the fallback look.
-- Whoever gets one takes those of the `others` that are free, too: who leaves a place gives up all at once.
CREATE OR REPLACE FUNCTION {schema}.bell_wait(missing integer[], others integer[] DEFAULT '{}') RETURNS integer[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '900ms'
    AS $$
DECLARE
    key integer;
    got integer[] := '{}';
BEGIN
    FOREACH key IN ARRAY missing LOOP
        IF pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, key) THEN
            got := got || key;
        END IF;
    END LOOP;
    IF got = '{}' THEN
        FOR try IN 1..2 LOOP
            BEGIN
                PERFORM pg_advisory_lock('{schema}'::regnamespace::oid::integer, missing[1]);
                got := ARRAY[missing[1]];
            EXCEPTION WHEN lock_not_available THEN
                -- In the very moment it may have been granted: then this session holds it, though nobody says so.
                -- Locks are counted, and one that is taken twice would be given up once.
                IF pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, missing[1]) THEN
                    PERFORM pg_advisory_unlock('{schema}'::regnamespace::oid::integer, missing[1]);
                    IF EXISTS (
                            SELECT FROM pg_locks AS mine
                            WHERE mine.locktype = 'advisory' AND mine.pid = pg_backend_pid() AND mine.granted
                                AND mine.classid = '{schema}'::regnamespace::oid
                                AND mine.objid = (missing[1]::bigint & 4294967295)::oid)
                        OR pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, missing[1])
                    THEN
                        got := ARRAY[missing[1]];
                    END IF;
                END IF;
            END;
            EXIT WHEN got <> '{}';
        END LOOP;
    END IF;
    IF got <> '{}' THEN
        FOREACH key IN ARRAY others LOOP
            IF pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, key) THEN
                got := got || key;
            END IF;
        END LOOP;
    END IF;
    RETURN got;
END
$$;
