-- The argument as a number if it is written in digits alone and within the limits, else nil. tonumber
-- would take "nan", "1e3" and "0x10" too.
local function whole(text, low, high)
    local number = text and #text <= 16 and string.find(text, "^%d+$") and tonumber(text)
    return number and number >= low and number <= high and number or nil
end
