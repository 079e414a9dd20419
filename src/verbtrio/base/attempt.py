"""One run of a function of the application's, in a task of its own: what supervised tasks are made of."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import trio

from verbtrio.base.calls import call, single


class Status:
    """The `trio.TaskStatus` of a task, which may call `started()` more than once.

    Args:
        started: called by each `started()`.
    """

    __slots__ = ("_started",)

    def __init__(self, started: Callable[[], None]) -> None:
        self._started = started

    def started(self, value: object = None) -> None:
        self._started()


async def attempt(
    function: Callable[[], Any], name: str, log: logging.Logger, begun: Callable[[], None] = lambda: None
) -> Exception | None:
    """Call the function in a task of its own, and so in a context of its own; return what it has raised.

    If cancelled, so is the function; what it then raises instead of `Cancelled` goes to the log.

    Args:
        function: a coroutine function, or a plain one.
        name: of the task, for Trio and for the log.
        log: where that goes.
        begun: called when the task begins.
    """
    error: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_call, function, begun, name=name)
    except* Exception as group:
        error = single(group)
        if trio.current_effective_deadline() == -math.inf:
            log.error("%s failed when it was cancelled", name, exc_info=error)
    except* KeyboardInterrupt:
        # Only under `debug=True` (see `interrupts`), which has told the program already that it should end.
        log.warning("%s was interrupted, and is over", name)
    await trio.lowlevel.checkpoint_if_cancelled()
    return error


@trio.lowlevel.enable_ki_protection  # an interrupt is for the program's main task
async def _call(function: Callable[[], Any], begun: Callable[[], None]) -> None:
    begun()
    await call(function)
