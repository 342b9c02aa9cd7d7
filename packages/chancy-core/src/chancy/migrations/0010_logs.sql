-- What jobs have logged, of the tasks that ask for it. Append only.

CREATE TABLE {schema}.log (
    job bigint NOT NULL,
    attempt smallint NOT NULL,
    n integer NOT NULL,  -- rises within an attempt
    at timestamptz NOT NULL,
    entry json NOT NULL, -- and not jsonb: what a handler says may hold a NUL
    PRIMARY KEY (job, attempt, n, at)
);
