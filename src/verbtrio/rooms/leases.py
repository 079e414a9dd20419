"""Work that one process does at a time, of all that share a broker: whoever has the lease.

A lease lasts for a part of the time that is promised for a takeover, and is renewed when a third of it is over. Whoever
waits asks again and again, and at once when a lease is given back. The work is cancelled some time before the lease can
be another's. That is counted from before the broker was asked, by Trio's clock: the answer may have been on its way for
long.

The figures below are parts of the promised time.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.base import Session
from verbtrio.brokers.records import Lease

logger = logging.getLogger("verbtrio.rooms")

TERM = 0.8
"""How long a lease lasts."""
PAUSE = 0.2
"""How long it takes until who waits asks again, at most: together with `TERM` no more than was promised."""
MARGIN = 0.15
"""How long before a lease's end the work is cancelled: the time it has to end, and for clocks that differ."""
RETRY = 0.05
"""How long it takes until a renewal that has failed is tried again."""
RELEASE_SECONDS = 1.0
"""How long the broker has to take a lease back. Otherwise it is over after its time."""


class Leases:
    """Has work done while this process has a lease.

    Args:
        session: with the broker.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: dict[str, trio.Event] = {}

    def released(self, name: str) -> None:
        """See `Process`."""
        if (event := self._waiting.pop(name, None)) is not None:
            event.set()

    async def hold(
        self,
        name: str,
        seconds: float,
        work: Callable[[int], Awaitable[None]],
        *,
        waiting: Callable[[], None],
        ending: Callable[[], None],
    ) -> None:
        """Wait for the lease, and do the work; anew if the lease is lost meanwhile. Then give the lease back.

        If cancelled, so is the work; the lease is given back when that has ended, within `RELEASE_SECONDS`.

        Args:
            name: the lease's. One task of a process waits for it at a time.
            seconds: within which another process takes over if this one dies.
            work: called with the lease's fence. What it raises comes out in an `ExceptionGroup`.
            waiting: called when the lease is lost, and when it is known that somebody else has it, or that the broker
                can't be reached.
            ending: called when the work is done, or is cancelled and has to end.
        """
        while True:
            lease, end = await self._acquire(name, seconds, waiting)
            is_done = False
            try:
                with trio.CancelScope(deadline=end) as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._renew, lease, seconds, scope, ending, name=f"lease {name!r:.100}")
                        await work(lease.fence)
                        is_done = True
                        nursery.cancel_scope.cancel()
            finally:
                await self._release(lease)
            if is_done:
                return
            logger.info("the lease %.200r is lost: what was done under it is cancelled, and waits for it", name)
            waiting()

    async def _acquire(self, name: str, seconds: float, waiting: Callable[[], None]) -> tuple[Lease, float]:
        """Wait for the lease; it, and the time at which its work has to end. If cancelled, it may have been taken; then
        it is over after its time."""
        try:
            while True:
                news = self._waiting[name] = trio.Event()  # before it is asked: no news is missed
                begin = trio.current_time()
                lease: Lease | None = None
                try:
                    lease = await self._session.acquire(name, seconds * TERM)
                except BrokerUnavailable:
                    lease = None
                if lease is not None:
                    return lease, begin + seconds * (TERM - MARGIN)
                waiting()
                with trio.move_on_after(seconds * PAUSE * random.uniform(0.5, 1)):
                    await news.wait()
        finally:
            self._waiting.pop(name, None)

    async def _renew(self, lease: Lease, seconds: float, work: trio.CancelScope, ending: Callable[[], None]) -> None:
        """Renew the lease until cancelled, and with each renewal move the deadline of `work` on; cancel it once the
        lease is lost. If cancelled, the lease may have been renewed or not."""
        try:
            await self._renew_on(lease, seconds, work)
        finally:
            ending()

    async def _renew_on(self, lease: Lease, seconds: float, work: trio.CancelScope) -> None:
        pause = seconds * TERM / 3
        while True:
            await trio.sleep(pause)
            begin = trio.current_time()
            try:
                is_kept = await self._session.renew(lease, seconds * TERM)
            except BrokerUnavailable:
                pause = seconds * RETRY  # until the deadline cancels this, too
                continue
            if not is_kept:
                work.cancel()
                return
            work.deadline = begin + seconds * (TERM - MARGIN)
            pause = seconds * TERM / 3

    async def _release(self, lease: Lease) -> None:
        """Give the lease back, if the broker is there to take it. If cancelled, it is given back all the same."""
        with trio.move_on_after(RELEASE_SECONDS, shield=True):
            try:
                await self._session.release(lease)
            except BrokerUnavailable:
                logger.debug("the lease %.200r is not given back: it is over after its time", lease.name)
