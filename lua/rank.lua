#!lua flags=no-writes
-- Summary      Tells where users stand, all at one instant.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that the caller believes, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2...]   ids: 1..1000 user ids
-- Returns      {"ok", size, lag in ms or -1, then per id: version, rating, rank, position (strings and integers;
--              four times "" when the user is not on the board)}, {"notready"} or {"source"}
-- Errors       BADARG when the number of ids is out of range
-- Complexity   O(m log n), n = board size, m = ids
-- Effects      read-only
-- Why atomic   between two commands a write could move the user: rank and rating of different moments

-- @include ready

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local caller = ARGV[1]

if #ARGV < 2 or #ARGV > 1001 then
    return redis.error_reply("BADARG rank takes 1..1000 ids")
end

local status, size, lag = ready(board_key, state_key, caller)
if status ~= "ok" then
    return { status }
end

local answer = { "ok", size, lag }
local held = redis.call("HMGET", users_key, unpack(ARGV, 2))
for index = 1, #held do
    local version, rating, rank, position = "", "", "", ""
    local bar = held[index] and string.find(held[index], "|", 1, true)
    if bar and bar < #held[index] then
        local member = string.sub(held[index], bar + 1) .. "~" .. ARGV[index + 1]
        local score = redis.call("ZSCORE", board_key, member)
        if score then
            version, rating = string.sub(held[index], 1, bar - 1), score
            rank = redis.call("ZCOUNT", board_key, "(" .. score, "+inf") + 1
            position = redis.call("ZREVRANK", board_key, member) + 1
        end
    end
    local last = #answer
    answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = version, rating, rank, position
end
return answer
