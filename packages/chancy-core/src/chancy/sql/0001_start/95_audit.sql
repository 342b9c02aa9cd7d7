-- Who did what: a row for each act of a person, written in the act's own transaction. Nothing reads it but people.

CREATE TABLE {schema}.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at {schema}.instant NOT NULL,
    who text NOT NULL,
    via text NOT NULL,       -- 'command', 'dashboard', 'django admin', or what else acts for somebody
    verb text NOT NULL,
    what {schema}.fields NOT NULL, -- whom it was done to, and how
    fits bigint,             -- of a sweep: how many fitted when it began
    changed bigint,          -- how many jobs, or things
    skipped bigint,          -- of a sweep, as the rest: jobs that it has come to and left as they were
    seen_at {schema}.instant,  -- when its last batch was committed
    stop_at {schema}.instant,  -- since when somebody wants it to stop
    done_at {schema}.instant,
    note text                -- why it ended before its end
) WITH (fillfactor = 70);
