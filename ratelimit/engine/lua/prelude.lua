-- The start of every script: the time, the buckets, and when they expire. stores/scripts.py puts it before each.
--
-- KEYS   none of its own
-- ARGV   [1] three doubles: max_skew in microseconds, or -1 to trust every timestamp (replay); and two numbers
--        that only check.lua uses
-- Reply  none of its own
--
-- One string holds all the buckets of an owner, in blocks. A block is the names of some limits, with commas
-- between them and `|` at the end, and then doubles, little-endian: for each limit the tokens missing and the
-- time at which that was true; last the time at which all buckets of the string are full and its store key
-- expires. Times are microseconds. An absent bucket reads as zeros: no tokens are missing. The first block is
-- the one that was written last, and only its last time is current. That of another block is from the time
-- when it was written.

-- The functions here and in check.lua get all that they need as arguments. Every call of a script creates them
-- anew, and each outer local that a function refers to makes this a tenth of a microsecond slower.

local KEYS, ARGV, call = KEYS, ARGV, redis.call
local pack_doubles, unpack_doubles, sub = struct.pack, struct.unpack, string.sub
local max = math.max

local max_skew, first_check, has_repeats = unpack_doubles('<ddd', ARGV[1])
local is_replay = max_skew < 0
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- Returns the time from which the refill counts until expiry, for state whose time `at` came from a caller's
-- timestamp. A later call may carry an earlier timestamp, so such state must live longer by as much as clocks
-- may differ. A replay has no clock: a minute covers its pauses.
local function find_refill_start(at, now, max_skew)
  if max_skew < 0 then return now + 60000000 end
  return math.max(at, now) + max_skew
end

-- Returns the millisecond at which a store key expires, for PXAT: the first one after it is full. It is limited
-- to the year 2200, after which no timestamp is possible, because the server refuses larger numbers.
local function find_expiry(full_at)
  if full_at > 7258118400000000 then full_at = 7258118400000000 end
  return (full_at - full_at % 1000) / 1000 + 1
end

-- Returns two functions that read and write whole blocks. Most calls do not need them.
local function make_block_functions(struct)
  -- Returns all names; by name the tokens missing, and the times at which that was true; and the time at which
  -- all buckets are full.
  local function read_blocks(state)
    local names, used, at, full_at, position = {}, {}, {}, nil, 1
    while state and position <= #state do
      local bar = string.find(state, '|', position, true)
      if not bar then error('this key holds no buckets') end
      local name_list = string.sub(state, position, bar - 1)
      position = bar + 1
      for name in string.gmatch(name_list, '[^,]+') do
        names[#names + 1] = name
        used[name], at[name], position = struct.unpack('<dd', state, position)
      end
      local block_full_at
      block_full_at, position = struct.unpack('<d', state, position)
      full_at = full_at or block_full_at
    end
    return names, used, at, full_at or 0
  end

  -- Returns one block.
  local function write_block(names, used, at, full_at)
    local state = table.concat(names, ',') .. '|'
    for _, name in ipairs(names) do state = state .. struct.pack('<dd', used[name] or 0, at[name] or 0) end
    return state .. struct.pack('<d', full_at)
  end

  return read_blocks, write_block
end
