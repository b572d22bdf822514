-- Summary      Users stand where Postgres has them, unless the mirror has changed since the caller looked.
-- KEYS[1]      board: sorted set, score = rating, member = encoded name ~ id; hash tag of the board
-- KEYS[2]      users: hash, id -> version|encoded name; hash tag of the board
-- KEYS[3]      state: hash; hash tag of the board
-- ARGV[1]      epoch: the one the caller read
-- ARGV[2...]   rows, 1..200 of five: id, version (decimal), rating (decimal) or "-" when deleted, encoded name
--              ("" when deleted), want: the version that the caller saw and that alone may be replaced, "" if any
--              older one may
-- Returns      {"ok", then the outcome per row}: "applied"; "raced" when the version there is not the wanted one;
--              "same" or "newer" when that version or a later one has come meanwhile. {"epoch"} when the board was
--              started anew; nothing is written then
-- Errors       BADARG before anything is written
-- Complexity   O(m log n), n = board size, m = rows
-- Effects      writes board, users, state
-- Why atomic   what was decided on an older reading must not undo a write that came in between

-- @include rows
-- @include valid_row

local board_key, users_key, state_key = KEYS[1], KEYS[2], KEYS[3]
local epoch = ARGV[1]
local rows = (#ARGV - 1) / 5

if rows < 1 or rows > 200 or rows % 1 ~= 0 then
    return redis.error_reply("BADARG fix takes an epoch and 1..200 rows of five")
end
for first = 2, #ARGV, 5 do
    local want = ARGV[first + 4]
    if not valid_row(first) or not string.find(want, "^%d*$") or #want > 15 then
        return redis.error_reply("BADARG fix got a malformed row")
    end
end

if redis.call("HGET", state_key, "epoch") ~= epoch then
    return { "epoch" }
end

-- Read from Postgres after the board: an unknown id is a user, not an echo.
return { "ok", unpack(write_rows(board_key, users_key, state_key, 2, 5, true, true)) }
