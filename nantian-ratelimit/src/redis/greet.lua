-- Settles what all replicas must agree on, and counts them.
--
-- Some managed servers let no script ask for the time.
--
-- KEYS[1]  the secret that keys are hashed under
-- KEYS[2]  the replicas, each with the time in seconds at which it was heard of
-- ARGV[1]  a secret to use if there is none
-- ARGV[2]  the name of this replica
-- ARGV[3]  the seconds after which a silent replica is gone
-- ARGV[4]  the server's time in seconds, a moment ago
-- returns  the secret, the number of replicas
local now, gone = ARGV[4], ARGV[3]
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - gone)
-- After a clock was set back: who is still there says so soon.
redis.call('ZREMRANGEBYSCORE', KEYS[2], now + gone, '+inf')
redis.call('EXPIRE', KEYS[2], gone * 2)
return { redis.call('GET', KEYS[1]), redis.call('ZCARD', KEYS[2]) }
