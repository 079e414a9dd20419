"""Scripts for what is said in a room, and for who hears it. Pure.

A message on a room's channel begins with its kind:

    M  origin, epoch, first offset, then for each item: "1" if it is remembered, and the item
    N  process, count: so many members are there
    G  origin: some of its broadcasts were dropped
"""

from __future__ import annotations

from verbtrio.brokers.redis.script import Script

# The epoch and the newest offset. A position that a process knows, and that lies behind what is here, tells that Redis
# has lost what it had: a replica took over that had not got all. Then the offsets between are known, and must not be
# given again: a new epoch begins.
_TOP = """
local function top_of(epoch_now, known_epoch, known_offset, ttl)
  local both = redis.call('HMGET', KEYS[1], 'e', 't')
  local epoch, top = both[1], tonumber(both[2] or '0')
  if not epoch or (epoch == known_epoch and top < tonumber(known_offset)) then
    epoch, top = epoch_now, 0
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], 'e', epoch, 't', '0')
    redis.call('PEXPIRE', KEYS[1], ttl)
  end
  return epoch, top
end
"""

PUBLISH = Script(
    _TOP
    + """
local epoch, top = top_of(ARGV[3], ARGV[7], ARGV[8], ARGV[6])
local first = top + 1
local parts = {field('M'), field(ARGV[2]), field(epoch), field(number(first))}
for index = 9, #ARGV, 2 do
  if ARGV[index] == '1' then
    top = top + 1
    redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[4], number(top) .. '-0', 'm', ARGV[index + 1])
  end
  parts[#parts + 1] = field(ARGV[index])
  parts[#parts + 1] = field(ARGV[index + 1])
end
redis.call('HSET', KEYS[1], 't', number(top))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call(ARGV[1], KEYS[3], table.concat(parts))
return {epoch, number(first)}
"""
)
"""Remember messages, and publish them. KEYS: top, history, channel. ARGV: command, origin, an epoch if one begins, the
history's size, its ttl, the epoch's, a known epoch and offset; then the items, each after "1" if it is remembered.
Returns the epoch, and the first remembered item's offset."""

PAGE = Script(
    _TOP
    + """
local epoch, top = top_of(ARGV[2], ARGV[4], ARGV[5], ARGV[3])
local kept = redis.call('XLEN', KEYS[2])
local oldest = top - kept + 1
local first, last = oldest, top
if ARGV[6] ~= '' and ARGV[6] == epoch then
  local since = tonumber(ARGV[7])
  if ARGV[9] == '1' then last = math.min(last, since - 1) else first = math.max(first, since + 1) end
end
local count = math.max(0, last - first + 1)
if ARGV[8] ~= '' then count = math.min(count, tonumber(ARGV[8])) end
local items, size = {epoch, number(top), number(kept)}, 0
local command, from, to, onward = 'XRANGE', first, last, 1
if ARGV[9] == '1' then command, from, to, onward = 'XREVRANGE', last, first, -1 end
while count > 0 and size < tonumber(ARGV[10]) do
  local entries = redis.call(command, KEYS[2], number(from) .. '-0', number(to) .. '-0', 'COUNT', math.min(count, 16))
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    if size >= tonumber(ARGV[10]) then break end
    local offset = string.match(entry[1], '^%d+')
    items[#items + 1] = offset
    items[#items + 1] = entry[2][2]
    size = size + #entry[2][2]
    from = math.max(0, tonumber(offset) + onward)
  end
  count = count - #entries
end
return items
"""
)
"""What a room remembers. KEYS: top, history. ARGV: (command), an epoch if one begins, the epoch's ttl, a known epoch
and offset, the epoch ('': none) and the offset since which it is asked, the limit ('': none), "1" for the newest first,
after how many bytes it stops. Returns the epoch, the newest offset, how many messages are remembered, and the offset
and the item of each."""

ARRIVE = Script(
    _TOP
    + """
if ARGV[4] ~= '' and redis.call('HDEL', KEYS[4], ARGV[4]) == 1 then
  redis.call(ARGV[1], KEYS[3], field('N') .. field(ARGV[4]) .. field('0'))
end
if ARGV[3] ~= '0' then
  redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
  redis.call(ARGV[1], KEYS[3], field('N') .. field(ARGV[2]) .. field(ARGV[3]))
end
local epoch, top = '', 0
if redis.call('EXISTS', KEYS[1]) == 1 then epoch, top = top_of(ARGV[5], ARGV[7], ARGV[8], ARGV[6]) end
return {epoch, number(top), redis.call('HGETALL', KEYS[4])}
"""
)
"""A process has subscribed to a room. KEYS: top, history, channel, counts. ARGV: command, process, count, the name that
the process had before (''), an epoch if one begins, its ttl, a known epoch and offset. Returns the history's epoch
('': there is none) and newest offset, and the members of all processes."""

COUNT = Script(
    """
if ARGV[3] == '0' then
  if redis.call('HDEL', KEYS[1], ARGV[2]) == 0 then return end
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
redis.call(ARGV[1], KEYS[2], field('N') .. field(ARGV[2]) .. field(ARGV[3]))
"""
)
"""A room has so many members in a process. KEYS: counts, channel. ARGV: command, process, count."""
