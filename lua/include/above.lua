-- Whether `member` stands before or at the point `encoded` of the descending walk, byte by byte: `<` on
-- strings would ask the server's locale.
local function precedes(member, encoded)
    local point = encoded .. "~"
    for index = 1, math.min(#member, #point) do
        local mine, theirs = string.byte(member, index), string.byte(point, index)
        if mine ~= theirs then
            return mine > theirs
        end
    end
    return #member >= #point
end

-- How many members stand before or at the point (score, encoded) of the descending walk. O(log n): two
-- counts, then a binary search inside the tie.
local function above(board_key, score, encoded)
    local low = redis.call("ZCOUNT", board_key, "(" .. score, "+inf")
    local high = low + redis.call("ZCOUNT", board_key, score, score)
    while low < high do
        local middle = math.floor((low + high) / 2)
        if precedes(redis.call("ZREVRANGE", board_key, middle, middle)[1], encoded) then
            low = middle + 1
        else
            high = middle
        end
    end
    return low
end
