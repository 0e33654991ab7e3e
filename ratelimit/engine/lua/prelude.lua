-- What every script starts with: time, buckets, and how long they live. Put in front of each by scripts.py.
--
-- KEYS   none of its own
-- ARGV   [1] two doubles: max_skew in microseconds, -1 to trust timestamps entirely (replay); and what
--        the script makes of it
-- Reply  none of its own
--
-- All the buckets of an owner lie in one string, in blocks. A block is the names of some limits, with
-- commas between them and `|` behind, and then doubles, little-endian: for each limit the tokens that are
-- missing and the time at which that was true, and when all of it is full again and the key goes. Times
-- are microseconds. What is read of an absent bucket are zeros: nothing is missing. The first block is the
-- one that was written last, and tells when the key goes; of the others that is what they said once.

-- A function here, and in check.lua, is given all it needs instead of reaching for it: made anew for each
-- call of the script, one that reaches for nothing costs a tenth of a microsecond less for each such thing.

local KEYS, ARGV, call = KEYS, ARGV, redis.call
local pack, take, sub = struct.pack, struct.unpack, string.sub
local max = math.max

local max_skew, begin = take('<dd', ARGV[1])
local replay = max_skew < 0
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- The time from which the refill counts of state as of `at` that a caller's timestamp wrote. A later call
-- may carry an earlier timestamp than this one, so such state stays for as much as clocks may disagree. A
-- replay has no clock to go by: a minute covers its pauses.
local function refills(at, now, max_skew)
  if max_skew < 0 then return now + 60000000 end
  return math.max(at, now) + max_skew
end

-- The millisecond at which a key goes, for PXAT: after the time it is full, and for once not after 2200,
-- past which no timestamp lies: a larger number would be refused.
local function goes(ends)
  if ends > 7258118400000000 then ends = 7258118400000000 end
  return (ends - ends % 1000) / 1000 + 1
end

-- Returns what reads and writes whole blocks, which most calls have no need of.
local function blocks(struct)
  -- Returns all names, by name what is missing and when that was true, and when the key goes.
  local function read(state)
    local names, used, at, ends, p = {}, {}, {}, nil, 1
    while state and p <= #state do
      local stop = string.find(state, '|', p, true)
      if not stop then error('this key holds no buckets') end
      local listed = string.sub(state, p, stop - 1)
      p = stop + 1
      for name in string.gmatch(listed, '[^,]+') do
        names[#names + 1] = name
        used[name], at[name], p = struct.unpack('<dd', state, p)
      end
      local last
      last, p = struct.unpack('<d', state, p)
      ends = ends or last
    end
    return names, used, at, ends or 0
  end

  -- Returns one block.
  local function write(names, used, at, ends)
    local state = table.concat(names, ',') .. '|'
    for _, name in ipairs(names) do state = state .. struct.pack('<dd', used[name] or 0, at[name] or 0) end
    return state .. struct.pack('<d', ends)
  end

  return read, write
end
