-- An insert draws its version before it meets the user of the same id who is just being deleted, and waits for them to
-- be gone: their tombstone may have drawn a later version meanwhile. The mirror would take the new user for deleted,
-- for ever. So whoever was born so is stamped again. By then the deletion is committed, and its tombstone is seen.
CREATE FUNCTION users_outlive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users u SET version = u.version
    FROM born JOIN user_tombstones t ON t.id = born.id AND t.version > born.version
    WHERE u.id = born.id;
    RETURN NULL;
END $$;
CREATE TRIGGER users_outlive AFTER INSERT ON users
    REFERENCING NEW TABLE AS born
    FOR EACH STATEMENT EXECUTE FUNCTION users_outlive();
