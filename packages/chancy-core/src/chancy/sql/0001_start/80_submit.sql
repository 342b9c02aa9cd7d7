-- `chancy.submit` for triggers, psql and other languages.

-- What tasks declare in Python, under each of their names; written by each worker that starts.
CREATE TABLE {schema}.task (
    name text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 500),
    queue text,
    priority smallint,
    max_attempts smallint,
    gates json,
    unique_until text,
    unique_within interval,
    unique_on_conflict text,
    names json, -- all its names, if there are several
    secrets json -- where its arguments and its result have what nobody is shown
);
