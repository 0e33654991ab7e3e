-- Decides any number of checks. Each check is all or nothing over its limits.
--
-- KEYS   for each check in order: the store key of its remembered answer and that of its reservation's record,
--        if ARGV asks for them; then one for each group of limits of its layout.
--        A group of buckets is a string: see prelude.lua. What a limit on failures has counted is a string of
--        doubles: the time until which the limit denies, and the times of the failures that still count.
--        Slots are a sorted set: reservation ids, scored by the time at which the slot frees itself.
-- ARGV   [1] three doubles: see prelude.lua; the second is the index of the first check in ARGV, the third is 1
--        if a key occurs more than once in KEYS, else 0
--        Then the groups of limits, two values for each:
--          buckets: their names with commas between them and `|` at the end; and five doubles for each: count,
--          period in microseconds, burst, tolerance, and 1 for a bucket, 2 for a bucket in shadow mode (it
--          never denies), 3 for a post-paid bucket, 4 for a post-paid bucket in shadow mode
--          slots: s, or S in shadow mode; and two doubles: capacity, time to live in microseconds
--          failures: f, or F in shadow mode; and an empty string
--        Then for each check one string of doubles:
--          timestamp in microseconds since the epoch, or -1 for this server's clock
--          0 to look only, 1 to take if admitted, 2 to take if admitted and remember
--          the indexes in ARGV of its first and its last group
--          the cost for each limit of its groups; for slots 1 to take one, 0 to take none
--        and with 2 also: 1 if its answer is remembered, else 0; a checksum of its limits and costs; the
--          reservation's id or -; milliseconds to remember; the subject and limits of its record, in the form
--          that settle.lua describes, or '' if it has no reservation
-- Reply  a string for one check. For several an array of strings; if they all have the same size, one string: the
--        size, `|`, and the strings one after the other. The string of a check is 1 if the check is admitted, else
--        0; then doubles: the timestamp at which it was decided, and two for each limit, its state *before* the
--        check:
--          buckets: the tokens missing, and the time at which that was true
--          failures: the time until which the limit denies, and how many failures count
--          slots: how many are taken, and the microseconds until one is free, -1 if one is free now
--        and then, for each limit on failures, the times of the failures that count. A remembered answer is:
--        `again`, the reservation's id, the checksum and that string, separated by spaces. A check that is not
--        admitted has written nothing.
--
-- The arithmetic is that of ratelimit/engine/bucket.py. Both do the same operations on the same doubles in the
-- same order, so they reach the same decision to the last bit.

local arg_index, key_index = first_check, 1

-- Returns an owner's state with the buckets of `name_list` in the first block and all others after it. The
-- stored order differs after limits were edited, or after a check under another plan.
local function move_to_front(state, name_list, read_blocks, write_block)
  local stored, used, at, full_at = read_blocks(state)
  local is_wanted, names, others = {}, {}, {}
  for name in string.gmatch(name_list, '[^,|]+') do
    names[#names + 1], is_wanted[name] = name, true
  end
  for _, name in ipairs(stored) do
    if not is_wanted[name] then others[#others + 1] = name end
  end
  return write_block(names, used, at, full_at) .. (others[1] and write_block(others, used, at, full_at) or '')
end

-- Returns whether a slot is free at the time `at`, how many are taken, and the microseconds until one is free,
-- -1 if one is free now.
local function count_slots(store_key, capacity, at)
  local from = string.format('(%.0f', at)
  local count = redis.call('ZCOUNT', store_key, from, '+inf')
  if count < capacity then return true, count, -1 end
  local next_free = redis.call('ZRANGEBYSCORE', store_key, from, '+inf', 'WITHSCORES', 'LIMIT', count - capacity, 1)
  return false, count, next_free[2] - at
end

-- All states as they were before the call. One MGET costs the server a tenth of a check less than a GET for each.
local stored = KEYS[1] and call('MGET', unpack(KEYS))
local latest = has_repeats == 1 and {}  -- what this call has written
local replies, reply_count, has_one_size, packed_now = {}, 0, true, pack_doubles('<d', now)
local check = ARGV[arg_index]

while check do
  arg_index = arg_index + 1
  local t, action, first_group, last_group, check_position = unpack_doubles('<dddd', check)
  local has_timestamp = t >= 0
  if not has_timestamp then
    t = now
  elseif not is_replay and t > now + max_skew then
    t = now + max_skew
  end

  local answer_store_key, checksum, record_store_key, reservation, remember, record_text
  if action == 2 then
    if ARGV[arg_index] == '1' then answer_store_key, key_index = KEYS[key_index], key_index + 1 end
    checksum, reservation = ARGV[arg_index + 1], ARGV[arg_index + 2]
    remember, record_text = ARGV[arg_index + 3], ARGV[arg_index + 4]
    if record_text ~= '' then record_store_key, key_index = KEYS[key_index], key_index + 1 end
    arg_index = arg_index + 5
  end

  local is_allowed, states, failure_times, taken = true, '', '', ''
  local last_write, last_slot  -- each refers to the one before it
  for group = first_group, last_group, 2 do
    local names, numbers, store_key = ARGV[group], ARGV[group + 1], KEYS[key_index]
    local names_size, numbers_size = #names, #numbers
    local state = latest and latest[store_key] or stored[key_index]
    key_index = key_index + 1

    if names_size > 1 then
      local state_size = numbers_size / 40 * 16
      local data, has_changed, all_full_at = '', false, 0
      local state_position, position = names_size + 1, 1
      if state then
        if sub(state, 1, names_size) ~= names then
          state = move_to_front(state, names, make_block_functions(struct))
        end
        all_full_at = unpack_doubles('<d', state, state_position + state_size)
      end
      while position < numbers_size do
        local count, period, burst, tolerance, kind, cost
        count, period, burst, tolerance, kind, position = unpack_doubles('<ddddd', numbers, position)
        cost, check_position = unpack_doubles('<d', check, check_position)
        local used, at = 0, 0
        if state then used, at, state_position = unpack_doubles('<dd', state, state_position) end
        local seen_at = t
        if cost == 0 and t < at then seen_at = at end
        local missing = used - (seen_at - at) * count / period
        if missing < 0 then missing = 0 end

        local is_admitted = true
        if kind > 2 then
          is_admitted = missing < burst - tolerance
        elseif missing + cost > burst + tolerance then
          is_admitted = false
        elseif cost > 0 then
          if t < at then used = used + cost else used, at = missing + cost, t end
          local full_at = (has_timestamp or is_replay) and find_refill_start(at, now, max_skew) or at
          full_at = full_at + used * period / count
          if full_at > all_full_at then all_full_at = full_at end
          has_changed = true
        end
        if not is_admitted and (kind == 1 or kind == 3) then is_allowed = false end
        if record_store_key then taken = taken .. (is_admitted and '1' or '0') end
        if position < numbers_size then
          data = data .. pack_doubles('<dd', used, at)
        else
          data = data .. pack_doubles('<ddd', used, at, all_full_at)
        end
      end
      states = states
        .. (state and sub(state, names_size + 1, names_size + state_size) or string.rep('\0', state_size))
      if has_changed then
        last_write = {store_key, names .. data .. (state and sub(state, names_size + state_size + 9) or ''),
          all_full_at, last_write}
      end

    elseif names == 'f' or names == 'F' then
      local shut_until = state and unpack_doubles('<d', state) or 0
      states = states .. pack_doubles('<dd', shut_until, state and #state / 8 - 1 or 0)
      if state then failure_times = failure_times .. sub(state, 9) end
      check_position = check_position + 8
      local is_admitted = t >= shut_until
      if not is_admitted and names == 'f' then is_allowed = false end
      if record_store_key then taken = taken .. (is_admitted and '1' or '0') end

    else
      local capacity, ttl = unpack_doubles('<dd', numbers)
      local wanted
      wanted, check_position = unpack_doubles('<d', check, check_position)
      local at = is_replay and t or now
      local is_admitted, count, wait = count_slots(store_key, capacity, at)
      states = states .. pack_doubles('<dd', count, wait)
      if is_admitted and wanted > 0 then last_slot = {store_key, at, ttl, last_slot} end
      is_admitted = is_admitted or wanted == 0
      if not is_admitted and names == 's' then is_allowed = false end
      if record_store_key then taken = taken .. (is_admitted and '1' or '0') end
    end
  end

  local reply = (is_allowed and '1' or '0') .. (t == now and packed_now or pack_doubles('<d', t))
    .. states .. failure_times
  local answer = answer_store_key and call('GET', answer_store_key)
  if answer then
    reply = 'again ' .. answer
  elseif is_allowed and action > 0 then
    while last_write do
      call('SET', last_write[1], last_write[2], 'PXAT', find_expiry(last_write[3]))
      if latest then latest[last_write[1]] = last_write[2] end
      last_write = last_write[4]
    end
    while last_slot do
      local slots, at, ttl = last_slot[1], last_slot[2], last_slot[3]
      call('ZREMRANGEBYSCORE', slots, '-inf', string.format('%.0f', at))
      call('ZADD', slots, string.format('%.0f', at + ttl), reservation)
      if call('PTTL', slots) < ttl / 1000 then call('PEXPIRE', slots, ttl / 1000) end
      last_slot = last_slot[4]
    end
    if record_store_key then
      call('SET', record_store_key, 'o' .. pack_doubles('<dd', t, now) .. taken .. record_text, 'PX', remember)
    end
    if answer_store_key then
      call('SET', answer_store_key, reservation .. ' ' .. checksum .. ' ' .. reply, 'PX', remember)
    end
  end
  reply_count = reply_count + 1
  replies[reply_count] = reply
  if #reply ~= #replies[1] then has_one_size = false end
  check = ARGV[arg_index]
end

-- The server builds an array in a separate buffer, which costs two microseconds and more.
if reply_count == 1 then return replies[1] end
return has_one_size and #replies[1] .. '|' .. table.concat(replies) or replies
