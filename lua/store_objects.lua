-- Summary      Cached user objects are replaced by newer ones, or by those of another history.
-- KEYS[1...]   object: 1..200 strings, version|history|json; each a key of its own, any slot: one Redis, no cluster
-- ARGV[1]      history: 8 hexadecimal digits; versions of two histories cannot be compared
-- ARGV[2...]   contents, three for each object: version (decimal), json (the user as Postgres keeps it), ttl (ms,
--              1..600000)
-- Returns      {"ok", then the outcome per object}: "stored", or "newer" when the one there has a higher version of the
--              same history
-- Errors       BADARG before anything is written
-- Complexity   O(m), m = objects
-- Effects      writes object, with a time to live
-- Why atomic   a slow reader's fill would overwrite the object a writer stored in between

-- @include whole

local history = ARGV[1]

if #KEYS < 1 or #KEYS > 200 or #ARGV ~= 1 + 3 * #KEYS or #history ~= 8 or not string.find(history, "^%x+$") then
    return redis.error_reply("BADARG store_objects takes 1..200 keys, a history, and three arguments for each key")
end
for first = 2, #ARGV, 3 do
    if not whole(ARGV[first], 0, 999999999999999) or not whole(ARGV[first + 2], 1, 600000) then
        return redis.error_reply("BADARG store_objects takes a version, the object and a ttl of 1..600000 ms for each key")
    end
end

-- MGET passes over a key of another type, which is replaced then; an error would be that of a whole batch of writes.
local objects = redis.call("MGET", unpack(KEYS))
local answer = { "ok" }
for index = 1, #KEYS do
    local object_key = KEYS[index]
    local first = 3 * index - 1
    local version = ARGV[first]
    local held, held_history = string.match(objects[index] or "", "^(%d+)|(%x+)|")
    if held_history == history and #held <= 15 and tonumber(held) > tonumber(version) then
        answer[index + 1] = "newer"
    else
        redis.call("SET", object_key, version .. "|" .. history .. "|" .. ARGV[first + 1], "PX", ARGV[first + 2])
        answer[index + 1] = "stored"
    end
end
return answer
