-- What wrk sends: the requests of a file, one after the other, from some line on and then from the first again.
-- Arguments: the file, and the number of lines to skip. A line is a method and a target and, behind a tab, a body.
-- Prints RESULT and, in JSON, what load.py reads.

local heads, bodies, next_line, count = {}, {}, 0, 0
local tail

function init(args)
    for line in io.lines(args[1]) do
        local tab = string.find(line, "\t", 1, true)
        count = count + 1
        heads[count] = tab and string.sub(line, 1, tab - 1) or line
        bodies[count] = tab and string.sub(line, tab + 1) or false
    end
    next_line = tonumber(args[2]) % count
    -- A look through all these lines for garbage stops wrk for some 40 ms, and each stop would be told as the service's.
    collectgarbage()
    collectgarbage("setpause", 1000)
    tail = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
end

function request()
    next_line = next_line % count + 1
    local body = bodies[next_line]
    if not body then
        return heads[next_line] .. tail .. "\r\n"
    end
    return heads[next_line] .. tail .. "Content-Type: application/json\r\nContent-Length: " .. #body
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
