-- Decide any number of checks, each all-or-nothing over its limits.
--
-- KEYS   hashes and sets that hold the limits' state, records of reservations, and answers that are
--        remembered by request id; ARGV points to each by its index.
--        A limit in a hash has two fields. For a bucket its name holds the tokens that are missing and
--        the name followed by `@` the time at which that was true; for failures the name holds the
--        times of those that still count, and the name followed by `@` the time until which it is shut.
--        Slots are a sorted set: reservation id, and the time at which its slot frees itself.
-- ARGV   [1] max_skew in microseconds; -1 trusts timestamps entirely (replay)
--        then for each check:
--          timestamp in microseconds since the epoch, or '' for this server's clock
--          0 only to look, 1 to take what is admitted, 2 to take it and remember; with 2 also:
--            index of the remembered answer or 0 and a mark of the question, index of the reservation's
--            record or 0 and its id or -, milliseconds to remember, number of arguments of the record, then these: field, value …
--          number of groups, then for each of them index into KEYS and number of limits, then
--            for each limit in a hash: field, count, period in microseconds, burst, cost, kind
--            for slots (number of limits 0): capacity, time to live in microseconds, 1 to take one, kind
--          kind is b for a bucket, p for one charged when the request settles, f for failures, s for
--          slots; in upper case for one that never denies (shadow)
-- Reply  for each check one text, separated by spaces: 1 if admitted or 0, the timestamp it was judged
--        at, then for each limit in the order asked two values of its state *before* the check, - where
--        there is none: both fields; for slots how many are taken, and microseconds until enough
--        are free again. A remembered answer comes as `again`, reservation's id, mark, and that text.
--        What is not admitted has written nothing.
--
-- The arithmetic is that of ratelimit/bucket.py: the same operations on the same doubles in the
-- same order, so that both reach the same decision to the last bit.

local a = 2

-- Looks at a limit that lies in a hash. Returns whether it admits, and what to write then, if anything.
local function weigh(first, second, t, stamped)
  local kind = ARGV[a + 5]
  if kind == 'f' or kind == 'F' then return t >= (tonumber(second or 0) or 0) end

  local count, period = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local burst, cost = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  local used, at = tonumber(first or 0) or 0, tonumber(second or t) or t
  local tolerance = math.min(1e-6, count / period)
  local seen = t
  if cost == 0 and t < at then seen = at end
  local level = math.max(used - (seen - at) * count / period, 0)

  if kind == 'p' or kind == 'P' then return level < burst - tolerance end
  if level + cost > burst + tolerance then return false end
  if cost == 0 then return true end
  if t < at then used = used + cost else used, at = level + cost, t end
  return true, used, at, used * period / count + margin(at, stamped)
end

local function slots(key, t)
  local capacity, want = tonumber(ARGV[a]), ARGV[a + 2] == '1'
  local at = replay and t or clock()
  local from = string.format('(%.0f', at)
  local taken = redis.call('ZCOUNT', key, from, '+inf')
  if taken < capacity then return true, taken, '-', want and at end
  local frees = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', taken - capacity, 1)
  return not want, taken, string.format('%.0f', tonumber(frees[2]) - at)
end

local replies = {}

while ARGV[a] do
  local t = tonumber(ARGV[a])
  local stamped = t ~= nil
  if not stamped then
    t = clock()
  elseif not replay and t > clock() + max_skew then
    t = clock() + max_skew
  end
  local what = ARGV[a + 1]
  a = a + 2

  local remembered, mark, record, id, remember, fields
  if what == '2' then
    remembered, mark = KEYS[tonumber(ARGV[a])], ARGV[a + 1]
    record, id, remember = KEYS[tonumber(ARGV[a + 2])], ARGV[a + 3], ARGV[a + 4]
    fields = {unpack(ARGV, a + 6, a + 5 + tonumber(ARGV[a + 5]))}
    a = a + 6 + #fields
  end
  local again = remembered and redis.call('GET', remembered)

  local groups = tonumber(ARGV[a])
  a = a + 1

  local reply = {'1', string.format('%.0f', t)}
  local writes, opened, taken = {}, {}, {}
  for _ = 1, groups do
    local key, limits = KEYS[tonumber(ARGV[a])], tonumber(ARGV[a + 1])
    a = a + 2

    if limits == 0 then
      local free, count, wait, at = slots(key, t)
      local n = #reply
      reply[n + 1], reply[n + 2] = count, wait
      if not free and ARGV[a + 3] == 's' then reply[1] = '0' end
      if free and at then opened[#opened + 1] = {key, at, tonumber(ARGV[a + 1])} end
      taken[#taken + 1] = free and '1' or '0'
      a = a + 4
    else
      local names = {}
      for i = 0, limits - 1 do
        names[i * 2 + 1] = ARGV[a + i * 6]
        names[i * 2 + 2] = ARGV[a + i * 6] .. '@'
      end
      local state = redis.call('HMGET', key, unpack(names))

      local write, longest = {key}, 0
      for i = 1, limits * 2, 2 do
        local admits, used, at, life = weigh(state[i], state[i + 1], t, stamped)
        if not admits then
          local kind = ARGV[a + 5]
          if kind == 'b' or kind == 'p' or kind == 'f' then reply[1] = '0' end
        elseif used then
          local n = #write
          write[n + 1], write[n + 2] = names[i], string.format('%.17g', used)
          write[n + 3], write[n + 4] = names[i + 1], string.format('%.0f', at)
          longest = math.max(longest, life)
        end
        taken[#taken + 1] = admits and '1' or '0'
        local n = #reply
        reply[n + 1], reply[n + 2] = state[i] or '-', state[i + 1] or '-'
        a = a + 6
      end
      if #write > 1 then writes[#writes + 1] = {write, longest} end
    end
  end

  local text = table.concat(reply, ' ')
  if again then
    text = 'again ' .. again
  elseif what ~= '0' and reply[1] == '1' then
    for _, entry in ipairs(writes) do
      redis.call('HSET', unpack(entry[1]))
      outlive(entry[1][1], entry[2])
    end
    for _, slot in ipairs(opened) do
      local key, at, ttl = slot[1], slot[2], slot[3]
      redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', at))
      redis.call('ZADD', key, string.format('%.0f', at + ttl), id)
      outlive(key, ttl)
    end
    if record then
      redis.call('HSET', record, 'state', 'open', 'at', string.format('%.0f', t),
        'clock', string.format('%.0f', clock()), 'taken', table.concat(taken), unpack(fields))
      redis.call('PEXPIRE', record, remember)
    end
    if remembered then redis.call('SET', remembered, id .. ' ' .. mark .. ' ' .. text, 'PX', remember) end
  end
  replies[#replies + 1] = text
end

return replies
