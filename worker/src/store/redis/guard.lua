-- Every script begins here. KEYS: fence, features, segments, marker, and the script's own.
-- Nothing is written before everything is checked, for a script that fails half-way is not undone.
local fence, features, segments, marker = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function kind(key)
  return redis.call('TYPE', key).ok
end

local function count(hash)
  return kind(hash) == 'hash' and redis.call('HLEN', hash) or 0
end

local function wrong_type()
  for _, key in ipairs({features, segments}) do
    local found = kind(key)
    if found ~= 'none' and found ~= 'hash' then return key end
  end
  local found = kind(marker)
  if found ~= 'none' and found ~= 'string' then return marker end
  return nil
end

-- Returns nil if the fence is as ARGV[1] ('1': present, '0': absent) and ARGV[2] say, else the refusal.
local function refusal()
  local found = kind(fence)
  if found ~= 'none' and found ~= 'string' then return {'refused', 'type', ''} end
  local value = redis.call('GET', fence)
  if ARGV[1] == '0' then
    if value then return {'refused', 'value', value} end
  elseif not value then
    return {'refused', 'absent', ''}
  elseif value ~= ARGV[2] then
    return {'refused', 'value', value}
  end
  -- Where nobody owns the keys one of another type is somebody else's; where we do it is damage, which a load mends.
  local wrong = ARGV[1] == '0' and wrong_type()
  if wrong then return {'wrongtype', wrong, ''} end
  return nil
end

local function set_marker()
  if kind(marker) ~= 'string' then redis.call('SET', marker, '') end
end

-- Sets the next fence, ARGV[3], which expires after ARGV[4] seconds unless that is '0': then none of the keys may expire,
-- although somebody may have said so. The reads come last: they re-arm client tracking for all keys of this script, which
-- our own writes have disarmed.
local function finish()
  if ARGV[4] == '0' then
    redis.call('SET', fence, ARGV[3])
    for _, key in ipairs({features, segments, marker}) do redis.call('PERSIST', key) end
  else
    redis.call('SET', fence, ARGV[3], 'EX', ARGV[4])
  end
  local counts = {'done', count(features), count(segments)}
  redis.call('EXISTS', features, segments, marker)
  redis.call('GET', fence)
  return counts
end
