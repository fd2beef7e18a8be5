-- One client that places orders by way of the gateway, one after the other. Each has an id of its own; one that got no
-- decision is sent again under the same id, as a client does that wants it placed once.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

-- wrk asks for one request before it sends any, to look at it.
function init()
  number, waiting, again, placed, duplicates, refused, example = 0, false, -1, 0, 0, 0, ""
end

function delay()
  return 20
end

function request()
  if waiting then
    again = again + 1
  else
    number, waiting = number + 1, true
  end
  local side = number % 2 == 0 and "sell" or "buy"
  local order = '{"id":"client-%d","instrument":"CLIENT","side":"%s","quantity":1,"price":10}'
  local headers = { ["content-type"] = "application/json" }
  return wrk.format("POST", nil, headers, order:format(number, side))
end

function response(status, _, body)
  if status == 200 and body:find('"accepted":true', 1, true) then
    placed, waiting = number, false
    if body:find('"duplicate":true', 1, true) then
      duplicates = duplicates + 1
    end
    if placed % 10 == 0 then
      io.write("answered 10\n")
      io.flush()
    end
  else
    refused, example = refused + 1, status .. " " .. body
  end
end

function done(summary)
  for name, count in pairs(summary.errors) do
    io.write("errors ", name, " ", count, "\n")
  end
  for _, thread in ipairs(threads) do
    for _, key in ipairs({ "placed", "again", "duplicates", "refused" }) do
      io.write(key, " ", thread:get(key), "\n")
    end
    io.write("example ", (thread:get("example"):gsub("%c", " ")), "\n")
  end
end
