-- Reads items of a run's answer, and has the process told of further ones.
--
-- KEYS[1] the entry, KEYS[2] the items, KEYS[3] the channels of the processes that follow them
-- ARGV[1] the run   ARGV[2] the number of the first item   ARGV[3] at most so many   ARGV[4] the process's channel
-- ARGV[5] ms until the channel is forgotten
--
-- Answers {state, items}: 'live', 'done', 'large', or 'dead' when the run does not own the entry or lost its lease.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local items = redis.call('LRANGE', KEYS[2], ARGV[2], ARGV[2] + ARGV[3] - 1)
local entry = redis.call('HMGET', KEYS[1], 'run', 'state', 'lease')
if entry[1] ~= ARGV[1] or (entry[2] == 'live' and tonumber(entry[3]) <= now) then return {'dead', items} end
if entry[2] == 'live' then
  redis.call('SADD', KEYS[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
return {entry[2], items}
