-- The last number: 0, 1 (a key would expire), 2 (a key is of another type).
local found = kind(fence)
local damage = 0
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) >= 0 then damage = 1 end
end
if wrong_type() then damage = 2 end
local marked, flags, rest = redis.call('EXISTS', marker), count(features), count(segments)
redis.call('EXISTS', features, segments, fence)
if found == 'none' then return {'looked', 'absent', '', marked, flags, rest, damage} end
if found ~= 'string' then return {'looked', 'type', '', marked, flags, rest, damage} end
return {'looked', 'value', redis.call('GET', fence), marked, flags, rest, damage}
