-- The two parts of a caller: the history of Postgres that it reads ("" for any), and the run_id of the server that
-- it is connected to ("" if it does not know).
local function caller_parts(caller)
    return string.match(caller, "^([^@]*)@?(.*)$")
end

-- Whether ranks may be read: the load is finished, the history is the caller's, no member was lost.
-- Returns "ok", the board's size and the lag in ms (every commit older than that is on the board); else "notready"
-- or "source". The lag is -1, unknown, when `applied` was read from another server's clock, as after a failover, or
-- lies in the future, because this clock was set back: times of two clocks have no meaningful difference.
local function ready(board_key, state_key, caller)
    local state = redis.call("HMGET", state_key, "ready", "src", "n", "applied", "run")
    local size = redis.call("ZCARD", board_key)
    local applied = tonumber(state[4] or "")
    local source, run = state[2], state[5]
    -- Usually the caller is exactly these two. Splitting the string costs a twentieth of a look-up.
    if not source or not run or caller ~= source .. "@" .. run then
        source, run = caller_parts(caller)
    end
    if state[1] ~= "1" or size ~= tonumber(state[3] or "") or not applied then
        return "notready"
    elseif source ~= "" and state[2] ~= source then
        return "source"
    end
    if run ~= "" and run ~= state[5] and state[5] and state[5] ~= "" then
        return "ok", size, -1
    end
    local now = redis.call("TIME")
    local lag = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - applied
    return "ok", size, math.max(lag, -1)
end
