-- A few clients who are in no hurry.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  wrong, example = 0, ""
end

function request()
  return wrk.format("GET", "/slow?ms=500")
end

function response(status, _, body)
  if status ~= 200 then
    wrong, example = wrong + 1, status .. " " .. body
  end
end

function done(summary)
  for name, count in pairs(summary.errors) do
    io.write("errors ", name, " ", count, "\n")
  end
  for _, thread in ipairs(threads) do
    io.write("errors answer ", thread:get("wrong"), "\n")
    io.write("example ", (thread:get("example"):gsub("%c", " ")), "\n")
  end
  io.write("requests ", summary.requests, "\n")
  io.write("micros ", summary.duration, "\n")
end
