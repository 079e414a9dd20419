"""Cancelling: what is asynchronous is a checkpoint, and is done as a whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from verbtrio.brokers.records import History, Lease
from verbtrio.testing.broker_checks import Checks, text

TURNS = range(6)
"""After how many turns of Trio's scheduler a call is cancelled."""


async def cancelled_after(turns: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Call, and cancel it after so many turns (0: before it begins). Returns whether it was cancelled in time."""

    async def cancel() -> None:
        for _ in range(turns - 1):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            if turns == 0:
                scope.cancel()
            else:
                nursery.start_soon(cancel)
            await call()
    return scope.cancelled_caught


class CancellationChecks(Checks):
    """Each asynchronous method, cancelled before it begins and in the midst of it."""

    async def test_each_call_is_a_checkpoint(self) -> None:
        """Where it is called in a scope that is cancelled, it does not go on."""
        room, history, lease = self.name(), History(), Lease("nobody's", 0)
        async with self.processes(2) as (one, other):
            session = one.session
            await one.subscribe(room)
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: session.publish(room, text("a"), None),
                lambda: session.publish(room, text("a"), history),
                lambda: session.history(room, history, since=None, limit=None, reverse=False),
                lambda: session.wait_subscribed(room),
                lambda: session.count(room),
                lambda: session.presence(room),
                lambda: session.connections(room),
                lambda: session.send_user("ann", text("a")),
                lambda: session.disconnect_user("ann", 1000, ""),
                lambda: session.forward(other.session.node, b"a", 60),
                lambda: session.acquire(self.name("lease"), 60),
                lambda: session.renew(lease, 60),
                lambda: session.release(lease),
            ]
            for number, call in enumerate(calls):
                assert await cancelled_after(0, call), f"call {number} is not a checkpoint"
                for turns in TURNS[1:]:
                    await cancelled_after(turns, call)
            # Nothing of that has harmed the session.
            await other.session.publish(room, text("last"), history)
            await self.until(one, lambda process: b"last" in process.payloads(room))

    async def test_a_publication_is_whole_or_not_there(self) -> None:
        """Remembered and delivered, or neither; and it leaves no hole."""
        room, history = self.name(), History()
        async with self.processes(2) as nodes:
            one, other = nodes
            for node in nodes:
                await node.subscribe(room)
            for turns in TURNS:
                await cancelled_after(turns, lambda: one.session.publish(room, text("maybe"), history))
            newest = await one.session.publish(room, text("last"), history)
            assert newest is not None
            page = await other.session.history(room, history, since=None, limit=None, reverse=False)
            assert [message.position.offset for message in page.messages] == list(range(1, newest.offset + 1))
            await self.delivered(nodes, room, newest.offset)
            for node in nodes:
                assert [call.position for call in node.process.delivered] == [
                    message.position for message in page.messages
                ]

    async def test_a_lease_is_not_lost_on_the_way(self) -> None:
        """Nobody has it whose `acquire` was cancelled; but for its time, if that can't be known."""
        async with self.processes(2) as (one, other):
            for turns in TURNS:
                name = self.name("lease")
                if await cancelled_after(turns, partial(one.session.acquire, name, 0.3)):
                    with trio.fail_after(self.patience):
                        while (lease := await other.session.acquire(name, 60)) is None:
                            await trio.sleep(0.01)
                    await cancelled_after(turns, partial(other.session.release, lease))
                    await other.session.release(lease)
                    assert await one.session.acquire(name, 60) is not None
