#!lua flags=no-writes
-- Summary      Reads the rows of the board that are these users'.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that the caller believes, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2...]   ids: 1..1010 user ids
-- Returns      {"ok", size, lag in ms or -1, then per id: version|encoded name, rating, rank, position (strings and
--              integers; four times "" when the user is not on the board)}, {"notready"} or {"source"}
-- Errors       BADARG when the number of ids is out of range
-- Complexity   O(m log n), n = board size, m = ids
-- Effects      read-only
-- Why atomic   who of two friends is ahead would depend on which was read first

-- @include ready

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local caller = ARGV[1]

if #ARGV < 2 or #ARGV > 1011 then
    return redis.error_reply("BADARG rows_of takes 1..1010 ids")
end

local status, size, lag = ready(board_key, state_key, caller)
if status ~= "ok" then
    return { status }
end

local held = redis.call("HMGET", users_key, unpack(ARGV, 2))
local members = {}
for index = 1, #held do
    local bar = held[index] and string.find(held[index], "|", 1, true)
    -- A member that cannot be, for one whom the board does not have.
    members[index] = bar and bar < #held[index] and string.sub(held[index], bar + 1) .. "~" .. ARGV[index + 1] or ""
end
local scores, ranks = redis.call("ZMSCORE", board_key, unpack(members)), {}
local answer = { "ok", size, lag }
for index = 1, #members do
    local score, last = scores[index], #answer
    if score then
        ranks[score] = ranks[score] or redis.call("ZCOUNT", board_key, "(" .. score, "+inf") + 1
        answer[last + 1], answer[last + 2], answer[last + 3] = held[index], score, ranks[score]
        answer[last + 4] = redis.call("ZREVRANK", board_key, members[index]) + 1
    else
        answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = "", "", "", ""
    end
end
return answer
