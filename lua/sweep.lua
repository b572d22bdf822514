-- Summary      The fields of users whose deletion is settled are gone.
-- KEYS[1]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[2]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one that a compaction began
-- ARGV[2...]   ids: 1..250 users who look deleted
-- Returns      {"ok", fields removed}, {"epoch"} when the board was started anew; nothing is written then
-- Errors       BADARG before anything is written
-- Complexity   O(m), m = ids
-- Effects      writes users
-- Why atomic   a user created again since the caller looked would lose their field, and the board would keep the member

local users_key, state_key = KEYS[1], KEYS[2]
local epoch = ARGV[1]

if #ARGV < 2 or #ARGV > 251 then
    return redis.error_reply("BADARG sweep takes an epoch and 1..250 ids")
end

local state = redis.call("HMGET", state_key, "epoch", "settled")
if state[1] ~= epoch then
    return { "epoch" }
end

local settled, gone = tonumber(state[2] or "") or -1, {}
for index, held in ipairs(redis.call("HMGET", users_key, unpack(ARGV, 2))) do
    local version = held and string.match(held, "^(%d+)|$")
    if version and #version <= 15 and tonumber(version) <= settled then
        gone[#gone + 1] = ARGV[index + 1]
    end
end
if #gone > 0 then
    redis.call("HDEL", users_key, unpack(gone))
end
return { "ok", #gone }
