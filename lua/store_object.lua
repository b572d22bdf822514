-- Summary      A cached user object is replaced by a newer one.
-- KEYS[1]      object: string, version|json; a key of its own, any slot
-- ARGV[1]      version: decimal
-- ARGV[2]      json: the user as Postgres keeps it
-- ARGV[3]      ttl: milliseconds, 1..600000
-- Returns      {"stored"}, or {"newer"} when the object there has a higher version
-- Errors       BADARG before anything is written
-- Complexity   O(1)
-- Effects      writes object, with a time to live
-- Why atomic   a slow reader's fill would overwrite the object a writer stored in between

-- @include whole

local object_key = KEYS[1]
local version, json, ttl = ARGV[1], ARGV[2], whole(ARGV[3], 1, 600000)

if #ARGV ~= 3 or not whole(version, 0, 999999999999999) or not ttl then
    return redis.error_reply("BADARG store_object takes a version, the object and a ttl of 1..600000 ms")
end

local held = string.match(redis.call("GETRANGE", object_key, 0, 15), "^(%d+)|")
if held and tonumber(held) > tonumber(version) then
    return { "newer" }
end
redis.call("SET", object_key, version .. "|" .. json, "PX", ttl)
return { "stored" }
