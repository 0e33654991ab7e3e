-- Keeps what one process has counted in an interval, for `ratelimit top`.
--
-- KEYS   [1] the hash with the reports of the interval
-- ARGV   [1] two doubles: see prelude.lua; neither is used
--        [2] the process
--        [3] its report
--        [4] milliseconds after which the hash expires
-- Reply  1

call('HSET', KEYS[1], ARGV[2], ARGV[3])
return call('PEXPIRE', KEYS[1], ARGV[4])
