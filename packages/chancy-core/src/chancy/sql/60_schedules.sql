-- Moves a schedule on to `next_at` and submits the jobs of its ticks, if it still is at this revision; says whether it
-- was. Unless overlaps are `allowed`, not while the job of its last tick is live. So a tick has its jobs once, and who dies
-- has done both or nothing. A row that somebody else holds is passed by.
CREATE OR REPLACE FUNCTION {schema}.tick(
    name text, revision bigint, next_at timestamptz, note text, allowed boolean, jobs {schema}.submission[],
    OUT moved boolean, OUT skipped text
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    former bigint;
    latest {schema}.submission;
    made record;
    job bigint;
BEGIN
    SELECT last_job INTO former FROM {schema}.schedule
    WHERE name = tick.name AND revision = tick.revision
    FOR UPDATE SKIP LOCKED;
    moved := FOUND;
    IF NOT moved THEN
        RETURN;
    END IF;
    IF cardinality(jobs) > 0 THEN
        latest := jobs[cardinality(jobs)];
        IF NOT allowed AND EXISTS (SELECT FROM {schema}.job WHERE id = former) THEN
            skipped := format('got no job, because job %s of the tick before was not finished', former);
        ELSE
            SELECT ids, outcomes INTO made FROM {schema}.submit_unique(jobs);
            job := made.ids[latest.position];
            IF made.outcomes[latest.position] IS DISTINCT FROM 'inserted' THEN
                skipped := format('got no new job, because of a unique key that job %s has (%s)', job,
                    made.outcomes[latest.position]);
            END IF;
        END IF;
        skipped := format('the tick of %s UTC ', to_char(latest.run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
            || skipped;
    END IF;
    UPDATE {schema}.schedule
    SET next_at = tick.next_at, revision = DEFAULT, paused_until = NULL, note = coalesce(skipped, tick.note, note),
        last_at = CASE WHEN job IS NULL THEN last_at ELSE latest.run_at END, last_job = coalesce(job, last_job)
    WHERE name = tick.name;
END
$$;
