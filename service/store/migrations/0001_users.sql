-- The system of record. `version` is the fence: a copy of a user with a higher version is newer, everywhere.
-- `xact` is the watermark: the mirror's tailer reads what transactions below the snapshot's horizon committed.

-- CACHE must stay 1: a version is drawn while the row's lock is held, so per row it can only grow.
CREATE SEQUENCE users_version_seq AS bigint CACHE 1;

CREATE TABLE users (
    id         text COLLATE "C" NOT NULL,
    username   text COLLATE "C" NOT NULL,
    rating     integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version    bigint NOT NULL DEFAULT 0,
    xact       xid8 NOT NULL DEFAULT '0',
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_id_check CHECK (id ~ '^[A-Za-z0-9_.:-]{1,64}$' AND id <> 'search'),
    CONSTRAINT users_username_check CHECK (username ~ '^[A-Za-z0-9_.-]{3,32}$'),
    CONSTRAINT users_rating_check CHECK (rating BETWEEN 100 AND 5000)
);

-- Uniqueness without regard to case, and prefix search: both by bytes of the lower-case name.
CREATE UNIQUE INDEX idx_users_username_lower ON users (lower(username));
-- The board's order, for pages.
CREATE INDEX idx_users_rating_username ON users (rating DESC, username);
-- For counts. Not made redundant by the one above: equal ratings share one entry, so it is a tenth of the
-- size and counts four times faster (docs/decisions/0003-two-rating-indexes.md).
CREATE INDEX idx_users_rating ON users (rating DESC);
-- The tailer's walk.
CREATE INDEX idx_users_xact ON users (xact, id);

-- What was deleted, so that a deletion reaches the mirror like any other change.
CREATE TABLE user_tombstones (
    id         text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    xact       xid8 NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_tombstones_pkey PRIMARY KEY (id)
);
CREATE INDEX idx_user_tombstones_xact ON user_tombstones (xact, id);

-- Triggers, not the application's SQL, so that an UPDATE typed by hand is mirrored too.
CREATE FUNCTION users_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := nextval('users_version_seq');
    NEW.xact := pg_current_xact_id();
    NEW.updated_at := CASE WHEN TG_OP = 'INSERT' THEN NEW.created_at ELSE clock_timestamp() END;
    RETURN NEW;
END $$;
CREATE TRIGGER users_stamp BEFORE INSERT OR UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION users_stamp();

-- An id may be deleted, created and deleted again: the newest tombstone counts.
CREATE FUNCTION users_bury() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_tombstones (id, version, xact)
    VALUES (OLD.id, nextval('users_version_seq'), pg_current_xact_id())
    ON CONFLICT (id) DO UPDATE
        SET version = EXCLUDED.version, xact = EXCLUDED.xact, deleted_at = EXCLUDED.deleted_at;
    RETURN NULL;
END $$;
CREATE TRIGGER users_bury AFTER DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION users_bury();

-- A changed id is two users to the mirror: one gone, one new. TRUNCATE fires no row trigger at all.
CREATE FUNCTION users_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_ARGV[0];
END $$;
CREATE TRIGGER users_keep_id BEFORE UPDATE OF id ON users
    FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id)
    EXECUTE FUNCTION users_refuse('an id never changes: delete the user and create another');
CREATE TRIGGER users_no_truncate BEFORE TRUNCATE ON users
    FOR EACH STATEMENT EXECUTE FUNCTION users_refuse('use DELETE: TRUNCATE would not reach the mirror');

-- Secrets derived once per database, so that every process accepts every other's cursors.
CREATE TABLE secrets (
    name text PRIMARY KEY,
    key  bytea NOT NULL
);
INSERT INTO secrets VALUES
    ('cursor', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
