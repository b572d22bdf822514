#!lua flags=no-writes
-- Summary      Reads the rows of the board around a user.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      state: hash; hash tag of the board
-- KEYS[3]      users: hash, id -> version|encoded name; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that the caller believes, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2]      id: the user in the middle
-- ARGV[3]      radius: rows on either side, 1..100; near an end of the board as many more on the other one
-- ARGV[4...]   since: 0..10 pairs of an id and a version (decimal) that the answer must not be from before
-- Returns      {"ok", size, lag in ms or -1, offset, number of users above the first row's rating, then member and
--              score of each row as one flat list: empty when the user is not on the board}, {"notready"},
--              {"source"}, or {"behind"} when one of the pairs has not reached the board
-- Errors       BADARG when the id is empty, the radius out of range, or a pair malformed
-- Complexity   O(log n + radius + pairs), n = board size
-- Effects      read-only
-- Why atomic   a write between finding the user and reading the rows could move the user out of them

-- @include whole
-- @include ready
-- @include ready_since

local board_key, state_key, users_key = KEYS[1], KEYS[2], KEYS[3]
local caller, id, radius = ARGV[1], ARGV[2], whole(ARGV[3], 1, 100)

if #ARGV < 3 or #ARGV > 23 or id == "" or not radius then
    return redis.error_reply("BADARG neighbors takes an id and a radius of 1..100")
end

local status, size, lag = ready_since(board_key, state_key, users_key, caller, 4)
if status == "malformed" then
    return redis.error_reply("BADARG neighbors takes pairs of an id and a version")
elseif status ~= "ok" then
    return { status }
end

local encoded = string.match(redis.call("HGET", users_key, id) or "", "^%d+|(.+)$")
local place = encoded and redis.call("ZREVRANK", board_key, encoded .. "~" .. id)
if not place then
    return { "ok", size, lag, 0, 0, {} }
end
local offset = math.max(0, math.min(place - radius, size - 2 * radius - 1))
local rows = redis.call("ZREVRANGE", board_key, offset, offset + 2 * radius, "WITHSCORES")
return { "ok", size, lag, offset, redis.call("ZCOUNT", board_key, "(" .. rows[2], "+inf"), rows }
