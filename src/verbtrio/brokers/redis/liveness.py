"""Which processes live. Each tells so; what a dead one has left in rooms is cleared away by the others.

A process has another name on each link. So what it has on a new link is never mixed with what is cleared away of an
old one: it is moved to the new name first, and then the rest of the old is its past.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import trio

from verbtrio.base.errors import BrokerUnavailable
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
        self._unfinished: dict[str, None] = {}  # the dead ones that are not cleared away
        self._news = trio.Event()

    def keep(self, link: Link, name: str) -> None:
        """A process that had this name before lives: it is not to be cleared away yet, unless it has been already."""
        if name:
            keys = [self._names.processes, self._names.graves, self._names.beat]
            link.call(HEARTBEAT, keys, name, round(DEATH_SECONDS * 1000), 0, then=self._kept)

    def _kept(self, answer: Any, error: BrokerUnavailable | None) -> None:
        if error is None:  # else the heartbeat that follows fails, too
            self._note(answer[2])

    def _note(self, dead: Sequence[bytes]) -> None:
        for name in map(to_text, dead):
            if name not in self._unfinished:
                logger.warning("process %s has died: what it had in rooms is removed", name)
                self._unfinished[name] = None
        self._news.set()

    async def beat(self, link: Link, me: str, *, is_new: bool = False) -> None:
        """Tell that the process lives, and find out whom it is to clear away.

        Args:
            is_new: the link is, and so is the name.

        Raises:
            BrokerUnavailable: Redis can't be reached.
            LinkLost: this process was taken for dead.
        """
        if is_new:
            self._unfinished.clear()  # of another link: somebody takes them over
        keys = [self._names.processes, self._names.graves, self._names.beat]
        timeout = round(DEATH_SECONDS * 1000)
        answer = await link.call(HEARTBEAT, keys, me, timeout, int(is_new), *map(to_bytes, self._unfinished))
        lives, link.processes, dead = answer
        if not lives:
            raise LinkLost("the other processes took this one for dead")
        self._note(dead)

    async def run(self, link: Link, me: str) -> None:
        """Do so again and again, until cancelled."""
        while True:
            await trio.sleep(HEARTBEAT_SECONDS)
            await self.beat(link, me)

    async def run_clearing(self, link: Link) -> None:
        """Clear away after the dead, until cancelled. Apart from the heartbeats: who had many rooms takes longer than
        may pass between two of them."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for name in tuple(self._unfinished):
                if await self.clear_away(link, name):
                    self._unfinished.pop(name, None)
                    await link.command(b"ZREM", self._names.graves, to_bytes(name))

    async def leave(self, link: Link, me: str) -> None:
        """This process ends, or has another name from now on. If users are left whose grace is not over, the others see
        to them."""
        is_done = await self.clear_away(link, me)
        if not is_done:
            await link.command(b"ZADD", self._names.graves, 0, me)
        await link.command(b"ZREM", self._names.processes, me)

    async def end(self, link: Link) -> None:
        """If no process is left, end the graces that are: nobody could do so later, and they would stay for ever."""
        if not int(await link.command(b"ZCARD", self._names.processes)):
            for name in map(to_text, await link.command(b"ZRANGE", self._names.graves, 0, -1)):
                await self.clear_away(link, name, with_graces=True)
                await link.command(b"ZREM", self._names.graves, to_bytes(name))

    async def clear_away(self, link: Link, name: str, *, with_graces: bool = False) -> bool:
        """Remove from all rooms what a process has left there; `with_graces`: and end all graces there. Returns
        whether that is all: users whose grace is not over need another look.

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
                replies.append(link.call(PURGE, keys, name, int(with_graces)))
            cleared = [room for room, reply in zip(step, replies, strict=True) if not int(await reply)]
            is_done &= len(cleared) == len(step)
            if cleared:
                await link.command(b"SREM", marked, *cleared)
        return is_done
