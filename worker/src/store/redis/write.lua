-- ARGV from 5: whether to set the marker, then how many flags to set, flags to remove, segments to set and segments to
-- remove, then these in this order, as field and value or as field.
local sets = {tonumber(ARGV[6]), tonumber(ARGV[8])}
local removals = {tonumber(ARGV[7]), tonumber(ARGV[9])}
if #ARGV ~= 9 + 2 * (sets[1] + sets[2]) + removals[1] + removals[2] or math.max(sets[1], sets[2], removals[1], removals[2]) > 1000 then
  return {'malformed', tostring(#ARGV), ''}
end
local refused = refusal()
if refused then return refused end
for index, hash in ipairs({features, segments}) do
  local found = kind(hash)
  if sets[index] + removals[index] > 0 and found ~= 'hash' and found ~= 'none' then return {'wrongtype', hash, ''} end
end

local at = 10
for index, hash in ipairs({features, segments}) do
  if sets[index] > 0 then
    local last = at + 2 * sets[index] - 1
    redis.call('HSET', hash, unpack(ARGV, at, last))
    at = last + 1
  end
  if removals[index] > 0 then
    local last = at + removals[index] - 1
    redis.call('HDEL', hash, unpack(ARGV, at, last))
    at = last + 1
  end
end
if ARGV[5] == '1' then set_marker() end
return finish()
