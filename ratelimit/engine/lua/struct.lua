-- A replacement for Redis's `struct` library, for servers that have none (fakeredis). It handles little-endian
-- doubles only. It makes the same bytes and is slower. stores/scripts.py puts it before each script.
--
-- KEYS   none of its own
-- ARGV   none of its own
-- Reply  none of its own

local struct = struct or (function()
  local byte, char, floor, frexp, ldexp = string.byte, string.char, math.floor, math.frexp, math.ldexp

  local function pack_double(x)
    if x == 0 then return '\0\0\0\0\0\0\0\0' end
    local sign = x < 0 and 128 or 0
    local fraction, power = frexp(x < 0 and -x or x)
    local exponent, bits = power + 1022, ldexp(fraction, 53)
    if exponent > 0 then
      bits = bits - 4503599627370496
    else  -- a subnormal number: IEEE 754 stores it without a leading one
      exponent, bits = 0, ldexp(fraction, 52 + exponent)
    end
    local bytes = {}
    for i = 1, 6 do
      bytes[i], bits = bits % 256, floor(bits / 256)
    end
    return char(bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6],
      exponent % 16 * 16 + bits, sign + floor(exponent / 16))
  end

  local function unpack_double(text, position)
    local a, b, c, d, e, f, g, h = byte(text, position, position + 7)
    if not h then error('data string too short') end
    local bits = ((((((g % 16) * 256 + f) * 256 + e) * 256 + d) * 256 + c) * 256 + b) * 256 + a
    local exponent = h % 128 * 16 + floor(g / 16)
    local x = exponent == 0 and ldexp(bits, -1074) or ldexp(bits + 4503599627370496, exponent - 1075)
    return h > 127 and -x or x
  end

  return {
    pack = function(_, ...)
      local texts = {}
      for i = 1, select('#', ...) do texts[i] = pack_double((select(i, ...))) end
      return table.concat(texts)
    end,
    unpack = function(format, text, position)
      position = position or 1
      local values = {}
      for i = 1, #format - 1 do values[i], position = unpack_double(text, position), position + 8 end
      values[#values + 1] = position
      return unpack(values)
    end,
  }
end)()
