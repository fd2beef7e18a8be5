-- Counts answers by the slot that gave them, and when each slot answered last, in seconds since 1970. An argument is how
-- many milliseconds a connection waits before each request.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  seen, last, sick, wrong = {}, {}, {}, 0
  local pause = tonumber(args[1])
  if pause then
    delay = function()
      return pause
    end
  end
end

function response(status, _, body)
  local slot = body:match('"slot":"(%l+)"')
  if status == 200 and slot then
    seen[slot] = (seen[slot] or 0) + 1
    last[slot] = os.time()
  else
    if slot then
      sick[slot] = (sick[slot] or 0) + 1
    end
    wrong = wrong + 1
  end
end

function done(summary)
  local failed = 0
  for kind, count in pairs(summary.errors) do
    -- An answer with another status is counted where it was read.
    if kind ~= "status" then
      failed = failed + count
    end
  end
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("wrong")
    for slot, count in pairs(thread:get("seen")) do
      io.write("slot ", slot, " ", count, " ", thread:get("last")[slot], "\n")
    end
    for slot, count in pairs(thread:get("sick")) do
      io.write("sick ", slot, " ", count, "\n")
    end
  end
  io.write("requests ", summary.requests, "\n")
  io.write("failed ", failed, "\n")
end
