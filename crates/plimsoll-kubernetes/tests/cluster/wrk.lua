-- Counts answers by the slot that gave them, and when each slot answered last, in seconds since 1970.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  seen, last, wrong = {}, {}, 0
end

function response(status, _, body)
  local slot = body:match('"slot":"(%l+)"')
  if status == 200 and slot then
    seen[slot] = (seen[slot] or 0) + 1
    last[slot] = os.time()
  else
    wrong = wrong + 1
  end
end

function done(summary)
  local failed = 0
  for _, count in pairs(summary.errors) do
    failed = failed + count
  end
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("wrong")
    for slot, count in pairs(thread:get("seen")) do
      io.write("slot ", slot, " ", count, " ", thread:get("last")[slot], "\n")
    end
  end
  io.write("requests ", summary.requests, "\n")
  io.write("failed ", failed, "\n")
end
