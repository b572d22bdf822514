-- Whether a row may be written over what the users hash holds of that user, and the encoded name under which the
-- board has them, if it does. The version decides and nothing else.
--   held: the user's field, false if there is none
--   want: the one version that may be replaced, by any other or by itself (a repair); "" for any older one
--   floor: versions of unknown users up to it are refused, -1 for none
local function decided(held, version, want, floor)
    if not held then
        return want ~= "" and "raced" or tonumber(version) <= floor and "floor" or "applied"
    end
    local digits, held_encoded = string.match(held, "^(%d+)|(.*)$")
    -- A field that somebody else wrote is older than anything; an error here could come after a write.
    local held_version = digits and #digits <= 15 and tonumber(digits) or -1
    if want ~= "" then
        return held_version == tonumber(want) and "applied" or "raced", held_encoded
    elseif held_version == tonumber(version) then
        return "same"
    end
    return held_version > tonumber(version) and "newer" or "applied", held_encoded
end

-- The only function that touches users: the version decides, and the board, the users hash and the expected size
-- `n` change together. Shared by every script that writes users. The outcome is that of one row after the other;
-- the commands are few, because a command that carries many rows costs the server half of many commands.
--   first, width: ARGV[first] .. ARGV[#ARGV] are the rows, of `width` arguments: id, version, score ("-" means
--     deleted), encoded name, and whatever else the script takes
--   fenced: true when a fifth argument is the version that alone may be replaced, "" if any older one may
--   bypass: true when Postgres was read after the floor was set, so that an unknown id is news
-- Returns per row "applied"; "same" or "newer" when the mirror already has that or a later version; "floor" when
-- an unknown id is not newer than what a cleared board had seen (it may have been deleted since); "raced" when
-- the version there is not the wanted one.
local function write_rows(board_key, users_key, state_key, first, width, fenced, bypass)
    local floor = bypass and -1 or (tonumber(redis.call("HGET", state_key, "floor") or "") or 0)
    local outcomes, grown, last = {}, 0, first
    while last <= #ARGV do
        -- Rows of different users do not depend on each other. A user who comes again begins another turn.
        local begin, ids, met = last, {}, {}
        while last <= #ARGV and not met[ARGV[last]] do
            ids[#ids + 1], met[ARGV[last]] = ARGV[last], true
            last = last + width
        end
        local held = redis.call("HMGET", users_key, unpack(ids))
        local gone, placed, known = {}, {}, {}
        for index = 1, #ids do
            local row = begin + (index - 1) * width
            local version, score, encoded = ARGV[row + 1], ARGV[row + 2], ARGV[row + 3]
            local outcome, held_encoded = decided(held[index], version, fenced and ARGV[row + 4] or "", floor)
            outcomes[(row - first) / width + 1] = outcome
            if outcome == "applied" then
                if held_encoded and held_encoded ~= "" and held_encoded ~= encoded then
                    gone[#gone + 1] = held_encoded .. "~" .. ids[index]
                end
                if score ~= "-" then
                    local size = #placed
                    placed[size + 1], placed[size + 2] = score, encoded .. "~" .. ids[index]
                end
                local size = #known
                known[size + 1], known[size + 2] = ids[index], version .. "|" .. encoded
            end
        end
        if #gone > 0 then
            grown = grown - redis.call("ZREM", board_key, unpack(gone))
        end
        if #placed > 0 then
            grown = grown + redis.call("ZADD", board_key, unpack(placed))
        end
        if #known > 0 then
            redis.call("HSET", users_key, unpack(known))
        end
    end
    if grown ~= 0 then
        redis.call("HINCRBY", state_key, "n", grown)
    end
    return outcomes
end
