#!lua flags=no-writes
-- Summary      Tells what the mirror holds about users, and by how much it miscounts itself, at one instant.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one the caller read
-- ARGV[2...]   ids: 0..250 user ids
-- Returns      {"ok", expected minus actual size of the board, then per id: what the users hash holds, score of
--              the member that it names (strings, "" for none)}, {"epoch"} when the board was started anew
-- Errors       BADARG when there are too many ids
-- Complexity   O(m), m = ids
-- Effects      read-only
-- Why atomic   between two commands a write could change the user: name and score of different versions

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local epoch = ARGV[1]

if #ARGV < 1 or #ARGV > 251 then
    return redis.error_reply("BADARG peek takes an epoch and 0..250 ids")
end

local state = redis.call("HMGET", state_key, "epoch", "n")
if state[1] ~= epoch then
    return { "epoch" }
end

local answer = { "ok", (tonumber(state[2]) or 0) - redis.call("ZCARD", board_key) }
for index = 2, #ARGV do
    local held = redis.call("HGET", users_key, ARGV[index]) or ""
    local encoded = string.match(held, "|(.+)$")
    local score = encoded and redis.call("ZSCORE", board_key, encoded .. "~" .. ARGV[index])
    local last = #answer
    answer[last + 1], answer[last + 2] = held, score or ""
end
return answer
