-- Summary      The board is empty, not ready, and waits for a load from one history of Postgres.
-- KEYS[1]      board: sorted set; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      seen: the epoch the caller decided on, "" for none
-- ARGV[2]      epoch: the new one, random
-- ARGV[3]      token: random; the first batch must present it
-- ARGV[4]      source: identity of the Postgres the load reads
-- ARGV[5]      checkpoint_xact: the horizon before the load's first read, where the tail starts
-- ARGV[6]      floor: the newest version given out before that read (decimal)
-- ARGV[7]      layout: number of this data layout
-- Returns      {"ok"}, or {"epoch"} when somebody else has begun since; nothing is written then
-- Errors       BADARG before anything is written
-- Complexity   O(1): the old keys are unlinked, freed in the background
-- Effects      writes board, users, state
-- Why atomic   two loaders that both saw a broken board must not wipe each other's work

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local seen, epoch, token, source = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local checkpoint_xact, floor, layout = ARGV[5], ARGV[6], ARGV[7]

if #ARGV ~= 7 or epoch == "" or token == "" or checkpoint_xact == "" or not string.find(floor, "^%d+$") then
    return redis.error_reply("BADARG begin takes seven arguments, the floor a whole number")
end
-- Anything may stand there after a mishap; what is no hash has no epoch.
local is_hash = redis.call("TYPE", state_key).ok == "hash"
if ((is_hash and redis.call("HGET", state_key, "epoch")) or "") ~= seen then
    return { "epoch" }
end

redis.call("UNLINK", board_key, users_key, state_key)
redis.call("HSET", state_key, "fmt", layout, "src", source, "epoch", epoch, "tok", token, "ready", "0", "n", "0",
    "cx", checkpoint_xact, "ci", "", "ld", "", "applied", "0", "floor", floor)
return { "ok" }
