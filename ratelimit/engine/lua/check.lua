-- Decide any number of checks, each all-or-nothing over its limits.
--
-- KEYS   for each check in order: where its answer is remembered and the record of its reservation, if
--        ARGV says so; then one for each group of limits of its layout.
--        A group of buckets is a string: see prelude.lua. What a limit on failures has counted is a string
--        of doubles: the time until which it is shut, and the times of those that still count. Slots are a
--        sorted set: reservation id, and the time at which its slot frees itself.
-- ARGV   [1] two doubles: see prelude.lua, and at which ARGV the checks begin
--        Then the groups of limits, two for each:
--          of buckets: their names with commas between them and `|` behind, and five doubles each: count,
--          period in microseconds, burst, tolerance, and 1 for a bucket, 2 for one that never denies
--          (shadow), 3 for one charged when the request settles, 4 for such a one in shadow mode
--          of slots: s, S in shadow mode, and two doubles: capacity, time to live in microseconds
--          of failures: f, F in shadow mode, and nothing
--        then for each check doubles:
--          timestamp in microseconds since the epoch, or -1 for this server's clock
--          0 only to look, 1 to take what is admitted, 2 to take it and remember
--          the ARGVs of its first and of its last group
--          the cost for each limit of its groups; of slots 1 to take one, 0 to look
--        and with 2: 1 if its answer is remembered or 0, a mark of the question, 1 if it has a reservation or 0
--          and its id or -, milliseconds to remember, number of arguments of the record, then these: field, value …
-- Reply  of one check a string, of several an array of such: 1 if admitted or 0; then doubles: the timestamp
--        it was judged at, and for each limit two of its state *before* the check: of a bucket what was
--        missing and when; of failures until when it is shut and how many count; of slots how many are taken,
--        and microseconds until enough are free again, -1 if they are; and then for each limit on failures
--        the times of those that count. A remembered answer comes as `again`, reservation's id, mark, and
--        that string, with spaces. What is not admitted has written nothing.
--
-- The arithmetic is that of ratelimit/engine/bucket.py: the same operations on the same doubles in the
-- same order, so that both reach the same decision to the last bit.

local a, k = begin, 1

-- Puts the buckets of `names` in front of an owner's others: names were edited, or another plan came between.
local function arranged(state, names, read, write)
  local found, used, at, ends = read(state)
  local wanted, mine, others = {}, {}, {}
  for name in string.gmatch(names, '[^,|]+') do
    mine[#mine + 1], wanted[name] = name, true
  end
  for _, name in ipairs(found) do
    if not wanted[name] then others[#others + 1] = name end
  end
  return write(mine, used, at, ends) .. (others[1] and write(others, used, at, ends) or '')
end

-- Returns whether there is a slot at the time `at`, how many are taken, and how long none is free, or -1.
local function slots(key, capacity, at)
  local from = string.format('(%.0f', at)
  local taken = redis.call('ZCOUNT', key, from, '+inf')
  if taken < capacity then return true, taken, -1 end
  local frees = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', taken - capacity, 1)
  return false, taken, frees[2] - at
end

local replies, answered, now_packed = {}, 0, pack('<d', now)
local check = ARGV[a]

while check do
  a = a + 1
  local t, what, first, last, c = take('<dddd', check)
  local stamped = t >= 0
  if not stamped then
    t = now
  elseif not replay and t > now + max_skew then
    t = now + max_skew
  end

  local remembered, mark, record, id, remember, fields
  if what == 2 then
    if ARGV[a] == '1' then remembered, k = KEYS[k], k + 1 end
    if ARGV[a + 2] == '1' then record, k = KEYS[k], k + 1 end
    mark, id, remember = ARGV[a + 1], ARGV[a + 3], ARGV[a + 4]
    fields = {unpack(ARGV, a + 6, a + 5 + ARGV[a + 5])}
    a = a + 6 + #fields
  end

  local allowed, states, times, taken = true, '', '', ''
  local writes, opened  -- each the newest of a chain
  for g = first, last, 2 do
    local names, numbers, key = ARGV[g], ARGV[g + 1], KEYS[k]
    local size, stop = #names, #numbers
    k = k + 1

    if size > 1 then
      local bytes = stop / 40 * 16
      local state, data, changed, ends = call('GET', key), '', false, 0
      local p, n = size + 1, 1
      if state then
        if sub(state, 1, size) ~= names then state = arranged(state, names, blocks(struct)) end
        ends = take('<d', state, p + bytes)
      end
      while n < stop do
        local count, period, burst, tolerance, kind, cost
        count, period, burst, tolerance, kind, n = take('<ddddd', numbers, n)
        cost, c = take('<d', check, c)
        local used, at = 0, 0
        if state then used, at, p = take('<dd', state, p) end
        local seen = t
        if cost == 0 and t < at then seen = at end
        local level = used - (seen - at) * count / period
        if level < 0 then level = 0 end

        local admits = true
        if kind > 2 then
          admits = level < burst - tolerance
        elseif level + cost > burst + tolerance then
          admits = false
        elseif cost > 0 then
          if t < at then used = used + cost else used, at = level + cost, t end
          local full = (stamped or replay) and refills(at, now, max_skew) or at
          full = full + used * period / count
          if full > ends then ends = full end
          changed = true
        end
        if not admits and (kind == 1 or kind == 3) then allowed = false end
        if record then taken = taken .. (admits and '1' or '0') end
        if n < stop then
          data = data .. pack('<dd', used, at)
        else
          data = data .. pack('<ddd', used, at, ends)
        end
      end
      states = states .. (state and sub(state, size + 1, size + bytes) or string.rep('\0', bytes))
      if changed then
        writes = {key, names .. data .. (state and sub(state, size + bytes + 9) or ''), ends, writes}
      end

    elseif names == 'f' or names == 'F' then
      local state = call('GET', key)
      local shut = state and take('<d', state) or 0
      states = states .. pack('<dd', shut, state and #state / 8 - 1 or 0)
      if state then times = times .. sub(state, 9) end
      c = c + 8
      local admits = t >= shut
      if not admits and names == 'f' then allowed = false end
      if record then taken = taken .. (admits and '1' or '0') end

    else
      local capacity, ttl = take('<dd', numbers)
      local want
      want, c = take('<d', check, c)
      local at = replay and t or now
      local free, count, wait = slots(key, capacity, at)
      states = states .. pack('<dd', count, wait)
      if free and want > 0 then opened = {key, at, ttl, opened} end
      free = free or want == 0
      if not free and names == 's' then allowed = false end
      if record then taken = taken .. (free and '1' or '0') end
    end
  end

  local reply = (allowed and '1' or '0') .. (t == now and now_packed or pack('<d', t)) .. states .. times
  local again = remembered and call('GET', remembered)
  if again then
    reply = 'again ' .. again
  elseif allowed and what > 0 then
    while writes do
      call('SET', writes[1], writes[2], 'PXAT', goes(writes[3]))
      writes = writes[4]
    end
    while opened do
      local set, at, ttl = opened[1], opened[2], opened[3]
      call('ZREMRANGEBYSCORE', set, '-inf', string.format('%.0f', at))
      call('ZADD', set, string.format('%.0f', at + ttl), id)
      if call('PTTL', set) < ttl / 1000 then call('PEXPIRE', set, ttl / 1000) end
      opened = opened[4]
    end
    if record then
      call('HSET', record, 'state', 'open', 'at', string.format('%.0f', t), 'clock', string.format('%.0f', now),
        'taken', taken, unpack(fields))
      call('PEXPIRE', record, remember)
    end
    if remembered then call('SET', remembered, id .. ' ' .. mark .. ' ' .. reply, 'PX', remember) end
  end
  answered = answered + 1
  replies[answered] = reply
  check = ARGV[a]
end

-- The server puts an array together in a buffer of its own: that costs a lone check two microseconds.
if answered == 1 then return replies[1] end
return replies
