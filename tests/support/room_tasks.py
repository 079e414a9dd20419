"""Rooms that have tasks and nothing else: who is in which is a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from verbtrio.base.close import CloseInfo
from verbtrio.base.counters import Counters
from verbtrio.base.timers import Timers
from verbtrio.brokers.base import Session
from verbtrio.brokers.memory import MemoryBroker
from verbtrio.rooms.leases import Leases
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.task_table import RoomTaskTable
from verbtrio.testing.recording import RecordingProcess


class Handle:
    """What tasks are given as their room."""

    def __init__(self, house: House, name: str) -> None:
        self._house = house
        self.name = name

    def __len__(self) -> int:
        return self._house.members[self.name]

    def close(self) -> None:
        self._house.empty(self.name)


class House:
    """The rooms, and a table of their tasks.

    Attributes:
        members: how many are in each.
        dismissed: the rooms whose members were removed because of a task, and what they were told.
    """

    def __init__(self, nursery: trio.Nursery, session: Session) -> None:
        self.nursery = nursery
        self.session = session
        self.timers = Timers()
        self.counters = Counters()
        self.members: Counter[str] = Counter()
        self.dismissed: list[tuple[str, CloseInfo]] = []
        self.table = RoomTaskTable(
            nursery.start_soon,
            self.timers,
            self.counters,
            lambda name: Handle(self, name),
            self._dismiss,
            Leases(session),
        )

    def join(self, name: str, *tasks: RoomTask, values: Mapping[str, Any] | None = None) -> None:
        """Add a member. Raises `RoomUnavailable`."""
        self.table.occupied(name, tasks, values or {})
        self.members[name] += 1

    async def enter(self, name: str, *tasks: RoomTask) -> None:
        """Add a member, as a join does: one that waits in vain leaves."""
        self.join(name, *tasks)
        try:
            await self.table.wait_started(name)
        except BaseException:
            self.leave(name)
            raise

    def leave(self, name: str) -> None:
        """Remove a member, if there is one left."""
        if self.members[name]:
            self.members[name] -= 1
            if not self.members[name]:
                self.empty(name)

    def empty(self, name: str) -> None:
        """Remove all members."""
        self.members[name] = 0
        self.table.vacated(name)

    @property
    def states(self) -> list[str]:
        """What the tasks of all rooms are doing."""
        return [task.state for task in self.table.tasks()]

    def check_empty(self) -> None:
        """Nothing is left."""
        assert self.table.tasks() == ()
        assert not self.table._rooms
        assert not self.table._refused
        assert self.table.running == 0
        assert len(self.timers) == 0

    def _dismiss(self, name: str, info: CloseInfo) -> None:
        self.dismissed.append((name, info))
        self.empty(name)


class Process(RecordingProcess):
    """What the broker tells of leases."""

    leases: Leases

    def released(self, name: str) -> None:
        self.leases.released(name)


@asynccontextmanager
async def house(broker: MemoryBroker | None = None) -> AsyncIterator[House]:
    """On the way out the tasks end, and nothing is left.

    Args:
        broker: what it shares with other processes; `None`: with none.
    """
    process = Process()
    async with (broker or MemoryBroker()).session(process) as session, trio.open_nursery() as nursery:
        here = House(nursery, session)
        process.leases = here.table.leases
        nursery.start_soon(here.timers.run)
        yield here
        here.table.close(10)
        await here.table.wait_ended()
        await trio.testing.wait_all_tasks_blocked()
        here.check_empty()
        nursery.cancel_scope.cancel()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of rooms: the level and the text."""
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "verbtrio.rooms"]
