-- What wrk sends: the requests of a file, one after the other, from some line on and then from the first again.
-- Arguments: the file, and the number of lines to skip. A line is a method and a target and, behind a tab, a body.
-- Prints RESULT and, in JSON, what load.py reads.

-- The file is one text, walked line by line: a million strings in a table would stop wrk now and again for tens of
-- milliseconds, and each stop would be told as the service's.

local text, place, tail

function init(args)
    local file = assert(io.open(args[1], "rb"))
    text = file:read("*a")
    file:close()
    if string.sub(text, -1) ~= "\n" then
        text = text .. "\n"
    end
    place = 1
    for _ = 1, tonumber(args[2]) do
        place = string.find(text, "\n", place, true) + 1
        if place > #text then
            place = 1
        end
    end
    tail = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
end

function request()
    local last = string.find(text, "\n", place, true)
    local line = string.sub(text, place, last - 1)
    place = last < #text and last + 1 or 1
    local tab = string.find(line, "\t", 1, true)
    if not tab then
        return line .. tail .. "\r\n"
    end
    local body = string.sub(line, tab + 1)
    return string.sub(line, 1, tab - 1) .. tail .. "Content-Type: application/json\r\nContent-Length: " .. #body
        .. "\r\n\r\n" .. body
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"requests":%d,"seconds":%.6f,"failed":%d,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f}\n',
        summary.requests, summary.duration / 1e6,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3
    ))
end
