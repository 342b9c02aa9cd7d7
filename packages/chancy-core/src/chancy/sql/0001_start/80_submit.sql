-- `chancy.submit` for triggers, psql and other languages.

-- What tasks declare in Python; written by each worker that starts.
CREATE TABLE {schema}.task (
    name text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 500),
    gates json,
    unique_until text,
    unique_within interval
);
