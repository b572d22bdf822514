-- Summary      A batch of what Postgres committed is on the board, and the checkpoint is past it.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one the caller read
-- ARGV[2]      token: the one the caller read, or wrote with its previous batch
-- ARGV[3]      next_token: random; the next batch must present it
-- ARGV[4]      checkpoint_xact: where the tail stands after this batch, "" to leave it
-- ARGV[5]      checkpoint_id: likewise
-- ARGV[6]      loaded: where a load goes on, "" to leave it
-- ARGV[7]      applied: server time in ms, then "@" and the run_id of the server whose clock that is, "" or left out
--              if unknown; every commit older than that is on the board once this batch is; "" to leave it
-- ARGV[8]      ready: "1" when ranks may be read from now on, "" to leave it
-- ARGV[9...]   rows, 0..200 of four: id, version (decimal), rating (decimal) or "-" when deleted, encoded name
-- Returns      {"ok", rows that were news}, {"epoch"} when the board was started anew, {"token"} when it has lost
--              or gained batches the caller does not know of; nothing is written then
-- Errors       BADARG before anything is written
-- Complexity   O(m log n), n = board size, m = rows
-- Effects      writes board, users, state
-- Why atomic   a checkpoint that moved without its rows, or rows without it, would lose writes for ever when Redis
--              falls back to an older state between the two

-- @include rows
-- @include valid_row

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local epoch, token, next_token = ARGV[1], ARGV[2], ARGV[3]
local checkpoint_xact, checkpoint_id, loaded, applied, set_ready = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local rows = (#ARGV - 8) / 4
local applied_ms, clock = string.match(applied or "", "^(%d*)(.*)$")

if rows < 0 or rows > 200 or rows % 1 ~= 0 or (clock ~= "" and not string.find(applied, "^%d+@%w*$"))
    or (set_ready ~= "" and set_ready ~= "1") then
    return redis.error_reply("BADARG apply takes eight arguments and 0..200 rows of four")
end
for first = 9, #ARGV, 4 do
    if not valid_row(first) then
        return redis.error_reply("BADARG apply got a malformed row")
    end
end

local identity = redis.call("HMGET", state_key, "epoch", "tok", "run")
if identity[1] ~= epoch then
    return { "epoch" }
elseif identity[2] ~= token then
    return { "token" }
end

local news = 0
-- Read from Postgres after the floor was set: an unknown id is a user, not an echo.
for _, outcome in ipairs(write_rows(board_key, users_key, state_key, 9, 4, false, true)) do
    if outcome == "applied" then
        news = news + 1
    end
end

redis.call("HSET", state_key, "tok", next_token)
if checkpoint_xact ~= "" then
    redis.call("HSET", state_key, "cx", checkpoint_xact, "ci", checkpoint_id)
end
if loaded ~= "" then
    redis.call("HSET", state_key, "ld", loaded)
end
if applied_ms ~= "" then
    redis.call("HSET", state_key, "applied", applied_ms)
    -- In the same step: a reader must never compare the time with the clock of another server.
    local run = string.sub(clock, 2)
    if run ~= (identity[3] or "") then
        redis.call("HSET", state_key, "run", run, "reign", next_token)
    end
end
if set_ready == "1" then
    redis.call("HSET", state_key, "ready", "1")
end
return { "ok", news }
