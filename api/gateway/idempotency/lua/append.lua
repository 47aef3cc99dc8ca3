-- Appends items of a run's answer and extends its lease, while the run owns the entry; also its end.
--
-- KEYS[1] the entry, KEYS[2] the items, KEYS[3] the channels of the processes that follow them,
-- KEYS[4] the expiry of the tenant's runs, KEYS[5] their bytes, and `total`
-- ARGV[1] the run   ARGV[2] the number of the first item   ARGV[3] '', or the end: 'keep', 'free' or 'large'
-- ARGV[4] the lease in ms   ARGV[5] ms until an unfinished run is forgotten   ARGV[6] the life of the key in ms
-- ARGV[7] ms for which the items of a freed key stay   ARGV[8] the bytes of an answer   ARGV[9] the tenant's bytes
-- ARGV[10] the bytes of an empty run   ARGV[11...] the items
--
-- Answers 'kept', 'large' (over a bound: nothing is stored for the life of the key) or 'lost' (another run owns the
-- entry, or Redis lost it). A repeated call appends nothing twice.

local run, ending, ITEMS = ARGV[1], ARGV[3], 11
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entry = redis.call('HMGET', KEYS[1], 'run', 'state')
if entry[1] ~= run then return 'lost' end

local function notify()
  for _, channel in ipairs(redis.call('SMEMBERS', KEYS[3])) do redis.call('PUBLISH', channel, run) end
end

local function count(bytes)
  redis.call('HINCRBY', KEYS[5], run, bytes)
  redis.call('HINCRBY', KEYS[5], 'total', bytes)
end

local function expire(ms)
  redis.call('PEXPIRE', KEYS[2], ms)
  redis.call('ZADD', KEYS[4], 'XX', now + ms, run)
end

if entry[2] == 'large' and ending ~= 'free' then return 'large' end
if entry[2] == 'done' then return 'kept' end
local have, first = redis.call('LLEN', KEYS[2]), tonumber(ARGV[2])
if have < first and entry[2] ~= 'large' then  -- Redis lost items
  redis.call('DEL', KEYS[1])
  notify()
  return 'lost'
end

local added = 0
local from = ITEMS + math.max(0, have - first)
if entry[2] == 'large' then from = #ARGV + 1 end
for index = from, #ARGV do added = added + #ARGV[index] end
local used = tonumber(redis.call('HGET', KEYS[5], run) or 0)
local total = tonumber(redis.call('HGET', KEYS[5], 'total') or 0)
local is_over = used - ARGV[10] + added > tonumber(ARGV[8]) or total + added > tonumber(ARGV[9])
if ending == 'large' or (is_over and ending ~= 'free') then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'state', 'large')
  redis.call('PEXPIRE', KEYS[1], ARGV[5] + ARGV[6])
  count(ARGV[10] - used)
  redis.call('ZADD', KEYS[4], 'XX', now + ARGV[5] + ARGV[6], run)
  notify()
  return 'large'
end

for index = from, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[index]) end
if added > 0 then count(added) end
if ending == 'keep' then
  redis.call('HSET', KEYS[1], 'state', 'done')
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  expire(ARGV[6])
elseif ending == 'free' then
  redis.call('DEL', KEYS[1])
  expire(ARGV[7])
else
  redis.call('HSET', KEYS[1], 'lease', now + ARGV[4])
  expire(ARGV[5])
end
if added > 0 or ending ~= '' then notify() end
return 'kept'
