-- KEYS: a staging hash. ARGV: how many seconds it may live, then fields and values.
if #ARGV < 3 or #ARGV % 2 == 0 or #ARGV > 2001 then return {'malformed', tostring(#ARGV), ''} end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return {'staged', 0, 0}
