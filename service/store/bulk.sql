-- Every statement of a bulk import. Each finds its rows by index: a chunk is small, the table of any size.

-- name: open
-- What this import has taken so far, so that no user and no name is taken twice; gone with the session.
CREATE TEMPORARY TABLE taken (line bigint NOT NULL, id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL);
CREATE INDEX ON taken (id);
CREATE INDEX ON taken (name);

-- name: open_kept
-- The same for an import that can be resumed: what is kept of its list.
CREATE TEMPORARY VIEW taken AS SELECT line, id, name FROM import_lines WHERE list = {list}::bytea;

-- name: patient
-- Wait longer for the next lock of this transaction.
SET LOCAL lock_timeout = '10s';

-- name: own
-- Let this session alone import a list.
SELECT pg_advisory_lock(%(key)s);

-- name: try_own
-- The same, if nobody has it.
SELECT pg_try_advisory_lock(%(key)s);

-- name: disown
-- Let others import a list again.
SELECT pg_advisory_unlock(%(key)s);

-- name: release
-- Give up every lock of this session.
SELECT pg_advisory_unlock_all();

-- name: expire
-- Let a list be as stale as one can be.
UPDATE imports SET touched_at = '-infinity' WHERE list = %(list)s;

-- name: stale
-- Lists that nobody has gone on with for a week: too much may have happened to their users since.
SELECT list FROM imports WHERE touched_at < clock_timestamp() - interval '7 days';

-- name: is_stale
-- Whether a list is one of them.
SELECT EXISTS (SELECT FROM imports WHERE list = %(list)s AND touched_at < clock_timestamp() - interval '7 days');

-- name: forget_lines
-- Forget some of what was noted of a list: all at once could take longer than a statement may.
DELETE FROM import_lines
WHERE ctid = ANY(ARRAY(SELECT ctid FROM import_lines WHERE list = %(list)s LIMIT %(limit)s));

-- name: forget
-- Forget how far a list was taken.
DELETE FROM imports WHERE list = %(list)s;

-- name: begin
-- How far a list was taken.
SELECT line, created, updated, unchanged, refused, rejects, deferred FROM imports WHERE list = %(list)s;

-- name: keep
-- Note how far a list is taken.
INSERT INTO imports (list, line, created, updated, unchanged, refused, rejects, deferred)
VALUES (%(list)s, %(line)s, %(created)s, %(updated)s, %(unchanged)s, %(refused)s, %(rejects)s, %(deferred)s::bigint[])
ON CONFLICT (list) DO UPDATE
SET line = EXCLUDED.line, created = EXCLUDED.created, updated = EXCLUDED.updated, unchanged = EXCLUDED.unchanged,
    refused = EXCLUDED.refused, rejects = EXCLUDED.rejects, deferred = EXCLUDED.deferred, touched_at = EXCLUDED.touched_at;

-- name: has_schema
-- Whether the database has been migrated.
SELECT to_regclass('users') IS NOT NULL;

-- name: no_users
-- In the place of a schema that is not there yet: nobody.
CREATE TEMPORARY TABLE users (id text COLLATE "C", username text COLLATE "C", rating integer);

-- name: present
-- The users as an import sees them.
CREATE TEMPORARY VIEW present AS SELECT id, username, rating FROM users;

-- name: present_dry
-- The users as a dry run sees them: those it would have changed by now are as gone as their old names.
CREATE TEMPORARY VIEW present AS
SELECT id, username, rating FROM users u WHERE NOT EXISTS (SELECT FROM taken WHERE taken.id = u.id);

-- name: any_user
-- Whether there is a user at all.
SELECT EXISTS (SELECT FROM users);

-- name: known
-- Who has one of these ids or lower-case names: users, then what was taken before (with its line).
SELECT NULL::bigint, id, username, rating FROM present WHERE id = ANY(%(ids)s::text[])
UNION ALL
SELECT NULL::bigint, id, username, rating FROM present WHERE lower(username) = ANY(%(names)s::text[])
UNION ALL
SELECT line, id, name, NULL FROM taken WHERE id = ANY(%(taken_ids)s::text[])
UNION ALL
SELECT line, id, name, NULL FROM taken WHERE name = ANY(%(taken_names)s::text[]);

-- name: hold
-- Lock users in id order, as the service's own batches do, so that neither can deadlock with the other.
SELECT FROM users WHERE id = ANY(%(ids)s::text[]) ORDER BY id FOR UPDATE;

-- name: rate
-- Set ratings; who has that rating already keeps the version.
UPDATE users u SET rating = asked.rating
FROM unnest(%(ids)s::text[], %(ratings)s::int[]) AS asked (id, rating)
WHERE u.id = asked.id AND u.rating <> asked.rating;

-- name: park
-- Give users a name that no other user has, until the end of this transaction frees the one they are to get.
UPDATE users SET username = 'parked.' || left(replace(gen_random_uuid()::text, '-', ''), 24) WHERE id = ANY(%(ids)s::text[]);

-- name: rename
-- Set one user's name and rating.
UPDATE users SET username = %(username)s, rating = %(rating)s
WHERE id = %(id)s AND (username, rating) IS DISTINCT FROM (%(username)s, %(rating)s);

-- name: create
-- New users, row by row from the client.
COPY users (id, username, rating) FROM STDIN;

-- name: note
-- What a chunk has taken, row by row from the client.
COPY taken (line, id, name) FROM STDIN;

-- name: note_kept
-- The same, kept with the list.
COPY import_lines (list, line, id, name) FROM STDIN;
