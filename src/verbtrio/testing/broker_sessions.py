"""A session's end: what it had is given up at once, and others go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from verbtrio.brokers.base import Broker
from verbtrio.brokers.records import History, Present
from verbtrio.testing.broker_checks import Checks, Node, text


class SessionEnds(Exception):  # noqa: N818 -- what a session's block raises
    """Raised out of a session's block."""


async def returns(scope: trio.CancelScope) -> None:
    """End a block as usual."""


async def is_cancelled(scope: trio.CancelScope) -> None:
    """End a block by cancelling what is around it."""
    scope.cancel()
    await trio.sleep_forever()


async def raises(scope: trio.CancelScope) -> None:
    """End a block by an exception."""
    raise SessionEnds


class SessionChecks(Checks):
    """`Broker.session`, `health` and `usage`."""

    async def test_health(self) -> None:
        """A broker that works says so."""
        async with self.processes(2) as nodes:
            assert [node.session.health.is_connected for node in nodes] == [True, True]

    async def test_usage(self) -> None:
        """What it keeps here is a number, or nothing."""
        async with self.processes(2) as nodes:
            room = self.name()
            await nodes[0].session.publish(room, text("hello"), History())
            nodes[0].session.enter(room, "c1", "ann", None)
            for node in nodes:
                usage = node.session.usage
                assert min(usage.histories, usage.history_bytes, usage.presences) >= 0

    async def test_a_session_that_ends_gives_up_what_it_had(self) -> None:
        """Its members, its lease and, without a grace, its presence; nothing of the others'."""
        await self.gives_up(returns)

    async def test_a_session_that_is_cancelled_gives_up_what_it_had(self) -> None:
        """The same."""
        await self.gives_up(is_cancelled)

    async def test_a_session_whose_block_raises_gives_up_what_it_had(self) -> None:
        """The same; and the exception comes out."""
        await self.gives_up(raises)

    async def gives_up(self, end: Callable[[trio.CancelScope], Awaitable[None]]) -> None:
        """Check a session that ends in this way."""
        room, name, patient = self.name(), self.name("lease"), self.patience * 100
        ended = []
        async with self.brokers() as make, self.opened(make()) as stays:
            await stays.subscribe(room)
            stays.session.enter(room, "s1", "both", None)
            kept = await stays.session.acquire(f"{name} kept", patient)
            assert kept is not None
            await self.present(stays, room, {"both": Present(None, 1)})
            with trio.CancelScope() as scope:
                try:
                    async with self.opened(make()) as goes:
                        await goes.subscribe(room)
                        goes.process.members[room] = 2
                        goes.session.counted(room, 2)
                        goes.session.enter(room, "g1", "both", None)
                        goes.session.enter(room, "g2", "goes", "info")
                        assert await goes.session.acquire(name, patient) is not None
                        await self.present(stays, room, {"both": Present(None, 2), "goes": Present("info", 1)})
                        await self.eventually(partial(self._has, stays, room, 2))
                        await end(scope)
                except* SessionEnds:
                    ended.append(raises)
            if scope.cancelled_caught:
                ended.append(is_cancelled)
            assert ended == ([] if end is returns else [end])
            with trio.fail_after(self.at_once):
                await self.present(stays, room, {"both": Present(None, 1)})
                changes = [("join", "both", None), ("join", "goes", "info"), ("leave", "goes", "info")]
                await self.until(stays, lambda process: process.changes_in(room) == changes)
                await self.eventually(partial(self._has, stays, room, 0))
                while await stays.session.acquire(name, patient) is None:
                    await trio.sleep(0.01)
            assert await stays.session.renew(kept, patient)

    async def _has(self, node: Node, room: str, others: int) -> bool:
        """Whether the room has so many members in the other processes, as this one knows and is told."""
        session = node.session
        return session.elsewhere(room) == others and await session.count(room) == others

    async def test_nothing_comes_after_the_end(self) -> None:
        """Nor before the beginning; however much is said. (`opened` looks.)"""
        room, is_over = self.name(), False
        async with self.brokers() as make, self.opened(make()) as stays:

            async def talk() -> None:
                number = 0
                while not is_over:
                    number += 1
                    await stays.session.publish(room, text(str(number)), None)
                    stays.session.broadcast(room, text(str(number)), (), None)
                    stays.session.send_user_nowait("ann", text(str(number)))
                    stays.session.enter(room, "c", f"user{number % 2}", number)
                    if number % 10:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.sleep(0.001)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                for _ in range(5):
                    async with self.opened(make()) as comes:
                        await comes.subscribe(room)
                        await self.delivered([comes], room, 3)
                is_over = True

    async def test_a_broker_is_used_again(self) -> None:
        """One session after the other, of the same object."""
        room = self.name()
        async with self.brokers() as make:
            broker: Broker = make()
            for _ in range(3):
                async with self.opened(broker) as one:
                    await one.subscribe(room)
                    await one.session.publish(room, text("hello"), History())
                    await self.delivered([one], room, 1)
                    one.session.enter(room, "c1", "ann", None)
                    assert await one.session.acquire(f"{room} lease", 600) is not None
                    await self.until(one, lambda process: process.changes_in(room) == [("join", "ann", None)])
