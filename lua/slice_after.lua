#!lua flags=no-writes
-- Summary      Reads consecutive rows of the board strictly after a point of its order.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      state: hash; hash tag of the board
-- KEYS[3]      users: hash, id -> version|encoded name; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that the caller believes, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2]      limit: rows to read, 1..1000
-- ARGV[3]      score: the point's rating
-- ARGV[4]      encoded: the point's encoded name; nobody needs to be there any more
-- ARGV[5...]   since: 0..10 pairs of an id and a version (decimal) that the answer must not be from before
-- Returns      {"ok", size, lag in ms or -1, offset, number of users above the first row's rating, then member and
--              score of each row as one flat list}, {"notready"}, {"source"}, or {"behind"} when one of the
--              pairs has not reached the board
-- Errors       BADARG when limit or score is out of range, or a pair malformed
-- Complexity   O(log n + limit + pairs), n = board size
-- Effects      read-only
-- Why atomic   a write between finding the point and reading the rows would repeat or skip one; and one
--              that was there when it was looked for could be gone from the rows

-- @include whole
-- @include ready
-- @include ready_since
-- @include above

local board_key, state_key, users_key = KEYS[1], KEYS[2], KEYS[3]
local caller, limit, score, encoded = ARGV[1], whole(ARGV[2], 1, 1000), ARGV[3], ARGV[4]

if #ARGV < 4 or #ARGV > 24 or not limit or not whole(score, 0, 999999999999999) then
    return redis.error_reply("BADARG slice_after takes a limit of 1..1000 and a whole score")
end

local status, size, lag = ready_since(board_key, state_key, users_key, caller, 5)
if status == "malformed" then
    return redis.error_reply("BADARG slice_after takes pairs of an id and a version")
elseif status ~= "ok" then
    return { status }
end

local rows, higher = {}, 0
local offset = above(board_key, score, encoded)
if offset < size then
    rows = redis.call("ZREVRANGE", board_key, offset, offset + limit - 1, "WITHSCORES")
    higher = redis.call("ZCOUNT", board_key, "(" .. rows[2], "+inf")
end
return { "ok", size, lag, offset, higher, rows }
