"""One task of one room: its runs, one after the other, until it is done, given up or cancelled."""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import trio

from verbtrio.base.attempt import Status, attempt
from verbtrio.base.counters import Counters
from verbtrio.base.restart import Restarts
from verbtrio.base.timers import Timer, Timers
from verbtrio.rooms.leases import Leases
from verbtrio.rooms.room_task import RoomTask

logger = logging.getLogger("verbtrio.rooms")

HANGING_SECONDS = 5.0
"""A task that has not ended so long after it was cancelled is named in the log."""


class TaskState(enum.StrEnum):
    """What a room's task is doing."""

    WAITING = "waiting"
    """A singleton that another process runs, or that waits for the broker."""
    STARTING = "starting"
    """It has not called `task_status.started()`."""
    RUNNING = "running"
    RESTARTING = "restarting"
    """It has failed, and starts again soon."""
    ENDING = "ending"
    """It has been cancelled, and has not ended."""
    DONE = "done"
    """It has returned. It starts again when the room has been empty, and fills again."""
    FAILED = "failed"
    """It has failed for the last time."""


class Owner(Protocol):
    """All tasks of the room, so far as one of them knows them."""

    timers: Timers
    counters: Counters
    leases: Leases

    def changed(self) -> None:
        """A task has started, or has ended without having said so."""

    def give_up(self, task: RoomTask) -> None:
        """A task has failed for the last time."""


class TaskRun:
    """A task of a room, from its start to its end, with its restarts in between.

    Args:
        task: what is run.
        room: what it is called with first.
        values: the pattern's parameters, as the room's name has them.
        whose: the room's name.
        owner: the room's tasks.
        number: tells it from the room's other tasks of the same name.

    Attributes:
        name: what the log calls it.
        state: what it is doing.
        restarts: how often it has been started again.
        has_started: nobody need wait for it (any more).
        is_over: nothing of it is left.
    """

    __slots__ = (
        "_fence",
        "_hanging",
        "_lease",
        "_owner",
        "_room",
        "_task",
        "_values",
        "has_started",
        "is_over",
        "name",
        "restarts",
        "state",
    )

    def __init__(
        self, task: RoomTask, room: object, values: Mapping[str, Any], whose: str, owner: Owner, number: int = 0
    ) -> None:
        self._task = task
        self._room = room
        self._values = values
        self._owner = owner
        self._fence: int | None = None  # of the lease, while this has one
        self._lease = f"task:{number}:{task.name}:{whose}"
        self._hanging: Timer | None = None  # pending while it has been cancelled, and has not ended
        self.name = f"{task.name} of the room {whose!r:.100}"
        self.state = _first_state(task)
        self.restarts = 0
        self.has_started = not task.says_when_started
        self.is_over = False

    @property
    def task_name(self) -> str:
        """The task's name alone."""
        return self._task.name

    @property
    def is_running(self) -> bool:
        """Whether it has begun, and not ended. A singleton that waits, or is done and keeps its lease, is not."""
        return not self.is_over and self.state not in (TaskState.WAITING, TaskState.DONE)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run it, with its restarts, until it is done or given up; a singleton while this process has the lease. If
        cancelled, so is the task; it is waited for."""
        task, restarts = self._task, Restarts(self._task.restart)
        try:
            if task.singleton:
                work = partial(self._run_alone, restarts)
                leases = self._owner.leases
                await leases.hold(self._lease, task.lease, work, waiting=self._wait, ending=self._lose)
            else:
                await self._run(restarts)
        finally:
            self.is_over = True
            self._has_ended()

    async def _run_alone(self, restarts: Restarts, fence: int) -> None:
        """Run it, because this process has the lease. When it is done, that is kept, so that no other process runs it
        for as long as the room has members here."""
        self._fence = fence
        if self.state is not TaskState.DONE:
            await self._run(restarts)
        if self.state is TaskState.DONE:
            await trio.sleep_forever()

    def _wait(self) -> None:
        """Another process runs it, or nobody can: joins don't wait for that here."""
        self._has_ended()
        if self.state is not TaskState.DONE:
            self.state = TaskState.WAITING
        self._started()

    def _lose(self) -> None:
        """The lease ends: because it is lost, unless something else has ended the task before."""
        if self.state is not TaskState.ENDING:
            self.expect_end(watched=True)

    async def _run(self, restarts: Restarts) -> None:
        while (error := await self._attempt()) is not None:
            self._owner.counters.room_task_failures += 1
            wait = restarts.next(trio.current_time())
            if wait is None:
                logger.error("the task %s failed, and the room is given up", self.name, exc_info=error)
                self.state = TaskState.FAILED
                self._owner.give_up(self._task)
                return
            logger.error("the task %s failed; it starts again in %g s", self.name, wait, exc_info=error)
            del error  # and with its traceback what that run had: the next one may be long
            self.state = TaskState.RESTARTING
            await trio.sleep(wait)
            self.restarts += 1
        self.state = TaskState.DONE
        self._started()

    def expect_end(self, *, watched: bool) -> None:
        """It has been cancelled.

        Args:
            watched: whether the log is to name it if it does not end soon.
        """
        if self.state in (TaskState.DONE, TaskState.FAILED):
            return
        self.state = TaskState.ENDING
        if not watched:
            self._has_ended()
        elif self._hanging is None:
            self._hanging = self._owner.timers.at(trio.current_time() + HANGING_SECONDS, self._tell_hanging)

    async def _attempt(self) -> Exception | None:
        """Run it once; return what it has raised."""
        task = self._task
        if not task.says_when_started:
            self.state = TaskState.RUNNING
            arguments = task.arguments(self._values, None, self._fence)
            return await attempt(partial(task.function, self._room, **arguments), self.name, logger)
        self.state = TaskState.STARTING
        start = _Start(self, self._owner.timers, task.start_timeout)
        arguments = task.arguments(self._values, Status(start.succeed), self._fence)
        try:
            with start.scope:
                return await attempt(partial(task.function, self._room, **arguments), self.name, logger)
        finally:
            start.stop()
            self._has_ended()
        return trio.TooSlowError(f"it has not called `task_status.started()` within {task.start_timeout:g} s")

    def start_succeeded(self) -> None:
        """What a run's `task_status.started()` calls."""
        if self.state is TaskState.STARTING:
            self.state = TaskState.RUNNING
            self._started()

    def _started(self) -> None:
        if not self.has_started:
            self.has_started = True
            self._owner.changed()

    def _has_ended(self) -> None:
        """It does not hang."""
        if self._hanging is not None:
            self._owner.timers.cancel(self._hanging)
            self._hanging = None

    def _tell_hanging(self, now: float, when: float) -> None:
        logger.warning(
            "the task %s has not ended %g s after it was cancelled, while something in it is shielded from "
            "cancellation, or catches it; it does not start again before it has ended",
            *(self.name, HANGING_SECONDS),
        )


def _first_state(task: RoomTask) -> TaskState:
    if task.singleton:
        return TaskState.WAITING
    return TaskState.STARTING if task.says_when_started else TaskState.RUNNING


class _Start:
    """The start of one run of a task, which is cancelled if it does not start in time.

    Args:
        of: the task.
        timers: the app's.
        seconds: how long it has.
    """

    __slots__ = ("_of", "_timer", "_timers", "scope")

    def __init__(self, of: TaskRun, timers: Timers, seconds: float) -> None:
        self.scope = trio.CancelScope()
        self._of: TaskRun | None = of
        self._timers = timers
        self._timer = timers.at(trio.current_time() + seconds, self._fail)

    def succeed(self) -> None:
        """It has started. When the run is over, or cancelled, this does nothing."""
        if self._of is not None:
            self._timers.cancel(self._timer)
            self._of.start_succeeded()

    def stop(self) -> None:
        """The run is over."""
        self._timers.cancel(self._timer)
        self._of = None

    def _fail(self, now: float, when: float) -> None:
        assert self._of is not None, "`stop` has cancelled the timer"
        self.scope.cancel()
        self._of.expect_end(watched=True)
