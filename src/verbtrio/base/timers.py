"""The deadlines of many connections, in one task. A sleeping task for each would cost 4 KB a connection."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable

import trio

logger = logging.getLogger("verbtrio.timers")

ROUND_SECONDS = 0.02
"""The least time between two rounds of calls, so a timer may be that late. Ten thousand connections that are pinged
every 30 s are due 333 times a second; called one by one, they took 3.2 % of a core."""
CALLS_A_ROUND = 256
"""How many timers are called before other tasks have their turn: ten thousand may be due at the same time."""


class Timer:
    """One pending call, made by `Timers.at`."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[float, float], None]) -> None:
        self.when = when
        self.call: Callable[[float, float], None] | None = call


class Timers:
    """Calls functions at their times, in the task that calls `run`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()  # orders timers that are due at the same time
        self._cancelled = 0  # how many timers in the heap are cancelled
        self._sleep = trio.CancelScope()
        self._next_round = float("-inf")

    def __len__(self) -> int:
        """How many timers are pending."""
        return len(self._heap) - self._cancelled

    def at(self, when: float, call: Callable[[float, float], None]) -> Timer:
        """Call `call(now, when)` at `when`, on Trio's clock (`inf`: never). It must not block."""
        timer = Timer(when, call)
        if when < float("inf"):
            heapq.heappush(self._heap, (when, next(self._count), timer))
            due = max(when, self._next_round)
            if due < self._sleep.deadline:
                self._sleep.deadline = due
        return timer

    def cancel(self, timer: Timer) -> None:
        """Cancel `timer`, and free its function at once. Twice, or too late, does nothing."""
        if timer.call is None:
            return
        timer.call = None
        if timer.when < float("inf"):
            self._cancelled += 1
            if self._cancelled > max(64, len(self._heap) // 2):  # a constant cost per timer
                self._heap = [entry for entry in self._heap if entry[2].call is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    @trio.lowlevel.enable_ki_protection  # an interrupt is for the main task
    async def run(self) -> None:
        """Call the timers that are due, until cancelled."""
        while True:
            due = max(self._heap[0][0], self._next_round) if self._heap else float("inf")
            with trio.CancelScope(deadline=due) as self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            if self._call_due(now) < CALLS_A_ROUND:
                self._next_round = now + ROUND_SECONDS

    def _call_due(self, now: float) -> int:
        called = 0
        while self._heap and self._heap[0][0] <= now and called < CALLS_A_ROUND:
            when, _, timer = heapq.heappop(self._heap)
            call, timer.call = timer.call, None
            if call is None:
                self._cancelled -= 1
                continue
            called += 1
            try:
                call(now, when)
            except Exception:  # a bug of ours
                logger.exception("a timer failed")
        return called
