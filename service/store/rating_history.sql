-- What the reconciliation job asks and writes of the history of ratings.

-- name: now
-- The time by Postgres' clock, when the last snapshot was taken, and how long that took; null if there is none.
SELECT clock_timestamp(), last.taken_at, last.seconds
FROM (VALUES (1)) AS always (row)
LEFT JOIN (SELECT taken_at, seconds FROM rating_snapshots ORDER BY taken_at DESC LIMIT 1) AS last ON true;

-- name: before
-- The last snapshot of an earlier day, and which history of the database it is of.
SELECT snapshot::text, source FROM rating_snapshots WHERE day < %(day)s ORDER BY day DESC LIMIT 1;

-- name: look
-- One instant for what follows, read by a transaction that has no id and locks nobody: it does not hold up the tail.
-- It may take longer than others, and is planned for being read to its end.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL statement_timeout = '10min';
SET LOCAL cursor_tuple_fraction = 1;
SET LOCAL jit = off;

-- name: instant
-- The snapshot of this transaction.
SELECT pg_current_snapshot()::text;

-- name: due
-- Where everybody stands who was changed since that snapshot (everybody if there is none) and is due: whose rating is
-- another one than in their last row before the day. Of the others those who have a row of the day, which must go.
-- In steps of some users each, who share a lock and are in the order of the key. A step is the text of arrays: it is
-- passed back as it is, which spares a million rows the way through a client's types.
SELECT lock, count(*) AS users,
       coalesce(array_agg(id) FILTER (WHERE due), '{}')::text AS ids,
       coalesce(array_agg(created_at) FILTER (WHERE due), '{}')::text AS born,
       coalesce(array_agg(rating) FILTER (WHERE due), '{}')::text AS ratings,
       coalesce(array_agg(rank) FILTER (WHERE due), '{}')::text AS ranks,
       coalesce(array_agg(position) FILTER (WHERE due), '{}')::text AS positions,
       (array_agg(id) FILTER (WHERE NOT due))::text AS undue
FROM (
    SELECT *, (row_number() OVER (PARTITION BY lock ORDER BY id) - 1) / %(step)s AS step FROM (
        SELECT hashtext(board.id) & 15 AS lock, board.id, board.created_at, board.rating, board.rank, board.position,
               last.rating IS DISTINCT FROM board.rating AS due
        FROM (
            SELECT id, created_at, rating, xact,
                   rank() OVER (ORDER BY rating DESC) AS rank,
                   row_number() OVER (ORDER BY rating DESC, username) AS position
            FROM users
        ) AS board
        LEFT JOIN LATERAL (
            SELECT rating FROM rating_history
            WHERE user_id = board.id AND day < %(day)s ORDER BY day DESC LIMIT 1
        ) AS last ON true
        WHERE %(since)s::pg_snapshot IS NULL OR NOT pg_visible_in_snapshot(board.xact, %(since)s::pg_snapshot)
    ) AS changed
    WHERE due OR EXISTS (SELECT FROM rating_history WHERE user_id = changed.id AND day = %(day)s)
) AS seen
GROUP BY lock, step ORDER BY lock, step;

-- name: shut_out
-- Keep deletions of the users who share a lock out until the end of this transaction. Those that are under way are
-- waited for, but not for long: later deletions queue behind us. The end of the transaction does not wait for
-- the disk while it keeps deletions out: what a crash takes along is written by the next run, because the day is closed
-- by a commit that waits for all before it.
SELECT set_config('lock_timeout', '40ms', true), set_config('synchronous_commit', 'off', true),
       pg_advisory_xact_lock(x'4C616404'::int, %(lock)s);

-- name: write
-- The rows of a day, of users who are still there and were not created anew since they were looked at.
INSERT INTO rating_history AS held (day, rank, position, rating, user_id)
SELECT %(day)s, seen.rank, seen.position, seen.rating, seen.id
FROM unnest(%(ids)s::text[], %(born)s::timestamptz[], %(ratings)s::int[], %(ranks)s::int[], %(positions)s::int[])
    AS seen (id, created_at, rating, rank, position)
JOIN users u ON u.id = seen.id AND u.created_at = seen.created_at
ON CONFLICT (user_id, day) DO UPDATE
SET rank = EXCLUDED.rank, position = EXCLUDED.position, rating = EXCLUDED.rating
WHERE (held.rank, held.position, held.rating) IS DISTINCT FROM (EXCLUDED.rank, EXCLUDED.position, EXCLUDED.rating);

-- name: withdraw
-- Rows of a day, of users whose rating has come back to what it was before.
DELETE FROM rating_history WHERE day = %(day)s AND user_id = ANY(%(undue)s::text[]);

-- name: close
-- All rows of the day are written, and are of this snapshot.
INSERT INTO rating_snapshots (day, taken_at, seconds, snapshot, source)
VALUES (%(day)s, %(taken_at)s, %(seconds)s, %(snapshot)s::pg_snapshot, %(source)s)
ON CONFLICT (day) DO UPDATE
SET taken_at = EXCLUDED.taken_at, seconds = EXCLUDED.seconds, snapshot = EXCLUDED.snapshot, source = EXCLUDED.source;

-- name: purge
-- Remove some rows of days before that one, the oldest first. One that a deletion is removing is left to it: who
-- waited for it while holding others that it wants would be waited for.
WITH old AS MATERIALIZED (
    SELECT ctid FROM rating_history WHERE day < %(day)s ORDER BY day LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM rating_history WHERE ctid = ANY(ARRAY(SELECT ctid FROM old));

-- name: purge_snapshots
-- As purge; there is one a day.
DELETE FROM rating_snapshots WHERE day < %(day)s;
