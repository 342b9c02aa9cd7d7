-- Adds the job that a batch has asked for, told these counts.
CREATE OR REPLACE FUNCTION {schema}.call_back(callback json, counts json) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    new {schema}.submission := json_populate_record(NULL::{schema}.submission, callback);
    others text := callback->>'others'; -- `{}`, or with members
BEGIN
    new.position := 1;
    new.id := nextval('{schema}.job_id_seq');
    new.meta := callback->>'beside';
    new.arguments := concat('{', to_json(callback->>'argument'), ':', counts,
        CASE WHEN others <> '{}' THEN ',' END, substr(others, 2));
    PERFORM {schema}.submit_unique(ARRAY[new]);
END
$$;

-- Ends those of these batches of which no job is live, and adds the jobs that they have asked for in this transaction:
-- so once, whatever dies. Returns how many it has ended, and what went wrong with whom: a callback that no row can hold is
-- noted on its batch, which ends without it; a batch that fails otherwise is left for a later look. Either way the others
-- end.
-- A look that finds a live job takes no lock: whoever ends that job looks later. It begins at the witness, or it would
-- pass by the dead index entries of all who have finished. If there is none ahead, the batch is locked, behind whoever
-- is at it, and looked at from its begin, since a requeued job may be behind: each statement in here has a snapshot of
-- its own, so nothing that was committed meanwhile is missed.
CREATE OR REPLACE FUNCTION {schema}.finish_batches(ids bigint[], OUT ended integer, OUT troubles text[])
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off -- as in `submit_unique`
    AS $$
#variable_conflict use_column
DECLARE
    this record;
    counts record;
    told json;
    live bigint;
    callback record;
    refused text[];
BEGIN
    ended := 0;
    troubles := '{}';
    FOR this IN
        SELECT batch.id, batch.witness FROM {schema}.batch AS batch
        WHERE batch.id = ANY (finish_batches.ids) AND batch.finished_at IS NULL
        ORDER BY batch.id
    LOOP
        SELECT job.id INTO live FROM {schema}.job AS job
        WHERE job.batch = this.id AND job.id >= this.witness
        ORDER BY job.id LIMIT 1;
        IF live >= this.witness + 1000 THEN -- not each time: it is a write
            UPDATE {schema}.batch AS batch SET witness = live
            WHERE batch.id = (SELECT mine.id FROM {schema}.batch AS mine WHERE mine.id = this.id FOR UPDATE SKIP LOCKED);
        END IF;
        CONTINUE WHEN live IS NOT NULL;
        BEGIN
            SELECT * INTO this FROM {schema}.batch AS batch
            WHERE batch.id = this.id AND batch.finished_at IS NULL
            FOR UPDATE;
            CONTINUE WHEN NOT FOUND;
            SELECT job.id INTO live FROM {schema}.job AS job WHERE job.batch = this.id ORDER BY job.id LIMIT 1;
            IF live IS NOT NULL THEN
                UPDATE {schema}.batch AS batch SET witness = live WHERE batch.id = this.id;
                CONTINUE;
            END IF;
            SELECT count(*) FILTER (WHERE past.state = 'succeeded') AS succeeded,
                count(*) FILTER (WHERE past.state = 'failed') AS failed,
                count(*) FILTER (WHERE past.state = 'discarded') AS discarded,
                count(*) FILTER (WHERE past.state = 'cancelled') AS cancelled
            INTO counts FROM {schema}.history AS past WHERE past.batch = this.id;
            told := json_build_object('batch', this.id, 'total', this.total, 'succeeded', counts.succeeded,
                'failed', counts.failed, 'discarded', counts.discarded, 'cancelled', counts.cancelled);
            refused := '{}';
            FOR callback IN
                SELECT * FROM (VALUES ('on_success', this.on_success::json, counts.succeeded = this.total),
                    ('on_finished', this.on_finished::json, true)) AS given (name, job, due)
                WHERE job IS NOT NULL AND due
            LOOP
                BEGIN
                    PERFORM {schema}.call_back(callback.job, told);
                EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded
                    OR raise_exception
                THEN
                    refused := refused || format('its %s could not be submitted: %s', callback.name, left(SQLERRM, 500));
                END;
            END LOOP;
            UPDATE {schema}.batch AS batch
            SET finished_at = {schema}.clock(), note = nullif(array_to_string(refused, '; '), '')
            WHERE batch.id = this.id;
            ended := ended + 1;
            troubles := troubles || ARRAY(SELECT format('batch %s has ended, but %s', this.id, trouble)
                FROM unnest(refused) AS trouble);
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                NULL; -- somebody holds it, or the key of a unique callback: at a later look, and the others now
            WHEN OTHERS THEN
                troubles := troubles || format('batch %s could not be ended, and is looked at again: %s', this.id,
                    left(SQLERRM, 500));
        END;
    END LOOP;
END
$$;
