-- Whether ranks may be read: the load is finished, the history is the caller's, no member was lost.
-- Returns "ok", the board's size and the lag in ms (every commit older than that is on the board);
-- else "notready" or "source".
local function ready(board_key, state_key, source)
    local state = redis.call("HMGET", state_key, "ready", "src", "n", "applied")
    local size = redis.call("ZCARD", board_key)
    local applied = tonumber(state[4] or "")
    if state[1] ~= "1" or size ~= tonumber(state[3] or "") or not applied then
        return "notready"
    elseif source ~= "" and state[2] ~= source then
        return "source"
    end
    local now = redis.call("TIME")
    local lag = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - applied
    return "ok", size, math.max(lag, 0)
end
