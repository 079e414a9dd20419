"""`MemoryBroker` beyond the interface: its timers, its sessions' ends, what it forgets. (test_conformance.py has the
interface.)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from verbtrio.base.position import Position
from verbtrio.brokers import MemoryBroker, PresenceChange
from verbtrio.brokers.base import Session
from verbtrio.brokers.memory_history import ROOM_BYTES
from verbtrio.brokers.records import History, Page, Present, Usage
from verbtrio.testing.broker_checks import text
from verbtrio.testing.brokers import RecordingProcess

HISTORY = History(ttl=10)


@asynccontextmanager
async def opened(broker: MemoryBroker) -> AsyncIterator[tuple[RecordingProcess, Session]]:
    process = RecordingProcess()
    async with broker.session(process) as session:
        yield process, session


async def ask(session: Session, room: str, since: Position | None = None) -> Page:
    return await session.history(room, HISTORY, since=since, limit=None, reverse=False)


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_no_memory_at_all(size: int) -> None:
    with pytest.raises(ValueError, match="max_history_bytes must be more than 0"):
        MemoryBroker(max_history_bytes=size)


async def test_a_history_expires_once_after_its_last_message(autojump_clock: MockClock) -> None:
    """With one timer, however much is said."""
    broker = MemoryBroker()
    async with opened(broker) as (_, session):
        for _ in range(20):
            await session.publish("a", text("x"), HISTORY)
            await ask(session, "a")
            await trio.sleep(1)
            assert len(broker._timers) == 1
        await trio.sleep(8.9)
        assert len((await ask(session, "a")).messages) == 20
        await trio.sleep(0.2)
        assert (len(broker.histories), len(broker._timers), broker.histories.bytes) == (0, 0, 0)


async def test_a_room_with_members_keeps_its_offsets(autojump_clock: MockClock) -> None:
    """They have positions, and come back with them."""
    broker = MemoryBroker()
    async with opened(broker) as (process, session):
        process.members["a"] = 1
        position = await session.publish("a", text("x"), HISTORY)
        assert position is not None
        await trio.sleep(100)
        page = await ask(session, "a", position)
        assert (page.messages, page.position, page.is_complete) == ((), position, True)
        process.members.clear()
        await trio.sleep(20.1)
        assert (len(broker.histories), len(broker._timers)) == (0, 0)


async def test_a_room_that_is_dropped_for_others_has_no_timer() -> None:
    """Clients may ask for rooms without end: what they leave is bounded in all."""
    broker = MemoryBroker(max_history_bytes=50 * ROOM_BYTES)
    async with opened(broker) as (_, session):
        for number in range(500):
            await ask(session, f"room {number}")
            assert len(broker._timers) == len(broker._expiries) == len(broker.histories) < 50


async def test_a_tab_that_reloads_again_and_again_has_one_timer() -> None:
    broker = MemoryBroker()
    async with opened(broker) as (process, session):
        for number in range(500):
            session.enter("a", f"c{number}", "ann", None)
            session.exit("a", f"c{number}", 3600)
            assert len(broker._timers) == len(broker._graces) == 1
            assert len(broker._timers._heap) < 200
        assert process.changes_in("a") == [("join", "ann", None)]


async def test_a_grace_outlives_the_session_in_which_it_began(autojump_clock: MockClock) -> None:
    """Its timer is called by another session's task then."""
    broker = MemoryBroker()
    async with opened(broker) as (process, _):
        async with opened(broker) as (_, session):
            await wait_all_tasks_blocked()
            session.enter("a", "c1", "ann", None)
            session.exit("a", "c1", 5)
        await trio.sleep(4.9)
        assert process.changes_in("a") == [("join", "ann", None)]
        await trio.sleep(0.2)
        assert process.changes_in("a") == [("join", "ann", None), ("leave", "ann", None)]
        assert len(broker._graces) == 0


async def test_timers_go_on_when_the_session_ends_that_called_them(autojump_clock: MockClock) -> None:
    """Whichever of the sessions end, and in whatever order they were opened."""
    broker = MemoryBroker()

    async def hold(*, task_status: trio.TaskStatus[tuple[trio.CancelScope, Session]]) -> None:
        with trio.CancelScope() as scope:
            async with opened(broker) as (_, session):
                await wait_all_tasks_blocked()
                task_status.started((scope, session))
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        held = [await nursery.start(hold) for _ in range(4)]
        for index in (0, 2, 1):  # the one that calls, one in line, the next that calls
            scope, session = held[index]
            await session.publish(f"room {index}", text("x"), HISTORY)
            scope.cancel()
            await wait_all_tasks_blocked()
        await trio.sleep(10.1)
        assert (len(broker.histories), len(broker._timers)) == (0, 0)
        held[3][0].cancel()


async def test_nothing_is_left_of_the_last_session() -> None:
    """It begins with nothing, but for the fences: they count up."""
    broker = MemoryBroker()
    async with opened(broker) as (_, session):
        position = await session.publish("a", text("x"), HISTORY)
        session.enter("a", "c1", "ann", None)
        session.enter("a", "c2", "bob", None)
        session.exit("a", "c2", 60)
        first = await session.acquire("lease", 60)
    assert first is not None
    async with opened(broker) as (process, session):
        page = await ask(session, "a", position)
        assert (page.messages, page.position.offset, page.is_complete) == ((), 0, False)
        assert await session.presence("a") == {}
        second = await session.acquire("lease", 60)
        assert second is not None
        assert second.fence > first.fence
        assert (len(broker._graces), process.changes, process.delivered) == (0, [], [])


def test_one_run_after_the_other() -> None:
    """A test's broker, or one of a module, may be used in the next run; the first may have been interrupted."""
    broker = MemoryBroker()

    async def main() -> None:
        async with opened(broker) as (process, session):
            await session.publish("a", text("x"), HISTORY)
            await trio.sleep(0.03)
            assert len(process.delivered) == 1
            assert len(broker.histories) == 1

    async def interrupted() -> None:
        async with opened(broker):
            await trio.sleep(0.03)
            raise KeyboardInterrupt

    trio.run(main)
    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(interrupted)
    assert caught.group_contains(KeyboardInterrupt)
    trio.run(main)


async def test_two_runs_at_once_are_refused() -> None:
    """Their tasks can't wake each other."""
    broker = MemoryBroker()

    async def main() -> None:
        async with opened(broker):
            pass

    async with opened(broker):
        with pytest.raises(RuntimeError, match="within one Trio run"):
            await trio.to_thread.run_sync(trio.run, main)
    await trio.to_thread.run_sync(trio.run, main)


async def test_all_sessions_tell_what_the_broker_keeps(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with opened(broker) as (_, one), opened(broker) as (_, other):
        assert one.usage == Usage()
        await one.publish("a", text("x"), HISTORY)
        await ask(other, "b")
        one.enter("a", "c1", "ann", None)
        one.enter("b", "c1", "ann", None)
        other.enter("a", "c2", "ann", None)
        assert one.usage == other.usage == Usage(2, broker.histories.bytes, 2)
        assert one.usage.history_bytes > 2 * ROOM_BYTES
        one.exit("b", "c1", 5)
        await trio.sleep(4.9)
        assert other.usage.presences == 2
        await trio.sleep(0.2)
        assert other.usage.presences == 1
        await trio.sleep(5)
        assert other.usage == Usage(0, 0, 1)


async def test_an_expired_lease_does_not_outlive_its_session(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with opened(broker):
        async with opened(broker) as (_, session):
            assert await session.acquire("a", 1) is not None
            await trio.sleep(2)
        assert broker.leases == {}


async def test_an_expired_lease_is_forgotten_when_that_is_told(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with opened(broker) as (_, session):
        lease = await session.acquire("a", 1)
        assert lease is not None
        await trio.sleep(2)
        assert not await session.renew(lease, 1)
        assert broker.leases == {}


async def test_what_was_cancelled_was_not_done() -> None:
    """Memory can promise more than the interface does."""
    broker = MemoryBroker()
    async with opened(broker) as (process, session), opened(broker) as (other, _):
        lease = await session.acquire("held", 60)
        assert lease is not None
        with trio.CancelScope() as scope:
            scope.cancel()
            for call in (
                lambda: session.publish("a", text("x"), HISTORY),
                lambda: session.acquire("free", 60),
                lambda: session.release(lease),
                lambda: session.send_user("ann", text("x")),
                lambda: session.disconnect_user("ann", 1000, ""),
            ):
                with pytest.raises(trio.Cancelled):
                    await call()
        assert (process.delivered, other.delivered, other.sent, other.disconnected) == ([], [], [], [])
        assert len(broker.histories) == 0
        assert list(broker.leases) == ["held"]


async def test_publishing_gives_way_once_the_message_is_on_its_way() -> None:
    """In a chat, one of sixteen messages would be written to every member by itself otherwise, in a tick of its own."""
    async with opened(MemoryBroker()) as (process, session), trio.open_nursery() as nursery:
        seen = []

        async def other() -> None:
            seen.append((len(process.delivered), begun))

        nursery.start_soon(other)
        for begun in range(1, 41):  # noqa: B007 -- `other` reads it
            await session.publish("a", text("x"), HISTORY)
    assert seen in ([(16, 16)], [(32, 32)]), "Trio decides which of the two runs first"


async def test_publishing_gives_way() -> None:
    """To other tasks, at least at every 16th message."""
    broker, turns = MemoryBroker(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with opened(broker) as (_, session), trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(160):
            await session.publish("a", text("x"), None)
        nursery.cancel_scope.cancel()
    assert turns >= 8


async def test_a_change_caused_by_a_change_is_told_after_it() -> None:
    """To all processes in one order: else some would keep a user who has left."""
    broker = MemoryBroker()
    async with opened(broker) as (first, session), opened(broker) as (second, _):

        def send_away(room: str, change: PresenceChange) -> None:
            if change.kind == "join":
                session.exit(room, "c1", 0)

        first.when_changed = send_away
        session.enter("a", "c1", "ann", None)
        assert first.changes_in("a") == second.changes_in("a") == [("join", "ann", None), ("leave", "ann", None)]


async def test_a_process_that_fails_does_not_silence_the_others() -> None:
    """A bug of that process: it comes out, and the next change is told."""
    broker = MemoryBroker()
    async with opened(broker) as (first, session):

        def fail(room: str, change: PresenceChange) -> None:
            raise ArithmeticError

        first.when_changed = fail
        with pytest.raises(ArithmeticError):
            session.enter("a", "c1", "ann", None)
        first.when_changed = lambda room, change: None
        session.enter("a", "c2", "bob", None)
        assert first.changes_in("a") == [("join", "ann", None), ("join", "bob", None)]


async def test_another_sessions_connection_is_not_its_own_to_end() -> None:
    broker = MemoryBroker()
    async with opened(broker) as (_, session), opened(broker) as (_, other):
        session.enter("a", "c1", "ann", None)
        other.exit("a", "c1", 0)
        assert await other.presence("a") == {"ann": Present(None, 1)}


async def test_rooms_that_come_and_go(autojump_clock: MockClock) -> None:
    """Very many of them: nothing is left but what is remembered, within its limit."""
    broker = MemoryBroker(max_history_bytes=1_000_000)
    async with opened(broker) as (process, session):
        process.when_changed = lambda room, change: process.changes.clear()
        for number in range(20_000):
            room = f"room {number}"
            session.subscribe(room)
            session.enter(room, "c1", "ann", None)
            await session.publish(room, text("x"), HISTORY)
            process.delivered.clear()
            session.exit(room, "c1", number % 2)
            session.unsubscribe(room)
            assert broker.histories.bytes <= 1_000_000
        assert len(broker._timers) == len(broker._graces) + len(broker._expiries)
        assert len(broker._expiries) == len(broker.histories) < 1_000_000 / ROOM_BYTES
        await trio.sleep(20)
        assert (len(broker.histories), len(broker.presence), len(broker._timers)) == (0, 0, 0)
        assert (broker._graces, broker._expiries, broker.histories.bytes) == ({}, {}, 0)
        assert len(broker.histories._order) <= 128
