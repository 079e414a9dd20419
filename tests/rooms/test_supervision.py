"""A room's tasks: when they begin and end, their failures, and tasks that do not end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.room_tasks import Handle, House, house, lines
from tests.support.tasks import Failure, errors
from verbtrio import App, Cause, Restart, RoomUnavailable
from verbtrio.base.close import CloseInfo
from verbtrio.brokers import MemoryBroker
from verbtrio.rooms import task_table
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.task_run import TaskState
from verbtrio.rooms.task_table import RoomTaskInfo
from verbtrio.testing.recording import RecordingProcess

FAILED = CloseInfo(Cause.ERROR, 1011, "The room's task has failed")


class Life:
    """A task that remembers when it ran, and does what it is told to.

    Attributes:
        began, ended: when.
        told: what it is to do next: an exception to raise, or `None` to return.
    """

    def __init__(self, *plan: BaseException | None) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self.plan = list(plan)
        self._told = trio.Event()
        self._what: BaseException | None = None
        self.running = 0

    def tell(self, what: BaseException | None) -> None:
        self._what = what
        self._told.set()
        self._told = trio.Event()

    async def work(self, room: Any) -> None:
        await self._work()

    async def slow(self, room: Any, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(3)
        task_status.started()
        await self._work()

    async def _work(self) -> None:
        self.began.append(trio.current_time())
        self.running += 1
        assert self.running == 1, "never two at once"
        try:
            if self.plan:
                what = self.plan.pop(0)
            else:
                await self._told.wait()
                what = self._what
            if what is not None:
                raise what
        finally:
            self.running -= 1
            self.ended.append(trio.current_time())


def about(*times: float) -> Any:
    """A timer may be 20 ms late, each."""
    return pytest.approx(times, abs=0.1)


def at(time: float) -> Any:
    return pytest.approx(time, abs=0.1)


def name_of(function: Any) -> str:
    name: str = function.__qualname__
    return name


class TestLife:
    async def test_from_the_first_member_to_the_last(self, autojump_clock: Clock) -> None:
        life = Life()
        task = RoomTask(life.work, linger=30)
        async with house() as here:
            await here.enter("game:1", task)
            assert trio.current_time() == 0, "nobody waits for a task that doesn't ask for it"
            await trio.sleep(10)
            here.join("game:1", task)
            here.leave("game:1")
            await trio.sleep(100)
            here.leave("game:1")
            await trio.sleep(29)
            assert here.table.tasks() == (RoomTaskInfo("game:1", "Life.work", TaskState.RUNNING, 0),)
            await trio.sleep(2)
            here.check_empty()
        assert (life.began, life.ended) == ([0], about(140))

    async def test_somebody_comes_back(self, autojump_clock: Clock) -> None:
        life = Life()
        task = RoomTask(life.work, linger=30)
        async with house() as here:
            for _ in range(20):
                here.join("room", task)
                await trio.sleep(1)
                here.leave("room")
                await trio.sleep(29)
            assert life.ended == []
        assert len(life.began) == 1

    async def test_again_from_the_beginning(self, autojump_clock: Clock) -> None:
        life = Life()
        task = RoomTask(life.work, linger=1)
        async with house() as here:
            for _ in range(3):
                here.join("room", task)
                await trio.sleep(1)
                here.leave("room")
                await trio.sleep(9)
        assert (life.began, life.ended) == (about(0, 10, 20), about(2, 12, 22))

    async def test_no_linger(self, autojump_clock: Clock) -> None:
        life = Life()
        task = RoomTask(life.work, linger=0)
        async with house() as here:
            here.join("room", task)
            await trio.sleep(1)
            here.leave("room")
            here.join("room", task)  # before the task has noticed
            await here.table.wait_started("room")
            assert here.states == ["running"]
            await trio.sleep(1)
            here.leave("room")
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()
        assert (life.began, life.ended) == ([0, 1], [1, 2])

    async def test_left_twice(self, autojump_clock: Clock) -> None:
        """As when a leave follows a kick."""
        life = Life()
        async with house() as here:
            here.join("room", RoomTask(life.work))
            here.table.vacated("room")
            await trio.sleep(20)
            here.table.vacated("room")
            here.table.vacated("a room without tasks")
            assert len(here.timers) == 1
            await trio.sleep(11)
            here.check_empty()

    async def test_left_before_it_has_begun(self, autojump_clock: Clock) -> None:
        life = Life()
        async with house() as here:
            here.join("room", RoomTask(life.work, linger=0))
            here.leave("room")
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()

    async def test_several(self, autojump_clock: Clock) -> None:
        """Each for itself; the longest linger counts."""
        one, two = Life(), Life()
        tasks = RoomTask(one.work, linger=1), RoomTask(two.work, linger=7)
        async with house() as here:
            here.join("room", *tasks)
            await trio.sleep(1)
            one.tell(Failure())
            await trio.sleep(1)
            here.leave("room")
            await trio.sleep(20)
        assert (one.began, one.ended) == (about(0, 1.1), about(1, 9))
        assert (two.began, two.ended) == ([0], about(9))

    async def test_each_room_for_itself(self, autojump_clock: Clock) -> None:
        seen = []

        async def game(room: Handle, number: str) -> None:
            seen.append((room.name, number))
            raise Failure

        task = RoomTask(game, ["number"], restart=None)
        async with house() as here:
            here.join("game:1", task, values={"number": "1"})
            here.join("game:2", task, values={"number": "2"})
            await trio.sleep(1)
            assert sorted(here.dismissed) == [("game:1", FAILED), ("game:2", FAILED)]
        assert sorted(seen) == [("game:1", "1"), ("game:2", "2")]

    async def test_one_that_returns(self, autojump_clock: Clock) -> None:
        """It is done, until the room has been empty for as long as it lingers."""
        life = Life()
        task = RoomTask(life.work, linger=5)
        async with house() as here:
            here.join("room", task)
            await trio.sleep(1)
            life.tell(None)
            await trio.sleep(1)
            assert here.states == ["done"]
            assert here.table.running == 0
            await here.enter("room", task)
            here.empty("room")
            await trio.sleep(4)
            await here.enter("room", task)
            assert len(life.began) == 1
            here.empty("room")
            await trio.sleep(6)
            here.check_empty()
            await here.enter("room", task)
            await trio.sleep(1)
            assert len(life.began) == 2
        assert here.dismissed == []

    async def test_closes_its_own_room(self, autojump_clock: Clock) -> None:
        for linger in (0, 5):
            ended: list[float] = []

            async def game(room: Handle, ended: list[float] = ended) -> None:
                try:
                    room.close()
                    await trio.sleep_forever()
                finally:
                    ended.append(trio.current_time())

            async with house() as here:
                begin = trio.current_time()
                await here.enter("room", RoomTask(game, linger=linger))
                await trio.sleep(10)
                assert ended == about(begin + linger)
                here.check_empty()


class TestStart:
    async def test_joins_wait(self, autojump_clock: Clock) -> None:
        life = Life()
        task = RoomTask(life.slow)
        times = []

        async def member(here: House, after: float) -> None:
            await trio.sleep(after)
            await here.enter("room", task)
            times.append(trio.current_time())

        async with house() as here, trio.open_nursery() as nursery:
            for after in (0, 1, 2, 8):
                nursery.start_soon(member, here, after)
            await trio.sleep(1)
            assert here.states == ["starting"]
        assert times == [3, 3, 3, 8]

    async def test_the_most_patient_counts(self, autojump_clock: Clock) -> None:
        async def never(room: Any, task_status: Any) -> None:
            await trio.sleep_forever()

        tasks = RoomTask(never, start_timeout=3), RoomTask(never, start_timeout=8), RoomTask(never, start_timeout=5)
        async with house() as here:
            with pytest.raises(RoomUnavailable):
                await here.enter("room", *tasks)
            assert trio.current_time() == 8

    async def test_of_all_tasks(self, autojump_clock: Clock) -> None:
        one, two = Life(), Life()

        async def slowest(room: Any, task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(7)
            task_status.started()

        async with house() as here:
            await here.enter("room", RoomTask(one.slow), RoomTask(two.work), RoomTask(slowest))
            assert trio.current_time() == 7

    async def test_is_no_checkpoint_later(self, autojump_clock: Clock) -> None:
        life = Life()
        async with house() as here:
            await here.enter("room", RoomTask(life.slow))
            with trio.CancelScope() as scope:
                scope.cancel()
                await here.table.wait_started("room")
                await here.table.wait_started("a room without tasks")
            assert not scope.cancelled_caught

    async def test_returns_without_a_word(self, autojump_clock: Clock) -> None:
        async def game(room: Any, task_status: Any) -> None:
            await trio.sleep(2)

        async with house() as here:
            await here.enter("room", RoomTask(game))
            assert trio.current_time() == 2
            assert here.states == ["done"]

    async def test_through_a_restart(self, autojump_clock: Clock) -> None:
        """Once it has started, a restart changes nothing for those who come."""
        runs = []

        async def game(room: Any, task_status: trio.TaskStatus[None]) -> None:
            runs.append(trio.current_time())
            if len(runs) == 1:
                raise Failure
            await trio.sleep(1)
            task_status.started()
            task_status.started()
            if len(runs) == 2:
                await trio.sleep(1)
                raise Failure
            await trio.sleep_forever()

        task = RoomTask(game, restart=Restart(max=2, delay=3))
        async with house() as here:
            await here.enter("room", task)
            assert trio.current_time() == 4
            await trio.sleep(2)
            assert here.table.tasks() == (RoomTaskInfo("room", name_of(game), TaskState.RESTARTING, 1),)
            await here.enter("room", task)
            assert trio.current_time() == 6
            await trio.sleep(5.5)
            assert here.states == ["starting"]
            await here.enter("room", task)
            assert trio.current_time() == 11.5
            await trio.sleep(10)
            assert here.table.tasks() == (RoomTaskInfo("room", name_of(game), TaskState.RUNNING, 2),)

    async def test_not_in_time(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        runs, ended = [], []

        async def game(room: Any, task_status: trio.TaskStatus[None]) -> None:
            runs.append(trio.current_time())
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

        task = RoomTask(game, start_timeout=4, restart=Restart(max=1, delay=1))
        async with house() as here:
            with pytest.raises(RoomUnavailable, match="The room's task is not ready"):
                await here.enter("room", task)
            assert trio.current_time() == 4
            await trio.sleep(0.5)
            with pytest.raises(RoomUnavailable):
                await here.enter("room", task)
            assert trio.current_time() == 8.5, "each waits as long as the task may take, at most"
            with pytest.raises(RoomUnavailable, match="failed"):
                await here.enter("room", task)
            assert trio.current_time() == at(9)
            assert here.dismissed == [("room", FAILED)]
            assert here.counters.room_task_failures == 2
        assert (runs, ended) == (about(0, 5), about(4, 9))
        name = f"{name_of(game)} of the room 'room'"
        assert lines(caplog) == [
            f"ERROR the task {name} failed; it starts again in 1 s",
            f"ERROR the task {name} failed, and the room is given up",
        ]
        assert {str(error) for error in errors(caplog)} == {"it has not called `task_status.started()` within 4 s"}

    async def test_too_late(self, autojump_clock: Clock) -> None:
        """A run that is over, or was cancelled, can't start the next one."""
        kept = []

        async def game(room: Any, task_status: trio.TaskStatus[None]) -> None:
            kept.append(task_status)
            try:
                await trio.sleep_forever()
            finally:
                task_status.started()

        async with house() as here:
            here.join("room", RoomTask(game, start_timeout=4, restart=Restart(max=1, delay=1)))
            await trio.sleep(5.5)
            assert here.states == ["starting"]
            kept[0].started()
            assert here.states == ["starting"]
            assert not here.table._rooms["room"].is_ready
            kept[1].started()
            assert here.states == ["running"]

    async def test_the_one_who_waits_is_cancelled(self, autojump_clock: Clock) -> None:
        life = Life()
        task = RoomTask(life.slow, linger=5)
        async with house() as here, trio.open_nursery() as nursery:
            with trio.move_on_after(1) as limit:
                await here.enter("room", task)
            assert limit.cancelled_caught
            nursery.start_soon(here.enter, "room", task)
            await trio.sleep(1)
            await here.enter("room", task)
            assert trio.current_time() == 3, "the others are not disturbed"
            assert not here.table._rooms["room"]._changed.statistics().tasks_waiting

    async def test_everybody_leaves_meanwhile(self, autojump_clock: Clock) -> None:
        async def game(room: Any, task_status: Any) -> None:
            await trio.sleep_forever()

        async with house() as here:
            here.join("room", RoomTask(game, linger=1))
            here.empty("room")
            with pytest.raises(RoomUnavailable, match="has ended"):
                await here.table.wait_started("room")
            assert trio.current_time() == at(1)


class TestFailure:
    async def test_started_again_and_given_up(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        life, other = Life(*[Failure() for _ in range(4)]), Life()
        tasks = RoomTask(life.work), RoomTask(other.work)
        async with house() as here:
            here.join("room", *tasks)
            await trio.sleep(0.5)
            assert (here.states, here.table.running) == (["restarting", "running"], 2)
            here.join("room", *tasks)
            await trio.sleep(0.5)
            assert here.dismissed == [("room", FAILED)]
            assert here.members["room"] == 0
            assert here.counters.room_task_failures == 4
            assert here.table.tasks() == ()
            with pytest.raises(RoomUnavailable, match="The room's task has failed"):
                here.join("room", *tasks)
            with pytest.raises(RoomUnavailable, match="The room's task has failed"):
                await here.table.wait_started("room")
            await trio.sleep(59)
            with pytest.raises(RoomUnavailable):
                here.join("room", *tasks)
            assert here.members["room"] == 0
            await trio.sleep(1)
            here.join("room", *tasks)
            await trio.sleep(1)
            assert here.table.tasks() == (
                RoomTaskInfo("room", "Life.work", TaskState.RUNNING, 0),
                RoomTaskInfo("room", "Life.work", TaskState.RUNNING, 0),
            )
        assert life.began == about(0, 0.1, 0.3, 0.7, 61)
        assert other.ended[0] == at(0.7)
        assert lines(caplog) == [
            *(f"ERROR the task Life.work of the room 'room' failed; it starts again in {t} s" for t in (0.1, 0.2, 0.4)),
            "ERROR the task Life.work of the room 'room' failed, and the room is given up",
        ]
        assert [type(error) for error in errors(caplog)] == [Failure] * 4

    async def test_what_is_longer_ago_does_not_count(self, autojump_clock: Clock) -> None:
        life = Life()
        async with house() as here:
            here.join("room", RoomTask(life.work, restart=Restart(max=1, within=60)))
            for _ in range(20):
                await trio.sleep(61)
                life.tell(Failure())
            await trio.sleep(1)
            assert (len(life.began), here.dismissed) == (21, [])

    async def test_never_again(self, autojump_clock: Clock) -> None:
        life = Life(Failure())
        task = RoomTask(life.work, restart=None)
        async with house() as here:
            here.join("room", task)
            await trio.sleep(59)
            with pytest.raises(RoomUnavailable):
                here.join("room", task)
            await trio.sleep(2)
            here.join("room", task)
            await trio.sleep(1)
            assert life.began == about(0, 61)

    async def test_forgiven_in_time(self, autojump_clock: Clock) -> None:
        """Although a timer may be late: here because of one just before it."""
        life = Life(Failure())
        task = RoomTask(life.work, restart=Restart(max=0, within=2))
        async with house() as here:
            here.join("room", task)
            await trio.testing.wait_all_tasks_blocked()
            here.timers.at(1.99, lambda now, when: None)
            await trio.sleep(2)
            assert here.table._refused, "the timer has not been called yet"
            here.join("room", task)
            assert not here.table._refused
            await trio.sleep(1)
            assert here.states == ["running"]

    async def test_while_one_waits_for_the_start(self, autojump_clock: Clock) -> None:
        async def game(room: Any, task_status: Any) -> None:
            await trio.sleep(2)
            raise Failure("a secret")

        async with house() as here:
            with pytest.raises(RoomUnavailable) as raised:
                await here.enter("room", RoomTask(game, restart=None))
            assert trio.current_time() == 2
            assert "secret" not in str(raised.value)

    async def test_both_at_once(self, autojump_clock: Clock) -> None:
        one, two = Life(), Life()
        async with house() as here:
            here.join("room", RoomTask(one.work, restart=None), RoomTask(two.work, restart=None))
            await trio.sleep(1)
            one.tell(Failure())
            two.tell(Failure())
            await trio.sleep(1)
            assert here.dismissed == [("room", FAILED)]

    async def test_in_an_empty_room(self, autojump_clock: Clock) -> None:
        """While it lingers, as while there is somebody."""
        life = Life()
        task = RoomTask(life.work, restart=Restart(max=1, within=50, delay=1), linger=30)
        async with house() as here:
            here.join("room", task)
            await trio.sleep(1)
            here.leave("room")
            await trio.sleep(1)
            life.tell(Failure())
            await trio.sleep(2)
            assert here.states == ["running"]
            life.tell(Failure())
            await trio.sleep(1)
            assert here.states == []
            with pytest.raises(RoomUnavailable):
                here.join("room", task)
            await trio.sleep(51)
            here.check_empty()

    async def test_a_group(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async def game(room: Any) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise Failure

        async with house() as here:
            here.join("room", RoomTask(game, restart=None))
            await trio.sleep(1)
        assert [type(error) for error in errors(caplog)] == [Failure]

    async def test_while_it_is_cancelled(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async def game(room: Any) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Failure

        async with house() as here:
            here.join("room", RoomTask(game, linger=0))
            await trio.sleep(1)
            here.leave("room")
            await trio.sleep(1)
            here.check_empty()
            assert here.counters.room_task_failures == 0
        assert lines(caplog) == [f"ERROR {name_of(game)} of the room 'room' failed when it was cancelled"]

    async def test_while_it_waits_to_start_again(self, autojump_clock: Clock) -> None:
        life = Life(Failure())
        async with house() as here:
            here.join("room", RoomTask(life.work, linger=0, restart=Restart(delay=10)))
            await trio.sleep(1)
            here.leave("room")
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()
            await trio.sleep(20)
        assert life.began == [0]

    async def test_an_interrupt(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """As `debug=True` interrupts a computation: the task is over, and everything else goes on."""
        life = Life(KeyboardInterrupt())
        async with house() as here:
            here.join("room", RoomTask(life.work))
            await trio.sleep(1)
            assert (here.states, here.dismissed) == (["done"], [])
        assert lines(caplog) == ["WARNING Life.work of the room 'room' was interrupted, and is over"]

    async def test_names_are_clients(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        life = Life(Failure())
        async with house() as here:
            here.join("a\nb" + 1000 * "x", RoomTask(life.work, restart=None))
            await trio.sleep(1)
        (line,) = lines(caplog)
        assert len(line) < 200
        assert line.isprintable()

    async def test_few_are_remembered(self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(task_table, "MAX_REFUSED", 10)
        life = Life(*[Failure() for _ in range(25)])
        task = RoomTask(life.work, restart=None)
        async with house() as here:
            for number in range(25):
                here.join(str(number), task)
                await trio.testing.wait_all_tasks_blocked()
            assert len(here.timers) == len(here.table._refused) == 10
            with pytest.raises(RoomUnavailable):
                here.join("15", task)
            here.join("14", task)
            here.empty("14")
            await trio.sleep(100)
            here.check_empty()


@asynccontextmanager
async def hanging(linger: float = 0, **settings: Any) -> AsyncIterator[tuple[House, RoomTask, Life, trio.Event]]:
    """A room with a task that has been cancelled and does not end until the event is set."""
    life, release = Life(), trio.Event()

    async def game(room: Any) -> None:
        life.began.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await release.wait()
            life.ended.append(trio.current_time())

    game.__qualname__ = "game"
    task = RoomTask(game, linger=linger, start_timeout=4, **settings)
    async with house() as here:
        here.join("room", task)
        await trio.sleep(1)
        here.leave("room")
        yield here, task, life, release
        release.set()


class TestHanging:
    async def test_is_named(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async with hanging() as (here, _, _, release):
            await trio.sleep(4.9)
            assert (lines(caplog), here.states, here.table.running) == ([], ["ending"], 1)
            await trio.sleep(60)
            (line,) = lines(caplog)
            assert line.startswith("WARNING the task game of the room 'room' has not ended 5 s after it was cancelled")
            release.set()
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()

    async def test_ends_soon(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async with hanging() as (here, _, _, release):
            await trio.sleep(4)
            release.set()
            await trio.sleep(10)
            here.check_empty()
        assert lines(caplog) == []

    async def test_the_next_member_waits(self, autojump_clock: Clock) -> None:
        async with hanging() as (here, task, life, release), trio.open_nursery() as nursery:
            nursery.start_soon(here.enter, "room", task)
            await trio.sleep(3)
            assert here.states == ["ending"]
            release.set()
            await here.enter("room", task)
            await trio.testing.wait_all_tasks_blocked()
            assert here.states == ["running"]
            assert (life.began, life.ended) == ([0, 4], [4])

    async def test_the_next_member_leaves_too(self, autojump_clock: Clock) -> None:
        async with hanging(linger=3) as (here, task, life, release):
            await trio.sleep(4)
            here.join("room", task)
            here.leave("room")
            release.set()
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()
            assert life.began == [0]

    async def test_not_for_ever(self, autojump_clock: Clock) -> None:
        async with hanging() as (here, task, life, release):
            for _ in range(3):
                begin = trio.current_time()
                with pytest.raises(RoomUnavailable, match="not ready"):
                    await here.enter("room", task)
                assert trio.current_time() == begin + 4
            release.set()
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()
            assert life.began == [0]

    async def test_when_it_was_late(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        release, runs = trio.Event(), []

        async def game(room: Any, task_status: Any) -> None:
            runs.append(trio.current_time())
            with trio.CancelScope(shield=True):
                await release.wait()

        async with house() as here:
            with pytest.raises(RoomUnavailable):
                await here.enter("room", RoomTask(game, start_timeout=3, restart=Restart(delay=1)))
            await trio.sleep(0.1)
            assert here.states == ["ending"]
            await trio.sleep(8)
            assert len(lines(caplog)) == 1
            assert here.counters.room_task_failures == 0, "it is not over"
            release.set()
            await trio.testing.wait_all_tasks_blocked()
            assert here.counters.room_task_failures == 1
            assert here.states == ["restarting"]
            await trio.sleep(1.1)
            assert len(runs) == 2

    async def test_in_a_room_that_was_given_up(self, autojump_clock: Clock) -> None:
        """It may be forgiven before the task has ended."""
        life, release = Life(), trio.Event()

        async def stubborn(room: Any) -> None:
            with trio.CancelScope(shield=True):
                await release.wait()
            await trio.sleep_forever()

        tasks = [RoomTask(life.work, restart=Restart(max=0, within=2), start_timeout=4), RoomTask(stubborn)]
        async with house() as here:
            here.join("room", *tasks)
            await trio.sleep(1)
            life.tell(Failure())
            await trio.sleep(1)
            assert here.states == ["failed", "ending"]
            with pytest.raises(RoomUnavailable, match="failed"):
                await here.enter("room", *tasks)
            await trio.sleep(2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.enter, "room", *tasks)
                await trio.sleep(1)
                assert here.states == ["failed", "ending"]
                release.set()
            await trio.sleep(1)
            assert here.states == ["running", "running"]

    async def test_who_waits_does_not_wait_for_it(self, autojump_clock: Clock) -> None:
        """In a room that was given up, while another of its tasks does not end."""
        release = trio.Event()

        async def failing(room: Any, task_status: Any) -> None:
            await trio.sleep(2)
            raise Failure

        async def stubborn(room: Any) -> None:
            with trio.CancelScope(shield=True):
                await release.wait()

        async with house() as here:
            with pytest.raises(RoomUnavailable, match="failed"):
                await here.enter("room", RoomTask(failing, restart=None), RoomTask(stubborn))
            assert trio.current_time() == 2
            assert here.states == ["failed", "ending"]
            release.set()

    async def test_is_named_once(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Although it was late, and its room was left too."""
        release = trio.Event()

        async def game(room: Any, task_status: Any) -> None:
            with trio.CancelScope(shield=True):
                await release.wait()

        async with house() as here:
            here.join("room", RoomTask(game, start_timeout=3, linger=0))
            await trio.sleep(4)
            here.leave("room")
            await trio.sleep(20)
            assert len(lines(caplog)) == 1
            release.set()
            await trio.testing.wait_all_tasks_blocked()
            here.check_empty()
            assert here.counters.room_task_failures == 0, "the room was left before it was over"


class TestDrain:
    async def test_cancels_all(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Those that run, those that linger, those that wait to start again; who waits is told."""
        running, failing = Life(), Life(Failure())
        told = []

        async def never(room: Any, task_status: Any) -> None:
            await trio.sleep_forever()

        async def wait(here: House) -> None:
            with pytest.raises(RoomUnavailable):
                await here.enter("waiting", RoomTask(never))
            told.append(trio.current_time())

        async with house() as here, trio.open_nursery() as nursery:
            here.join("one", RoomTask(running.work))
            here.join("two", RoomTask(failing.work, restart=Restart(delay=10)))
            here.join("three", RoomTask(never))
            here.leave("three")
            nursery.start_soon(wait, here)
            await trio.sleep(1)
            here.table.close(2)
            here.table.close(100)
            await here.table.wait_ended()
            assert trio.current_time() == 1
            here.check_empty()
            with pytest.raises(RoomUnavailable, match="shutting down"):
                here.join("four", RoomTask(running.work))
            here.empty("one")
        assert told == [1]
        assert len(lines(caplog)) == 1, "of the one that failed"

    async def test_names_those_that_hang(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async with hanging(linger=100) as (here, *_):
            here.table.close(2)
            here.table.close(100)
            await here.table.wait_ended()
            assert trio.current_time() == 3
            (line,) = lines(caplog)
            assert line.startswith("WARNING 1 tasks of rooms did not end in time")
            assert line.endswith(": game of the room 'room'")
            await trio.sleep(10)
            assert len(lines(caplog)) == 1, "it is not named twice"

    async def test_names_no_other(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        life, release = Life(None), trio.Event()

        async def stubborn(room: Any) -> None:
            with trio.CancelScope(shield=True):
                await release.wait()

        async with house() as here:
            here.join("room", RoomTask(life.work), RoomTask(stubborn))
            await trio.sleep(1)
            here.table.close(2)
            await here.table.wait_ended()
            (line,) = lines(caplog)
            assert line.startswith("WARNING 1 tasks of rooms did not end in time")
            release.set()

    async def test_of_an_app(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Before its connections; the hub waits, and does not end before they have."""
        app, ended = App(drain_timeout=2), []

        async def game(room: Any) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append((hub.draining, trio.current_time()))
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)

        async with app.lifespan():
            hub = app._running_hub()
            hub.room_tasks.occupied("room", [RoomTask(game)], {})
            await trio.sleep(1)
            assert (app.statistics().room_tasks, app.statistics().room_task_failures) == (1, 0)
            await hub.drain()
            assert trio.current_time() == 1, "no connection is there"
        assert ended == [(True, 1)]
        assert trio.current_time() == 11
        (line,) = lines(caplog)
        assert "did not end in time" in line

    async def test_the_hub_dies(self, autojump_clock: Clock) -> None:
        life = Life()
        async with MemoryBroker().session(RecordingProcess()) as session, trio.open_nursery() as nursery:
            here = House(nursery, session)
            nursery.start_soon(here.timers.run)
            here.join("room", RoomTask(life.work))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert life.ended == [1]
        here.table.close(1)
        await here.table.wait_ended()
        here.check_empty()


class TestContext:
    async def test_is_not_the_members(self, autojump_clock: Clock) -> None:
        who: ContextVar[str] = ContextVar("who", default="nobody")
        seen = []

        async def game(room: Any) -> None:
            seen.append(who.get())
            who.set("the task")
            raise Failure

        async def member(here: House) -> None:
            who.set("the first member")
            here.join("room", RoomTask(game))

        async with house() as here:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(member, here)
            await trio.sleep(1)
        assert seen == ["nobody"] * 4

    async def test_is_the_lifespans(self, autojump_clock: Clock) -> None:
        who: ContextVar[str] = ContextVar("who", default="nobody")
        seen = []

        async def game(room: Any) -> None:
            seen.append((who.get(), room.name, len(room)))

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            who.set("the lifespan")
            yield

        app = App(lifespan=lifespan)
        async with app.lifespan():
            app._running_hub().room_tasks.occupied("room", [RoomTask(game)], {})
            await trio.sleep(1)
        assert seen == [("the lifespan", "room", 0)]

    async def test_it_outlives_the_member(self, autojump_clock: Clock) -> None:
        life = Life()
        async with house() as here:
            with trio.CancelScope() as scope:
                here.join("room", RoomTask(life.work))
                scope.cancel()
                await trio.sleep(1)
            await trio.sleep(10)
            assert (life.began, life.ended) == ([0], [])


async def test_many_come_and_go(autojump_clock: Clock) -> None:
    async def game(room: Any) -> None:
        await trio.sleep_forever()

    task = RoomTask(game, linger=0.5)
    async with house() as here:
        for begin in range(0, 3000, 300):
            for number in range(begin, begin + 300):
                here.join(f"game:{number}", task)
            await trio.sleep(0.1)
            assert here.table.running == 300
            for number in range(begin, begin + 300):
                here.leave(f"game:{number}")
            await trio.sleep(1)
            here.check_empty()
        assert len(here.timers._heap) < 1000


async def test_nothing_is_kept(autojump_clock: Clock) -> None:
    """Of a room that was given up only its name, until it is forgiven."""
    life = Life(Failure())
    async with house() as here:
        here.join("room", RoomTask(life.work, restart=None))
        kept = weakref.ref(here.table._rooms["room"]._scope)
        assert kept() is not None
        await trio.sleep(1)
        gc.collect()
        assert kept() is None
        assert list(here.table._refused) == ["room"]
        await trio.sleep(60)
        here.check_empty()
