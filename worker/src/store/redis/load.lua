-- KEYS from 5: staged features, staged segments, and two names to put the old hashes aside. ARGV from 5: how many fields
-- each staged hash must have; none: the hash is to be empty.
local staged, aside = {KEYS[5], KEYS[6]}, {KEYS[7], KEYS[8]}
local counts = {tonumber(ARGV[5]), tonumber(ARGV[6])}
if #ARGV ~= 6 then return {'malformed', tostring(#ARGV), ''} end
local refused = refusal()
if refused then return refused end
for index = 1, 2 do
  local found = kind(staged[index])
  if (found ~= 'hash' and found ~= 'none') or redis.call('HLEN', staged[index]) ~= counts[index] then
    return {'unstaged', staged[index], ''}
  end
end

for index, live in ipairs({features, segments}) do
  if redis.call('EXISTS', live) == 1 then redis.call('RENAME', live, aside[index]) end
  if counts[index] > 0 then
    redis.call('PERSIST', staged[index])
    redis.call('RENAME', staged[index], live)
  end
end
set_marker()
redis.call('UNLINK', aside[1], aside[2])
return finish()
