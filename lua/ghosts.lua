-- Summary      Members of the board that no user vouches for are gone.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one the caller read
-- ARGV[2...]   suspects: 1..200 members
-- Returns      {"ok", members removed}, {"epoch"} when the board was started anew; nothing is written then
-- Errors       BADARG before anything is written
-- Complexity   O(m log n), n = board size, m = members
-- Effects      writes board, state
-- Why atomic   a user created or renamed since the caller looked would lose the new member

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local epoch = ARGV[1]

if #ARGV < 2 or #ARGV > 201 then
    return redis.error_reply("BADARG ghosts takes an epoch and 1..200 members")
end

if redis.call("HGET", state_key, "epoch") ~= epoch then
    return { "epoch" }
end

local removed = 0
for index = 2, #ARGV do
    local encoded, id = string.match(ARGV[index], "^([^~]*)~(.*)$")
    local held = id and redis.call("HGET", users_key, id)
    if not held or string.match(held, "|(.*)$") ~= encoded or encoded == "" then
        removed = removed + redis.call("ZREM", board_key, ARGV[index])
    end
end
if removed > 0 then
    -- Whether or not they were ever counted: how far `n` is off is the caller's to set right, once.
    redis.call("HINCRBY", state_key, "n", -removed)
end
return { "ok", removed }
