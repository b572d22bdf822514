-- The statements of the ledger and the feed. Each is one round trip and sees one snapshot.
-- A user is always read as: id, username, rating, version, created_at, updated_at.

-- name: users
-- Users by id, in no order.
SELECT id, username, rating, version, created_at, updated_at
FROM users WHERE id = ANY(%(ids)s::text[]);

-- name: create
-- Insert the users whose id and name are free; the sort keeps two batches from waiting for each other. An insert of the same
-- id or name that is not committed yet is waited for as long as `patience` says: the sort reads its input to the end,
-- so that is set before the first insert.
INSERT INTO users (id, username, rating)
SELECT id, username, rating
FROM set_config('lock_timeout', %(patience)s, true) AS patience,
     unnest(%(ids)s::text[], %(usernames)s::text[], %(ratings)s::int[]) AS asked (id, username, rating)
ORDER BY lower(username), id
ON CONFLICT DO NOTHING
RETURNING id, username, rating, version, created_at, updated_at;

-- name: clashes
-- Which of these ids and lower-case names are taken.
SELECT id, lower(username)
FROM users WHERE id = ANY(%(ids)s::text[]) OR lower(username) = ANY(%(names)s::text[]);

-- name: rate
-- Lock the users in id order, so that two batches cannot deadlock; change the ratings that differ, are
-- within bounds, and whose version is one of the wanted (if any are). A relative rating is added to the one that
-- the lock protects. `wanted` holds an array of versions for each, as text: arrays of arrays are rectangular.
-- A row per known user: the old rating and version, then the user as it is now.
-- A user that another session has locked is waited for as long as `patience` says. Without it that user is skipped, so
-- that a batch waits for none: then there is a row without a rating, and nothing was changed.
WITH asked AS (
    SELECT * FROM unnest(%(ids)s::text[], %(ratings)s::bigint[], %(relative)s::boolean[], %(wanted)s::text[])
        AS a (id, rating, relative, wanted)
), free AS MATERIALIZED (
    SELECT id, username, rating, version, created_at, updated_at
    FROM users WHERE %(patience)s::text IS NULL AND id = ANY(%(ids)s::text[]) ORDER BY id FOR UPDATE SKIP LOCKED
), awaited AS MATERIALIZED (
    SELECT id, username, rating, version, created_at, updated_at
    FROM set_config('lock_timeout', %(patience)s::text, true) AS patience, users
    WHERE %(patience)s::text IS NOT NULL AND id = ANY(%(ids)s::text[]) ORDER BY id FOR UPDATE OF users
), held AS MATERIALIZED (
    SELECT * FROM free UNION ALL SELECT * FROM awaited
), due AS (
    SELECT held.id, asked.rating + CASE WHEN asked.relative THEN held.rating ELSE 0 END AS rating
    FROM held JOIN asked ON asked.id = held.id
    WHERE held.rating <> asked.rating + CASE WHEN asked.relative THEN held.rating ELSE 0 END
      AND (asked.wanted IS NULL OR held.version = ANY(asked.wanted::bigint[]))
), changed AS (
    UPDATE users u SET rating = due.rating
    FROM due WHERE u.id = due.id AND due.rating BETWEEN 100 AND 5000
    RETURNING u.id, u.rating, u.version, u.updated_at
), skipped AS (
    SELECT asked.id, (SELECT u.id FROM users u WHERE u.id = asked.id) AS known
    FROM asked LEFT JOIN held ON held.id = asked.id WHERE held.id IS NULL OFFSET 0
)
SELECT held.rating, held.version, held.id, held.username, coalesce(changed.rating, held.rating),
       coalesce(changed.version, held.version), held.created_at, coalesce(changed.updated_at, held.updated_at)
FROM held LEFT JOIN changed ON changed.id = held.id
UNION ALL
SELECT NULL, NULL, known, NULL, NULL, NULL, NULL, NULL FROM skipped WHERE known IS NOT NULL;

-- name: rename_patience
-- A creation may wait for our old name while we wait for the one it takes. We give way, before Postgres
-- looks for a deadlock and perhaps ends the creation, a batch of many.
SELECT set_config('lock_timeout', %(patience)s, true);

-- name: rename
-- Lock the user and change the name, if it differs and the version is one of the wanted (if any are). No row
-- without such a user, else the old version, and the user as it is now.
WITH held AS MATERIALIZED (
    SELECT id, username, rating, version, created_at, updated_at FROM users WHERE id = %(id)s FOR UPDATE
), changed AS (
    UPDATE users u SET username = %(username)s
    FROM held WHERE u.id = held.id AND held.username <> %(username)s
      AND (%(wanted)s::bigint[] IS NULL OR held.version = ANY(%(wanted)s::bigint[]))
    RETURNING u.id, u.username, u.version, u.updated_at
)
SELECT held.version, held.id, coalesce(changed.username, held.username), held.rating,
       coalesce(changed.version, held.version), held.created_at, coalesce(changed.updated_at, held.updated_at)
FROM held LEFT JOIN changed ON changed.id = held.id;

-- name: remove
-- Lock the users in id order and delete those whose version is one of the wanted (if any are). A row per known
-- user: the id, and whether they are gone; null for one who was skipped, as in `rate`.
WITH asked AS (
    SELECT * FROM unnest(%(ids)s::text[], %(wanted)s::text[]) AS a (id, wanted)
), free AS MATERIALIZED (
    SELECT id, version FROM users
    WHERE %(patience)s::text IS NULL AND id = ANY(%(ids)s::text[]) ORDER BY id FOR UPDATE SKIP LOCKED
), awaited AS MATERIALIZED (
    SELECT id, version FROM set_config('lock_timeout', %(patience)s::text, true) AS patience, users
    WHERE %(patience)s::text IS NOT NULL AND id = ANY(%(ids)s::text[]) ORDER BY id FOR UPDATE OF users
), held AS MATERIALIZED (
    SELECT * FROM free UNION ALL SELECT * FROM awaited
), gone AS (
    DELETE FROM users u USING held JOIN asked ON asked.id = held.id
    WHERE u.id = held.id AND (asked.wanted IS NULL OR held.version = ANY(asked.wanted::bigint[]))
    RETURNING u.id
), skipped AS (
    SELECT asked.id, (SELECT u.id FROM users u WHERE u.id = asked.id) AS known
    FROM asked LEFT JOIN held ON held.id = asked.id WHERE held.id IS NULL OFFSET 0
)
SELECT held.id, gone.id IS NOT NULL
FROM held LEFT JOIN gone ON gone.id = held.id
UNION ALL
SELECT known, NULL FROM skipped WHERE known IS NOT NULL;

-- name: tombstones
-- The versions that deletions drew; in the transaction that deleted, no statement before can see them.
SELECT id, version FROM user_tombstones WHERE id = ANY(%(ids)s::text[]);

-- name: claim
-- Take a key that nobody has used for a day. No row if somebody has: then theirs is locked, and committed.
-- That is waited for as long as `patience` says.
INSERT INTO idempotency_keys AS held (key, request)
SELECT %(key)s, %(request)s::bytea FROM set_config('lock_timeout', %(patience)s, true)
ON CONFLICT (key) DO UPDATE
SET request = EXCLUDED.request, outcome = NULL, settled = false, created_at = EXCLUDED.created_at
WHERE held.created_at < clock_timestamp() - interval '24 hours'
RETURNING key;

-- name: kept
-- What a key was used for, what came of it, and whether that was answered.
SELECT request, outcome, settled FROM idempotency_keys WHERE key = %(key)s;

-- name: keep
-- Note what came of a key, unless an answer was noted already.
UPDATE idempotency_keys SET outcome = %(outcome)s, settled = %(settled)s
WHERE key = %(key)s AND request = %(request)s AND NOT settled
RETURNING key;

-- name: forget
-- Remove some keys that are older than a day, the oldest first; returns how many.
WITH gone AS (
    DELETE FROM idempotency_keys WHERE key IN (
        SELECT key FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '24 hours'
        ORDER BY created_at LIMIT %(limit)s
    ) RETURNING 1
)
SELECT count(*) FROM gone;

-- name: search
-- Users whose lower-case name begins with the prefix; `last` is the prefix and a byte above the alphabet.
SELECT id, username, rating, version, created_at, updated_at
FROM users WHERE lower(username) >= %(prefix)s AND lower(username) < %(last)s
ORDER BY lower(username) LIMIT %(limit)s;

-- name: past
-- Users' histories, each oldest first: the rows of so many days up to today, and the last one before them. One row
-- without a day for a user who has none, no row for whoever is not there.
SELECT asked.number, past.day, past.rating, past.rank, past.position
FROM unnest(%(ids)s::text[], %(days)s::int[]) WITH ORDINALITY AS asked (id, days, number)
JOIN users u ON u.id = asked.id
LEFT JOIN LATERAL (
    (SELECT day, rating, rank, position FROM rating_history
     WHERE user_id = u.id AND day > current_date - asked.days)
    UNION ALL
    (SELECT day, rating, rank, position FROM rating_history
     WHERE user_id = u.id AND day <= current_date - asked.days ORDER BY day DESC LIMIT 1)
) AS past ON true
ORDER BY asked.number, past.day;

-- name: standings
-- Users with their rank and position, counted: exact, and as slow as the number of users above them.
SELECT u.id, u.username, u.rating, u.version, u.created_at, u.updated_at,
       1 + above.users, 1 + above.users + tied.users
FROM users u
CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating > u.rating) AS above
CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating = u.rating AND o.username < u.username) AS tied
WHERE u.id = ANY(%(ids)s::text[]);

-- name: standings_of_many
-- As standings, for more than a few users: the board is counted once by rating, and then each from that.
WITH steps AS MATERIALIZED (SELECT rating, count(*) AS users FROM users GROUP BY rating)
SELECT u.id, u.username, u.rating, u.version, u.created_at, u.updated_at,
       1 + above.users, 1 + above.users + tied.users
FROM users u
CROSS JOIN LATERAL (SELECT coalesce(sum(s.users), 0)::bigint AS users FROM steps s WHERE s.rating > u.rating) AS above
CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating = u.rating AND o.username < u.username) AS tied
WHERE u.id = ANY(%(ids)s::text[]);

-- name: histogram
-- How many users have each rating, of which snapshot, and since when whatever is missing was committed.
SELECT pg_current_snapshot()::text, statement_timestamp(),
       coalesce(array_agg(rating), '{}'), coalesce(array_agg(users), '{}')
FROM (SELECT rating, count(*) AS users FROM users GROUP BY rating) AS steps;

-- name: places
-- Users, how many of their rating stand before them, and whether a snapshot saw them as they are now.
SELECT u.id, u.username, u.rating, u.version, u.created_at, u.updated_at,
       (SELECT count(*) FROM users o WHERE o.rating = u.rating AND o.username < u.username),
       pg_visible_in_snapshot(u.xact, %(snapshot)s::pg_snapshot)
FROM users u WHERE u.id = ANY(%(ids)s::text[]);

-- name: slice_at
-- The board's total, how many are above the slice's first rating, and the slice after `offset` rows.
WITH slice AS MATERIALIZED (
    SELECT id, username, rating FROM users ORDER BY rating DESC, username LIMIT %(limit)s OFFSET %(offset)s
)
SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM users WHERE rating > (SELECT max(rating) FROM slice)),
       %(offset)s::bigint, s.id, s.username, s.rating
FROM (VALUES (1)) AS always (row) LEFT JOIN slice s ON true
ORDER BY s.rating DESC, s.username;

-- name: slice_after
-- As slice_at, strictly after a point of the order. Two ranges, because one over (rating, username)
-- would walk the whole tie.
WITH slice AS MATERIALIZED (
    SELECT * FROM (
        (SELECT id, username, rating FROM users
         WHERE rating = %(rating)s AND username > %(username)s ORDER BY username LIMIT %(limit)s)
        UNION ALL
        (SELECT id, username, rating FROM users
         WHERE rating < %(rating)s ORDER BY rating DESC, username LIMIT %(limit)s)
    ) AS both_ranges
    ORDER BY rating DESC, username LIMIT %(limit)s
)
SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM users WHERE rating > (SELECT max(rating) FROM slice)),
       (SELECT count(*) FROM users WHERE rating > %(rating)s)
       + (SELECT count(*) FROM users WHERE rating = %(rating)s AND username <= %(username)s),
       s.id, s.username, s.rating
FROM (VALUES (1)) AS always (row) LEFT JOIN slice s ON true
ORDER BY s.rating DESC, s.username;

-- name: ping
-- Whether there are users to be read; the table itself is not touched, so nobody who locks it looks like an outage.
SELECT to_regclass('users') IS NOT NULL;

-- name: rows_of
-- Rows of the board by users' ids, in no order, with the board's total. The board is counted once by rating.
WITH steps AS MATERIALIZED (SELECT rating, count(*) AS users FROM users GROUP BY rating)
SELECT (SELECT sum(s.users)::bigint FROM steps s), u.id, u.username, u.rating,
       1 + above.users, 1 + above.users + tied.users
FROM users u
CROSS JOIN LATERAL (SELECT coalesce(sum(s.users), 0)::bigint AS users FROM steps s WHERE s.rating > u.rating) AS above
CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating = u.rating AND o.username < u.username) AS tied
WHERE u.id = ANY(%(ids)s::text[]);

-- name: neighbors
-- As slice_at, around a user; no row at all if there is none. Near an end of the board the slice ends with it.
WITH me AS MATERIALIZED (
    SELECT rating, username FROM users WHERE id = %(id)s
), place AS MATERIALIZED (
    SELECT total.users AS total,
           greatest(0, least(above.users + tied.users - %(radius)s, total.users - 2 * %(radius)s - 1)) AS before
    FROM me
    CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating > me.rating) AS above
    CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o
                        WHERE o.rating = me.rating AND o.username < me.username) AS tied
    CROSS JOIN (SELECT count(*) AS users FROM users) AS total
), slice AS MATERIALIZED (
    SELECT id, username, rating FROM users ORDER BY rating DESC, username
    LIMIT 2 * %(radius)s + 1 OFFSET (SELECT before FROM place)
)
SELECT place.total, (SELECT count(*) FROM users WHERE rating > (SELECT max(rating) FROM slice)), place.before,
       s.id, s.username, s.rating
FROM place CROSS JOIN slice s
ORDER BY s.rating DESC, s.username;

-- name: cursor_key
-- The key that every process of this database signs cursors with.
SELECT key FROM secrets WHERE name = 'cursor';

-- name: source
-- Which history this database is: cluster, timeline, database, and the name it has given itself; whether it has; and
-- which process of the server answers.
-- An error on a standby. Not pg_control_checkpoint(), which still names the old timeline right after a promotion.
WITH here AS MATERIALIZED (
    SELECT system_identifier || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || ':' ||
           (SELECT oid FROM pg_database WHERE datname = current_database()) AS place
    FROM pg_control_system()
)
SELECT here.place || ':' || coalesce(history.name, ''), history.name IS NOT NULL, pg_backend_pid()
FROM here LEFT JOIN history ON history.place = here.place;

-- name: adopt
-- Name this history if it has no name, and give out versions above all that the one before can have given out, once:
-- ON CONFLICT looks at the row as it is when it has the row's lock. Who may not do the one must not do the other.
INSERT INTO history (place, name, begins_after)
SELECT system_identifier || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || ':' ||
       (SELECT oid FROM pg_database WHERE datname = current_database()),
       left(gen_random_uuid()::text, 8), last_value
FROM pg_control_system(), users_version_seq
WHERE has_sequence_privilege('users_version_seq', 'UPDATE')
ON CONFLICT (single) DO UPDATE
SET place = EXCLUDED.place, name = EXCLUDED.name, begun_at = EXCLUDED.begun_at,
    begins_after = setval('users_version_seq', (SELECT last_value FROM users_version_seq) + 10000000000)
WHERE history.place <> EXCLUDED.place;

-- name: disown
-- Forget this history's name, if it still is that one: the next who asks begins another.
UPDATE history SET place = 'gone back' WHERE name = %(name)s;

-- name: clock
-- The horizon, whether some user or tombstone claims a transaction that this cluster has not begun, and below which one
-- tombstones were removed: a board whose checkpoint is before it cannot be followed to the present any more.
SELECT pg_snapshot_xmin(now)::text,
       coalesce((SELECT xact FROM users ORDER BY xact DESC, id DESC LIMIT 1) >= pg_snapshot_xmax(now), false)
       OR coalesce((SELECT xact FROM user_tombstones ORDER BY xact DESC, id DESC LIMIT 1) >= pg_snapshot_xmax(now), false),
       coalesce((SELECT purged_xact FROM history WHERE purged_name = name), '0')::text
FROM pg_current_snapshot() AS now;

-- name: foreign
-- How many users and tombstones claim a transaction that this cluster has not begun.
SELECT (SELECT count(*) FROM users WHERE xact >= pg_snapshot_xmax(now))
       + (SELECT count(*) FROM user_tombstones WHERE xact >= pg_snapshot_xmax(now))
FROM (SELECT pg_current_snapshot() AS now OFFSET 0) AS here;

-- name: rebase_users
-- Write some of these users again, through the trigger, in the order in which others lock them; returns how many.
-- The newest are taken first: as many as are left stay in one range of the index.
WITH batch AS MATERIALIZED (
    SELECT id FROM users WHERE xact >= (SELECT pg_snapshot_xmax(pg_current_snapshot()))
    ORDER BY xact DESC, users.id DESC LIMIT %(limit)s
), held AS MATERIALIZED (
    SELECT id FROM users WHERE id IN (SELECT id FROM batch) ORDER BY id FOR UPDATE
), written AS (
    UPDATE users SET rating = rating WHERE id IN (SELECT id FROM held) RETURNING 1
)
SELECT count(*) FROM written;

-- name: rebase_tombstones
-- As rebase_users. A tombstone keeps its version: only its place in the order was of another cluster.
WITH batch AS MATERIALIZED (
    SELECT id FROM user_tombstones WHERE xact >= (SELECT pg_snapshot_xmax(pg_current_snapshot()))
    ORDER BY xact DESC, user_tombstones.id DESC LIMIT %(limit)s
), written AS (
    UPDATE user_tombstones SET xact = pg_current_xact_id() WHERE id IN (SELECT id FROM batch) RETURNING 1
)
SELECT count(*) FROM written;

-- name: origin
-- Where a load begins: the horizon that the tail starts from, and the highest version handed out.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text, CASE WHEN is_called THEN last_value ELSE 0 END
FROM users_version_seq;

-- name: inspect
-- What the mirror should hold about these users.
SELECT id, version, rating, username FROM users WHERE id = ANY(%(ids)s::text[]);

-- name: present
-- Which of these users there are; from the index alone.
SELECT id FROM users WHERE id = ANY(%(ids)s::text[]);

-- name: count
-- How many users there are; above a gigabyte of them what Postgres estimates.
SELECT CASE
    WHEN pg_relation_size('users') < 1 << 30 THEN (SELECT count(*) FROM users)
    ELSE (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'users'::regclass)
END;

-- name: is_empty
-- Whether there is no user at all.
SELECT NOT EXISTS (SELECT FROM users);

-- name: heap
-- The file of the users, another one after a rewrite of the table, and its pages.
SELECT pg_relation_filenode('users')::text, pg_relation_size('users') / current_setting('block_size')::int;

-- name: rows
-- Users by where they lie on disk: ten times faster than by id, and enough for whoever looks at them all. A row
-- that is updated meanwhile may move behind the walk, but then its update is the tail's to bring.
SELECT id, version, rating, username FROM users WHERE ctid >= %(first)s::tid AND ctid < %(last)s::tid;

-- name: rows_in_order
-- As rows, in the board's order, because it takes neighbours one after the other in half the time.
SELECT id, version, rating, username FROM users WHERE ctid >= %(first)s::tid AND ctid < %(last)s::tid
ORDER BY rating, username DESC;

-- name: changes
-- What transactions below the horizon committed after (xact, id): users, and tombstones without a rating.
-- Horizon and rows come from one snapshot: every transaction below it was finished, so nothing that
-- commits later can belong before the checkpoint. From the same one comes below which transaction tombstones were removed.
WITH now AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon,
           coalesce((SELECT purged_xact FROM history WHERE purged_name = name), '0') AS purged
)
SELECT now.horizon::text, change.xact::text, change.id, change.version, change.rating, change.username,
       now.purged::text
FROM now LEFT JOIN LATERAL (
    (SELECT u.xact, u.id, u.version, u.rating, u.username FROM users u
     WHERE (u.xact, u.id) > (%(xact)s::xid8, %(id)s::text) AND u.xact < now.horizon
     ORDER BY u.xact, u.id LIMIT %(limit)s)
    UNION ALL
    (SELECT t.xact, t.id, t.version, NULL, NULL FROM user_tombstones t
     WHERE (t.xact, t.id) > (%(xact)s::xid8, %(id)s::text) AND t.xact < now.horizon
     ORDER BY t.xact, t.id LIMIT %(limit)s)
    ORDER BY 1, 2 LIMIT %(limit)s
) AS change ON true
ORDER BY change.xact, change.id;

-- name: unsettled
-- As changes, but committed at or above the horizon: while older transactions are still open these may be
-- applied early, but the checkpoint must not pass them. The scalar subquery keeps it an index range.
SELECT * FROM (
    (SELECT xact::text, id, version, rating, username FROM users
     WHERE xact >= (SELECT pg_snapshot_xmin(pg_current_snapshot())) AND (xact, id) > (%(xact)s::xid8, %(id)s::text)
     ORDER BY users.xact, id LIMIT %(limit)s)
    UNION ALL
    (SELECT xact::text, id, version, NULL, NULL FROM user_tombstones
     WHERE xact >= (SELECT pg_snapshot_xmin(pg_current_snapshot())) AND (xact, id) > (%(xact)s::xid8, %(id)s::text)
     ORDER BY user_tombstones.xact, id LIMIT %(limit)s)
) AS change ORDER BY xact::xid8, id LIMIT %(limit)s;

-- name: try_lock
-- Take the feeding lock for this session, if nobody has it.
SELECT pg_try_advisory_lock(%(key)s);

-- name: unlock
-- Give up every lock of this session.
SELECT pg_advisory_unlock_all();

-- name: holder
-- The process that has a lock, and what its session is called.
SELECT pid, coalesce(activity.application_name, '')
FROM pg_locks LEFT JOIN pg_stat_activity AS activity USING (pid)
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32) + objid::bigint = %(key)s AND objsubid = 1;

-- name: elsewhere
-- The schema that is used, and another one that has our tables while this one has none.
SELECT current_schema(), namespace.nspname
FROM pg_class AS sequence JOIN pg_namespace AS namespace ON namespace.oid = sequence.relnamespace
WHERE sequence.relname = 'users_version_seq' AND sequence.relkind = 'S' AND to_regclass('users_version_seq') IS NULL
  AND to_regclass(quote_ident(namespace.nspname) || '.schema_migrations') IS NOT NULL
ORDER BY namespace.nspname LIMIT 1;
