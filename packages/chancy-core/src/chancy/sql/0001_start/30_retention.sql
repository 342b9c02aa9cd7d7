-- How long finished jobs are kept: by queue and by how they ended, whole days, one table for each number of days.

-- 0 days leave no row. What is not here follows the schema's own retention, `setting`.
CREATE TABLE {schema}.retention (
    queue text,
    what text CHECK (what IN ('succeeded', 'failed', 'discarded', 'cancelled', 'results')),
    days smallint NOT NULL CHECK (days >= 0),
    PRIMARY KEY (queue, what)
);
