-- Writes a user's hash, built from Postgres when it is first needed in an epoch.
--
-- KEYS[1] the tenant's hash, KEYS[2] the user's, KEYS[3] the tenant's set of built users
-- ARGV[1] the epoch, ARGV[2] the run, ARGV[3] the user, ARGV[4...] field, value, ...
-- The set tells a hash that was never built in this epoch (nothing can be held for it) from a lost one (something may
-- be). Answers 1, or 0 when the epoch has moved, the hash exists, or the set is not complete (admit.lua).

local tenant = redis.call('HMGET', KEYS[1], 'e', 'r', 'n')
if tenant[1] ~= ARGV[1] or tenant[2] ~= ARGV[2] then return 0 end
if redis.call('SCARD', KEYS[3]) ~= tonumber(tenant[3]) or redis.call('SADD', KEYS[3], ARGV[3]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'e', ARGV[1])
for index = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1]) end
redis.call('EXPIRE', KEYS[2], 45 * 86400) -- as in admit.lua
return 1
