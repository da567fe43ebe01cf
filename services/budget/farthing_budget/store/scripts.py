"""What Redis runs in one go, in Lua. A bucket is the text `filled:at:total`; of concurrency, a sorted set of request ids by their ends."""

from __future__ import annotations

_BUCKETS = """
local KEPT_MS = 60000

local function number(text) return string.format('%.0f', text) end

local function floored(a, b) return (a - a % b) / b end

-- A bucket as of now: filled, at, total. What is not there is empty.
local function drained(key, rate, at, skew)
  local state = redis.call('GET', key)
  if not state then return 0, at, 0 end
  local filled, last, total = string.match(state, '(%d+):(%d+):(%d+)')
  filled, last, total = tonumber(filled), tonumber(last), tonumber(total)
  if last - at > skew then -- the clock was set back: from now on the bucket goes by the new time, also when nothing is taken
    redis.call('SET', key, number(filled) .. ':' .. number(at) .. ':' .. number(total), 'KEEPTTL')
  elseif last > at then
    at = last
  end
  return math.max(0, filled - rate * math.max(0, at - last)), at, total
end

-- Keeps a bucket until it has drained, and for as long as an admission may still be corrected.
local function keep(key, filled, at, total, rate, tick_us, ms)
  local drains_ms = math.ceil(filled / rate * tick_us / 1000)
  local keeps_ms = math.max(drains_ms, ms, redis.call('PTTL', key) - KEPT_MS) + KEPT_MS
  redis.call('SET', key, number(filled) .. ':' .. number(at) .. ':' .. number(total), 'PX', number(keeps_ms))
end
"""

ADMIT = (
    _BUCKETS
    + """
local now_us, fingerprint, request_id = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local lease_ends_us, ends_us, charges = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local before = redis.call('HMGET', KEYS[1], 'fingerprint', 'ends_at_us', 'requests_left', 'tokens_left')
if before[1] and tonumber(before[2]) > now_us then
  if before[1] ~= fingerprint then return {'REUSED'} end
  return {'ADMITTED', before[3], before[4]}
end

local buckets, all_fit = {}, true
for kind, rate, unit, tick_us, skew, capacity, asked, at in
    string.gmatch(charges, '%S+ (%u) (%d+) (%d+) (%d+) (%d+) %d+ (%d+) (%d+) (%d+)') do
  local key = KEYS[#buckets + 2]
  local b = {kind = kind, rate = tonumber(rate), unit = tonumber(unit), tick_us = tonumber(tick_us),
    capacity = tonumber(capacity), asked = tonumber(asked)}
  if kind == 'C' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[1])
    b.filled = redis.call('ZCARD', key)
  else
    b.filled, b.at, b.total = drained(key, b.rate, tonumber(at), tonumber(skew))
  end
  if b.filled + b.asked * b.unit > b.capacity then all_fit = false end
  buckets[#buckets + 1] = b
end
if not all_fit then
  local answer = {'REFUSED'}
  for i, b in ipairs(buckets) do answer[i + 1] = number(b.filled) end
  return answer
end

local left, marks = {R = -1, T = -1, C = -1}, {}
local ends_ms = math.ceil((ends_us - now_us) / 1000)
for i, b in ipairs(buckets) do
  local key, after = KEYS[i + 1], floored(b.capacity - b.filled, b.unit) - b.asked
  if left[b.kind] < 0 or after < left[b.kind] then left[b.kind] = after end
  if b.kind == 'C' then
    redis.call('ZADD', key, number(lease_ends_us), request_id)
    local keeps_ms = math.max(math.ceil((lease_ends_us - now_us) / 1000) + KEPT_MS, redis.call('PTTL', key))
    redis.call('PEXPIRE', key, number(keeps_ms))
    marks[i] = '0'
  else
    keep(key, b.filled + b.asked * b.unit, b.at, b.total + b.asked, b.rate, b.tick_us, ends_ms)
    marks[i] = number(b.total + b.asked)
  end
end
redis.call('HSET', KEYS[1], 'fingerprint', fingerprint, 'ends_at_us', number(ends_us), 'requests_left', number(left.R),
  'tokens_left', number(left.T), 'charges', charges, 'marks', table.concat(marks, ','))
redis.call('PEXPIRE', KEYS[1], number(ends_ms + KEPT_MS))
return {'ADMITTED', number(left.R), number(left.T)}
"""
)

FINISH = (
    _BUCKETS
    + """
local request_id, now_us, remembered_us, corrections = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local marks, ends_us = unpack(redis.call('HMGET', KEYS[1], 'marks', 'ends_at_us'))
if redis.call('HDEL', KEYS[1], 'marks', 'charges') == 0 then return 0 end
if tonumber(ends_us) > now_us + remembered_us then
  redis.call('HSET', KEYS[1], 'ends_at_us', number(now_us + remembered_us))
  redis.call('PEXPIRE', KEYS[1], number(math.ceil(remembered_us / 1000) + KEPT_MS))
end

local next_mark, i = string.gmatch(marks, '%d+'), 1
for kind, rate, unit, tick_us, skew, brim, at, more in
    string.gmatch(corrections, '(%u) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%-?%d+)') do
  local mark = tonumber(next_mark())
  i, rate, unit, more = i + 1, tonumber(rate), tonumber(unit), tonumber(more)
  if kind == 'C' then
    redis.call('ZREM', KEYS[i], request_id)
  elseif more ~= 0 then
    local filled, now, total = drained(KEYS[i], rate, tonumber(at), tonumber(skew))
    if more > 0 then
      filled, total = math.min(tonumber(brim), filled + more * unit), total + more
    else
      local inside = math.min(filled, filled - (total - mark) * unit)
      filled = filled - math.max(0, math.min(-more * unit, inside))
    end
    keep(KEYS[i], filled, now, total, rate, tonumber(tick_us), 0)
  end
end
return 1
"""
)
