"""Deadlines in one task: in order, on time, cancelled without a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from verbtrio.base import timers as module
from verbtrio.base.timers import Timers


@asynccontextmanager
async def running() -> AsyncIterator[Timers]:
    async with trio.open_nursery() as nursery:
        timers = Timers()
        nursery.start_soon(timers.run)
        yield timers
        nursery.cancel_scope.cancel()


async def test_in_order_and_on_time(autojump_clock: MockClock) -> None:
    called: list[tuple[float, float]] = []
    begin = trio.current_time()
    async with running() as timers:
        await wait_all_tasks_blocked()
        for seconds in (3.0, 1.0, 2.0, float("inf")):
            timers.at(begin + seconds, lambda now, when: called.append((now - begin, when - begin)))
        await trio.sleep(10)
        assert len(timers) == 0
    assert [now for now, _ in called] == pytest.approx([1, 2, 3])
    assert [when for _, when in called] == pytest.approx([1, 2, 3])


async def test_those_close_together_share_a_round(autojump_clock: MockClock) -> None:
    """Each late by the resolution at most; the first of them is on time."""
    called: list[tuple[float, float]] = []
    begin = trio.current_time()
    async with running() as timers:
        await wait_all_tasks_blocked()
        for n in range(20):
            timers.at(begin + 1 + n / 1000, lambda now, when: called.append((now - begin, when - begin)))
        await trio.sleep(2)
    rounds = sorted({now for now, _ in called})
    assert len(called) == 20
    assert rounds == pytest.approx([1, 1 + module.ROUND_SECONDS])
    assert all(0 <= now - when <= module.ROUND_SECONDS for now, when in called)


async def test_an_earlier_one_may_come_later(autojump_clock: MockClock) -> None:
    called: list[float] = []
    async with running() as timers:
        timers.at(trio.current_time() + 100, lambda now, when: called.append(100))
        await trio.sleep(5)
        timers.at(trio.current_time() + 1, lambda now, when: called.append(1))
        await trio.sleep(2)
        assert called == [1]


async def test_one_that_is_overdue_already(autojump_clock: MockClock) -> None:
    called: list[float] = []
    async with running() as timers:
        await wait_all_tasks_blocked()
        timers.at(trio.current_time() - 5, lambda now, when: called.append(now - when))
        await trio.sleep(0.001)
    assert called == [pytest.approx(5)]


async def test_one_that_sets_the_next(autojump_clock: MockClock) -> None:
    called: list[float] = []
    begin = trio.current_time()
    async with running() as timers:

        def again(now: float, when: float) -> None:
            called.append(now - begin)
            timers.at(when + 10, again)

        timers.at(begin + 10, again)
        await trio.sleep(35)
    assert called == pytest.approx([10, 20, 30])


async def test_a_cancelled_one_is_let_go_of(autojump_clock: MockClock) -> None:
    called: list[float] = []
    async with running() as timers:
        timer = timers.at(trio.current_time() + 1, lambda now, when: called.append(now))
        timers.cancel(timer)
        timers.cancel(timer)
        assert timer.call is None
        assert len(timers) == 0
        await trio.sleep(5)
        late = timers.at(trio.current_time() + 1, lambda now, when: called.append(1))
        await trio.sleep(2)
        timers.cancel(late)  # it was called
        assert len(timers) == 0
    assert called == [1]


async def test_those_that_come_and_go_leave_nothing() -> None:
    timers = Timers()
    stays = [timers.at(1e9 + n, lambda now, when: None) for n in range(10)]
    for n in range(10_000):
        timers.cancel(timers.at(1e9 + n, lambda now, when: None))
    assert len(timers) == 10
    assert len(timers._heap) < 200
    assert all(timer.call is not None for timer in stays)


async def test_one_that_fails_stops_no_other(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []

    def fail(now: float, when: float) -> None:
        raise ZeroDivisionError

    async with running() as timers:
        timers.at(trio.current_time() + 1, fail)
        timers.at(trio.current_time() + 1, lambda now, when: called.append(1))
        await trio.sleep(2)
    assert called == [1]
    assert [record.message for record in caplog.records] == ["a timer failed"]


async def test_many_at_once_let_others_have_their_turn(autojump_clock: MockClock) -> None:
    count = 10 * module.CALLS_A_ROUND
    called: list[int] = []
    seen: list[int] = []

    def call(n: int) -> Callable[[float, float], None]:
        return lambda now, when: called.append(n)

    async def other() -> None:
        while len(called) < count:
            seen.append(len(called))
            await trio.lowlevel.checkpoint()

    async with running() as timers:
        when = trio.current_time() + 1
        for n in range(count):
            timers.at(when, call(n))
        await trio.sleep(0.999)
        async with trio.open_nursery() as nursery:
            autojump_clock.jump(0.1)
            nursery.start_soon(other)
    assert called == list(range(count)), "those due at the same time in the order in which they were set"
    assert len(set(seen)) >= 5


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30))
def test_whatever_is_cancelled_the_others_are_called(plan: list[tuple[int, bool]]) -> None:
    called: list[int] = []

    def call(n: int) -> Callable[[float, float], None]:
        return lambda now, when: called.append(n)

    async def main() -> None:
        async with running() as timers:
            begin = trio.current_time()
            made = [timers.at(begin + when, call(n)) for n, (when, _) in enumerate(plan)]
            for timer, (_, cancel) in zip(made, plan, strict=True):
                if cancel:
                    timers.cancel(timer)
            await trio.sleep(21)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    wanted = sorted((when, n) for n, (when, cancel) in enumerate(plan) if not cancel)
    assert called == [n for _, n in wanted]
