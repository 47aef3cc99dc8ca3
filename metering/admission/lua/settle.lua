-- Replaces a request's hold by what it used, in the windows of the hold.
--
-- KEYS[1] the tenant's hash, KEYS[2] the user's
-- ARGV[1] the request's id (32 hex digits)
-- ARGV[2] MessagePack of [requests, input, output, cache_read, cache_write_5m, cache_write_1h, thinking, web_searches,
--         nano-USD]
--
-- A hash without the hold is not changed: the request was settled before, or the hash was rebuilt from Postgres, which
-- has the counts. A window that is over is gone, with what it held. Answers the number of holds released (0 to 2).

local used = cmsgpack.unpack(ARGV[2])
local FORMAT = '>dddddddddddddd'
local released = 0
for _, key in ipairs(KEYS) do
  local hold = redis.call('HGET', key, 'h:' .. ARGV[1])
  if hold then
    local prompt, output, searches, nano, _, minute, rest = struct.unpack('>dddddd', hold)
    local day, period = string.match(string.sub(hold, rest), '^(.-)|(.-)|')
    local names = {'m:' .. string.format('%.0f', minute), 'd:' .. day, 'p:' .. period}
    local rows = redis.call('HMGET', key, 'c', names[1], names[2], names[3])
    local fields = {'c', math.max(tonumber(rows[1] or 0) - 1, 0)}
    for kind = 1, 3 do
      local packed = rows[kind + 1]
      if packed then
        local w = {struct.unpack(FORMAT, packed)}
        for index = 1, 9 do w[index] = w[index] + used[index] end
        w[10], w[11], w[12] = w[10] - 1, w[11] - prompt, w[12] - output
        w[13], w[14] = w[13] - searches, w[14] - nano
        w[15] = nil
        fields[#fields + 1] = names[kind]
        fields[#fields + 1] = struct.pack(FORMAT, unpack(w))
      end
    end
    redis.call('HSET', key, unpack(fields))
    redis.call('HDEL', key, 'h:' .. ARGV[1])
    released = released + 1
  end
end
return released
