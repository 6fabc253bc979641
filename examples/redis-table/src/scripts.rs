//! What Redis carries out wholly or not at all. `KEYS[1]` is the prefix of every key.

/// Every entry, and the revision.
pub(crate) const READ: &str = "\
local p = KEYS[1]
return { redis.call('GET', p .. ':revision') or '0', redis.call('HGETALL', p .. ':entries') }";

/// `ARGV`: the revision expected or nothing, then kind, key, whether there is a value, and the value
/// of each change. Returns `{ 1, revision }`, or `{ 0, revision }` if one of these entries changed after
/// the revision expected. When an entry was deleted is kept for all that share two digits of their hash.
pub(crate) const WRITE: &str = "\
local p = KEYS[1]
local revision = tonumber(redis.call('GET', p .. ':revision') or '0')
local function bucket(field) return string.sub(redis.sha1hex(field), 1, 2) end
for i = 2, ARGV[1] == '' and 0 or #ARGV, 4 do
  local field = ARGV[i] .. '\\0' .. ARGV[i + 1]
  local changed = redis.call('HGET', p .. ':modified', field) or redis.call('HGET', p .. ':deleted', bucket(field))
  if tonumber(changed or '0') > tonumber(ARGV[1]) then return { 0, revision } end
end
if #ARGV == 1 then return { 1, revision } end
revision = redis.call('INCR', p .. ':revision')
local number = 0
for i = 2, #ARGV, 4 do
  local kind, key, there, value = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local field = kind .. '\\0' .. key
  if there == '1' then
    redis.call('HSET', p .. ':entries', field, value)
    redis.call('HSET', p .. ':modified', field, revision)
  else
    redis.call('HDEL', p .. ':entries', field)
    redis.call('HDEL', p .. ':modified', field)
    redis.call('HSET', p .. ':deleted', bucket(field), revision)
  end
  redis.call('XADD', p .. ':changes', 'MAXLEN', '~', 10000, revision .. '-' .. number, 'k', kind, 'n', key, 't', there, 'v', value)
  number = number + 1
end
return { 1, revision }";

/// `ARGV`: client, service, assignment without its stamp (JSON that ends in `}`), when it expires or
/// nothing, condition (`absent`, `always` or a stamp), the key under which a pin, or that another server
/// took the place of the one there, is told. Returns what is stored afterwards.
pub(crate) const ASSIGN: &str = "\
local p, client, service = KEYS[1], ARGV[1], ARGV[2]
local hash, field = p .. ':client:' .. client, '@' .. service
local there = redis.call('HGET', hash, field)
local tell = ARGV[5] == 'always'
if ARGV[5] == 'absent' then
  if there then return there end
elseif ARGV[5] ~= 'always' then
  if not there then return false end
  if string.match(there, '\"stamp\":(%d+)}$') ~= ARGV[5] then return there end
  local readable, was = pcall(cjson.decode, there)
  tell = not readable or was.server ~= cjson.decode(ARGV[3]).server
end
local stamp = redis.call('INCR', p .. ':stamp')
local stored = string.sub(ARGV[3], 1, -2) .. ',\"stamp\":' .. stamp .. '}'
redis.call('HSET', hash, field, stored)
local member = service .. '\\0' .. client
if ARGV[4] == '' then redis.call('ZREM', p .. ':expiry', member) else redis.call('ZADD', p .. ':expiry', ARGV[4], member) end
if tell then
  local revision = redis.call('INCR', p .. ':revision')
  redis.call('XADD', p .. ':changes', 'MAXLEN', '~', 10000, revision .. '-0', 'k', 'assignment', 'n', ARGV[6], 't', '0', 'v', '')
end
return stored";

/// `ARGV`: client, service, the key under which it is told.
pub(crate) const FORGET: &str = "\
local p = KEYS[1]
redis.call('HDEL', p .. ':client:' .. ARGV[1], '@' .. ARGV[2])
redis.call('ZREM', p .. ':expiry', ARGV[2] .. '\\0' .. ARGV[1])
local revision = redis.call('INCR', p .. ':revision')
redis.call('XADD', p .. ':changes', 'MAXLEN', '~', 10000, revision .. '-0', 'k', 'assignment', 'n', ARGV[3], 't', '0', 'v', '')
return 1";

/// `ARGV`: now, limit. Returns how many went.
pub(crate) const SWEEP: &str = "\
local p = KEYS[1]
local expired = redis.call('ZRANGEBYSCORE', p .. ':expiry', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(expired) do
  local at = string.find(member, '\\0', 1, true)
  redis.call('HDEL', p .. ':client:' .. string.sub(member, at + 1), '@' .. string.sub(member, 1, at - 1))
  redis.call('ZREM', p .. ':expiry', member)
end
return #expired";
