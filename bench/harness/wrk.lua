-- With an argument each connection rests between its requests, for so many milliseconds on average.
init = function(args)
    local pause = tonumber(args[1])
    if pause then
        delay = function() return math.random(0, 2 * pause) end
    end
end

-- Prints the summary of a run as one line of JSON; latencies in microseconds.
done = function(summary, latency)
    io.write(string.format(
        'wrk-summary {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,' ..
        '"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}\n',
        summary.requests, summary.duration, summary.bytes,
        latency:percentile(50), latency:percentile(99), latency.max,
        summary.errors.connect, summary.errors.read, summary.errors.write,
        summary.errors.timeout, summary.errors.status))
end
