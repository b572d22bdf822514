-- Tombstones of transactions below `purged_xact` may have been removed, in the history of that name. A board whose
-- checkpoint is before it is loaded anew.
ALTER TABLE history ADD COLUMN IF NOT EXISTS purged_name text, ADD COLUMN IF NOT EXISTS purged_xact xid8;

-- As before, but the transaction has its id before it draws a version: the transaction of a version that has been drawn
-- is below every transaction that begins later.
CREATE OR REPLACE FUNCTION users_stamp() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    NEW.xact := pg_current_xact_id();
    NEW.version := nextval('users_version_seq');
    NEW.updated_at := CASE WHEN TG_OP = 'INSERT' THEN NEW.created_at ELSE clock_timestamp() END;
    RETURN NEW;
END $$;
