-- What wrk asks for, and what it takes for a right answer. One request in fifty takes a second, so that a
-- cut-over always meets some.

local asked, threads = 0, {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  answered, wrong, seen, example = 0, 0, {}, ""
end

function request()
  asked = asked + 1
  if asked % 50 == 0 then
    return wrk.format("GET", "/slow?ms=1000")
  end
  return wrk.format("GET", "/version")
end

function response(status, _, body)
  answered = answered + 1
  local slot, version = body:match('"slot":"(%l+)"'), body:match('"version":"([^"]+)"')
  if status == 200 and slot and version then
    local key = slot .. " " .. version
    seen[key] = (seen[key] or 0) + 1
  else
    wrong, example = wrong + 1, status .. " " .. body
  end
  if answered % 500 == 0 then
    io.write("answered 500\n")
    io.flush()
  end
end

function done(summary)
  for name, count in pairs(summary.errors) do
    io.write("errors ", name, " ", count, "\n")
  end
  for _, thread in ipairs(threads) do
    io.write("errors answer ", thread:get("wrong"), "\n")
    io.write("example ", (thread:get("example"):gsub("%c", " ")), "\n")
    for key, count in pairs(thread:get("seen")) do
      io.write("seen ", key, " ", count, "\n")
    end
  end
  io.write("requests ", summary.requests, "\n")
  io.write("micros ", summary.duration, "\n")
end
