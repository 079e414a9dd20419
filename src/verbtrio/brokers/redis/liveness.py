"""Which processes live. Each tells so; what a dead one has left in rooms is cleared away by the others.

A process has another name on each link. So what it has on a new link is never mixed with what is cleared away of an
old one: it is moved to the new name first, and then the rest of the old is its past.
"""

from __future__ import annotations

import logging

import trio

from verbtrio.brokers.redis.link import Link, LinkLost
from verbtrio.brokers.redis.names import Names, to_bytes, to_text
from verbtrio.brokers.redis.presence_scripts import PURGE
from verbtrio.brokers.redis.process_scripts import HEARTBEAT

logger = logging.getLogger("verbtrio.brokers.redis")

HEARTBEAT_SECONDS = 2.0
"""How often a process tells that it lives."""
DEATH_SECONDS = 10.0
"""A process that has not told so for as long is taken for dead."""
ROOMS_A_STEP = 100
"""Of how many rooms at once a dead process is cleared away."""


class Liveness:
    """Tells that this process lives, and clears away after others."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._unfinished: dict[str, None] = {}  # the dead ones of whom users are left whose grace is not over

    async def beat(self, link: Link, me: str, *, is_new: bool = False) -> list[str]:
        """Tell that the process lives; return the dead ones that it is to clear away.

        Raises:
            BrokerUnavailable: Redis can't be reached.
            LinkLost: this process was taken for dead.
        """
        keys = [self._names.processes, self._names.graves, self._names.beat]
        timeout = round(DEATH_SECONDS * 1000)
        answer = await link.call(HEARTBEAT, keys, me, timeout, int(is_new), *map(to_bytes, self._unfinished))
        lives, link.processes, dead = answer
        if not lives:
            raise LinkLost("the other processes took this one for dead")
        return [*self._unfinished, *map(to_text, dead)]

    async def run(self, link: Link, me: str) -> None:
        """Do so again and again, until cancelled."""
        self._unfinished.clear()  # of another link: somebody has taken them over
        while True:
            await trio.sleep(HEARTBEAT_SECONDS)
            for name in await self.beat(link, me):
                if name not in self._unfinished:
                    logger.warning("process %s has died: what it had in rooms is removed", name)
                if await self.clear_away(link, name):
                    self._unfinished.pop(name, None)
                    await link.command(b"ZREM", self._names.graves, to_bytes(name))
                else:
                    self._unfinished[name] = None

    async def leave(self, link: Link, me: str) -> None:
        """This process ends, or has another name from now on. If users are left whose grace is not over, the others see
        to them."""
        is_done = await self.clear_away(link, me)
        if not is_done:
            await link.command(b"ZADD", self._names.graves, 0, me)
        await link.command(b"ZREM", self._names.processes, me)

    async def clear_away(self, link: Link, name: str) -> bool:
        """Remove from all rooms what a process has left there. Returns whether that is all: users whose grace is not
        over need another look.

        If cancelled, a part is removed; the rest is still known.

        Raises:
            BrokerUnavailable: Redis can't be reached.
        """
        marked = self._names.rooms(name)
        is_done = True
        rooms = list(await link.command(b"SMEMBERS", marked))
        for start in range(0, len(rooms), ROOMS_A_STEP):
            step = rooms[start : start + ROOMS_A_STEP]
            replies = []
            for room in map(to_text, step):
                keys = [self._names.connections(room), self._names.users(room)]
                keys += [self._names.channel(room), self._names.counts(room)]
                replies.append(link.call(PURGE, keys, name))
            cleared = [room for room, reply in zip(step, replies, strict=True) if not int(await reply)]
            is_done &= len(cleared) == len(step)
            if cleared:
                await link.command(b"SREM", marked, *cleared)
        return is_done
