"""The application's own tasks: what runs beside its connections, from its start until the drain begins.

@app.task
async def listen_to_the_database() -> None: ...

@app.every(60)
def tell_figures() -> None: ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

from verbtrio.base.checks import check_seconds
from verbtrio.base.restart import Restart
from verbtrio.server.tasks.supervised import PeriodicTask, SupervisedTask, Task

TaskFunction = TypeVar("TaskFunction", bound=Callable[..., Coroutine[Any, Any, None]])
TickFunction = TypeVar("TickFunction", bound=Callable[..., Awaitable[None] | None])

MIN_SECONDS = 0.001
"""The shortest time between two calls. (Trio's own clock is no finer.)"""

_UNSET: Any = object()


class Background:
    """Adds an application's tasks: part of an `App`.

    Args:
        is_running: whether the application has started, and not ended.
    """

    def __init__(self, is_running: Callable[[], bool]) -> None:
        self._background: list[Task] = []
        self._is_running = is_running

    @overload
    def task(self, function: TaskFunction) -> TaskFunction: ...

    @overload
    def task(
        self, *, restart: Restart | None = ..., critical: bool = ...
    ) -> Callable[[TaskFunction], TaskFunction]: ...

    def task(self, function: Any = None, *, restart: Restart | None = _UNSET, critical: bool = False) -> Any:
        """Add a task to the application: `@app.task`, or `@app.task(critical=True)`, above a coroutine function.

        It starts when the application's `lifespan=` has begun, before the first connection is served. It is cancelled
        when the drain begins, or when the lifespan ends, if that is first. A clean-up that has to wait needs a shield
        with a deadline, as anywhere in Trio; after `App(drain_timeout=)` the log names the tasks that have not ended.
        It may ask for `app`, by name, and for `task_status`: the application has then started when the task has called
        `task_status.started()`. A task that returns is done.

        Each run has a context (`contextvars`) of its own, a copy of the lifespan's.

        Args:
            restart: how often it is started again when it fails; each failure is logged. The default is
                `Restart(max=5, within=60)`, for a critical one `None`: never. After its last failure it is given up.
            critical: its last failure ends the server: connections are drained, with 1012, and the lifespan fails. A
                script (`app.listen`) and `hypercorn -w 0` then exit with 1. So does a worker process of hypercorn's,
                whose parent stops the others (and exits with 0, as of hypercorn 0.18). `app.serve` raises.

        Raises:
            TypeError: it is not a coroutine function, or asks for anything else.
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
            self._background.append(SupervisedTask(function, restart, critical=critical))
            return function

        return decorate if function is None else decorate(function)

    def every(self, seconds: float) -> Callable[[TickFunction], TickFunction]:
        """Add a function that is called every so many seconds: a coroutine function, or a plain one that does not
        block.

        The first call comes that long after the application's start, the others at each multiple. There is one call at
        a time: calls that come due during another are left out. What a call raises is logged, and the next is made. A
        call in progress when the drain begins is cancelled; none is made afterwards. The function may ask for `app`,
        by name, and each call has a context of its own, as a task does.

        Raises:
            TypeError: `seconds` is not a number; or it is not a function, is a generator function, or asks for anything
                else.
            ValueError: `seconds` is less than 0.001, or not finite.
            RuntimeError: the application has started.
        """
        check_seconds("every(seconds)", seconds)
        if seconds < MIN_SECONDS:
            raise ValueError(f"every(seconds) is {MIN_SECONDS} at least, not {seconds!r}")

        def decorate(function: TickFunction) -> TickFunction:
            self._check_before_start()
            self._background.append(PeriodicTask(function, float(seconds)))
            return function

        return decorate

    def _check_before_start(self) -> None:
        if self._is_running():
            raise RuntimeError("tasks must be added before the app has started")
