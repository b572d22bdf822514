-- The statements of an export, all in one transaction of one snapshot.

-- name: as_of
-- When the snapshot was taken, and how many users it holds.
SELECT statement_timestamp(), (SELECT count(*) FROM users);

-- name: board
-- Every user in the board's order; read through a cursor.
SELECT id, username, rating FROM users ORDER BY rating DESC, username;
