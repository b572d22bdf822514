-- The only function that touches a user: the version decides, and the board, the users hash and the
-- expected size `n` change together. Shared by every script that writes.
--   version, score: decimal strings as they came; score "-" means deleted
--   bypass: true when Postgres was read after the floor was set, so that an unknown id is news
-- Returns "applied"; "same" or "newer" when the mirror already has that or a later version; "floor"
-- when an unknown id is not newer than what a cleared board had seen (it may have been deleted since).
local function row(board_key, users_key, state_key, id, version, score, encoded, bypass)
    local held = redis.call("HGET", users_key, id)
    local held_encoded = ""
    if held then
        -- A field that somebody else wrote is older than anything; an error here could come after a write.
        local digits, name = string.match(held, "^(%d+)|(.*)$")
        local held_version = tonumber(digits or "-1")
        held_encoded = name or ""
        if held_version == tonumber(version) then
            return "same"
        elseif held_version > tonumber(version) then
            return "newer"
        end
    elseif not bypass and tonumber(version) <= tonumber(redis.call("HGET", state_key, "floor") or "0") then
        return "floor"
    end
    local grown = 0
    if held_encoded ~= "" and (score == "-" or held_encoded ~= encoded) then
        grown = grown - redis.call("ZREM", board_key, held_encoded .. "~" .. id)
    end
    if score == "-" then
        redis.call("HSET", users_key, id, version .. "|")
    else
        grown = grown + redis.call("ZADD", board_key, score, encoded .. "~" .. id)
        redis.call("HSET", users_key, id, version .. "|" .. encoded)
    end
    if grown ~= 0 then
        redis.call("HINCRBY", state_key, "n", grown)
    end
    return "applied"
end
