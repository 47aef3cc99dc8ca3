-- Writes the tenant's hash, rebuilt from Postgres in a new epoch, and drops the old one.
--
-- KEYS[1] the tenant's hash, KEYS[2] its set of built users
-- ARGV[1] the epoch, ARGV[2] the run of this Redis, ARGV[3...] field, value, ...
-- Answers 1, or 0 when another process has built the same or a newer epoch.

local existing = redis.call('HMGET', KEYS[1], 'e', 'r')
if existing[1] and existing[2] == ARGV[2] and tonumber(existing[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2]) -- not DEL: freeing a set of 500,000 users would block the server
redis.call('HSET', KEYS[1], 'e', ARGV[1], 'r', ARGV[2], 'n', 0)
for index = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1]) end
return 1
