-- Where a user stood at the end of each day on which their rating had changed; the reconciliation job writes it.
-- No foreign key: its check would lock users, and so make those wait who rate them. Whoever writes a row shuts
-- deletions out instead, and looks whether the user is still the same (docs/decisions/0011-rating-history.md).
-- Every run writes the rows of the present day anew. With half of each page left free the new ones find room beside the
-- old ones, and no index is touched; of what is dead all the same a fiftieth is enough to be vacuumed.
CREATE TABLE rating_history (
    day      date NOT NULL,
    rank     integer NOT NULL,
    position integer NOT NULL,
    rating   smallint NOT NULL,
    user_id  text COLLATE "C" NOT NULL,
    CONSTRAINT rating_history_pkey PRIMARY KEY (user_id, day)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
-- For whoever removes what is older than 400 days.
CREATE INDEX idx_rating_history_day ON rating_history (day);

-- Which snapshot the rows of a day are of, once all of them are written, and how long that took. A user who is changed
-- afterwards is not visible in it.
CREATE TABLE rating_snapshots (
    day      date NOT NULL,
    taken_at timestamptz NOT NULL,
    seconds  real NOT NULL,
    snapshot pg_snapshot NOT NULL,
    source   text NOT NULL,
    CONSTRAINT rating_snapshots_pkey PRIMARY KEY (day)
);

-- As before; and a user's history goes with them. The lock comes first: a DELETE sees what was committed when it
-- begins, so rows that are being written to the history at this moment are waited for, and none come after it.
CREATE OR REPLACE FUNCTION users_bury() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_tombstones (id, version, xact)
    VALUES (OLD.id, nextval('users_version_seq'), pg_current_xact_id())
    ON CONFLICT (id) DO UPDATE
        SET version = EXCLUDED.version, xact = EXCLUDED.xact, deleted_at = EXCLUDED.deleted_at;
    -- "Ladder", 4, as in service/store/rating_history.py
    PERFORM pg_advisory_xact_lock_shared(x'4C61646465720004'::bigint);
    DELETE FROM rating_history WHERE user_id = OLD.id;
    RETURN NULL;
END $$;
