"""A room's tasks against a model: whoever comes, leaves, crashes, returns or refuses to end, and whenever."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.room_tasks import House, house
from tests.support.tasks import Failure
from verbtrio import Restart, RoomUnavailable
from verbtrio.rooms.room_task import RoomTask

# Fractions, so that no timer is due at the time of an operation: those are made at whole seconds.
LINGER = 5.25
DELAY = 1.125
WITHIN = 20.3
MAX = 1

OPERATIONS = st.one_of(
    st.sampled_from(["join", "join", "leave", "crash", "return", "hang", "release"]), st.integers(1, 12)
)


class Model:
    """What is to be, by the rules alone.

    Attributes:
        phase: of the room's task: none, running, restarting, done, or ending (cancelled, and it does not end).
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.phase = "none"
        self.members = 0
        self.hangs = False
        self.begun = 0
        self.failures = 0
        self.given_up = 0
        self.refused_until = 0.0
        self.restart_at = self.linger_until = float("inf")
        self.restarts: list[float] = []

    def join(self) -> bool:
        if self.now < self.refused_until:
            return False
        self.members += 1
        self.linger_until = float("inf")
        if self.phase == "none":
            self._fill()
        return True

    def leave(self) -> None:
        if self.members:
            self.members -= 1
            if not self.members and self.phase != "ending":
                self.linger_until = self.now + LINGER

    def crash(self) -> None:
        if self.phase != "running":
            return
        self.failures += 1
        self.hangs = False
        self.restarts = [time for time in self.restarts if time > self.now - WITHIN]
        if len(self.restarts) < MAX:
            self.restarts.append(self.now)
            self.phase, self.restart_at = "restarting", self.now + DELAY
        else:
            self.given_up += 1
            self.refused_until = self.now + WITHIN
            self.members, self.phase = 0, "none"
            self.linger_until = float("inf")

    def done(self) -> None:
        if self.phase == "running":
            self.phase, self.hangs = "done", False

    def hang(self) -> None:
        if self.phase == "running":
            self.hangs = True

    def release(self) -> None:
        self.hangs = False
        if self.phase == "ending":
            self.phase = "none"
            if self.members:
                self._fill()

    def advance(self, seconds: int) -> None:
        end = self.now + seconds
        while (due := min(self.restart_at, self.linger_until)) <= end:
            self.now = due
            if due == self.restart_at:
                self.restart_at = float("inf")
                self._begin()
            else:
                self.linger_until = self.restart_at = float("inf")
                self.phase = "ending" if self.phase == "running" and self.hangs else "none"
        self.now = end

    def _fill(self) -> None:
        self.restarts = []
        self._begin()

    def _begin(self) -> None:
        self.phase = "running"
        self.begun += 1


class Real:
    """The same with a real task, and one beside it that never fails."""

    def __init__(self, here: House, *, beside: bool) -> None:
        self.here = here
        self.running = self.running_beside = self.begun = 0
        self.hangs = False
        self._told = trio.Event()
        self._released = trio.Event()
        self._error: Exception | None = None
        self.tasks = [RoomTask(self._work, linger=LINGER, restart=Restart(max=MAX, within=WITHIN, delay=DELAY))]
        if beside:
            self.tasks.append(RoomTask(self._beside, linger=0))

    async def _work(self, room: Any) -> None:
        self.running += 1
        self.begun += 1
        assert self.running == 1, "never two at once"
        try:
            self._told, self._error = trio.Event(), None
            await self._told.wait()
            self.hangs = False
            if self._error is not None:
                raise self._error
        finally:
            if self.hangs:
                with trio.CancelScope(shield=True):
                    await self._released.wait()
            self.running -= 1

    async def _beside(self, room: Any) -> None:
        self.running_beside += 1
        assert self.running_beside == 1
        try:
            await trio.sleep_forever()
        finally:
            self.running_beside -= 1

    def tell(self, error: Exception | None) -> None:
        self._error = error
        self._told.set()

    def release(self) -> None:
        self.hangs = False
        self._released.set()
        self._released = trio.Event()


@pytest.mark.parametrize("beside", [False, True])
@settings(max_examples=100)
@given(st.lists(OPERATIONS, max_size=40))
def test_against_a_model(beside: bool, operations: list[str | int]) -> None:
    async def run() -> None:
        async with house() as here:
            model, real = Model(), Real(here, beside=beside)
            for operation in operations:
                await perform(operation, model, real)
                await trio.testing.wait_all_tasks_blocked()
                compare(model, real)
            real.release()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def perform(operation: str | int, model: Model, real: Real) -> None:
    match operation:
        case int():
            model.advance(operation)
            await trio.sleep(operation)
        case "join":
            expected = model.join()
            try:
                real.here.join("room", *real.tasks)
            except RoomUnavailable:
                assert not expected
            else:
                assert expected
        case "leave":
            model.leave()
            real.here.leave("room")
        case "crash":
            if model.phase == "running":
                real.tell(Failure())
            model.crash()
        case "return":
            if model.phase == "running":
                real.tell(None)
            model.done()
        case "hang":
            model.hang()
            real.hangs = model.hangs
        case "release":
            model.release()
            real.release()


def compare(model: Model, real: Real) -> None:
    here, phase = real.here, model.phase
    assert real.running == (phase in ("running", "ending"))
    assert real.running_beside == (len(real.tasks) == 2 and phase in ("running", "restarting", "done"))
    assert real.begun == model.begun
    assert here.members["room"] == model.members
    assert len(here.dismissed) == model.given_up
    assert here.counters.room_task_failures == model.failures
    assert here.states[:1] == ([] if phase == "none" else [phase])
    assert ("room" in here.table._refused) == (model.now < model.refused_until)
    if phase == "none":
        assert not here.table._rooms
        assert len(here.timers) == len(here.table._refused)
    elif phase != "ending":
        assert here.table._rooms["room"].is_ready
