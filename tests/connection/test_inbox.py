"""The queue between the reader and the handler: order, bounds, and that cancelling loses nothing."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from verbtrio.connection.inbox import GET_TURNS, Inbox


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


async def test_getting_can_always_be_cancelled() -> None:
    box = inbox()
    box.put_nowait("a")
    for _ in range(2 * GET_TURNS):
        with trio.CancelScope() as scope:
            scope.cancel()
            await box.get()
        assert scope.cancelled_caught
    assert len(box) == 1


async def test_others_have_their_turn() -> None:
    """A handler that never has to wait does not keep them waiting."""
    box, turns = inbox(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        turns = 0
        for _ in range(10 * GET_TURNS):
            box.put_nowait("a")
            await box.get()
        assert turns >= 9
        nursery.cancel_scope.cancel()


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

    async def test_says_when_there_is_room_again(self) -> None:
        """Not at the first message taken: a reader that is stopped and started for each costs more than it saves."""
        room: list[int] = []
        box = Inbox(max_messages=4, max_bytes=1000, on_room=lambda: room.append(len(box)))
        for message in "abcdef":
            box.put_nowait(message)
        for _ in range(6):
            await box.get()
        assert room == [2], "once, when it is half empty"

    async def test_the_size_counts_when_messages_go(self) -> None:
        room: list[int] = []
        box = Inbox(max_messages=3, max_bytes=10, on_room=lambda: room.append(len(box)))
        for message in ("x" * 6, "y" * 6):
            box.put_nowait(message)
        await box.get()
        assert (box.is_full, room) == (False, []), "more than half is left"
        await box.get()
        assert room == [0]


class TestServe:
    """Messages handled in place."""

    async def test_what_is_queued_and_then_what_is_put(self, autojump_clock: MockClock) -> None:
        box, handled = inbox(), list[str | bytes]()
        box.put_nowait("queued")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.serve, handled.append)
            await wait_all_tasks_blocked()
            assert handled == ["queued"]
            with trio.testing.assert_no_checkpoints():
                box.put_nowait("in place")
                assert handled == ["queued", "in place"]
            box.close()
        assert len(box) == 0

    async def test_what_it_raises_is_raised_in_the_task(self, autojump_clock: MockClock) -> None:
        """And not where the message was put: that is the reader's place. What comes after it is not handled."""
        box, handled = inbox(), list[str | bytes]()

        def handle(message: str | bytes) -> None:
            handled.append(message)
            if message == "a":
                raise ValueError(message)

        with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="a")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(box.serve, handle)
                await wait_all_tasks_blocked()
                box.put_nowait("a")
                box.put_nowait("b")
        assert handled == ["a"]
        assert len(box) == 1

    async def test_what_can_be_awaited_is_awaited_in_order(self, autojump_clock: MockClock) -> None:
        """A plain function that returns a coroutine: what comes meanwhile waits."""
        box, handled = inbox(10), list[str | bytes]()

        async def slowly(message: str | bytes) -> None:
            await trio.sleep(1)
            handled.append(message)

        def handle(message: str | bytes) -> Any:
            if message == "b":
                return slowly(message)
            handled.append(message)
            return None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.serve, handle)
            await wait_all_tasks_blocked()
            for message in "abc":
                box.put_nowait(message)
            assert handled == ["a"]
            await trio.sleep(2)
            assert handled == ["a", "b", "c"]
            box.put_nowait("d")
            assert handled == ["a", "b", "c", "d"]
            box.close()

    async def test_what_comes_of_a_message_that_has_closed_the_inbox(self, autojump_clock: MockClock) -> None:
        """The hook's own close wakes the task first; what it raises, or returns to be awaited, is not lost."""
        awaited: list[str | bytes] = []
        for raises in (True, False):
            box = inbox()

            async def wait(message: str | bytes) -> None:
                awaited.append(message)

            def handle(message: str | bytes, box: Inbox = box, raises: bool = raises) -> Any:
                box.close()
                if raises:
                    raise ValueError(message)
                return wait(message)

            async with trio.open_nursery() as nursery:
                outcomes: list[Exception] = []

                async def serve(box: Inbox = box, outcomes: list[Exception] = outcomes) -> None:
                    try:
                        await box.serve(handle)
                    except ValueError as error:
                        outcomes.append(error)

                nursery.start_soon(serve)
                await wait_all_tasks_blocked()
                box.put_nowait("x")
            assert len(outcomes) == raises
        assert awaited == ["x"]

    async def test_in_the_context_of_the_task(self, autojump_clock: MockClock) -> None:
        variable, seen = ContextVar("variable", default="nobody's"), list[str]()
        box = inbox()

        async def serve() -> None:
            variable.set("the task's")
            await box.serve(lambda message: seen.append(variable.get()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            box.put_nowait("x")
            box.close()
        assert seen == ["the task's"]

    @pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
    async def test_whatever_it_raises_is_its_own_tasks(self, error: BaseException, autojump_clock: MockClock) -> None:
        """Who puts reads for all connections: an interrupt, or `sys.exit()` in a hook, is not for that task."""
        box, raised = inbox(), list[BaseException]()

        def handle(message: str | bytes) -> None:
            raise error

        async def serve() -> None:
            try:
                await box.serve(handle)
            except BaseException as caught:
                raised.append(caught)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            box.put_nowait("x")
        assert raised == [error]

    async def test_cancelled(self, autojump_clock: MockClock) -> None:
        box, handled = inbox(), list[str | bytes]()
        with trio.move_on_after(1):
            await box.serve(handled.append)
        box.put_nowait("queued again")
        assert (handled, len(box)) == ([], 1)

    @pytest.mark.parametrize("outcome", ["raises", "a coroutine", "a coroutine that raises", "a coroutine that waits"])
    async def test_one_that_cancels_its_own_task_first(self, outcome: str, autojump_clock: MockClock) -> None:
        """As if it had been called in that task: what it raises is raised, what it returns is run to where it waits."""
        box, begun = inbox(), list[str]()
        scope = trio.CancelScope()

        async def later() -> None:
            begun.append(outcome)
            if outcome == "a coroutine that raises":
                raise ValueError("on purpose")
            if outcome == "a coroutine that waits":
                await trio.sleep_forever()

        def handle(message: str | bytes) -> Any:
            scope.cancel()
            if outcome == "raises":
                raise ValueError("on purpose")
            return later()

        async def serve() -> None:
            with scope:
                await box.serve(handle)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await wait_all_tasks_blocked()
                box.put_nowait("x")

        if "raises" in outcome:
            with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="on purpose")):
                await main()
        else:
            await main()
        assert scope.cancelled_caught == ("raises" not in outcome)
        assert begun == ([] if outcome == "raises" else [outcome])


class TestClose:
    async def test_there_is_room_again(self) -> None:
        """For the reader: what comes now is thrown away."""
        room: list[bool] = []
        box = Inbox(max_messages=1, max_bytes=10, on_room=lambda: room.append(True))
        box.put_nowait("full")
        before = box.is_full
        box.close()
        assert (before, box.is_full, room) == (True, False, [True])
        assert await box.get() == "full"

    async def test_what_is_left_can_be_taken(self) -> None:
        box = inbox()
        box.put_nowait("last")
        box.close()
        box.put_nowait("too late")
        assert [await box.get(), await box.get(), await box.get()] == ["last", None, None]

    async def test_wakes_who_waits(self, autojump_clock: MockClock) -> None:
        box, got = inbox(), list[str | bytes | None]()

        async def get() -> None:
            got.append(await box.get())

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                await wait_all_tasks_blocked()
                box.close()
                box.close()
        assert got == [None]

    @pytest.mark.parametrize("queued", [0, 3])
    async def test_what_is_left_can_be_thrown_away(self, queued: int) -> None:
        box = inbox()
        for message in "abc"[:queued]:
            box.put_nowait(message)
        box.close(discard=True)
        box.put_nowait("too late")
        assert (len(box), await box.get(), await box.get()) == (0, None, None)

    async def test_what_is_on_its_way_is_thrown_away_as_well(self, autojump_clock: MockClock) -> None:
        """The task that waited has been woken with a message, and not had its turn."""
        for discard, expected in ((True, None), (False, "a")):
            box, got = inbox(), list[str | bytes | None]()

            async def get(box: Inbox = box, got: list[str | bytes | None] = got) -> None:
                got.append(await box.get())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                await wait_all_tasks_blocked()
                box.put_nowait("a")
                box.close(discard=discard)
            assert got == [expected]

    async def test_whoever_gives_way_gets_nothing_more(self) -> None:
        """It was thrown away while a task that gets had let the others go first."""
        box, got = inbox(messages=100), list[str | bytes | None]()
        for number in range(10):
            box.put_nowait(str(number))

        async def get() -> None:
            while (message := await box.get()) is not None:
                got.append(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            await trio.lowlevel.checkpoint()
            box.close(discard=True)
        assert len(got) < GET_TURNS


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

    async def test_one_at_a_time(self, autojump_clock: MockClock) -> None:
        """Two tasks that receive would share the messages out by chance."""
        box = inbox()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.get)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await box.get()
            nursery.cancel_scope.cancel()
        box.put_nowait("a")
        assert await box.get() == "a"


class TestWhoReceives:
    """Two tasks would share the messages out by chance, so the second is told, whatever is queued."""

    @pytest.mark.parametrize("tasks", [2, 3])
    @pytest.mark.parametrize("pause", ["none", "a checkpoint", "a second"])
    async def test_several_in_loops(self, pause: str, tasks: int, autojump_clock: MockClock) -> None:
        box, got, told = inbox(messages=100), list[str | bytes | None](), list[int]()
        for number in range(100):
            box.put_nowait(str(number))

        async def loop(number: int) -> None:
            try:
                for _ in range(50):
                    got.append(await box.get())
                    if pause == "a checkpoint":
                        await trio.lowlevel.checkpoint()
                    elif pause == "a second":
                        await trio.sleep(1)
                await trio.sleep_forever()
            except trio.BusyResourceError:
                told.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(loop, number)
            await trio.sleep(100)
            nursery.cancel_scope.cancel()
        assert len(told) == tasks - 1
        assert got == [str(number) for number in range(len(got))], "those that were told have taken nothing more"

    async def test_one_whose_message_is_on_its_way(self, autojump_clock: MockClock) -> None:
        box = inbox()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.get)
            await wait_all_tasks_blocked()
            box.put_nowait("the waiting task's")
            box.put_nowait("queued")
            with pytest.raises(trio.BusyResourceError):
                await box.get()

    async def test_while_it_is_served(self, autojump_clock: MockClock) -> None:
        box = inbox()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.serve, lambda message: None)
            await wait_all_tasks_blocked()
            for get in (box.get, partial(box.serve, print)):
                with pytest.raises(trio.BusyResourceError):
                    await get()
            nursery.cancel_scope.cancel()

    async def test_one_that_has_ended_is_followed_by_anybody(self, autojump_clock: MockClock) -> None:
        box, got = inbox(messages=10), list[str | bytes | None]()
        for message in "abcd":
            box.put_nowait(message)

        async def get() -> None:
            got.append(await box.get())

        got.append(await box.get())
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
        got.append(await box.get())
        assert got == ["a", "b", "c", "d"]

    async def test_the_first_hands_over(self, autojump_clock: MockClock) -> None:
        """A handler that reads a greeting and starts the one that goes on."""
        box = inbox(messages=10)
        for message in "abc":
            box.put_nowait(message)

        async def goes_on() -> None:
            await box.get()
            await trio.sleep_forever()

        assert await box.get() == "a"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(goes_on)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await box.get()
            nursery.cancel_scope.cancel()
        assert await box.get() == "c"


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
        room = trio.Event()
        box = Inbox(max_messages=limit, max_bytes=8, on_room=lambda: room.set())

        async def read() -> None:
            nonlocal room
            for message in messages:
                if box.is_full:
                    room = trio.Event()
                    await room.wait()
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


async def test_what_is_thrown_away_makes_room() -> None:
    room: list[int] = []
    box = Inbox(max_messages=4, max_bytes=1000, on_room=lambda: room.append(len(box)))
    for message in ("a", "b", "c", "d"):
        box.put_nowait(message)
    assert box.is_full
    box.keep(4)
    assert (len(box), room) == (4, [])
    box.keep(1)
    assert (len(box), room, box.is_full) == (1, [1], False)
    box.put_nowait("e")
    assert [await box.get(), await box.get()] == ["a", "e"]
    box.keep(0)
    assert room == [1], "told once"
