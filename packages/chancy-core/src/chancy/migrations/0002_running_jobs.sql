-- A running job can be asked to stop, and says how far it is.

ALTER TABLE {schema}.job
    ADD COLUMN cancel_at timestamptz, -- when somebody asked for the end of the running attempt
    ADD COLUMN progress json;
-- What a heartbeat asks for: nothing, nearly always.
CREATE INDEX job_cancelling ON {schema}.job (worker) WHERE cancel_at IS NOT NULL;

CREATE OR REPLACE VIEW {schema}.any_job AS
    SELECT id, task, queue, priority,
        CASE WHEN state = 'ready' AND run_at > {schema}.clock() THEN 'scheduled' ELSE state END AS state,
        attempt, max_attempts, claims, crashes, worker, run_at, submitted_at, started_at,
        NULL::timestamptz AS finished_at, arguments, retry, limits, NULL::json AS result, errors, cancel_at, progress
    FROM {schema}.job
    UNION ALL
    SELECT id, task, queue, priority, state,
        attempt, max_attempts, claims, crashes, worker, run_at, submitted_at, started_at,
        finished_at, arguments, retry, limits, result, errors, NULL, NULL
    FROM {schema}.history;
