"""The application's own tasks: what runs beside its connections, from its start until the drain begins.

    @app.task
    async def listen_to_the_database() -> None: ...

    @app.every(60)
    def tell_figures() -> None: ...

They run in a nursery of the lifespan's, inside the application's own `lifespan=`: what that has opened is there for as
long as they are. When the drain begins, or the lifespan ends, they are cancelled; the lifespan waits for them.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, overload

import trio

from verbtrio.base.calls import call, single
from verbtrio.hub.hub import Hub

logger = logging.getLogger("verbtrio.background")

TaskFunction = TypeVar("TaskFunction", bound=Callable[..., Coroutine[Any, Any, None]])
TickFunction = TypeVar("TickFunction", bound=Callable[..., Awaitable[None] | None])

MAX_DELAY = 30.0
"""Seconds between a failure and the restart, at most."""
MIN_SECONDS = 0.001
"""The shortest time between two calls. (Trio's own clock is no finer.)"""


@dataclass(frozen=True, slots=True)
class Restart:
    """How often a task that fails is started again.

    Raises:
        ValueError: `max` is less than 0, or one of the others not more than 0.
        TypeError: `max` is no `int`, or one of the others no number.
    """

    max: int = 5
    """At most so many times within `within` seconds; the failure after that is its last."""
    within: float = 60.0
    delay: float = 0.1
    """Seconds until the first restart. Each further one within that time waits twice as long, up to 30 s."""

    def __post_init__(self) -> None:
        _check_count("Restart.max", self.max)
        _check_seconds("Restart.within", self.within)
        _check_seconds("Restart.delay", self.delay)


_UNSET: Any = object()


class Background:
    """What adds an application's tasks: an `App`."""

    _hub: Hub | None

    def __init__(self, drain_timeout: float) -> None:
        self._background: list[_Task | _Every] = []
        self._drain_timeout = drain_timeout

    @overload
    def task(self, function: TaskFunction) -> TaskFunction: ...

    @overload
    def task(
        self, *, restart: Restart | None = ..., critical: bool = ...
    ) -> Callable[[TaskFunction], TaskFunction]: ...

    def task(self, function: Any = None, *, restart: Restart | None = _UNSET, critical: bool = False) -> Any:
        """Add a task of the application's: `@app.task`, or `@app.task(critical=True)`, above a coroutine function.

        It starts when the application's `lifespan=` has begun, before the first connection is served, and is cancelled
        when the drain begins, or the lifespan ends, if that is first. A clean-up that has to wait needs a shield with
        a deadline, as anywhere in Trio; after `App(drain_timeout=)` the log names those that are not over. It may ask
        for `app`, by name, and for `task_status`: the application has then started when it has called
        `task_status.started()`. A task that returns is done.

        Each run has a context (`contextvars`) of its own, a copy of the lifespan's.

        Args:
            restart: how often it is started again when it fails; each failure is logged. The default is
                `Restart(max=5, within=60)`, for a critical one `None`: never. After its last failure it is given up.
            critical: its last failure ends the server: connections are drained, with 1012, and the lifespan fails. A
                script (`app.listen`) and `hypercorn -w 0` then exit with 1, a worker process of hypercorn's too, whose
                parent stops the others (and exits, as of hypercorn 0.18, with 0); `app.serve` raises.

        Raises:
            TypeError: that is no coroutine function, or it asks for something else.
            RuntimeError: the application has started.
        """
        if restart is _UNSET:
            restart = None if critical is True else Restart()
        if restart is not None and not isinstance(restart, Restart):
            raise TypeError(f"restart is a verbtrio.Restart(...), or None for never, not {restart!r}")
        if not isinstance(critical, bool):
            raise TypeError(f"critical is True or False, not {critical!r}")

        def decorate(function: TaskFunction) -> TaskFunction:
            self._check_before_start()
            self._background.append(_Task(function, restart, critical=critical))
            return function

        return decorate if function is None else decorate(function)

    def every(self, seconds: float) -> Callable[[TickFunction], TickFunction]:
        """Add a function, a coroutine function or a plain one that does not block: it is called every so many seconds.

        First when these are over for the first time, counted from the application's start, then at each multiple. One
        call at a time: those that come due while one is still at work are left out. What a call raises is logged, and
        the next is made. A call that is at work when the drain begins is cancelled; none is made afterwards. It may ask
        for `app`, by name, and has a context of its own, as a task.

        Raises:
            TypeError: `seconds` is no number, or the function is none, or asks for something else.
            ValueError: `seconds` is less than 0.001, or infinite.
            RuntimeError: the application has started.
        """
        _check_seconds("every(seconds)", seconds)
        if seconds < MIN_SECONDS:
            raise ValueError(f"every(seconds) is {MIN_SECONDS} at least, not {seconds!r}")

        def decorate(function: TickFunction) -> TickFunction:
            self._check_before_start()
            self._background.append(_Every(function, float(seconds)))
            return function

        return decorate

    def _check_before_start(self) -> None:
        if self._hub is not None:
            raise RuntimeError("tasks must be added before the app has started")


@asynccontextmanager
async def at_work(members: Sequence[tuple[Background, Hub]]) -> AsyncIterator[None]:
    """The tasks of an application, and of those mounted in it, started. On the way out they are cancelled, where the
    drain has not done so, and waited for.

    Raises what a critical task has raised, when all hubs have been drained: what the applications' lifespans have
    opened is there until then.
    """
    family = _Family(members)
    async with trio.open_nursery() as nursery:
        for app, hub in reversed(members):  # what is mounted first, as their lifespans
            if app._background:
                await nursery.start(family.run, app, hub)
        try:
            yield
        finally:
            await family.end()


class _Family:
    """An application and those mounted in it, each with its hub."""

    def __init__(self, members: Sequence[tuple[Background, Hub]]) -> None:
        self._hubs = [hub for _, hub in members]
        self._seconds = max(app._drain_timeout for app, _ in members)
        self._nurseries: list[trio.Nursery] = []  # of those whose tasks are at work
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self, app: Background, hub: Hub, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the tasks of one until its drain begins. Raises what a critical one has raised last."""
        try:
            with hub.until_drain:
                async with trio.open_nursery() as nursery:
                    self._nurseries.append(nursery)
                    begun = [trio.Event() for _ in app._background]
                    for entry, event in zip(app._background, begun, strict=True):
                        nursery.start_soon(entry.run, app, event.set, self.fail, name=entry.name)
                    for event in begun:
                        await event.wait()
                    task_status.started()
        except* Exception:
            for one in self._hubs:
                await one.drain()  # it has begun; what follows cancels all there is
            raise
        finally:
            self._nurseries.remove(nursery)
            self._changed.unpark_all()

    def fail(self) -> None:
        """A critical task has failed. The drain begins at once: others may be long in ending."""
        for hub in self._hubs:
            hub.nursery.start_soon(hub.drain)
        self._hubs[0].nursery.start_soon(self._name_the_others)

    async def end(self) -> None:
        """Cancel all tasks, and wait until they have ended, for the drain's time limit at most."""
        for hub in self._hubs:
            hub.until_drain.cancel()
        with trio.move_on_after(self._seconds, shield=True):
            while self._nurseries:
                await self._changed.park()
        self._tell_left()

    async def _name_the_others(self) -> None:
        await trio.sleep(self._seconds)
        self._tell_left()

    def _tell_left(self) -> None:
        if left := sorted(task.name for nursery in self._nurseries for task in nursery.child_tasks):
            logger.warning(
                "%d tasks of the application's did not end within %g s, while something of theirs is shielded "
                "from cancellation: %s",
                *(len(left), self._seconds, ", ".join(left)),
            )


class _Task:
    """What `task` has added."""

    def __init__(self, function: Any, restart: Restart | None, *, critical: bool) -> None:
        self.name = _name(function)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{self.name} is not a coroutine function: write `async def` below `@app.task`")
        self._wanted = _wanted(function, self.name, ("app", "task_status"))
        self._function = function
        self._restart = restart
        self._critical = critical

    async def run(self, app: object, begun: Callable[[], None], on_critical: Callable[[], None]) -> None:
        """Run it, again and again as it may be, until it is done or given up. Raises what a critical one has raised,
        and calls `on_critical` before."""
        arguments = {name: {"app": app, "task_status": _Status(begun)}[name] for name in self._wanted}
        at_once = (lambda: None) if "task_status" in arguments else begun
        restarts = _Restarts(self._restart)
        while (error := await _attempt(partial(self._function, **arguments), self.name, at_once)) is not None:
            wait = restarts.next(trio.current_time())
            if wait is not None:
                logger.error("the task %s failed; it starts again in %g s", self.name, wait, exc_info=error)
                del error  # and, with its traceback, what the run had: the next one may be long
                await trio.sleep(wait)
            elif self._critical:
                logger.critical("the critical task %s failed: the server is stopping", self.name, exc_info=error)
                on_critical()
                raise error
            else:
                logger.error("the task %s failed, and is given up", self.name, exc_info=error)
                break
        begun()  # nobody is to wait for one that is over


class _Every:
    """What `every` has added."""

    def __init__(self, function: Any, seconds: float) -> None:
        self.name = _name(function)
        if not callable(function) or any(check(function) for check in _NO_TICKS):
            raise TypeError(f"{self.name} can't be called every {seconds:g} s: it is no function, or a generator's")
        self._wanted = _wanted(function, self.name, ("app",))
        self._function = function
        self._seconds = seconds

    async def run(self, app: object, begun: Callable[[], None], on_critical: Callable[[], None]) -> None:
        """Call it, as long as nobody cancels this. (None of them is critical.)"""
        begun()
        function = partial(self._function, **dict.fromkeys(self._wanted, app))
        start, number = trio.current_time(), 1
        while True:
            await trio.sleep_until(start + number * self._seconds)
            if (error := await _attempt(function, self.name, begun)) is not None:
                logger.error("%s failed, which is called every %g s", self.name, self._seconds, exc_info=error)
            del error  # as above
            number = max(number + 1, math.ceil((trio.current_time() - start) / self._seconds))


_NO_TICKS = (inspect.isclass, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
"""What can be called, and then does nothing."""


class _Status:
    """What a task that has started says so to: a `trio.TaskStatus`. Once it has, a restart changes nothing."""

    def __init__(self, started: Callable[[], None]) -> None:
        self._started = started

    def started(self, value: object = None) -> None:
        self._started()


class _Restarts:
    """When a task was started again."""

    def __init__(self, bounds: Restart | None) -> None:
        self._bounds = bounds
        self._times: deque[float] = deque()  # `Restart.max` at most

    def next(self, now: float) -> float | None:
        """Seconds until it may start again; `None`: never."""
        bounds = self._bounds
        if bounds is None:
            return None
        while self._times and self._times[0] <= now - bounds.within:
            self._times.popleft()
        count = len(self._times)
        if count >= bounds.max:
            return None
        self._times.append(now)
        return min(bounds.delay * 2.0 ** min(count, 30), max(bounds.delay, MAX_DELAY))


async def _attempt(function: Callable[[], Any], name: str, begun: Callable[[], None]) -> Exception | None:
    """Call the function in a task, and so in a context, of its own; return what it has raised.

    If cancelled, so is the function, and what it raises instead goes to the log.
    """
    error: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_call, function, begun, name=name)
    except* Exception as group:
        error = single(group)
        if trio.current_effective_deadline() == -math.inf:
            logger.error("%s failed when it was cancelled", name, exc_info=error)
    except* KeyboardInterrupt:
        # Only under `debug=True` (see `debugging`), which has told the program already that it should end.
        logger.warning("%s was interrupted, and is over", name)
    await trio.lowlevel.checkpoint_if_cancelled()
    return error


@trio.lowlevel.enable_ki_protection  # an interrupt is for the program's main task
async def _call(function: Callable[[], Any], begun: Callable[[], None]) -> None:
    begun()
    await call(function)


def _wanted(function: Callable[..., Any], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Which of `known` the function asks for.

    Raises:
        TypeError: it asks for something else.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return ()  # a built-in, which tells nothing about itself
    by_name = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in parameters:
        is_given = each.name in known and each.name in by_name
        if not is_given and each.default is each.empty and each.kind not in rest:
            raise TypeError(f"{name} asks for {each.name!r}; it may ask, by name, for {' and '.join(known)}")
    return tuple(each for each in known if each in by_name)


def _name(function: object) -> str:
    name: str = getattr(function, "__qualname__", repr(function))
    return name


def _check_count(what: str, value: object) -> None:
    """Raise where that is no number of times."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is a whole number, an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{what} is 0, for never, or more, not {value!r}")


def _check_seconds(what: str, value: object) -> None:
    """Raise where that is no time that can be waited for."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{what} is a number of seconds, more than 0 and finite, not {value!r}")
