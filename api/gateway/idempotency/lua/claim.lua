-- Makes a run the owner of an entry, or names the run that owns it.
--
-- KEYS[1] the entry, KEYS[2] the expiry of the tenant's runs (sorted set), KEYS[3] their bytes, and `total`
-- ARGV[1] the run; empty: only look   ARGV[2] the fingerprint   ARGV[3] the lease in ms
-- ARGV[4] ms until an unfinished run is forgotten   ARGV[5] the tenant's bytes   ARGV[6] the bytes of an empty run
-- ARGV[7] ms for which the items of a dead run stay, for those that still read them
--
-- Answers {'mine'}, {'follow', run}, {'large'}, {'mismatch'}, {'none'} or {'full', ms until the first run expires}.
-- A repeated call of one run answers alike.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local run = ARGV[1]
local entry = redis.call('HMGET', KEYS[1], 'run', 'fingerprint', 'state', 'lease')
local old = entry[1]
if old then
  if entry[2] ~= ARGV[2] then return {'mismatch'} end
  if old == run then return {'mine'} end
  if entry[3] == 'large' then return {'large'} end
  if entry[3] == 'done' or tonumber(entry[4]) > now then return {'follow', old} end
end
if run == '' then return {'none'} end

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('HINCRBY', KEYS[3], 'total', -tonumber(redis.call('HGET', KEYS[3], gone) or 0))
  redis.call('HDEL', KEYS[3], gone)
  redis.call('ZREM', KEYS[2], gone)
end
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('DEL', KEYS[3]) end
local total = tonumber(redis.call('HGET', KEYS[3], 'total') or 0)
if total + ARGV[6] > tonumber(ARGV[5]) then
  return {'full', math.max(0, redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] - now)}
end

if old then  -- its process died, or is paused and will find this
  redis.call('ZADD', KEYS[2], 'XX', now + ARGV[7], old)
  redis.call('PEXPIRE', KEYS[1] .. ':' .. old, ARGV[7])
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'run', run, 'fingerprint', ARGV[2], 'state', 'live', 'lease', now + ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], now + ARGV[4], run)
redis.call('HSET', KEYS[3], run, ARGV[6])
redis.call('HINCRBY', KEYS[3], 'total', ARGV[6])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[4])
redis.call('PEXPIRE', KEYS[3], 2 * ARGV[4])
return {'mine'}
