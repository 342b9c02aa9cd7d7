-- How long finished jobs are kept: by queue and by how they ended, whole days, one table for each number of days.

-- 0 days leave no row. What is not here follows the schema's own retention, `setting`.
CREATE TABLE {schema}.retention (
    queue text CHECK (octet_length(queue) BETWEEN 1 AND 500),
    what text CHECK (what IN ('succeeded', 'failed', 'discarded', 'cancelled', 'results')),
    days smallint NOT NULL CHECK (days BETWEEN 0 AND 3650),
    PRIMARY KEY (queue, what)
);
