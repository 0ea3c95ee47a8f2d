-- For wrk: POSTs a body of the size given after `--`, and prints the totals in a form that a program reads.
function init(arguments)
    wrk.method = "POST"
    wrk.body = string.rep("x", tonumber(arguments[1]))
end

function done(summary)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format("total requests=%d us=%d failed=%d\n", summary.requests, summary.duration, failed))
end
