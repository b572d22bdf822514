-- Summary      The board begins a new epoch in which unknown users up to a version are known to be deleted.
-- KEYS[1]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one the caller read
-- ARGV[2]      next_epoch: random
-- ARGV[3]      next_token: random; the next batch must present it
-- ARGV[4]      settled: a version; every transaction that drew it or a lower one has an id below settled_xact (decimal)
-- ARGV[5]      settled_xact: a transaction that the checkpoint must have reached (decimal)
-- ARGV[6]      run: run_id of the server on whose clock `since` was read
-- ARGV[7]      since: a time in ms at which the checkpoint had reached settled_xact; `applied` must be later
-- Returns      {"ok"}; {"early"} when the board lacks something that the caller has seen on it; {"epoch"} when
--              the board was started anew; nothing is written in these two cases
-- Errors       BADARG before anything is written
-- Complexity   O(1)
-- Effects      writes state
-- Why atomic   a batch or a repair of the old epoch that is accepted after the fields of deleted users begin to go would
--              bring a deleted user back; and a Redis that fell back in between may lack what the caller has seen

-- @include whole

local state_key = KEYS[1]
local epoch, next_epoch, next_token = ARGV[1], ARGV[2], ARGV[3]
local settled, settled_xact = ARGV[4], whole(ARGV[5], 0, 9007199254740991)
local run, since = ARGV[6], whole(ARGV[7], 0, 9007199254740991)
local version = whole(settled, 0, 999999999999999)

if #ARGV ~= 7 or next_epoch == "" or next_token == "" or run == "" or not version or not settled_xact or not since then
    return redis.error_reply("BADARG compact takes two names, a version, a transaction, a run and a time")
end

local state = redis.call("HMGET", state_key, "epoch", "ready", "cx", "applied", "run", "floor")
if state[1] ~= epoch then
    return { "epoch" }
end
local checkpoint, applied = whole(state[3] or "", 0, 9007199254740991), tonumber(state[4] or "") or 0
if state[2] ~= "1" or not checkpoint or checkpoint < settled_xact or applied <= since or state[5] ~= run then
    return { "early" }
end

-- The argument's text is stored: Lua would write a large number in scientific notation.
local old_floor = tonumber(state[6] or "") or 0
local floor = old_floor < version and settled or state[6]
redis.call("HSET", state_key, "epoch", next_epoch, "tok", next_token, "floor", floor, "settled", settled)
return { "ok" }
