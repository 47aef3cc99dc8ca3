-- May this request start, and how many output tokens may it have? Every window of the user and its tenant, in one step.
--
-- KEYS[1] the tenant's hash, KEYS[2] the user's hash, KEYS[3] the tenant's set of built users (one hash tag: one slot)
-- ARGV[1] MessagePack of the question:
--   [user, day, day_ends_ms, period, period_ends_ms, from_ms, until_ms, id_tail,
--    prompt, prompt_nano, likely, likely_nano, asked, smallest, output_rate_nano, ttl_ms, read_epoch, ahead_ms, resumes,
--    searches, large, further]
--   windows and entitlement are valid for from_ms <= now < until_ms; read_epoch = the tenant's epoch when the entitlement
--   was read; ahead_ms = how far a test clock is ahead; resumes = 1: another period interrupted this one
--   prompt = the most tokens it can have, likely = its probable size; nano = nano-USD at the dearest rate,
--   with the searches; searches = the most web searches that the provider may run
--   large = who asks for more output than this takes at most half of the room (docs/decisions/0014)
--   further = output tokens that other models may write beside the grant: held whole, and their cost is in nano
-- ARGV[2] MessagePack of the entitlement: [user_concurrency, tenant_concurrency, [[scope, window, meter, bound], ...]]
--   meter 11 is a charge, with a fifth member: [allowance, rate] of input, cache reads, cache writes, output, searches
--   (flat)
-- ARGV[3] the run id of the Redis that this is sent to, added when it is sent
--
-- Fields of a hash:
--   e           the epoch of the tenant in which the hash was built; r the run of the Redis that it was built in
--   n           (tenant's hash) the size of the set of users whose hashes were built in this epoch. The set is a key of
--               its own, so that reading the whole hash reads holds and windows, however many users there are
--   c           running requests; k the names of the newest windows, so that older ones can be dropped
--   m:<minute> d:<day> p:<period>   a window: 14 doubles, used and held:
--               used requests, input, output, cache_read, cache_write_5m, cache_write_1h, thinking, searches, nano-USD;
--               held requests, prompt, output, searches, nano-USD
--   h:<id>      a hold: 6 doubles (prompt, output, searches, nano-USD, deadline_ms, minute), then
--               "<day>|<period>|<user>"
--   x           no hold is older than this deadline: once it has passed, expired_holds.lua is called
--
-- Answers (expired = 1: some hold may be past its deadline):
--          {'ok', now_ms, id, epoch, granted, expired, room...}, room = the rest of each limit after this hold, in order
--          {'no', now_ms, cause, limit, ends_ms, count, expired, epoch, used}:
--                     cause 'used' | 'held' | 'never' (would not fit an empty window);
--                     limit = the index of the limit (0: the user's concurrency, -1: the tenant's)
--                     count = 1 when a prompt of the likely size would be granted: worth an exact count
--                     used = what the limit's window has used, without holds; running requests for a concurrency
--          {'rebuild', epoch}, {'user', epoch}: the tenant's or the user's hash is not complete
--          {'clock', now_ms}: the question is for another time
--          {'entitlement', epoch}: the hash is newer than the entitlement, which may name another period

local query = cmsgpack.unpack(ARGV[1])
local entitlement = cmsgpack.unpack(ARGV[2])
local run, user = ARGV[3], query[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + query[18]
local minute = math.floor(now / 60000)

local IDLE_S = 45 * 86400 -- longer than a period: an expired hash holds nothing that still counts
local names = {'m:' .. minute, 'd:' .. query[2], 'p:' .. query[4]}
local ends = {(minute + 1) * 60000, query[3], query[5]}
local tenant_row = redis.call('HMGET', KEYS[1], 'e', 'r', 'n', 'c', 'k', 'x', names[1], names[2], names[3])
local user_row = redis.call('HMGET', KEYS[2], 'e', 'c', 'k', 'x', names[1], names[2], names[3])

local epoch = tenant_row[1]
if not epoch or tenant_row[2] ~= run or not tenant_row[3] then return {'rebuild', epoch or '0'} end
if tonumber(epoch) > query[17] then return {'entitlement', epoch} end
if user_row[1] ~= epoch then
  -- A hash that was built and is gone may have held something; so may any, if the set is not complete.
  if redis.call('SISMEMBER', KEYS[3], user) == 1 or redis.call('SCARD', KEYS[3]) ~= tonumber(tenant_row[3]) then
    return {'rebuild', epoch}
  end
  return {'user', epoch}
end
if now < query[6] or now >= query[7] then return {'clock', now} end
-- The field of an interrupted period was dropped when the other one began; a hash that is built now has it.
if query[19] == 1 and not (tenant_row[9] and user_row[7]) then return {'rebuild', epoch} end

local EMPTY = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
local FORMAT = '>dddddddddddddd'
local function window(packed)
  if not packed then return EMPTY end
  return {struct.unpack(FORMAT, packed)}
end
local windows = {
  {window(user_row[5]), window(user_row[6]), window(user_row[7])},
  {window(tenant_row[7]), window(tenant_row[8]), window(tenant_row[9])},
}
local oldest = {tonumber(user_row[4]), tonumber(tenant_row[6])}
local GRACE_MS = 5000 -- a stream ends at its deadline; its settlement comes a moment later
local expired = 0
for scope = 1, 2 do
  if oldest[scope] and now > oldest[scope] + GRACE_MS then expired = 1 end
end
local active = {tonumber(user_row[2] or 0), tonumber(tenant_row[4] or 0)}

for scope = 1, 2 do
  local most = entitlement[scope]
  if most >= 0 and active[scope] + 1 > most then
    return {'no', now, most == 0 and 'never' or 'held', 1 - scope, now + 1000, 0, expired, epoch, active[scope]}
  end
end

local limits = entitlement[3]
local asked, smallest, rate, searches = query[13], math.min(query[13], query[14]), query[15], query[20]
local large, further = query[21], query[22]
local ENOUGH = 2 * asked -- half of this room is all that is asked, so more of it changes nothing

-- The charge for usage over the allowances. The pending prompt is charged as the class that costs most.
local function charge(prices, w, prompt, output, pending_searches)
  local counts = {w[2], w[4], w[5] + w[6]}
  local dearest = 0
  for lands = 1, 3 do
    local sum = 0
    for class = 1, 3 do
      local units = counts[class] + (class == lands and prompt or 0)
      sum = sum + math.max(0, units - prices[2 * class - 1]) * prices[2 * class]
    end
    dearest = math.max(dearest, sum)
  end
  return dearest + math.max(0, w[3] + output - prices[7]) * prices[8]
      + math.max(0, w[8] + pending_searches - prices[9]) * prices[10]
end

-- The output tokens that fit under a ceiling on the charge, on top of a window and what is pending.
local function fit_charge(prices, bound, w, prompt, output, pending_searches)
  local allowance, rate = prices[7], prices[8]
  local but_output = {prices[1], prices[2], prices[3], prices[4], prices[5], prices[6], 0, 0, prices[9], prices[10]}
  local rest = bound - charge(but_output, w, prompt, 0, pending_searches)
  if rest < 0 then return -1 end
  if rate == 0 then return ENOUGH end
  return math.max(-1, allowance + math.floor(rest / rate) - w[3] - output)
end

-- A limit's meter in a window: used, held, what this request adds at least, and what each output token adds.
local function count(w, meter, prompt, prompt_nano)
  if meter == 1 then return w[1], w[10], 1, 0 end
  if meter == 3 then return w[3], w[12], further, 1 end
  if meter == 7 then return w[9], w[14], prompt_nano, rate end
  if meter == 8 then return w[2] + w[3] + w[4] + w[5] + w[6], w[11] + w[12], prompt + further, 1 end
  if meter == 9 then return w[5] + w[6], w[11], prompt, 0 end
  if meter == 10 then return w[8], w[13], searches, 0 end
  return w[meter], w[11], prompt, 0
end

-- The output tokens that fit `room`, at `each` per token.
local function fit(room, each)
  if room < 0 then return -1 end
  if each == 0 then return ENOUGH end
  return math.floor(room / each)
end

-- The output tokens that fit an empty window, a window without its holds, and the window.
local function fit_limit(limit, w, prompt, prompt_nano)
  local meter, bound, prices = limit[3], limit[4], limit[5]
  if prices then
    return fit_charge(prices, bound, EMPTY, prompt, further, searches),
        fit_charge(prices, bound, w, prompt, further, searches),
        fit_charge(prices, bound, w, prompt + w[11], further + w[12], searches + w[13])
  end
  if meter == 10 and searches == 0 then return ENOUGH, ENOUGH, ENOUGH end -- it takes nothing of an overdrawn limit
  local used, held, fixed, each = count(w, meter, prompt, prompt_nano)
  return fit(bound - fixed, each), fit(bound - used - fixed, each), fit(bound - used - held - fixed, each)
end

-- The rest of a limit.
local function left(limit, w)
  if limit[5] then return limit[4] - charge(limit[5], w, w[11], w[12], w[13]) end
  local used, held = count(w, limit[3], 0, 0)
  return limit[4] - used - held
end

-- The grant for a prompt of this size; or nil, the cause, the limit, and when to come back.
local function decide(prompt, prompt_nano)
  local fit_used, fit_now = asked, ENOUGH
  local spent, latest, tightest = 0, 0, 0
  for index = 1, #limits do
    local scope, kind = limits[index][1], limits[index][2]
    local if_empty, if_idle, at_once = fit_limit(limits[index], windows[scope][kind], prompt, prompt_nano)
    if if_empty < smallest then return nil, 'never', index, ends[kind] end
    if if_idle < smallest and ends[kind] > latest then spent, latest = index, ends[kind] end
    if if_idle < fit_used then fit_used = if_idle end
    if at_once < fit_now then fit_now, tightest = at_once, index end
  end
  if spent > 0 then return nil, 'used', spent, latest end
  -- A nearly used-up window may cut an answer down to the smallest grant. Running requests hold more than they will
  -- use, so their holds may not cut it to less than half of what it could have once they have ended.
  local least, most = math.floor(fit_used / 2), asked
  -- A large request uses a small part of what it asks for. It takes half of the room, which leaves the other half to
  -- requests that come while it runs, and it starts as soon as a usual answer fits.
  if asked > large then
    least, most = math.min(least, large), math.min(asked, math.max(math.floor(fit_now / 2), large, smallest))
  end
  if fit_now < math.max(smallest, least) then return nil, 'held', tightest, now + 1000 end
  return math.min(fit_now, most)
end

local prompt, prompt_nano = query[9], query[10]
local granted, cause, limit, ends_ms = decide(prompt, prompt_nano)
if not granted then
  local worth_counting = query[11] < prompt and decide(query[11], query[12])
  local refusing = limits[limit]
  local w, prices = windows[refusing[1]][refusing[2]], refusing[5]
  local used = prices and charge(prices, w, 0, 0, 0) or (count(w, refusing[3], 0, 0))
  return {'no', now, cause, limit, ends_ms, worth_counting and 1 or 0, expired, epoch, used}
end

local nano, output = prompt_nano + granted * rate, granted + further
local id = string.format('%04x%08x', math.floor(now / 4294967296), now % 4294967296) .. query[8]
local hold = struct.pack('>dddddd', prompt, output, searches, nano, now + query[16], minute)
    .. query[2] .. '|' .. query[4] .. '|' .. user
local newest = names[1] .. ' ' .. names[2] .. ' ' .. names[3]
local olds = {user_row[3], tenant_row[5]}
local keys = {KEYS[2], KEYS[1]}
for scope = 1, 2 do
  local fields = {'c', active[scope] + 1, 'h:' .. id, hold}
  if not oldest[scope] then
    fields[#fields + 1] = 'x'
    fields[#fields + 1] = string.format('%.0f', now + query[16])
  end
  for kind = 1, 3 do
    local w = windows[scope][kind]
    w = {w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9],
         w[10] + 1, w[11] + prompt, w[12] + output, w[13] + searches, w[14] + nano}
    windows[scope][kind] = w
    fields[#fields + 1] = names[kind]
    fields[#fields + 1] = struct.pack(FORMAT, unpack(w))
  end
  if olds[scope] ~= newest then
    fields[#fields + 1] = 'k'
    fields[#fields + 1] = newest
    for old in string.gmatch(olds[scope] or '', '%S+') do
      if old ~= names[1] and old ~= names[2] and old ~= names[3] then redis.call('HDEL', keys[scope], old) end
    end
    if scope == 1 then redis.call('EXPIRE', KEYS[2], IDLE_S) end
  end
  redis.call('HSET', keys[scope], unpack(fields))
end

local answer = {'ok', now, id, epoch, granted, expired}
for index = 1, #limits do
  answer[#answer + 1] = left(limits[index], windows[limits[index][1]][limits[index][2]])
end
return answer
