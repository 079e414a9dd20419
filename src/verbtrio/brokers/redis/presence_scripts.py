"""Scripts for who is present in a room. Pure.

What they change is told on the room's channel, in a message of the kind `P`: for each change its kind, and what has
changed.
"""

from __future__ import annotations

from verbtrio.brokers.redis.script import Script

# A user: the number of connections, when the user came, when the user leaves ('0': no connection is gone), public info.
# A connection: its user, its process, when it came, public info, details.
_PRESENCE = """
local events = {}
local function tell(...)
  for index = 1, select('#', ...) do events[#events + 1] = field((select(index, ...))) end
end
local function publish()
  if #events > 0 then redis.call(ARGV[1], KEYS[3], field('P') .. table.concat(events)) end
end
local function read(key, name)
  local data = redis.call('HGET', key, name)
  return data and unpack_fields(data)
end
local function write(key, name, fields, count)
  local parts = {}
  for index = 1, count do parts[index] = field(fields[index]) end
  redis.call('HSET', key, name, table.concat(parts))
end
local function connection_event(kind, name, one) tell(kind, name, one[1], one[4], one[5]) end
local function leave(name, user)
  redis.call('HDEL', KEYS[2], name)
  tell('leave', name, user[4])
end
-- Returns whether the user stays for a while.
local function drop(name, one, due, time)
  redis.call('HDEL', KEYS[1], name)
  connection_event('gone', name, one)
  local user = read(KEYS[2], one[1])
  if not user then return false end
  local count = tonumber(user[1]) - 1
  user[1] = number(count)
  if count > 0 then
    write(KEYS[2], one[1], user, 4)
  elseif due <= time then
    leave(one[1], user)
  else
    user[3] = number(due)
    write(KEYS[2], one[1], user, 4)
    return true
  end
  return false
end
local function sequence()
  local time = redis.call('TIME')
  return string.format('%d%06d', time[1], time[2])
end
"""

ENTER = Script(
    _PRESENCE
    + """
local process, name, user_name, given, info, has_details, details, again =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6], ARGV[7] == '1', ARGV[8], ARGV[9] == '1'
local one = read(KEYS[1], name)
if one and one[1] ~= user_name then
  drop(name, one, 0, 0)
  one = nil
end
if info == '' then info = false end
local user = read(KEYS[2], user_name)
if not user then
  user = {'0', sequence(), '0', info}
  tell('join', user_name, info)
elseif given and not again and user[4] ~= info then
  user[4] = info
  tell('update', user_name, info)
end
user[3] = '0'
local is_new = not one
if is_new then
  one = {user_name, process, sequence(), false, false}
  user[1] = number(tonumber(user[1]) + 1)
end
one[2] = process
if given then one[4] = info end
if has_details then one[5] = details end
write(KEYS[1], name, one, 5)
write(KEYS[2], user_name, user, 4)
if is_new then connection_event('come', name, one) end
publish()
"""
)
"""A connection is present. KEYS: connections, users, channel. ARGV: command, process, connection, user, "1" with info,
the info, "1" with details, the details, "1" if it says so again, so that its info is not the newest."""

UPDATE = Script(
    _PRESENCE
    + """
local one = read(KEYS[1], ARGV[2])
if not one then return end
local info = ARGV[3] ~= '' and ARGV[3]
local user = read(KEYS[2], one[1])
if user and user[4] ~= info then
  user[4] = info
  write(KEYS[2], one[1], user, 4)
  tell('update', one[1], info)
end
one[4] = info
write(KEYS[1], ARGV[2], one, 5)
publish()
"""
)
"""A connection and its user have other info. KEYS: connections, users, channel. ARGV: command, connection, info."""

EXIT = Script(
    _PRESENCE
    + """
local one = read(KEYS[1], ARGV[2])
if not one then return '' end
local time = now()
local stays = drop(ARGV[2], one, time + tonumber(ARGV[3]), time)
publish()
return stays and one[1] or ''
"""
)
"""A connection is gone. KEYS: connections, users, channel. ARGV: command, connection, grace."""

EXPIRE = Script(
    _PRESENCE
    + """
local user = read(KEYS[2], ARGV[2])
if not user or user[1] ~= '0' then return 0 end
local left = tonumber(user[3]) - now()
if left > 0 then return left end
leave(ARGV[2], user)
publish()
return 0
"""
)
"""A user's grace may be over. KEYS: connections, users, channel. ARGV: command, user. Returns for how long the user
stays; 0: the user has left, or is back."""

PURGE = Script(
    _PRESENCE
    + """
local all, time, left = redis.call('HGETALL', KEYS[1]), now(), 0
for index = 1, #all, 2 do
  local one = unpack_fields(all[index + 1])
  if one[2] == ARGV[2] then drop(all[index], one, 0, time) end
end
all = redis.call('HGETALL', KEYS[2])
for index = 1, #all, 2 do
  local user = unpack_fields(all[index + 1])
  if user[1] == '0' then
    local rest = ARGV[3] == '1' and 0 or tonumber(user[3]) - time
    if rest <= 0 then leave(all[index], user) else left = math.max(left, rest) end
  end
end
publish()
if redis.call('HDEL', KEYS[4], ARGV[2]) == 1 then
  redis.call(ARGV[1], KEYS[3], field('N') .. field(ARGV[2]) .. field('0'))
end
return left
"""
)
"""A process is gone: nobody is present by it any more, and it has no members. Users whose grace is over leave. KEYS:
connections, users, channel, counts. ARGV: command, process, "1" to end all graces now. Returns for how long users
without a connection stay."""

PRESENT = Script(
    """
local rows, all, size = {}, redis.call('HGETALL', KEYS[1]), 0
for index = 1, #all, 2 do
  rows[#rows + 1] = {all[index], unpack_fields(all[index + 1])}
  size = size + #all[index] + #all[index + 1] + 64
  if size > 24 * 1024 * 1024 then
    return redis.error_reply('ERR too much for one answer: those present in the room have too much info')
  end
end
return rows
"""
)
"""Who is present. KEYS: connections, or users. Returns the name and the fields of each, unless all have more than
24 MiB: Redis cuts off whoever listens, and is sent 32 MB at once."""
