-- Copy the keys that hold a name for other names: ARGV is the name, how many keys, the keys, the other names.
local first, made = ARGV[1], tonumber(ARGV[2])
for n = 3 + made, #ARGV do
    for m = 3, 2 + made do
        local start, stop = string.find(ARGV[m], first, 1, true)
        local before, after = string.sub(ARGV[m], 1, start - 1), string.sub(ARGV[m], stop + 1)
        redis.call('COPY', ARGV[m], before .. ARGV[n] .. after)
    end
end
