-- Charges what a request really used, once. It can also cancel a reservation, which refunds everything, or
-- release its slots.
--
-- KEYS   [1] the usage stream
--        [2] the reservation's record, if there is a reservation
--        The store keys of its limits are in the record or in ARGV[6]. They all belong to one tenant, and so
--        are in the same cluster slot as the record, except those that everyone shares.
-- ARGV   [1] two doubles: see prelude.lua; the second is not used
--        [2] timestamp in microseconds since the epoch, or ''
--        [3] settle, cancel, or release: free the slots and leave the rest as it is
--        [4] milliseconds to remember the answer
--        [5] 1 if the request failed, else 0
--        [6] without a reservation the limits, else '': kind, store key, name, count, period, burst, unit and
--            cost, separated by spaces, with a semicolon at the end
--        [7] the most entries of the stream
--        [8] the number of units whose use is known
--        [9] the key that the reservation must belong to, or ''
--        then for each of these units: unit, amount
--        then the stream entry: field, value …; the script adds what the reservation's record knows
-- Reply  {state: settled, cancelled, released, unknown, or mismatch if the reservation belongs to another key;
--        1 if that was already so, else 0; the time of the charge; the limits as in ARGV[6];
--        for each limit 1 if it admitted the check, else 0, and then the script leaves it as it is;
--        for each limit two values of its state afterwards, separated by spaces, - if there is none:
--          buckets: the tokens missing, and the time at which that was true
--          failures: the times of those that count, with commas; and the time until which the limit denies
--          slots: how many are taken; and -}
--
-- A unit whose use is not known keeps its estimate. The script settles what the record says was taken, even if
-- the policy has changed since.

local format = string.format
local read_blocks, write_block = make_block_functions(struct)
local is_cancel, is_release = ARGV[3] == 'cancel', ARGV[3] == 'release'

local record
if KEYS[2] then
  local values = call('HMGET', KEYS[2], 'state', 'at', 'clock', 'taken', 'limits', 'answer', 'id')
  if not values[1] then return {'unknown', '0', '0', '', '', ''} end
  record = {state = values[1], at = tonumber(values[2]), clock = tonumber(values[3]), taken = values[4],
    limits = values[5], answer = values[6], id = values[7]}
  if ARGV[9] ~= '' and ARGV[9] ~= call('HGET', KEYS[2], 'key') then
    return {'mismatch', '0', '0', '', '', ''}
  end
  if record.state ~= 'open' then
    return {record.state, '1', values[2], record.limits, record.taken, record.answer}
  end
end

-- The time of the charge on the clock of the request: the time of the check plus the time that has passed
-- since. A timestamp may make it later but never earlier.
local timestamp = tonumber(ARGV[2])
if timestamp and not is_replay then timestamp = math.min(timestamp, now + max_skew) end
local t = timestamp or now
if record then
  t = record.at
  if not is_replay then t = t + max(0, now - record.clock) end
  if timestamp then t = max(t, timestamp) end
end

local used_by_unit = {}
local arg_index = 10
for _ = 1, tonumber(ARGV[8]) do
  used_by_unit[ARGV[arg_index]] = tonumber(ARGV[arg_index + 1])
  arg_index = arg_index + 2
end

-- Charges the difference between usage and estimate to a bucket, or refunds it, and returns the bucket's state.
local function adjust_bucket(limit)
  local store_key, name, count, period = limit[2], limit[3], tonumber(limit[4]), tonumber(limit[5])
  local names, used_by_name, times, full_at = read_blocks(call('GET', store_key))
  local used, at, cost = used_by_name[name], times[name], tonumber(limit[8])
  local amount = is_cancel and -cost or (used_by_unit[limit[7]] or cost) - cost
  if amount > 0 or amount < 0 and used then
    if not used then
      names[#names + 1] = name
      used, at = 0, t
    end
    if t < at then
      used = max(used + amount, 0)
    else
      used, at = max(max(used - (t - at) * count / period, 0) + amount, 0), t
    end
    used_by_name[name], times[name] = used, at
    full_at = max(full_at, find_refill_start(at, now, max_skew) + used * period / count)
    call('SET', store_key, write_block(names, used_by_name, times, full_at), 'PXAT', find_expiry(full_at))
  end
  if used then return format('%.17g', used), format('%.0f', at) end
end

-- Charges a failure to a limit on failures, and returns its state. Failures count in a sliding window: more than
-- `count` within `period` make the limit deny for `burst` microseconds. While it denies it counts no failures,
-- and afterwards it starts from zero.
local function charge_failure(limit)
  local store_key, count, period, block = limit[2], tonumber(limit[4]), tonumber(limit[5]), tonumber(limit[6])
  local state = call('GET', store_key)
  local shut_until, times = 0, {}
  for position = 1, state and #state or 0, 8 do
    local time = unpack_doubles('<d', state, position)
    if position == 1 then shut_until = time else times[#times + 1] = time end
  end

  if not is_cancel and ARGV[5] == '1' and t >= shut_until then
    local all_times, full_at = times, find_refill_start(t, now, max_skew) + period
    times = {}
    for _, time in ipairs(all_times) do
      if time > t - period then
        times[#times + 1], full_at = time, max(full_at, find_refill_start(time, now, max_skew) + period)
      end
    end
    times[#times + 1] = t
    if #times > count then
      times, shut_until, full_at = {}, t + block, find_refill_start(t, now, max_skew) + block
    end
    state = pack_doubles('<d', shut_until)
    for _, time in ipairs(times) do state = state .. pack_doubles('<d', time) end
    call('SET', store_key, state, 'PXAT', find_expiry(full_at))
  end
  if not state then return end
  for i, time in ipairs(times) do times[i] = format('%.0f', time) end
  return times[1] and table.concat(times, ',') or ',', format('%.0f', shut_until)
end

-- Frees the reservation's slot and returns how many are taken.
local function free_slot(limit)
  call('ZREM', limit[2], record.id)
  local from = format('(%.0f', is_replay and t or now)
  return call('ZCOUNT', limit[2], from, '+inf'), '-'
end

local limits = record and record.limits or ARGV[6]
local states = {}
local limit_index = 0
for entry in string.gmatch(limits, '[^;]+') do
  limit_index = limit_index + 1
  local limit = {}
  for field in string.gmatch(entry, '%S+') do limit[#limit + 1] = field end
  local first, second
  if not record or string.sub(record.taken, limit_index, limit_index) == '1' then
    local kind = string.lower(limit[1])
    if kind == 's' then
      if record then first, second = free_slot(limit) end
    elseif is_release then
      first, second = nil, nil
    elseif kind == 'f' then
      first, second = charge_failure(limit)
    else
      first, second = adjust_bucket(limit)
    end
  end
  local count = #states
  states[count + 1], states[count + 2] = first or '-', second or '-'
end
local taken = record and record.taken or string.rep('1', limit_index)
local answer = table.concat(states, ' ')
local charge_time = format('%.0f', t)
if is_release then return {'released', '0', charge_time, limits, taken, answer} end

local end_state = is_cancel and 'cancelled' or 'settled'
if record then
  call('HSET', KEYS[2], 'state', end_state, 'at', charge_time, 'answer', answer)
  call('HDEL', KEYS[2], 'clock')
  call('PEXPIRE', KEYS[2], ARGV[4])
end
if not is_cancel then
  local entry = {unpack(ARGV, arg_index)}
  if record then
    local is_given = {}
    for i = 1, #entry, 2 do is_given[entry[i]] = true end
    local names = {'key', 'tenant', 'plan', 'model'}
    local values = call('HMGET', KEYS[2], unpack(names))
    names[5], values[5] = 'timestamp', format('%.6f', record.at / 1000000)
    for i, name in ipairs(names) do
      if not is_given[name] and values[i] ~= '' then
        entry[#entry + 1] = name
        entry[#entry + 1] = values[i]
      end
    end
  end
  call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[7], '*', unpack(entry))
  call('PEXPIRE', KEYS[1], 2592000000)  -- 30 days
end
return {end_state, '0', charge_time, limits, taken, answer}
