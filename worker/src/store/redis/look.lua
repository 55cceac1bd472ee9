local found = kind(fence)
local wrong = wrong_type()
if wrong then return {'wrongtype', wrong, ''} end
local counts = {redis.call('EXISTS', marker), redis.call('HLEN', features), redis.call('HLEN', segments)}
if found == 'none' then
  redis.call('EXISTS', fence)
  return {'looked', 'absent', '', counts[1], counts[2], counts[3]}
elseif found ~= 'string' then
  redis.call('EXISTS', fence)
  return {'looked', 'type', '', counts[1], counts[2], counts[3]}
end
return {'looked', 'value', redis.call('GET', fence), counts[1], counts[2], counts[3]}
