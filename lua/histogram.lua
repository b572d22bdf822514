#!lua flags=no-writes
-- Summary      Counts users by rating, all at one instant.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      state: hash; hash tag of the board
-- KEYS[3]      users: hash, id -> version|encoded name; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that the caller believes, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2]      low: the lowest rating to count, 0..999999999
-- ARGV[3]      high: the highest one, not below low
-- ARGV[4]      width: ratings that are counted together, from low up; such buckets are 1..500
-- ARGV[5...]   since: 0..10 pairs of an id and a version (decimal) that the answer must not be from before
-- Returns      {"ok", size, lag in ms or -1, number of users above high, the ratings at or below which are 10, 50, 90
--              and 99 percent of the users, by nearest rank (strings, "" on an empty board), then the users of
--              each bucket}, {"notready"}, {"source"}, or {"behind"} when one of the pairs has not reached the board
-- Errors       BADARG when a limit is out of range, or a pair malformed
-- Complexity   O(b log n + pairs), n = board size, b = buckets
-- Effects      read-only
-- Why atomic   whoever moved from one bucket to another between two counts would be in both, or in neither

-- @include whole
-- @include ready
-- @include ready_since

local board_key, state_key, users_key = KEYS[1], KEYS[2], KEYS[3]
local caller, low, high = ARGV[1], whole(ARGV[2], 0, 999999999), whole(ARGV[3], 0, 999999999)
local width = whole(ARGV[4], 1, 1000000000)

if #ARGV < 4 or #ARGV > 24 or not low or not high or not width or high < low or (high - low) / width >= 500 then
    return redis.error_reply("BADARG histogram takes a low and a high rating and a width, of 1..500 buckets")
end

local status, size, lag = ready_since(board_key, state_key, users_key, caller, 5)
if status == "malformed" then
    return redis.error_reply("BADARG histogram takes pairs of an id and a version")
elseif status ~= "ok" then
    return { status }
end

-- From one end of the board each time: half the work of a count between two bounds.
local answer = { "ok", size, lag, redis.call("ZCOUNT", board_key, "(" .. high, "+inf") }
for index, percent in ipairs({ 10, 50, 90, 99 }) do
    local place = math.ceil(size * percent / 100) - 1
    answer[4 + index] = size > 0 and redis.call("ZRANGE", board_key, place, place, "WITHSCORES")[2] or ""
end
local below = low > 0 and redis.call("ZCOUNT", board_key, "-inf", "(" .. low) or 0
for from = low, high, width do
    local reached_to = redis.call("ZCOUNT", board_key, "-inf", math.min(from + width - 1, high))
    answer[#answer + 1] = reached_to - below
    below = reached_to
end
return answer
