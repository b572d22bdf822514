-- Whether the mirror has that version of that user or a newer one; a deletion is a version too. A user without a field was
-- deleted if the version is settled: its transaction had ended, and was on the board, before fields of deleted users went.
local function reached(users_key, state_key, id, version)
    local held = redis.call("HGET", users_key, id)
    if not held then
        local settled = tonumber(redis.call("HGET", state_key, "settled") or "") or -1
        return version <= settled
    end
    local held_version = tonumber(string.match(held, "^(%d+)|") or "")
    return held_version ~= nil and held_version >= version
end

-- Whether ranks may be read by whoever has seen the writes that ARGV[first] .. ARGV[#ARGV] name, an id and a version
-- each: as `ready` has it, and besides "malformed", or "behind" when one of them has not reached the board.
local function ready_since(board_key, state_key, users_key, caller, first)
    local behind = false
    for pair = first, #ARGV, 2 do
        local version = whole(ARGV[pair + 1], 0, 9007199254740991)
        if not version then
            return "malformed"
        end
        behind = behind or not reached(users_key, state_key, ARGV[pair], version)
    end
    local status, size, lag = ready(board_key, state_key, caller)
    if status == "ok" and behind then
        return "behind"
    end
    return status, size, lag
end
