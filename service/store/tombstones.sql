-- What Postgres keeps of deleted users: how much there is of it, and how it goes.

-- name: count
-- How many tombstones there are, and whether the oldest one is older than `days`.
SELECT count(*), coalesce(min(deleted_at) < clock_timestamp() - make_interval(days => %(days)s), false)
FROM user_tombstones;

-- name: drawn
-- The newest version given out.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM users_version_seq;

-- name: begun
-- A transaction of its own: every other one that has an id now has a lower one. Not the end of a snapshot, which is only
-- above those that have ended.
SELECT pg_current_xact_id()::text;

-- name: announce
-- Have it known which tombstones go, before the first one does. No row if another history has begun.
UPDATE history SET purged_name = name, purged_xact = greatest(
    %(xact)s::xid8, CASE WHEN purged_name = name THEN purged_xact END)
WHERE name = %(name)s
RETURNING 1;

-- name: purge
-- Remove some tombstones that are no longer needed; returns how many. One that a deletion is rewriting is skipped.
WITH old AS MATERIALIZED (
    SELECT id FROM user_tombstones WHERE xact < %(xact)s::xid8 AND version <= %(version)s
    ORDER BY xact, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM user_tombstones WHERE id = ANY(ARRAY(SELECT id FROM old)) RETURNING 1
)
SELECT count(*) FROM gone;
