-- `chancy.submit` for triggers, psql and other languages.

-- What tasks declare in Python; written by each worker that starts.
CREATE TABLE {schema}.task (
    name text PRIMARY KEY,
    gates json,
    unique_until text,
    unique_within interval
);
