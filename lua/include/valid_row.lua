-- Whether ARGV[first] .. ARGV[first + 3] are id, version, score, encoded name. Checked before the first
-- write, because a script that fails midway keeps what it has written.
local function valid_row(first)
    local id, version, score, encoded = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    if id == "" or not string.find(version, "^%d+$") or #version > 15 then
        return false
    end
    if score == "-" then
        return encoded == ""
    end
    return string.find(score, "^%d+$") and #score <= 15 and encoded ~= "" and not string.find(encoded, "[|~]")
end
