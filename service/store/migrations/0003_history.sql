-- Which history of this database gives out versions now. A promoted standby or a restored backup finds the place of
-- another one here: then it draws a name of its own, and its versions go on above all that were given out and lost.
CREATE TABLE history (
    single       boolean NOT NULL DEFAULT true CHECK (single),
    place        text NOT NULL,
    name         text NOT NULL,
    begins_after bigint NOT NULL,
    begun_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT history_pkey PRIMARY KEY (single)
);
-- A database that has users before it knows its history may be a restored one: it starts a new one. An empty one
-- has nothing to step over.
INSERT INTO history (place, name, begins_after)
SELECT 'unknown', '', last_value FROM users_version_seq WHERE is_called;
