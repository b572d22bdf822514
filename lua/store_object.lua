-- Summary      A cached user object is replaced by a newer one, or by one of another history.
-- KEYS[1]      object: string, version|history|json; a key of its own, any slot
-- ARGV[1]      version: decimal
-- ARGV[2]      history: 8 hexadecimal digits; versions of two histories cannot be compared
-- ARGV[3]      json: the user as Postgres keeps it
-- ARGV[4]      ttl: milliseconds, 1..600000
-- Returns      {"stored"}, or {"newer"} when the object there has a higher version of the same history
-- Errors       BADARG before anything is written
-- Complexity   O(1)
-- Effects      writes object, with a time to live
-- Why atomic   a slow reader's fill would overwrite the object a writer stored in between

-- @include whole

local object_key = KEYS[1]
local version, history, json, ttl = ARGV[1], ARGV[2], ARGV[3], whole(ARGV[4], 1, 600000)

if #ARGV ~= 4 or not whole(version, 0, 999999999999999) or not ttl
    or #history ~= 8 or not string.find(history, "^%x+$") then
    return redis.error_reply("BADARG store_object takes a version, a history, the object and a ttl of 1..600000 ms")
end

local held, held_history = string.match(redis.call("GETRANGE", object_key, 0, 24), "^(%d+)|(%x+)|")
if held_history == history and tonumber(held) > tonumber(version) then
    return { "newer" }
end
redis.call("SET", object_key, version .. "|" .. history .. "|" .. json, "PX", ttl)
return { "stored" }
