-- The triggers reach our tables whatever the search_path of the session is that writes: an UPDATE typed by hand may come
-- from one that would find another schema's tables, or none. It costs a row one microsecond.
ALTER FUNCTION users_stamp() SET search_path FROM CURRENT;
ALTER FUNCTION users_bury() SET search_path FROM CURRENT;
ALTER FUNCTION users_outlive() SET search_path FROM CURRENT;
