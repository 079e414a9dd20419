"""Scripts for processes, and for what one of them may do alone. Pure."""

from __future__ import annotations

from verbtrio.brokers.redis.script import Script

HEARTBEAT = Script(
    """
local time, timeout = now(), tonumber(ARGV[3])
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
redis.call('SET', KEYS[3], number(time), 'PX', timeout * 10)
local known = redis.call('ZSCORE', KEYS[1], ARGV[2])
if known or ARGV[4] == '1' then redis.call('ZADD', KEYS[1], number(time), ARGV[2]) end
-- If nobody has been heard for long, it was Redis that was away. All get their time again.
if time - last > timeout / 2 then
  for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], number(time), name) end
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', number(time - timeout), 'LIMIT', 0, 16)) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('ZADD', KEYS[2], 0, name)
end
for index = 5, #ARGV do redis.call('ZADD', KEYS[2], 'XX', number(time), ARGV[index]) end
local graves = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', number(time - timeout), 'LIMIT', 0, 4)
for _, name in ipairs(graves) do redis.call('ZADD', KEYS[2], number(time), name) end
return {(known or ARGV[4] == '1') and 1 or 0, redis.call('ZCARD', KEYS[1]), graves}
"""
)
"""A process lives. KEYS: processes, graves, beat. ARGV: (command), process, timeout, "1" if it is new, and the dead
ones that it has not done with. Returns 0 if it was taken for dead, how many live, and the dead ones that it is to
clear away."""

ACQUIRE = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 1 then return '0' end
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local fence = number(math.max(last + 1, now()))
redis.call('SET', KEYS[2], fence, 'PX', math.max(86400000, 2 * tonumber(ARGV[2])))
redis.call('SET', KEYS[1], fence, 'PX', ARGV[2])
return fence
"""
)
"""Take a lease. KEYS: lease, fence. ARGV: (command), how long. Returns its fence; 0 while somebody has it. A fence is
the time, or more: so it counts up, although the latest one is not kept for ever."""

RENEW = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""
)
"""Keep a lease. KEYS: lease. ARGV: (command), its fence, how long. Returns 0 if it is lost."""

RELEASE = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[2] then redis.call('DEL', KEYS[1]) end
"""
)
"""Give a lease back. KEYS: lease. ARGV: (command), its fence."""
