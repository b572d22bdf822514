-- Summary      Users stand where a committed write put them, unless the mirror knows something newer.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      caller: the history of Postgres that committed the write, "" for any; then "@" and the run_id of this
--              server, "" or left out if the caller does not know it
-- ARGV[2...]   rows, 1..200 of five: id, version (decimal), rating (decimal) or "-" when deleted, encoded
--              name ("" when deleted), rating before the write ("" when there was none)
-- Returns      {"ok", lag in ms or "" when not ready or the lag is unknown, then per row: outcome, rank, position, rank
--              before the write}. The outcome is "applied"; "same" when that version is already there; "newer" when a later one is; "floor"
--              when an unknown user is older than the board. Ranks are those right after the whole batch,
--              for the row's own rating even if a newer one won; "" when deleted, refused or not ready.
--              {"source"} when the board mirrors another history, {"noepoch"} when there is no board.
-- Errors       BADARG before anything is written
-- Complexity   O(m log n), n = board size, m = rows
-- Effects      writes board, users, state
-- Why atomic   the version must be compared and the row written with no other write in between

-- @include rows
-- @include valid_row
-- @include ready
-- @include above

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local caller = ARGV[1]
local rows = (#ARGV - 1) / 5

if rows < 1 or rows > 200 or rows % 1 ~= 0 then
    return redis.error_reply("BADARG put takes 1..200 rows of five")
end
for first = 2, #ARGV, 5 do
    if not valid_row(first) or not string.find(ARGV[first + 4], "^%d*$") then
        return redis.error_reply("BADARG put got a malformed row")
    end
end

local source = caller_parts(caller)
local identity = redis.call("HMGET", state_key, "epoch", "src")
if not identity[1] then
    return { "noepoch" }
elseif source ~= "" and identity[2] ~= source then
    return { "source" }
end

-- The user's own entry on the board, when it is not the row's, must not count as somebody above it.
local function own_entry(id)
    local held = redis.call("HGET", users_key, id)
    local encoded = held and string.match(held, "|(.+)$")
    return encoded and redis.call("ZSCORE", board_key, encoded .. "~" .. id), encoded
end

local function rank_of(score, own_score)
    local higher = redis.call("ZCOUNT", board_key, "(" .. score, "+inf")
    return higher + ((own_score and tonumber(own_score) > tonumber(score)) and 0 or 1)
end

local status, _, lag = ready(board_key, state_key, caller)
-- With an unknown lag the board may lack any number of writes, so no rank is counted on it.
local readable = status == "ok" and lag >= 0
local rank_before = {}
for first = 2, #ARGV, 5 do
    local before = ARGV[first + 4]
    rank_before[first] = (readable and before ~= "") and rank_of(before, (own_entry(ARGV[first]))) or ""
end

local outcomes = write_rows(board_key, users_key, state_key, 2, 5, false, false)

local answer = { "ok", readable and lag or "" }
for first = 2, #ARGV, 5 do
    local id, score, encoded = ARGV[first], ARGV[first + 2], ARGV[first + 3]
    local outcome = outcomes[(first - 2) / 5 + 1]
    local rank, position = "", ""
    if readable and score ~= "-" and outcome == "newer" then
        local own_score, own_encoded = own_entry(id)
        rank = rank_of(score, own_score)
        position = above(board_key, score, encoded) + 1
        if own_score and (tonumber(own_score) > tonumber(score)
            or (own_score == score and precedes(own_encoded .. "~", encoded))) then
            position = position - 1
        end
    elseif readable and score ~= "-" and outcome ~= "floor" then
        -- Absent only if the board was damaged by hand; an error here would come after the writes.
        local place = redis.call("ZREVRANK", board_key, encoded .. "~" .. id)
        if place then
            rank, position = rank_of(score), place + 1
        end
    end
    local last = #answer
    answer[last + 1], answer[last + 2] = outcome, rank
    answer[last + 3], answer[last + 4] = position, rank_before[first]
end
return answer
