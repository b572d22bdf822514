-- Whether the mirror has that version of that user or a newer one; a deletion is a version too.
local function reached(users_key, id, version)
    local held = redis.call("HGET", users_key, id)
    local held_version = tonumber(held and string.match(held, "^(%d+)|") or "")
    return held_version ~= nil and held_version >= version
end
