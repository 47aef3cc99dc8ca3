-- A user's hash, built from Postgres the first time it is needed in an epoch.
--
-- KEYS[1] the tenant's hash, KEYS[2] the user's
-- ARGV[1] the epoch, ARGV[2] the run, ARGV[3] the user, ARGV[4...] field, value, ...
-- The mark in the tenant's hash tells a hash that was never built in this epoch (nothing can be held for it) from one
-- that was lost (something may be). Answers 1, or 0 when the epoch has moved on or the hash is there already.

local tenant = redis.call('HMGET', KEYS[1], 'e', 'r', 'u:' .. ARGV[3])
if tenant[1] ~= ARGV[1] or tenant[2] ~= ARGV[2] or tenant[3] == ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'e', ARGV[1])
for index = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1]) end
redis.call('EXPIRE', KEYS[2], 45 * 86400) -- as in admit.lua
redis.call('HSET', KEYS[1], 'u:' .. ARGV[3], ARGV[1])
return 1
