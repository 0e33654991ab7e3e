-- Charges what a request really used, once. It can also cancel a reservation, which refunds everything, or
-- release its slots.
--
-- KEYS   [1] the usage stream
--        [2] how many of its entries were trimmed unread: see trim.lua
--        [3] the reservation's record, if there is a reservation
--        With `refund`: [3] the remembered answer, [4] the record if there is a reservation
--        The store keys of the limits follow from ARGV[9], ARGV[10] and the record. On a cluster they all are in
--        the slot of the record.
-- ARGV   [1] two doubles: see prelude.lua; the second is not used
--        [2] timestamp in microseconds since the epoch, or ''
--        [3] settle; cancel; refund: cancel if the remembered answer is still there, and delete it; or
--        release: free the slots and leave the rest as it is
--        [4] milliseconds to remember the answer
--        [5] 1 if the request failed, else 0
--        [6] without a reservation the subject and limits, in the form of a record; else the reservation's id
--        [7] the most entries of the stream, or 0 for none at all; and how old they may be, milliseconds
--        [8] the key that the reservation must belong to, or ''
--        [9] the tenant
--        [10] the start of its store keys: rl1:{tenant}; on a cluster rl1:{shard}:tenant, or rl1:{*}:tenant for
--        what everyone shares
--        [11] the number of units whose use is known
--        then for each of these units: unit, amount
--        [12] to give back a check that was just made, and to leave no trace of it: for each limit four doubles,
--        the state of its bucket before the check and after it. Else:
--        then the stream entry: field, value …; the script adds what it knows itself
-- Reply  {state: settled, cancelled, released, unknown, or mismatch if the reservation belongs to another key;
--        1 if that was already so, else 0; the record as it is afterwards, or '' if there is none}
--
-- A record is one string. Its parts follow one another without a separator:
--   o if it is open, s if it is settled, c if it is cancelled
--   two doubles: the time of the check, and the store's clock then; after the settlement the time of the
--     charge, and the size of the next two parts
--   the state of each limit after the settlement, two doubles; an open record has none:
--     buckets: the tokens missing, and the time at which that was true
--     failures: the time until which the limit denies, and how many failures count
--     slots: how many are taken, and 0
--   the latest failure that counts, for each limit on failures that counts any
--   for each limit 1 if it admitted the check, else 0; and then the script leaves it as it is
--   the subject: a space, the key ('' if it is the tenant), a space, the plan, a space, the model, a space
--   the limits, each with a semicolon at the end and spaces between its values:
--     kind, k t or * if it belongs to the key, the tenant or everyone, and /class if it has a model class: these
--       have no spaces between them; name; count; period in microseconds; burst, '' if it is the count; unit, ''
--       if it is the name; cost
-- The last three stay as the check has written them. So the script settles what was taken, even if the policy
-- has changed since. A unit whose use is not known keeps its estimate.

local format, match = string.format, string.match
local read_blocks, write_block = make_block_functions(struct)
local is_refund, is_release = ARGV[3] == 'refund', ARGV[3] == 'release'
local is_cancel = is_refund or ARGV[3] == 'cancel'
local tenant, prefix = ARGV[9], ARGV[10]
local is_cluster = sub(prefix, -1) ~= '}'

local record_store_key = KEYS[3]
if is_refund then
  if call('EXISTS', KEYS[3]) == 0 then return {'unknown', '0', ''} end
  record_store_key = KEYS[4]
end

local record, checked_at, clock
local text = ARGV[6]  -- the parts of a record that stay as the check has written them
if record_store_key then
  record = call('GET', record_store_key)
  if not record then return {'unknown', '0', ''} end
  checked_at, clock = unpack_doubles('<dd', record, 2)
  local code = sub(record, 1, 1)
  text = sub(record, code == 'o' and 18 or 18 + clock)
  if ARGV[8] ~= '' then
    local key = match(text, ' (%S*)')
    if ARGV[8] ~= (key == '' and tenant or key) then return {'mismatch', '0', ''} end
  end
  if code ~= 'o' then return {code == 's' and 'settled' or 'cancelled', '1', record} end
end
local taken, key, plan, model, limits_position = match(text, '^(%S*) (%S*) (%S*) (%S*) ()')

-- The time of the charge on the clock of the request: the time of the check plus the time that has passed
-- since. A timestamp may make it later but never earlier.
local timestamp = tonumber(ARGV[2])
if timestamp and not is_replay then timestamp = math.min(timestamp, now + max_skew) end
local t = timestamp or now
if record then
  t = checked_at
  if not is_replay then t = t + max(0, now - clock) end
  if timestamp then t = max(t, timestamp) end
end

local used_by_unit = {}
local arg_index = 12
for _ = 1, tonumber(ARGV[11]) do
  used_by_unit[ARGV[arg_index]] = tonumber(ARGV[arg_index + 1])
  arg_index = arg_index + 2
end

-- Returns text with percent codes, as layout.py writes keys into store keys.
local function escape(text)
  return (string.gsub(text, '[^%w_.~-]', function(character)
    return format('%%%02X', string.byte(character))
  end))
end

local owner_store_keys = {
  k = prefix .. ':k' .. (key == '' and '' or ':' .. escape(key)),
  t = prefix .. ':t',
  ['*'] = match(prefix, '^[^{]*') .. '{*}',
}

local limit_index = 0  -- of the limit that is settled, counted from 1

-- Charges the difference between usage and estimate to a bucket, or refunds it. Returns the bucket's state: the
-- tokens missing, and the time at which that was true. To cancel a negative cost is to charge it: so an outage's
-- admissions are charged without a usage record.
local function adjust_bucket(store_key, name, count, period, unit, cost)
  local names, used_by_name, times, full_at = read_blocks(call('GET', store_key))
  local used, at = used_by_name[name], times[name]
  local amount = is_cancel and -cost or (used_by_unit[unit] or cost) - cost
  local is_restored = false
  if is_cancel and ARGV[12] then
    local used_before, at_before, used_after, at_after = unpack_doubles('<dddd', ARGV[12], limit_index * 32 - 31)
    is_restored = used == used_after and at == at_after
    if is_restored then used, at = used_before, at_before end
  end
  if is_restored then
    used_by_name[name], times[name] = used, at
    call('SET', store_key, write_block(names, used_by_name, times, full_at), 'PXAT', find_expiry(full_at))
  elseif amount > 0 or amount < 0 and used then
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
  return used, at
end

-- Charges a failure to a limit on failures. Returns its state: the time until which it denies, how many failures
-- count, and the latest of them. Failures count in a sliding window: more than `count` within `period` make the
-- limit deny for the time `block`. While it denies it counts no failures, and afterwards it starts from zero.
local function charge_failure(store_key, count, period, block)
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
  local counted, latest = 0, nil
  for _, time in ipairs(times) do
    if time > t - period then counted, latest = counted + 1, time end
  end
  return shut_until, counted, latest
end

-- Frees the reservation's slot and returns how many are taken.
local function free_slot(store_key)
  call('ZREM', store_key, ARGV[6])
  return call('ZCOUNT', store_key, format('(%.0f', is_replay and t or now), '+inf')
end

local states, latest_failures = '', ''
local limit_pattern = '(%a)([kt*])(%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*);'

-- The server knows only KEYS. While it moves the slot to another server, some of the limits may be there already:
-- then this command fails, before anything is written.
if is_cluster then
  local store_keys, marks = {}, {f = '!', s = '#'}
  for kind, owner, class, name in string.gmatch(sub(text, limits_position), limit_pattern) do
    local mark = marks[string.lower(kind)]
    store_keys[#store_keys + 1] = owner_store_keys[owner] .. class .. (mark and mark .. name or '')
  end
  if store_keys[1] then call('EXISTS', unpack(store_keys)) end
end
if is_refund then call('DEL', KEYS[3]) end

for kind, owner, class, name, count, period, burst, unit, cost in
  string.gmatch(sub(text, limits_position), limit_pattern)
do
  limit_index = limit_index + 1
  local first, second, latest
  if sub(taken, limit_index, limit_index) == '1' then
    kind = string.lower(kind)
    local store_key = owner_store_keys[owner] .. class
    if kind == 's' then
      if record then first = free_slot(store_key .. '#' .. name) end
    elseif not is_release then
      count, period = tonumber(count), tonumber(period)
      if kind == 'f' then
        first, second, latest = charge_failure(store_key .. '!' .. name, count, period, tonumber(burst) or count)
      else
        first, second = adjust_bucket(store_key, name, count, period, unit == '' and name or unit, tonumber(cost))
      end
    end
  end
  states = states .. pack_doubles('<dd', first or 0, second or 0)
  if latest then latest_failures = latest_failures .. pack_doubles('<d', latest) end
end
states = states .. latest_failures

local settled = (is_cancel and 'c' or 's') .. pack_doubles('<dd', t, #states) .. states .. text
if is_release then return {'released', '0', settled} end
if record then call('SET', record_store_key, settled, 'PX', ARGV[4]) end

local max_length, max_age = unpack_doubles('<dd', ARGV[7])
if not is_cancel and max_length > 0 then
  local entry = {unpack(ARGV, arg_index)}
  local is_given = {}
  for i = 1, #entry, 2 do is_given[entry[i]] = true end
  local known = {'key', key == '' and tenant or key, 'tenant', tenant, 'plan', plan, 'model', model}
  if record then known[9], known[10] = 'timestamp', format('%.6f', checked_at / 1000000) end
  for i = 1, #known, 2 do
    if not is_given[known[i]] and known[i + 1] ~= '' then
      entry[#entry + 1], entry[#entry + 2] = known[i], known[i + 1]
    end
  end
  call('XADD', KEYS[1], '*', unpack(entry))
  trim_stream(KEYS[1], KEYS[2], max_length, max_age)
  call('PEXPIRE', KEYS[1], max_age)
end
return {is_cancel and 'cancelled' or 'settled', '0', settled}
