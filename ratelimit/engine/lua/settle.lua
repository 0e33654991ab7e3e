-- Charge what a request really used, once; or cancel its reservation and give everything back.
--
-- KEYS   [1] the usage stream
--        [2] the reservation's record, if there is a reservation
--        Where its limits lie is named by the record, or by ARGV[6]; all are of one
--        tenant, and so in the slot of the record, but for those that everyone shares.
-- ARGV   [1] two doubles: see prelude.lua; the second means nothing here
--        [2] timestamp in microseconds since the epoch, or ''
--        [3] settle, cancel, or release: free the slots and leave the rest as it is
--        [4] milliseconds to remember the answer
--        [5] 1 if the request failed, else 0
--        [6] without a reservation the limits, else '': kind, key, name, count, period, burst, unit and
--            cost, separated by spaces, then a semicolon
--        [7] most entries of the stream
--        [8] number of units whose use is known
--        [9] the key that the reservation must belong to, or ''
--        then for each of these units: unit, amount
--        then what goes into the stream: field, value …; what a reservation knows is added
-- Reply  {state: settled, cancelled, released, unknown, or mismatch for another key's; 1 if that was
--        already so, else 0; the time charged at; the limits as in ARGV[6]; for each limit 1 if it was looked at
--        and 0 if not; for each limit two values of its state after, - where there is none, separated by
--        spaces: of a bucket what is missing and since when; of failures the times of those that count,
--        with commas, and until when it is shut; of slots how many are taken}
--
-- A unit whose use is not told keeps its estimate. What a record says was taken is what is settled,
-- whatever the policy says by now.

local format = string.format
local read, write = blocks(struct)
local cancel, release = ARGV[3] == 'cancel', ARGV[3] == 'release'

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

-- What was used has been used by now: on the clock of the request that is the time of the check and
-- what has passed since. A timestamp may say later, never earlier.
local given = tonumber(ARGV[2])
if given and not replay then given = math.min(given, now + max_skew) end
local t = given or now
if record then
  t = record.at
  if not replay then t = t + max(0, now - record.clock) end
  if given then t = max(t, given) end
end

local known = {}
local a = 10
for _ = 1, tonumber(ARGV[8]) do
  known[ARGV[a]] = tonumber(ARGV[a + 1])
  a = a + 2
end

local function adjust(limit)
  local key, name, count, period = limit[2], limit[3], tonumber(limit[4]), tonumber(limit[5])
  local names, missing, times, ends = read(call('GET', key))
  local used, at, cost = missing[name], times[name], tonumber(limit[8])
  local amount = cancel and -cost or (known[limit[7]] or cost) - cost
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
    missing[name], times[name] = used, at
    ends = max(ends, refills(at, now, max_skew) + used * period / count)
    call('SET', key, write(names, missing, times, ends), 'PXAT', goes(ends))
  end
  if used then return format('%.17g', used), format('%.0f', at) end
end

-- Failures are counted in a sliding window: more than `count` within `period` shut the key for `burst`
-- microseconds. While it is shut none are counted, and when it opens it starts afresh.
local function fail(limit)
  local key, count, period, pause = limit[2], tonumber(limit[4]), tonumber(limit[5]), tonumber(limit[6])
  local state = call('GET', key)
  local shut, times = 0, {}
  for p = 1, state and #state or 0, 8 do
    local time = take('<d', state, p)
    if p == 1 then shut = time else times[#times + 1] = time end
  end

  if not cancel and ARGV[5] == '1' and t >= shut then
    local all, ends = times, refills(t, now, max_skew) + period
    times = {}
    for _, time in ipairs(all) do
      if time > t - period then times[#times + 1], ends = time, max(ends, refills(time, now, max_skew) + period) end
    end
    times[#times + 1] = t
    if #times > count then
      times, shut, ends = {}, t + pause, refills(t, now, max_skew) + pause
    end
    state = pack('<d', shut)
    for _, time in ipairs(times) do state = state .. pack('<d', time) end
    call('SET', key, state, 'PXAT', goes(ends))
  end
  if not state then return end
  for i, time in ipairs(times) do times[i] = format('%.0f', time) end
  return times[1] and table.concat(times, ',') or ',', format('%.0f', shut)
end

local function free(limit)
  call('ZREM', limit[2], record.id)
  local from = format('(%.0f', replay and t or now)
  return call('ZCOUNT', limit[2], from, '+inf'), '-'
end

local limits = record and record.limits or ARGV[6]
local states = {}
local n = 0
for entry in string.gmatch(limits, '[^;]+') do
  n = n + 1
  local limit = {}
  for word in string.gmatch(entry, '%S+') do limit[#limit + 1] = word end
  local first, second
  if not record or string.sub(record.taken, n, n) == '1' then
    local kind = string.lower(limit[1])
    if kind == 's' then
      if record then first, second = free(limit) end
    elseif release then
      first, second = nil, nil
    elseif kind == 'f' then
      first, second = fail(limit)
    else
      first, second = adjust(limit)
    end
  end
  local m = #states
  states[m + 1], states[m + 2] = first or '-', second or '-'
end
local taken = record and record.taken or string.rep('1', n)
local answer = table.concat(states, ' ')
local charged = format('%.0f', t)
if release then return {'released', '0', charged, limits, taken, answer} end

local ended = cancel and 'cancelled' or 'settled'
if record then
  call('HSET', KEYS[2], 'state', ended, 'at', charged, 'answer', answer)
  call('HDEL', KEYS[2], 'clock')
  call('PEXPIRE', KEYS[2], ARGV[4])
end
if not cancel then
  local entry = {unpack(ARGV, a)}
  if record then
    local told = {}
    for i = 1, #entry, 2 do told[entry[i]] = true end
    local names = {'key', 'tenant', 'plan', 'model'}
    local values = call('HMGET', KEYS[2], unpack(names))
    names[5], values[5] = 'timestamp', format('%.6f', record.at / 1000000)
    for i, name in ipairs(names) do
      if not told[name] and values[i] ~= '' then
        entry[#entry + 1] = name
        entry[#entry + 1] = values[i]
      end
    end
  end
  call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[7], '*', unpack(entry))
  call('PEXPIRE', KEYS[1], 2592000000)
end
return {ended, '0', charged, limits, taken, answer}
