-- May this request start, and how much may it answer? Every window of the user and of its tenant in one step.
--
-- KEYS[1] the tenant's hash, KEYS[2] the user's hash, KEYS[3] the tenant's set of built users (one hash tag: one slot)
-- ARGV[1] MessagePack of the question:
--   [user, day, day_ends_ms, period, period_ends_ms, from_ms, until_ms, id_tail,
--    prompt, prompt_nano, likely, likely_nano, asked, smallest, output_rate_nano, ttl_ms, read_epoch, ahead_ms, resumes]
--   from_ms <= now < until_ms is what windows and entitlement are meant for; read_epoch = the tenant's epoch when the
--   entitlement was read; ahead_ms = how far a test clock is ahead; resumes = 1: the period was interrupted by another
--   prompt = the most tokens it can be, likely = what it probably is; nano = nano-USD at the dearest rate
-- ARGV[2] MessagePack of the entitlement: [user_concurrency, tenant_concurrency, [[scope, window, meter, bound], ...]]
--   meter 10 is a charge, and has a fifth member: [allowance, rate] of input, cache reads, cache writes, output (flat)
-- ARGV[3] the run of the Redis that this is sent to: the lane adds it when it sends, not when it was asked
--
-- Fields of a hash:
--   e           the epoch of the tenant under which the hash was built; r the run of the Redis that it was built in
--   n           (tenant's hash) the size of the set of users whose hashes were built in this epoch. The set is a key
--               of its own, so that whoever reads the whole hash reads holds and windows, however many users there are
--   c           requests that run now; k the names of the newest windows, so that older ones can be dropped
--   m:<minute> d:<day> p:<period>   a window: 11 doubles, what was used and what is held:
--               used requests, input, output, cache_read, cache_write_5m, cache_write_1h, nano-USD;
--               held requests, prompt, output, nano-USD
--   h:<id>      a hold: 5 doubles (prompt, output, nano-USD, deadline_ms, minute), then "<day>|<period>|<user>"
--   x           no hold is older than this deadline: when it has passed, somebody looks for holds that lapsed
--
-- Answers (lapsed = 1: a hold may be past its deadline, look for it):
--          {'ok', now_ms, id, epoch, granted, lapsed, room...}, room = what is left of each limit after this hold, in order
--          {'no', now_ms, cause, limit, ends_ms, count, lapsed, epoch}:
--                     cause 'used' | 'held' | 'never' (would not fit an empty window);
--                     limit = the index of the limit (0: the user's concurrency, -1: the tenant's)
--                     count = 1 when a prompt of the likely size would be granted: worth an exact count
--          {'rebuild', epoch}, {'user', epoch}: the shadow is not whole; {'clock', now_ms}: ask with these windows
--          {'entitlement', epoch}: the shadow is younger than the entitlement; it may name another period

local ask = cmsgpack.unpack(ARGV[1])
local entitlement = cmsgpack.unpack(ARGV[2])
local run, user = ARGV[3], ask[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + ask[18]
local minute = math.floor(now / 60000)

local IDLE_S = 45 * 86400 -- longer than a period: a hash that lapses holds nothing that still counts
local names = {'m:' .. minute, 'd:' .. ask[2], 'p:' .. ask[4]}
local ends = {(minute + 1) * 60000, ask[3], ask[5]}
local tenant_row = redis.call('HMGET', KEYS[1], 'e', 'r', 'n', 'c', 'k', 'x', names[1], names[2], names[3])
local user_row = redis.call('HMGET', KEYS[2], 'e', 'c', 'k', 'x', names[1], names[2], names[3])

local epoch = tenant_row[1]
-- Without n it was built by a version that kept no set of users.
if not epoch or tenant_row[2] ~= run or not tenant_row[3] then return {'rebuild', epoch or '0'} end
if tonumber(epoch) > ask[17] then return {'entitlement', epoch} end
if user_row[1] ~= epoch then
  -- A hash that was built and is gone may have held something; so may any, when the set is not whole. The field is
  -- the mark of a process of that older version, beside which this one runs during an upgrade.
  if redis.call('SISMEMBER', KEYS[3], user) == 1 or redis.call('SCARD', KEYS[3]) ~= tonumber(tenant_row[3])
      or redis.call('HGET', KEYS[1], 'u:' .. user) == epoch then
    return {'rebuild', epoch}
  end
  return {'user', epoch}
end
if now < ask[6] or now >= ask[7] then return {'clock', now} end
-- Its field was dropped when the other period began; a hash that is built now has it.
if ask[19] == 1 and not (tenant_row[9] and user_row[7]) then return {'rebuild', epoch} end

local EMPTY = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
local FORMAT = '>ddddddddddd'
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
local lapsed = 0
for scope = 1, 2 do
  if oldest[scope] and now > oldest[scope] + GRACE_MS then lapsed = 1 end
end
local active = {tonumber(user_row[2] or 0), tonumber(tenant_row[4] or 0)}

for scope = 1, 2 do
  local most = entitlement[scope]
  if most >= 0 and active[scope] + 1 > most then
    return {'no', now, most == 0 and 'never' or 'held', 1 - scope, now + 1000, 0, lapsed, epoch}
  end
end

local limits = entitlement[3]
local asked, smallest, rate = ask[13], math.min(ask[13], ask[14]), ask[15]

-- What usage over the allowances comes to: what was used, and what is pending at its dearest: the prompt in one class.
local function charge(prices, w, prompt, output)
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
end

-- The output tokens that fit under a ceiling on the charge, on top of a window and of what is pending.
local function fit_charge(prices, bound, w, prompt, output)
  local allowance, rate = prices[7], prices[8]
  local of_prompt = {prices[1], prices[2], prices[3], prices[4], prices[5], prices[6], 0, 0}
  local rest = bound - charge(of_prompt, w, prompt, 0)
  if rest < 0 then return -1 end
  if rate == 0 then return asked end
  return math.max(-1, allowance + math.floor(rest / rate) - w[3] - output)
end

-- What a limit's meter says of a window: what was used, what is held, and what this request adds at least.
local function count(w, meter, prompt, prompt_nano)
  if meter == 1 then return w[1], w[8], 1, 0 end
  if meter == 3 then return w[3], w[10], 0, 1 end
  if meter == 7 then return w[7], w[11], prompt_nano, rate end
  if meter == 8 then return w[2] + w[3] + w[4] + w[5] + w[6], w[9] + w[10], prompt, 1 end
  if meter == 9 then return w[5] + w[6], w[9], prompt, 0 end
  return w[meter], w[9], prompt, 0
end

-- The output tokens that fit into `room`, when each costs `each` of it.
local function fit(room, each)
  if room < 0 then return -1 end
  if each == 0 then return asked end
  return math.floor(room / each)
end

-- The output tokens that fit under a limit: if nothing had been used, if nothing were held, and now.
local function fit_limit(limit, w, prompt, prompt_nano)
  local meter, bound, prices = limit[3], limit[4], limit[5]
  if prices then
    return fit_charge(prices, bound, EMPTY, prompt, 0), fit_charge(prices, bound, w, prompt, 0),
        fit_charge(prices, bound, w, prompt + w[9], w[10])
  end
  local used, held, fixed, each = count(w, meter, prompt, prompt_nano)
  return fit(bound - fixed, each), fit(bound - used - fixed, each), fit(bound - used - held - fixed, each)
end

-- What is left of a limit.
local function left(limit, w)
  if limit[5] then return limit[4] - charge(limit[5], w, w[9], w[10]) end
  local used, held = count(w, limit[3], 0, 0)
  return limit[4] - used - held
end

-- The grant for a prompt of this size; or nil, the cause, the limit, and when to come back.
local function judge(prompt, prompt_nano)
  local fit_used, fit_now = asked, asked
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
  -- The end of a window may cut an answer short, down to the smallest grant. Other answers that still run (and hold
  -- more than they will use) may not cut it to less than half of what it could have once they are done.
  if fit_now < math.max(smallest, math.floor(fit_used / 2)) then return nil, 'held', tightest, now + 1000 end
  return fit_now
end

local prompt, prompt_nano = ask[9], ask[10]
local granted, cause, limit, ends_ms = judge(prompt, prompt_nano)
if not granted then
  local worth_counting = ask[11] < prompt and judge(ask[11], ask[12])
  return {'no', now, cause, limit, ends_ms, worth_counting and 1 or 0, lapsed, epoch}
end

local nano = prompt_nano + granted * rate
local id = string.format('%04x%08x', math.floor(now / 4294967296), now % 4294967296) .. ask[8]
local hold = struct.pack('>ddddd', prompt, granted, nano, now + ask[16], minute) .. ask[2] .. '|' .. ask[4] .. '|' .. user
local newest = names[1] .. ' ' .. names[2] .. ' ' .. names[3]
local olds = {user_row[3], tenant_row[5]}
local keys = {KEYS[2], KEYS[1]}
for scope = 1, 2 do
  local fields = {'c', active[scope] + 1, 'h:' .. id, hold}
  if not oldest[scope] then
    fields[#fields + 1] = 'x'
    fields[#fields + 1] = string.format('%.0f', now + ask[16])
  end
  for kind = 1, 3 do
    local w = windows[scope][kind]
    w = {w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8] + 1, w[9] + prompt, w[10] + granted, w[11] + nano}
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

local answer = {'ok', now, id, epoch, granted, lapsed}
for index = 1, #limits do
  answer[#answer + 1] = left(limits[index], windows[limits[index][1]][limits[index][2]])
end
return answer
