-- Decide any number of checks, each all-or-nothing over its buckets.
--
-- KEYS   the hashes that hold the buckets. A limit has two fields in its hash: its name holds the
--        tokens that are missing, and the name followed by `@` the time at which that was true.
-- ARGV   [1] max_skew in microseconds; -1 trusts timestamps entirely (replay)
--        then for each check:
--          timestamp in microseconds since the epoch, or '' for this server's clock
--          1 to take what is admitted, 0 only to look
--          number of hashes, then for each of them:
--            index into KEYS, number of limits, then for each of them:
--              field, count, period in microseconds, burst, cost, 1 if it never denies (shadow)
-- Reply  for each check {1 if admitted or 0, the timestamp it was judged at, then for each limit in
--        the order asked: used, at}, the state *before* the check, nil where nothing was missing.
--        What is not admitted has written nothing.
--
-- The arithmetic is that of ratelimit/bucket.py: the same operations on the same doubles in the
-- same order, so that both reach the same decision to the last bit.

local max_skew = tonumber(ARGV[1])
local replay = max_skew < 0
local now

local function clock()
  if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  return now
end

-- A later call may carry an earlier timestamp than this one, so what a caller's timestamp wrote
-- outlives its refill by as much as clocks may disagree. A replay has no clock to go by: a minute
-- covers its pauses.
local function lifetime(used, at, count, period, stamped)
  local full = used * period / count
  if replay then return full + 60000000 end
  if at > clock() then full = full + at - clock() end
  if stamped then full = full + max_skew end
  return full
end

-- PEXPIRE refuses fractions, deletes at 0, and only newer servers know GT; a century is its cap here.
local function outlive(key, microseconds)
  local ttl = math.min(math.max(math.ceil(microseconds / 1000), 1), 3155760000000)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, string.format('%.0f', ttl)) end
end

local replies = {}
local a = 2

while ARGV[a] do
  local t = tonumber(ARGV[a])
  local stamped = t ~= nil
  if not stamped then
    t = clock()
  elseif not replay and t > clock() + max_skew then
    t = clock() + max_skew
  end
  local taking, hashes = ARGV[a + 1] == '1', tonumber(ARGV[a + 2])
  a = a + 3

  local reply = {1, t}
  local writes = {}
  for _ = 1, hashes do
    local key, limits = KEYS[tonumber(ARGV[a])], tonumber(ARGV[a + 1])
    a = a + 2

    local fields = {}
    for i = 0, limits - 1 do
      fields[i * 2 + 1] = ARGV[a + i * 6]
      fields[i * 2 + 2] = ARGV[a + i * 6] .. '@'
    end
    local state = redis.call('HMGET', key, unpack(fields))

    local write, longest = {key}, 0
    for i = 1, limits * 2, 2 do
      local count, period = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
      local burst, cost = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
      local used, at = tonumber(state[i] or 0), tonumber(state[i + 1] or t)

      local seen = t
      if cost == 0 and t < at then seen = at end
      local level = math.max(used - (seen - at) * count / period, 0)

      if level + cost > burst + math.min(1e-6, count / period) then
        if ARGV[a + 5] ~= '1' then reply[1] = 0 end
      elseif cost > 0 then
        if t < at then used = used + cost else used, at = level + cost, t end
        local n = #write
        write[n + 1], write[n + 2] = fields[i], string.format('%.17g', used)
        write[n + 3], write[n + 4] = fields[i + 1], string.format('%.0f', at)
        longest = math.max(longest, lifetime(used, at, count, period, stamped))
      end

      reply[#reply + 1] = state[i]
      reply[#reply + 1] = state[i + 1]
      a = a + 6
    end
    if #write > 1 then writes[#writes + 1] = {write, longest} end
  end

  if taking and reply[1] == 1 then
    for _, entry in ipairs(writes) do
      redis.call('HSET', unpack(entry[1]))
      outlive(entry[1][1], entry[2])
    end
  end
  replies[#replies + 1] = reply
end

return replies
