"""One task of an application's: what `@app.task` and `@app.every` have added, run until it is done or cancelled."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import trio

from verbtrio.base.attempt import Status, attempt
from verbtrio.base.restart import Restart, Restarts
from verbtrio.base.signatures import asked_for, name_of_task

logger = logging.getLogger("verbtrio.background")


class Task(Protocol):
    """What runs beside an application's connections."""

    name: str

    async def run(self, app: object, begun: Callable[[], None], on_critical: Callable[[], None]) -> None:
        """Run it.

        Args:
            app: given to a function that asks for it.
            begun: called once the application need not wait for it any longer.
            on_critical: called when a critical task has failed for the last time, before its exception is raised.
        """


class SupervisedTask:
    """A task that is started again when it fails: `@app.task`.

    Raises:
        TypeError: `function` is not a coroutine function, or asks for anything but `app` and `task_status`.
    """

    def __init__(self, function: Any, restart: Restart | None, *, critical: bool) -> None:
        self.name = name_of_task(function)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{self.name} is not a coroutine function: write `async def` below `@app.task`")
        self._wanted = asked_for(function, self.name, ("app", "task_status"))
        self._function = function
        self._restart = restart
        self._critical = critical

    async def run(self, app: object, begun: Callable[[], None], on_critical: Callable[[], None]) -> None:
        """Run it, with its restarts, until it is done or given up. Raises the last exception of a critical one."""
        arguments = {name: {"app": app, "task_status": Status(begun)}[name] for name in self._wanted}
        at_once = (lambda: None) if "task_status" in arguments else begun
        restarts = Restarts(self._restart)
        while (error := await attempt(partial(self._function, **arguments), self.name, logger, at_once)) is not None:
            wait = restarts.next(trio.current_time())
            if wait is not None:
                logger.error("the task %s failed; it starts again in %g s", self.name, wait, exc_info=error)
                del error  # and with its traceback what that run had: the next one may be long
                await trio.sleep(wait)
            elif self._critical:
                logger.critical("the critical task %s failed: the server is stopping", self.name, exc_info=error)
                on_critical()
                raise error
            else:
                logger.error("the task %s failed, and is given up", self.name, exc_info=error)
                break
        begun()  # it may have ended without calling `task_status.started()`


class PeriodicTask:
    """A function that is called at regular intervals: `@app.every`.

    Raises:
        TypeError: `function` is not a function, is a generator function, or asks for anything but `app`.
    """

    def __init__(self, function: Any, seconds: float) -> None:
        self.name = name_of_task(function)
        if not callable(function) or any(check(function) for check in _DO_NOTHING):
            raise TypeError(
                f"{self.name} can't be called every {seconds:g} s: it is not a function, or it is a generator function"
            )
        self._wanted = asked_for(function, self.name, ("app",))
        self._function = function
        self._seconds = seconds

    async def run(self, app: object, begun: Callable[[], None], on_critical: Callable[[], None]) -> None:
        """Call it until this is cancelled. It is never critical."""
        begun()
        function = partial(self._function, **dict.fromkeys(self._wanted, app))
        start, number = trio.current_time(), 1
        while True:
            await trio.sleep_until(start + number * self._seconds)
            if (error := await attempt(function, self.name, logger)) is not None:
                logger.error("%s, called every %g s, failed", self.name, self._seconds, exc_info=error)
            del error  # as above
            number = max(number + 1, math.ceil((trio.current_time() - start) / self._seconds))


_DO_NOTHING = (inspect.isclass, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
"""Tell what does nothing when it is called, although it can be."""
