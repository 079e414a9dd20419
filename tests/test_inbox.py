"""The queue between the reader and the handler: order, bounds, and that cancelling loses nothing."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from verbtrio.inbox import Inbox


def inbox(messages: int = 3, size: int = 1000) -> Inbox:
    return Inbox(max_messages=messages, max_bytes=size)


async def test_in_order() -> None:
    box = inbox()
    for message in ("a", b"b", ""):
        box.put_nowait(message)
    assert len(box) == 3
    assert [await box.get(), await box.get(), await box.get()] == ["a", b"b", ""]
    assert len(box) == 0


async def test_waits_for_a_message(autojump_clock: MockClock) -> None:
    box = inbox()
    got: list[str | bytes | None] = []

    async def get() -> None:
        got.append(await box.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await wait_all_tasks_blocked()
        assert got == []
        box.put_nowait("now")
    assert got == ["now"]


async def test_getting_is_always_a_checkpoint() -> None:
    box = inbox()
    box.put_nowait("a")
    with trio.testing.assert_checkpoints():
        await box.get()
    box.close()
    with trio.testing.assert_checkpoints():
        await box.get()


class TestFull:
    def test_by_number(self) -> None:
        box = inbox(messages=2)
        box.put_nowait("a")
        assert not box.is_full
        box.put_nowait("b")
        assert box.is_full

    def test_by_size(self) -> None:
        box = inbox(size=10)
        box.put_nowait("12345")
        assert not box.is_full
        box.put_nowait(b"67890")
        assert box.is_full

    async def test_what_one_read_brought_is_kept_whole(self) -> None:
        box = inbox(messages=1)
        for message in "abc":
            box.put_nowait(message)
        assert [await box.get() for _ in range(3)] == ["a", "b", "c"]

    async def test_the_reader_waits_for_room(self, autojump_clock: MockClock) -> None:
        box = inbox(messages=2, size=10)
        waited: list[str] = []

        async def reader() -> None:
            await box.wait_room()
            waited.append("room")

        for message in ("1", "2", "3"):
            box.put_nowait(message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await wait_all_tasks_blocked()
            await box.get()
            await wait_all_tasks_blocked()
            assert waited == [], "two are left: still full"
            await box.get()
        assert waited == ["room"]

    async def test_the_size_counts_when_messages_go(self, autojump_clock: MockClock) -> None:
        box = inbox(size=10)
        box.put_nowait("x" * 10)
        await box.get()
        with trio.fail_after(1):
            await box.wait_room()
        assert not box.is_full

    async def test_no_wait_where_there_is_room(self) -> None:
        with trio.testing.assert_no_checkpoints():
            await inbox().wait_room()


class TestClose:
    async def test_what_is_left_can_be_taken(self) -> None:
        box = inbox()
        box.put_nowait("last")
        box.close()
        box.put_nowait("too late")
        assert [await box.get(), await box.get(), await box.get()] == ["last", None, None]

    async def test_wakes_everybody(self, autojump_clock: MockClock) -> None:
        empty, full = inbox(), inbox(messages=1)
        full.put_nowait("a")
        got: list[str | bytes | None] = []

        async def get() -> None:
            got.append(await empty.get())

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                nursery.start_soon(get)
                nursery.start_soon(full.wait_room)
                await wait_all_tasks_blocked()
                empty.close()
                full.close()
                full.close()
        assert got == [None, None]


class TestCancel:
    async def test_no_message_is_lost(self, autojump_clock: MockClock) -> None:
        box = inbox()
        with trio.move_on_after(1):
            await box.get()
        box.put_nowait("a")
        with trio.move_on_after(0) as scope:
            await box.get()
        assert scope.cancelled_caught
        assert len(box) == 1
        assert await box.get() == "a"

    async def test_a_message_and_the_cancellation_at_once(self, autojump_clock: MockClock) -> None:
        """Whichever the handler sees, the message is with it or in the box."""
        for cancel_first in (True, False):
            box = inbox()
            got: list[str | bytes | None] = []
            scope = trio.CancelScope()

            async def get(
                box: Inbox = box, got: list[str | bytes | None] = got, scope: trio.CancelScope = scope
            ) -> None:
                with scope:
                    got.append(await box.get())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                await wait_all_tasks_blocked()
                for step in (scope.cancel, lambda box=box: box.put_nowait("a"))[:: 1 if cancel_first else -1]:
                    step()
            assert len(got) + len(box) == 1

    async def test_two_handlers_share(self, autojump_clock: MockClock) -> None:
        """Whoever is cancelled takes nobody else's wake-up along."""
        box = inbox()
        got: list[str | bytes | None] = []
        cancelled = trio.CancelScope()

        async def get(scope: trio.CancelScope) -> None:
            with scope:
                got.append(await box.get())

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get, cancelled)
                await wait_all_tasks_blocked()
                nursery.start_soon(get, trio.CancelScope())
                await wait_all_tasks_blocked()
                cancelled.cancel()
                box.put_nowait("a")
                await wait_all_tasks_blocked()
                assert got == ["a"]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    sizes=st.lists(st.integers(0, 6), max_size=30),
    patience=st.lists(st.sampled_from([0.0, 0.5, 5.0]), max_size=5).map(lambda some: [*some, 5.0]),
    limit=st.integers(1, 4),
)
def test_everything_in_order_whoever_is_impatient(sizes: list[int], patience: list[float], limit: int) -> None:
    """A reader that respects the bound, a handler that gives up at random and asks again."""
    messages = [f"{number}".ljust(size, ".") for number, size in enumerate(sizes)]
    got: list[str | bytes] = []

    async def main() -> None:
        box = inbox(limit, 8)

        async def read() -> None:
            for message in messages:
                await box.wait_room()
                assert len(box) < limit
                box.put_nowait(message)
                await trio.sleep(0.5)
            box.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            turn = 0
            while True:
                turn += 1
                with trio.move_on_after(patience[turn % len(patience)]) as scope:
                    if (message := await box.get()) is None:
                        break
                    got.append(message)
                if scope.cancelled_caught:
                    await trio.sleep(0.1)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert got == messages
