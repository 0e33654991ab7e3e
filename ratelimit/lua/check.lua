-- Decide any number of checks, each all-or-nothing over its limits.
--
-- KEYS   for each check in order: where its answer is remembered and the record of its reservation, if
--        ARGV says so; then one hash or set for each group of its layout.
--        A limit in a hash has two fields. For a bucket its name holds the tokens that are missing and
--        the name followed by `@` the time at which that was true; for failures the name holds the
--        times of those that still count, and the name followed by `@` the time until which it is shut.
--        Slots are a sorted set: reservation id, and the time at which its slot frees itself.
-- ARGV   [1] max_skew in microseconds; -1 trusts timestamps entirely (replay)
--        [2] number of layouts, then for each of them
--          number of groups, then for each of these
--            number of limits, then for each limit in a hash: field, count, period in microseconds, burst, kind
--            for slots (number of limits 0): capacity, time to live in microseconds, kind
--          kind is b for a bucket, p for one charged when the request settles, f for failures, s for
--          slots; in upper case for one that never denies (shadow)
--        then for each check:
--          timestamp in microseconds since the epoch, or '' for this server's clock
--          0 only to look, 1 to take what is admitted, 2 to take it and remember
--          number of its layout
--          with 2: 1 if its answer is remembered or 0, a mark of the question, 1 if it has a reservation or 0
--            and its id or -, milliseconds to remember, number of arguments of the record, then these: field, value …
--          the cost for each limit of the layout; of slots 1 to take one, 0 to look
-- Reply  for each check one text, separated by spaces: 1 if admitted or 0, the timestamp it was judged
--        at, then for each limit in the order of its layout two values of its state *before* the check, -
--        where there is none: both fields; for slots how many are taken, and microseconds until enough
--        are free again. A remembered answer comes as `again`, reservation's id, mark, and that text.
--        What is not admitted has written nothing.
--
-- The arithmetic is that of ratelimit/bucket.py: the same operations on the same doubles in the
-- same order, so that both reach the same decision to the last bit.

local unpack = unpack
local a, k = 3, 1

-- Looks at a limit that lies in a hash. Returns whether it admits, and what to write then, if anything:
-- tokens missing, and whether as of `t` or of the time before.
local function weigh(count, period, kind, burst, tolerance, cost, first, second, t)
  if kind == 'f' or kind == 'F' then return t >= (tonumber(second or 0) or 0) end

  local used, at = 0, t
  if first then used, at = tonumber(first) or 0, tonumber(second) or t end
  local seen = t
  if cost == 0 and t < at then seen = at end
  local level = used - (seen - at) * count / period
  if level < 0 then level = 0 end

  if kind == 'p' or kind == 'P' then return level < burst - tolerance end
  if level + cost > burst + tolerance then return false end
  if cost == 0 then return true end
  if t < at then return true, used + cost, at end
  return true, level + cost
end

local function slots(key, group, want, t)
  local capacity, at = group[2], replay and t or clock()
  local from = format('(%.0f', at)
  local taken = call('ZCOUNT', key, from, '+inf')
  if taken < capacity then return true, taken, '-', want and at end
  local frees = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', taken - capacity, 1)
  return not want, taken, format('%.0f', tonumber(frees[2]) - at)
end

-- The layouts. Each group of buckets is a table: the names of its fields, then five values for each limit:
-- count, period, kind, burst, and what admission forgives.
local layouts = {}
for number = 1, tonumber(ARGV[2]) do
  local groups, count = {}, tonumber(ARGV[a])
  a = a + 1
  for g = 1, count do
    local names, limits = {}, tonumber(ARGV[a])
    a = a + 1
    if limits == 0 then
      groups[g] = {false, tonumber(ARGV[a]), tonumber(ARGV[a + 1]), ARGV[a + 2]}
      a = a + 3
    else
      local group = {names}
      for i = 1, limits do
        local field, refill, period = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
        names[i * 2 - 1], names[i * 2] = field, field .. '@'
        group[i * 5 - 3], group[i * 5 - 2], group[i * 5 - 1] = refill, period, ARGV[a + 4]
        group[i * 5], group[i * 5 + 1] = tonumber(ARGV[a + 3]), min(1e-6, refill / period)
        a = a + 5
      end
      groups[g] = group
    end
  end
  layouts[number] = groups
end

local replies = {}

while ARGV[a] do
  local t, t_text = tonumber(ARGV[a]), ARGV[a]
  local stamped = t ~= nil
  if not stamped then
    t = clock()
    t_text = now_text
  elseif not replay and t > clock() + max_skew then
    t, t_text = now + max_skew, format('%.0f', now + max_skew)
  end
  local what, groups = ARGV[a + 1], layouts[tonumber(ARGV[a + 2])]
  a = a + 3

  local remembered, mark, record, id, remember, fields
  if what == '2' then
    if ARGV[a] == '1' then remembered, k = KEYS[k], k + 1 end
    if ARGV[a + 2] == '1' then record, k = KEYS[k], k + 1 end
    mark, id, remember = ARGV[a + 1], ARGV[a + 3], ARGV[a + 4]
    fields = {unpack(ARGV, a + 6, a + 5 + tonumber(ARGV[a + 5]))}
    a = a + 6 + #fields
  end
  local again = remembered and call('GET', remembered)

  local allowed, states, taken = true, '', ''
  local writes, opened = {}, nil
  for g = 1, #groups do
    local group, key = groups[g], KEYS[k]
    local names = group[1]
    k = k + 1

    if not names then
      local free, count, wait, at = slots(key, group, tonumber(ARGV[a]) > 0, t)
      a = a + 1
      states = states .. ' ' .. count .. ' ' .. wait
      if not free and group[4] == 's' then allowed = false end
      if free and at then
        opened = opened or {}
        opened[#opened + 1] = {key, at, group[3]}
      end
      if record then taken = taken .. (free and '1' or '0') end
    else
      local state = call('HMGET', key, unpack(names))
      local write, longest = nil, 0
      for j = 2, #group, 5 do
        local count, period, kind = group[j], group[j + 1], group[j + 2]
        local i = (j - 2) / 5 * 2 + 1
        local first, second = state[i], state[i + 1]
        local admits, used, at = weigh(count, period, kind, group[j + 3], group[j + 4], tonumber(ARGV[a]), first, second, t)
        a = a + 1
        states = states .. ' ' .. (first or '-') .. ' ' .. (second or '-')
        if not admits then
          if kind == 'b' or kind == 'p' or kind == 'f' then allowed = false end
        elseif used then
          write = write or {'HSET', key}
          local w = #write
          write[w + 1], write[w + 2], write[w + 3], write[w + 4] = names[i], used, names[i + 1], at and second or t_text
          local life = used * period / count
          if stamped or replay or at then life = life + margin(at or t, stamped) end
          if life > longest then longest = life end
        end
        if record then taken = taken .. (admits and '1' or '0') end
      end
      if write then writes[#writes + 1] = {write, key, longest} end
    end
  end

  local text = (allowed and '1 ' or '0 ') .. t_text .. states
  if again then
    text = 'again ' .. again
  elseif allowed and what ~= '0' then
    for i = 1, #writes do
      local entry = writes[i]
      call(unpack(entry[1]))
      outlive(entry[2], entry[3])
    end
    for _, slot in ipairs(opened or {}) do
      local key, at, ttl = slot[1], slot[2], slot[3]
      call('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', at))
      call('ZADD', key, format('%.0f', at + ttl), id)
      outlive(key, ttl)
    end
    if record then
      clock()
      call('HSET', record, 'state', 'open', 'at', t_text, 'clock', now_text, 'taken', taken, unpack(fields))
      call('PEXPIRE', record, remember)
    end
    if remembered then call('SET', remembered, id .. ' ' .. mark .. ' ' .. text, 'PX', remember) end
  end
  replies[#replies + 1] = text
end

return replies
