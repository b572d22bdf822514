-- Whether ARGV[first] .. ARGV[first + 3] are id, version, score, encoded name. Checked before the first
-- write, because a script that fails midway keeps what it has written.
local function valid_row(first)
    local find, version, score, encoded = string.find, ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    if ARGV[first] == "" or version == "" or #version > 15 or find(version, "%D") then
        return false
    end
    if score == "-" then
        return encoded == ""
    end
    return score ~= "" and #score <= 15 and not find(score, "%D")
        and encoded ~= "" and not find(encoded, "|", 1, true) and not find(encoded, "~", 1, true)
end
