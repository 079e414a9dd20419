"""The tasks of one room: they begin with its first member, and end some time after the last one has left.

    hub's nursery
    └─ tasks of the room 'game:1'       one task, one nursery: `RoomTasks`
       └─ game of the room 'game:1'     for each task of the room: `TaskRun`, which restarts it
          └─ game(room, id)             one run of it

A room has one such nursery at a time: while one that was cancelled has not ended, no other begins. Everything except
waiting is synchronous, so there is no await between a check and the change it guards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import trio

from verbtrio.base.counters import Counters
from verbtrio.base.errors import RoomUnavailable
from verbtrio.base.timers import Timer, Timers
from verbtrio.rooms.leases import Leases
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.task_run import TaskRun

REFUSED_SECONDS = 60.0
"""For so long nobody joins a room whose task was given up, if the task has no `Restart.within`."""


class Table(Protocol):
    """The tasks of all rooms, so far as those of one room know them."""

    timers: Timers
    counters: Counters
    leases: Leases

    def handle(self, name: str, /) -> object:
        """The handle on the room, with which its tasks are called."""

    def start(self, room: RoomTasks) -> None:
        """Run the room's tasks."""

    def refuse(self, room: RoomTasks, seconds: float) -> None:
        """The room was given up: remove its members, and let nobody in for so long."""

    def forget(self, room: RoomTasks) -> None:
        """Nothing of the room's tasks is left, and nobody is in it."""


class RoomTasks:
    """The tasks of one room.

    Args:
        name: the room's.
        tasks: what it runs.
        values: the pattern's parameters, as the name has them.
        table: the tasks of all rooms.

    Attributes:
        runs: its tasks, from one start of the room to the next.
    """

    __slots__ = (
        *("_changed", "_is_ending", "_is_occupied", "_is_refused", "_linger", "_scope", "_table", "_tasks", "_values"),
        *("counters", "leases", "name", "runs", "timers"),
    )

    def __init__(self, name: str, tasks: Sequence[RoomTask], values: Mapping[str, Any], table: Table) -> None:
        self.name = name
        self.timers = table.timers
        self.counters = table.counters
        self.leases = table.leases
        self.runs: tuple[TaskRun, ...] = ()
        self._tasks = tasks
        self._values = values
        self._table = table
        self._scope: trio.CancelScope | None = None  # while its nursery is open, or about to be
        self._is_occupied = False
        self._is_ending = False  # cancelled: if it is occupied when this has ended, it starts again
        self._is_refused = False  # who waits for its start has waited in vain
        self._linger: Timer | None = None
        self._changed = trio.lowlevel.ParkingLot()  # who waits for its start

    def occupy(self) -> None:
        """It has a member."""
        self._is_occupied = True
        self._is_refused = False
        self._stop_lingering()
        if not self.runs:
            self._start()

    def vacate(self) -> None:
        """It has none any more."""
        if not self._is_occupied:
            return
        self._is_occupied = False
        if self._is_ending:
            return
        seconds = max(task.linger for task in self._tasks)
        if seconds:
            self._linger = self.timers.at(trio.current_time() + seconds, self._has_lingered)
        else:
            self._end()

    @property
    def is_ready(self) -> bool:
        """Whether all its tasks have started, and are not ending."""
        return not self._is_ending and all(run.has_started for run in self.runs)

    async def wait_started(self) -> None:
        """See `RoomTaskTable.wait_started`."""
        with trio.move_on_after(max(task.start_timeout for task in self._tasks)):
            while not self.is_ready:
                if self._is_refused:
                    raise RoomUnavailable("The room's task has failed, or has ended")
                await self._changed.park()
        if not self.is_ready:
            raise RoomUnavailable("The room's task is not ready")

    def changed(self) -> None:
        self._changed.unpark_all()

    def give_up(self, task: RoomTask) -> None:
        """Cancel the other tasks, remove the members, and let nobody in for a while."""
        self._refuse()
        self._end()
        self._table.refuse(self, REFUSED_SECONDS if task.restart is None else task.restart.within)

    def close(self) -> None:
        """Cancel the tasks, because the server shuts down."""
        self._refuse()
        self._end(watched=False)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the tasks until all are done, or this is cancelled."""
        assert self._scope is not None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for run in self.runs:
                        nursery.start_soon(run.run, name=run.name)
        finally:
            self._scope = None
            if self._is_ending:
                self._has_ended()

    def _start(self) -> None:
        room = self._table.handle(self.name)
        names = [task.name for task in self._tasks]
        self.runs = tuple(
            [
                TaskRun(task, room, self._values, self.name, self, names[:place].count(task.name))
                for place, task in enumerate(self._tasks)
            ]
        )
        self._is_ending = False
        self._scope = trio.CancelScope()
        self._table.start(self)

    def _refuse(self) -> None:
        self._is_refused = True
        self._is_occupied = False
        self._stop_lingering()

    def _stop_lingering(self) -> None:
        if self._linger is not None:
            self.timers.cancel(self._linger)
            self._linger = None

    def _has_lingered(self, now: float, when: float) -> None:
        self._linger = None
        self._end()

    def _end(self, *, watched: bool = True) -> None:
        """Cancel the tasks. The room is forgotten, or starts again, when they have ended."""
        self._is_ending = True
        if self._scope is None:  # they have returned
            self._has_ended()
            return
        self._scope.cancel()
        for run in self.runs:
            run.expect_end(watched=watched)
        self._changed.unpark_all()

    def _has_ended(self) -> None:
        if self._is_occupied:  # somebody has come meanwhile
            self._start()
        else:
            self._is_refused = True
            self._table.forget(self)
        self._changed.unpark_all()
