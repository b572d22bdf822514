-- As before, and the lock is one of sixteen, chosen by the user's id: the job that writes the history keeps out the
-- deletions of one sixteenth of the users at a time, and waits for theirs alone. A deletion holds its lock until its
-- commit is on disk. The one lock is still taken, because a job of the release before knows no other.
-- No sequential scan: a plan that a session made while the history was empty, and known to be after an ANALYZE, would be
-- kept while it grows, and every deletion would read a million rows.
CREATE OR REPLACE FUNCTION users_bury() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO user_tombstones (id, version, xact)
    VALUES (OLD.id, nextval('users_version_seq'), pg_current_xact_id())
    ON CONFLICT (id) DO UPDATE
        SET version = EXCLUDED.version, xact = EXCLUDED.xact, deleted_at = EXCLUDED.deleted_at;
    PERFORM pg_advisory_xact_lock_shared(x'4C61646465720004'::bigint);
    -- "Lad", 4, as in service/store/rating_history.sql
    PERFORM pg_advisory_xact_lock_shared(x'4C616404'::int, hashtext(OLD.id) & 15);
    DELETE FROM rating_history WHERE user_id = OLD.id;
    RETURN NULL;
END $$;
