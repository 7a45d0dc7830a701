-- wrk script: posts the bodies of a file (one per line) in rotation, and prints the results as one line of JSON.
-- Arguments: the file, and optionally `statuses` to count each status, which slows down wrk.

local requests, position, threads = {}, 0, {}
statuses = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(arguments)
   wrk.headers["Content-Type"] = "application/json"
   for body in io.lines(arguments[1]) do
      table.insert(requests, wrk.format("POST", nil, nil, body))
   end
   if arguments[2] == "statuses" then
      response = function(status)
         statuses[status] = (statuses[status] or 0) + 1
      end
   end
end

function request()
   position = position % #requests + 1
   return requests[position]
end

function done(summary, latency)
   local counted = {}
   for _, thread in ipairs(threads) do
      for status, count in pairs(thread:get("statuses")) do
         table.insert(counted, string.format('"%d":%d', status, count))
      end
   end
   local errors = summary.errors
   io.write(string.format(
      '{"seconds":%f,"requests":%d,"p50":%f,"p99":%f,"refused":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"statuses":{%s}}\n',
      summary.duration / 1e6, summary.requests, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect, errors.read, errors.write, errors.timeout, table.concat(counted, ",")
   ))
end
