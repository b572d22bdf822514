-- Summary      The board expects as many members as it has, if none was lost or added by hand meanwhile.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one the caller read
-- ARGV[2]      miscount: expected minus actual size before the caller compared every member, a whole number
-- Returns      {"ok", size}, {"moved"} when the miscount is another one now, {"epoch"} when the board was started
--              anew; nothing is written in these two cases
-- Errors       BADARG before anything is written
-- Complexity   O(1)
-- Effects      writes state
-- Why atomic   every write changes both sizes alike, so the difference shows a loss, but only read at one instant

local board_key, state_key = KEYS[1], KEYS[2]
local epoch, miscount = ARGV[1], ARGV[2]

if #ARGV ~= 2 or not string.find(miscount, "^-?%d+$") or #miscount > 15 then
    return redis.error_reply("BADARG resync takes an epoch and a whole number")
end

local state = redis.call("HMGET", state_key, "epoch", "n")
if state[1] ~= epoch then
    return { "epoch" }
end
local size = redis.call("ZCARD", board_key)
if (tonumber(state[2]) or 0) - size ~= tonumber(miscount) then
    return { "moved" }
end
redis.call("HSET", state_key, "n", size)
return { "ok", size }
