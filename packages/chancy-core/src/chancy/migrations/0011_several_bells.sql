-- A worker of several queues is heard of at all their doorbells, also where another worker holds the key of one.

-- Takes whichever of the missing keys are free, and returns those. Where none is, waits in line for the first: at most
-- twice 0.9 s, below deadlock_timeout, because a waiter pins xmin. It used to wait for the first that was held, and left
-- those behind it to nobody: their jobs began with the fallback look.
CREATE OR REPLACE FUNCTION {schema}.bell_wait(missing integer[]) RETURNS integer[]
    LANGUAGE plpgsql
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
                RETURN ARRAY[missing[1]];
            EXCEPTION WHEN lock_not_available THEN NULL;
            END;
        END LOOP;
    END IF;
    RETURN got;
END
$$;
