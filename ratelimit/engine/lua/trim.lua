-- Trims the usage stream by length and by age, and counts the records that go before every consumer group has
-- read them. stores/scripts.py puts it before settle.lua.
--
-- KEYS   none of its own
-- ARGV   none of its own
-- Reply  none of its own
--
-- Redis trims without saying which entries went. So what every group has read is removed first and on its own:
-- everything that is removed after it was unread. That takes several commands. Therefore the stream is trimmed
-- when it has TRIM_BATCH entries too many, or when its oldest entry is a hundredth too old, and not each time.

-- At least as many as a node of a stream has by default (stream-node-max-entries). A whole node then fits into
-- one batch, and removing it is much cheaper than removing its entries.
local TRIM_BATCH = 100

-- The most entries that one call removes, so that a new setting does not stop the store for long.
local MAX_TRIM = 10000

-- Returns the id after the last entry that every consumer group has read, as text and as its two numbers; nil
-- if there is no group.
local function find_first_unread(stream)
  local first_ms, first_number
  for _, group in ipairs(call('XINFO', 'GROUPS', stream)) do
    for i = 1, #group, 2 do
      if group[i] == 'last-delivered-id' then
        local ms, number = string.match(group[i + 1], '(%d+)-(%d+)')
        ms, number = tonumber(ms), tonumber(number) + 1
        if number > 9007199254740992 then ms, number = ms + 1, 0 end  -- above it, doubles skip whole numbers
        if not first_ms or ms < first_ms or ms == first_ms and number < first_number then
          first_ms, first_number = ms, number
        end
      end
    end
  end
  if first_ms then return string.format('%.0f-%.0f', first_ms, first_number), first_ms end
end

-- Removes the entries before an id, and returns how many. If there are more than MAX_TRIM, some are left.
local function trim_before(stream, id)
  local count = call('XTRIM', stream, 'MINID', '~', id, 'LIMIT', MAX_TRIM)
  return count > 0 and count or call('XTRIM', stream, 'MINID', id)
end

-- Removes the entries that are older than `oldest`, milliseconds, and returns how many of them were unread.
local function trim_by_age(stream, oldest)
  local unread, unread_ms = find_first_unread(stream)
  local id = string.format('%.0f', oldest)
  if unread and unread_ms >= oldest then
    trim_before(stream, id)
    return 0
  end
  if unread and trim_before(stream, unread) > 0 then return 0 end
  return trim_before(stream, id)
end

-- Removes at most the `excess` oldest entries, and returns how many of them were unread.
local function trim_by_length(stream, length, excess)
  excess = math.min(excess, MAX_TRIM)
  local unread, read_count = find_first_unread(stream), 0
  if unread then
    if call('XTRIM', stream, 'MINID', '~', unread, 'LIMIT', excess) > 0 then return 0 end
    read_count = #call('XRANGE', stream, '-', '(' .. unread, 'COUNT', excess)
  end
  return max(call('XTRIM', stream, 'MAXLEN', length - excess) - read_count, 0)
end

-- Trims the stream if it is time to.
--
-- max_length  how many entries it may have; TRIM_BATCH more are tolerated
-- max_age     how old an entry may be, milliseconds; a hundredth more is tolerated
-- count_key   the store key at which unread entries are counted. It lives longer than the stream: entries are
--             never older than 1.01 * max_age when another one comes, so this is called often enough.
local function trim_stream(stream, count_key, max_length, max_age)
  local length, now_ms, unread = call('XLEN', stream), now / 1000, nil
  if length > max_length + TRIM_BATCH then
    unread = trim_by_length(stream, length, length - max_length)
  elseif call('XRANGE', stream, '-', string.format('%.0f', now_ms - 1.01 * max_age), 'COUNT', 1)[1] then
    unread = trim_by_age(stream, now_ms - max_age)
  end
  if unread then
    if unread > 0 then call('INCRBY', count_key, unread) end
    call('PEXPIRE', count_key, string.format('%.0f', 3 * max_age))
  end
end
