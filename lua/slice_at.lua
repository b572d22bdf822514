#!lua flags=no-writes
-- Summary      Reads consecutive rows of the board after a number of rows.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      state: hash; hash tag of the board
-- KEYS[3]      users: hash, id -> version|encoded name; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that the caller believes, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2]      limit: rows to read, 1..1000
-- ARGV[3]      offset: rows to skip, 0..2^53-1
-- ARGV[4...]   since: 0..10 pairs of an id and a version (decimal) that the answer must not be from before
-- Returns      {"ok", size, lag in ms or -1, offset, number of users above the first row's rating, then member and
--              score of each row as one flat list}, {"notready"}, {"source"}, or {"behind"} when one of the
--              pairs has not reached the board
-- Errors       BADARG when limit or offset is out of range, or a pair malformed
-- Complexity   O(log n + limit + pairs), n = board size
-- Effects      read-only
-- Why atomic   the first row's rank would be counted on another board than the rows, and a write
--              that was there when it was looked for could be gone from the rows

-- @include whole
-- @include ready
-- @include ready_since

local board_key, state_key, users_key = KEYS[1], KEYS[2], KEYS[3]
local caller, limit, offset = ARGV[1], whole(ARGV[2], 1, 1000), whole(ARGV[3], 0, 9007199254740991)

if #ARGV < 3 or #ARGV > 23 or not limit or not offset then
    return redis.error_reply("BADARG slice_at takes a limit of 1..1000 and an offset of 0..2^53-1")
end

local status, size, lag = ready_since(board_key, state_key, users_key, caller, 4)
if status == "malformed" then
    return redis.error_reply("BADARG slice_at takes pairs of an id and a version")
elseif status ~= "ok" then
    return { status }
end

local rows, higher = {}, 0
if offset < size then
    rows = redis.call("ZREVRANGE", board_key, offset, offset + limit - 1, "WITHSCORES")
    higher = redis.call("ZCOUNT", board_key, "(" .. rows[2], "+inf")
end
return { "ok", size, lag, offset, higher, rows }
