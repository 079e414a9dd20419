"""The tasks of an application and of those mounted in it: started together, and ended together.

They run in a nursery of the lifespan's, inside the application's own `lifespan=`: what that has opened is there for as
long as they are. When the drain begins, or the lifespan ends, they are cancelled; the lifespan waits for them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from verbtrio.hub.hub import Hub
from verbtrio.server.tasks.supervised import Task

logger = logging.getLogger("verbtrio.background")


class RunningApp(NamedTuple):
    """An application that has started."""

    app: object
    """What its tasks are given."""
    tasks: Sequence[Task]
    hub: Hub
    drain_timeout: float


@asynccontextmanager
async def running_tasks(apps: Sequence[RunningApp]) -> AsyncIterator[None]:
    """The tasks of an application, the first of `apps`, and of those mounted in it, running. On the way out they are
    cancelled, unless the drain has done so already, and waited for.

    Raises what a critical task has raised, once all hubs have been drained: what the applications' lifespans have
    opened is there until then.
    """
    family = _Family(apps)
    async with trio.open_nursery() as nursery:
        for app in reversed(apps):  # mounted ones first, as their lifespans
            if app.tasks:
                await nursery.start(family.run, app)
        try:
            yield
        finally:
            await family.end()


class _Family:
    """An application, and those mounted in it."""

    def __init__(self, apps: Sequence[RunningApp]) -> None:
        self._hubs = [app.hub for app in apps]
        self._seconds = max(app.drain_timeout for app in apps)
        self._nurseries: list[trio.Nursery] = []  # of those whose tasks are running
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self, app: RunningApp, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the tasks of one application until its drain begins. Raises what a critical one has raised last."""
        try:
            with app.hub.until_drain:
                async with trio.open_nursery() as nursery:
                    self._nurseries.append(nursery)
                    begun = [trio.Event() for _ in app.tasks]
                    for task, event in zip(app.tasks, begun, strict=True):
                        nursery.start_soon(task.run, app.app, event.set, self._fail, name=task.name)
                    for event in begun:
                        await event.wait()
                    task_status.started()
        except* Exception:
            for hub in self._hubs:
                await hub.drain()  # it has begun; when this raises, everything is cancelled
            raise
        finally:
            self._nurseries.remove(nursery)
            self._changed.unpark_all()

    async def end(self) -> None:
        """Cancel all tasks, and wait until they have ended, for the drain's time limit at most."""
        for hub in self._hubs:
            hub.until_drain.cancel()
        with trio.move_on_after(self._seconds, shield=True):
            while self._nurseries:
                await self._changed.park()
        self._name_the_rest()

    def _fail(self) -> None:
        """A critical task has failed. The drain begins at once: other tasks may take long to end."""
        for hub in self._hubs:
            hub.nursery.start_soon(hub.drain)
        self._hubs[0].nursery.start_soon(self._name_the_rest_later)

    async def _name_the_rest_later(self) -> None:
        await trio.sleep(self._seconds)
        self._name_the_rest()

    def _name_the_rest(self) -> None:
        if left := sorted(task.name for nursery in self._nurseries for task in nursery.child_tasks):
            logger.warning(
                "%d tasks of the application did not end within %g s, while something in them is shielded "
                "from cancellation: %s",
                *(len(left), self._seconds, ", ".join(left)),
            )
