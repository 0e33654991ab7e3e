-- A token bucket as one would write it by hand: rate, period, burst and cost in ARGV.
local rate, burst, cost = ARGV[1] / ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(state[1]) or burst, tonumber(state[2]) or now
tokens = math.min(burst, tokens + (now - at) * rate)
if tokens < cost then return 0 end
redis.call('HSET', KEYS[1], 'tokens', tokens - cost, 'at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens + cost) / rate * 1000))
return 1
