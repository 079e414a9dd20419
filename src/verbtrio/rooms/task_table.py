"""The tasks of all rooms of an app: which rooms have any, and which were given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import trio

from verbtrio.base.close import INTERNAL_ERROR, Cause, CloseInfo
from verbtrio.base.counters import Counters
from verbtrio.base.errors import RoomUnavailable
from verbtrio.base.timers import Timer, Timers
from verbtrio.rooms.leases import Leases
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.supervision import RoomTasks
from verbtrio.rooms.task_run import TaskState

logger = logging.getLogger("verbtrio.rooms")

GIVEN_UP = CloseInfo(Cause.ERROR, INTERNAL_ERROR, "The room's task has failed")
"""What the members of a room are told whose task has failed for the last time."""

MAX_REFUSED = 10_000
"""How many rooms that were given up are remembered. Then the one that was given up first is forgotten."""

MAX_SHOWN = 10
"""How many tasks that have not ended the log names."""


class RoomTaskInfo(NamedTuple):
    """A room's task at one moment."""

    room: str
    task: str
    state: TaskState
    restarts: int


class RoomTaskTable:
    """The tasks of all rooms of an app. What rooms have no tasks is never told to it.

    Args:
        start_soon: that of the nursery in which the tasks run: the hub's.
        timers: the app's.
        counters: the app's; failures are counted there.
        handle: gives the handle on a room, with which its tasks are called.
        dismiss: removes all members of a room, synchronously.
        leases: those of singletons.
        max_rooms: how many rooms may have tasks at once.

    Attributes:
        context: the context that each task has a copy of. It is that of this table's maker, and never a connection's:
            what a request has set there, or what it may be, is nobody else's.
    """

    def __init__(
        self,
        start_soon: Callable[..., None],
        timers: Timers,
        counters: Counters,
        handle: Callable[[str], object],
        dismiss: Callable[[str, CloseInfo], object],
        leases: Leases,
        max_rooms: int | None = None,
    ) -> None:
        self.timers = timers
        self.counters = counters
        self.leases = leases
        self.handle = handle
        self.context = copy_context()
        self._start_soon = start_soon
        self._dismiss = dismiss
        self._max_rooms = max_rooms
        self._rooms: dict[str, RoomTasks] = {}
        self._refused: dict[str, Timer] = {}  # the rooms that were given up, each until its timer is due
        self._is_closed = False
        self._deadline = float("inf")
        self._changed = trio.lowlevel.ParkingLot()

    # The members

    def check(self, name: str) -> None:
        """Check that the room can be joined.

        Raises:
            RoomUnavailable: its task has failed for the last time a short while ago; there are as many rooms with tasks
                as there may be; or the server shuts down.
        """
        if self._is_closed:
            raise RoomUnavailable("The room is closed: the server is shutting down")
        timer = self._refused.get(name)
        if timer is not None and trio.current_time() < timer.when:
            raise RoomUnavailable("The room's task has failed")
        if self._max_rooms is not None and len(self._rooms) >= self._max_rooms and name not in self._rooms:
            raise RoomUnavailable("There are too many rooms with tasks: try again later")

    def occupied(self, name: str, tasks: Sequence[RoomTask], values: Mapping[str, Any]) -> None:
        """The room has, or is about to have, a member: start its tasks, unless they are running. Once it is occupied,
        another call changes nothing.

        Args:
            name: the room's.
            tasks: what the room runs; not empty.
            values: the pattern's parameters, as the name has them.

        Raises:
            RoomUnavailable: as `check`. Nothing has changed.
        """
        self.check(name)
        if name in self._refused:
            self.timers.cancel(self._refused.pop(name))
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = RoomTasks(name, tasks, values, self)
        room.occupy()

    def vacated(self, name: str) -> None:
        """The room's last member has left: cancel its tasks when they have lingered. A room that is not occupied, or
        has no tasks, is not changed."""
        room = self._rooms.get(name)
        if room is not None:
            room.vacate()

    def is_ready(self, name: str) -> bool:
        """Whether `wait_started` has nothing to wait for."""
        room = self._rooms.get(name)
        return room is not None and room.is_ready

    async def wait_started(self, name: str) -> None:
        """Wait until the room's tasks have started, for the longest `start_timeout` of theirs at most. Where they have,
        or where the room has none, this is no checkpoint. If cancelled, nothing has changed.

        Raises:
            RoomUnavailable: they have not started in time, because a run before has not ended, or because they don't
                say that they have; or a task has failed for the last time; or the room was left by everybody
                meanwhile; or the server shuts down.
        """
        room = self._rooms.get(name)
        if room is None:
            self.check(name)
        elif not room.is_ready:
            await room.wait_started()

    # The end

    def close(self, seconds: float) -> None:
        """Cancel all tasks, and start none any more: the drain begins. Who waits for a start gets `RoomUnavailable`.

        Args:
            seconds: how long the tasks have until the log names them.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._deadline = trio.current_time() + seconds
        for timer in self._refused.values():
            self.timers.cancel(timer)
        self._refused.clear()
        for room in tuple(self._rooms.values()):
            room.close()

    async def wait_ended(self) -> None:
        """Wait until the tasks that `close` has cancelled have ended, for its time limit at most. One line in the log
        names those that have not. If cancelled, they are not waited for."""
        with trio.move_on_at(self._deadline):
            while self._rooms:
                await self._changed.park()
        left = [run.name for room in self._rooms.values() for run in room.runs if not run.is_over]
        if left:
            shown = ", ".join(islice(left, MAX_SHOWN))
            logger.warning(
                "%d tasks of rooms did not end in time, while something in them is shielded from cancellation, or "
                "catches it: %s%s",
                *(len(left), shown, ", ..." if len(left) > MAX_SHOWN else ""),
            )

    # Figures

    @property
    def running(self) -> int:
        """How many tasks have begun here, and not ended."""
        return sum(run.is_running for room in self._rooms.values() for run in room.runs)

    def tasks(self) -> tuple[RoomTaskInfo, ...]:
        """The tasks of the rooms that have members, or linger, or whose tasks have not ended."""
        return tuple(
            RoomTaskInfo(room.name, run.task_name, run.state, run.restarts)
            for room in self._rooms.values()
            for run in room.runs
        )

    # What the rooms call: see `supervision.Table`

    def start(self, room: RoomTasks) -> None:
        start = partial(self._start_soon, room.run, name=f"tasks of the room {room.name!r:.100}")
        self.context.copy().run(start)

    def refuse(self, room: RoomTasks, seconds: float) -> None:
        if len(self._refused) >= MAX_REFUSED:
            self.timers.cancel(self._refused.pop(next(iter(self._refused))))
        until = trio.current_time() + seconds
        self._refused[room.name] = self.timers.at(until, partial(self._forgive, room.name))
        self._dismiss(room.name, GIVEN_UP)

    def forget(self, room: RoomTasks) -> None:
        del self._rooms[room.name]
        self._changed.unpark_all()

    def _forgive(self, name: str, now: float, when: float) -> None:
        del self._refused[name]
