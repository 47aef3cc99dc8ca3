-- The holds of one hash that are past their deadline, and a new field x.
--
-- KEYS[1] a tenant's or a user's hash; ARGV[1] milliseconds until the found ones are reported again, ARGV[2] how far a
-- test clock is ahead
-- Answers {id, user, id, user, ...}. Releases nothing: Postgres is asked first.
-- Reads the whole hash: the holds of running requests, and a dozen fields more. Nothing else may grow there.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[2])
local row = redis.call('HGETALL', KEYS[1])
local found, oldest = {}, nil
for index = 1, #row, 2 do
  if string.sub(row[index], 1, 2) == 'h:' then
    local _, _, _, _, deadline, _, rest = struct.unpack('>dddddd', row[index + 1])
    if deadline < now then
      found[#found + 1] = string.sub(row[index], 3)
      found[#found + 1] = string.match(string.sub(row[index + 1], rest), '|([^|]*)$')
      deadline = now + tonumber(ARGV[1])
    end
    if not oldest or deadline < oldest then oldest = deadline end
  end
end
if oldest then
  redis.call('HSET', KEYS[1], 'x', string.format('%.0f', oldest))
else
  redis.call('HDEL', KEYS[1], 'x')
end
return found
