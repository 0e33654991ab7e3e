-- What every script starts with: time, and how long state must live. Put in front of each by scripts.py.
--
-- KEYS   none of its own
-- ARGV   [1] max_skew in microseconds; -1 trusts timestamps entirely (replay)
-- Reply  none of its own

local KEYS, ARGV, call, tonumber, format = KEYS, ARGV, redis.call, tonumber, string.format
local max, min, ceil = math.max, math.min, math.ceil

local max_skew = tonumber(ARGV[1])
local replay = max_skew < 0
local now, now_text

local function clock()
  if not now then
    local time = call('TIME')
    now_text = time[1] .. string.sub('00000' .. time[2], -6)
    now = tonumber(now_text)
  end
  return now
end

-- How long state of time `at` outlives its refill. A later call may carry an earlier timestamp than this
-- one, so what a caller's timestamp wrote (`stamped`) stays for as much as clocks may disagree. A replay
-- has no clock to go by: a minute covers its pauses.
local function margin(at, stamped)
  if replay then return 60000000 end
  return max(at - clock(), 0) + (stamped and max_skew or 0)
end

-- PEXPIRE refuses fractions, deletes at 0, and only newer servers know GT; a century is its cap here.
-- A number given to a command keeps 17 digits, so whole ones stay whole.
local function outlive(key, microseconds)
  local ttl = min(max(ceil(microseconds / 1000), 1), 3155760000000)
  if call('PTTL', key) < ttl then call('PEXPIRE', key, ttl) end
end
