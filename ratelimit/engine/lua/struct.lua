-- What stands in for Redis's `struct` library where a server has none (fakeredis): doubles, little-endian.
-- The same bytes, only slower. Put in front of each script by scripts.py.
--
-- KEYS   none of its own
-- ARGV   none of its own
-- Reply  none of its own

local struct = struct or (function()
  local byte, char, floor, frexp, ldexp = string.byte, string.char, math.floor, math.frexp, math.ldexp

  local function packed(x)
    if x == 0 then return '\0\0\0\0\0\0\0\0' end
    local sign = x < 0 and 128 or 0
    local fraction, power = frexp(x < 0 and -x or x)
    local exponent, bits = power + 1022, ldexp(fraction, 53)
    if exponent > 0 then
      bits = bits - 4503599627370496
    else  -- a subnormal: IEEE 754 has no leading one there
      exponent, bits = 0, ldexp(fraction, 52 + exponent)
    end
    local bytes = {}
    for i = 1, 6 do
      bytes[i], bits = bits % 256, floor(bits / 256)
    end
    return char(bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6],
      exponent % 16 * 16 + bits, sign + floor(exponent / 16))
  end

  local function unpacked(text, at)
    local a, b, c, d, e, f, g, h = byte(text, at, at + 7)
    if not h then error('data string too short') end
    local bits = ((((((g % 16) * 256 + f) * 256 + e) * 256 + d) * 256 + c) * 256 + b) * 256 + a
    local exponent = h % 128 * 16 + floor(g / 16)
    local x = exponent == 0 and ldexp(bits, -1074) or ldexp(bits + 4503599627370496, exponent - 1075)
    return h > 127 and -x or x
  end

  return {
    pack = function(_, ...)
      local texts = {}
      for i = 1, select('#', ...) do texts[i] = packed((select(i, ...))) end
      return table.concat(texts)
    end,
    unpack = function(format, text, at)
      at = at or 1
      local values = {}
      for i = 1, #format - 1 do values[i], at = unpacked(text, at), at + 8 end
      values[#values + 1] = at
      return unpack(values)
    end,
  }
end)()
