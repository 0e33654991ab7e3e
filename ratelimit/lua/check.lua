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

local concat, unpack = table.concat, unpack
local a, k = 3, 1

-- Reads a layout: for each group its limits, and the names of their fields.
local function layout()
  local groups = {}
  local number = tonumber(ARGV[a])
  a = a + 1
  for g = 1, number do
    local limits, names = {}, {}
    local count = tonumber(ARGV[a])
    a = a + 1
    if count == 0 then
      groups[g] = {slots = true, capacity = tonumber(ARGV[a]), ttl = tonumber(ARGV[a + 1]), kind = ARGV[a + 2]}
      a = a + 3
    else
      for i = 1, count do
        local field, refill, period = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
        limits[i] = {refill, period, tonumber(ARGV[a + 3]), ARGV[a + 4], min(1e-6, refill / period)}
        names[i * 2 - 1], names[i * 2] = field, field .. '@'
        a = a + 5
      end
      groups[g] = {limits = limits, names = names}
    end
  end
  return groups
end

-- Looks at a limit that lies in a hash. Returns whether it admits, and what to write then, if anything:
-- tokens missing, whether as of `t` or of the time before, and how long to keep that.
local function weigh(limit, cost, first, second, t, stamped)
  local count, period, burst, kind, tolerance = limit[1], limit[2], limit[3], limit[4], limit[5]
  if kind == 'f' or kind == 'F' then return t >= (tonumber(second or 0) or 0) end

  local used, at = 0, t
  if first then used, at = tonumber(first) or 0, tonumber(second) or t end
  local seen = t
  if cost == 0 and t < at then seen = at end
  local level = max(used - (seen - at) * count / period, 0)

  if kind == 'p' or kind == 'P' then return level < burst - tolerance end
  if level + cost > burst + tolerance then return false end
  if cost == 0 then return true end
  if t < at then
    used = used + cost
    return true, used, false, used * period / count + margin(at, stamped)
  end
  used = level + cost
  return true, used, true, used * period / count + margin(t, stamped)
end

local function slots(key, group, want, t)
  local at = replay and t or clock()
  local from = format('(%.0f', at)
  local taken = call('ZCOUNT', key, from, '+inf')
  if taken < group.capacity then return true, taken, '-', want and at end
  local frees = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', taken - group.capacity, 1)
  return not want, taken, format('%.0f', tonumber(frees[2]) - at)
end

local layouts = {}
for number = 1, tonumber(ARGV[2]) do layouts[tostring(number)] = layout() end

local replies, now_text = {}, nil

while ARGV[a] do
  local t, t_text = tonumber(ARGV[a]), ARGV[a]
  local stamped = t ~= nil
  if not stamped then
    t = clock()
    now_text = now_text or format('%.0f', t)
    t_text = now_text
  elseif not replay and t > clock() + max_skew then
    t = clock() + max_skew
    t_text = format('%.0f', t)
  end
  local what, groups = ARGV[a + 1], layouts[ARGV[a + 2]]
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

  local reply, n = {'1', t_text}, 2
  local writes, opened, taken = {}, {}, {}
  for g = 1, #groups do
    local group, key = groups[g], KEYS[k]
    k = k + 1

    if group.slots then
      local free, count, wait, at = slots(key, group, tonumber(ARGV[a]) > 0, t)
      a = a + 1
      reply[n + 1], reply[n + 2] = count, wait
      n = n + 2
      if not free and group.kind == 's' then reply[1] = '0' end
      if free and at then opened[#opened + 1] = {key, at, group.ttl} end
      taken[#taken + 1] = free and '1' or '0'
    else
      local limits, names = group.limits, group.names
      local state = call('HMGET', key, unpack(names))
      local write, w, longest = {'HSET', key}, 2, 0
      for i = 1, #limits do
        local limit, first, second = limits[i], state[i * 2 - 1], state[i * 2]
        local admits, used, fresh, life = weigh(limit, tonumber(ARGV[a]), first, second, t, stamped)
        a = a + 1
        if not admits then
          local kind = limit[4]
          if kind == 'b' or kind == 'p' or kind == 'f' then reply[1] = '0' end
        elseif used then
          write[w + 1], write[w + 2] = names[i * 2 - 1], format('%.17g', used)
          write[w + 3], write[w + 4] = names[i * 2], fresh and t_text or second
          w = w + 4
          longest = max(longest, life)
        end
        taken[#taken + 1] = admits and '1' or '0'
        reply[n + 1], reply[n + 2] = first or '-', second or '-'
        n = n + 2
      end
      if w > 2 then writes[#writes + 1] = {write, key, longest} end
    end
  end

  local text = concat(reply, ' ')
  if again then
    text = 'again ' .. again
  elseif what ~= '0' and reply[1] == '1' then
    for i = 1, #writes do
      local entry = writes[i]
      call(unpack(entry[1]))
      outlive(entry[2], entry[3])
    end
    for _, slot in ipairs(opened) do
      local key, at, ttl = slot[1], slot[2], slot[3]
      call('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', at))
      call('ZADD', key, format('%.0f', at + ttl), id)
      outlive(key, ttl)
    end
    if record then
      call('HSET', record, 'state', 'open', 'at', t_text, 'clock', format('%.0f', clock()),
        'taken', concat(taken), unpack(fields))
      call('PEXPIRE', record, remember)
    end
    if remembered then call('SET', remembered, id .. ' ' .. mark .. ' ' .. text, 'PX', remember) end
  end
  replies[#replies + 1] = text
end

return replies
