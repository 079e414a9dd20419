"""Calls to a connection's leave, error and close hooks, each within a time limit that a shutdown may shorten.

What a hook raises is logged and passed to the error hook, and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from verbtrio.base.types import Hook

logger = logging.getLogger("verbtrio.connection")


class Calls:
    """Calls one connection's hooks.

    Args:
        whose: the connection, as the log names it.
        tell: calls the error hook with what another hook has raised; `None` if there is no error hook.
    """

    __slots__ = ("_latest", "_running", "_tell", "_whose")

    def __init__(self, whose: object, tell: Callable[[Exception], Awaitable[None]] | None) -> None:
        self._whose = whose
        self._tell = tell
        self._latest = float("inf")
        self._running: tuple[trio.CancelScope, ...] = ()  # one for each hook in progress

    def hurry(self, deadline: float) -> None:
        """Cancel hooks at `deadline`: those in progress, and those that are called later."""
        self._latest = min(self._latest, deadline)
        for scope in self._running:
            scope.deadline = min(scope.deadline, deadline)

    async def call(self, name: str, hook: Hook, *args: Any, deadline: float) -> None:
        """Call the hook. Raises no `Exception`, and is shielded from cancellation.

        A hook is called even if the deadline has passed, and then cancelled at its first checkpoint: no hook is ever
        left out.
        """
        try:
            await self._call(name, hook, args, deadline)
        except* Exception as group:
            error = single(group)
            self._log(name, error)
            await self.tell(error, deadline=deadline)

    def call_nowait(self, name: str, hook: Hook, *args: Any, nursery: trio.Nursery, seconds: float) -> None:
        """Call a hook in place. If it returns an awaitable, that is awaited in `nursery`."""
        try:
            result = hook(*args)
        except Exception as error:
            self._log(name, error)
            if self._tell is not None:
                nursery.start_soon(self._tell_soon, error, seconds)
        else:
            if hasattr(result, "__await__"):
                nursery.start_soon(self._call_soon, name, lambda: result, seconds)

    async def tell(self, error: Exception, *, deadline: float) -> None:
        """Call the error hook, if there is one. What it raises is logged."""
        if self._tell is None:
            return
        try:
            await self._call("error", self._tell, (error,), deadline)
        except* Exception as group:
            self._log("error", single(group))

    def _log(self, name: str, error: Exception) -> None:
        logger.error("the %s hook of %r raised", name, self._whose, exc_info=error)

    async def _call_soon(self, name: str, hook: Hook, seconds: float) -> None:
        await self.call(name, hook, deadline=trio.current_time() + seconds)

    async def _tell_soon(self, error: Exception, seconds: float) -> None:
        await self.tell(error, deadline=trio.current_time() + seconds)

    async def _call(self, name: str, hook: Hook, args: tuple[Any, ...], deadline: float) -> None:
        scope = trio.CancelScope(shield=True, deadline=min(deadline, self._latest))
        self._running = (*self._running, scope)
        try:
            with scope:
                await call(hook, *args)
        finally:
            self._running = tuple([one for one in self._running if one is not scope])
        if scope.cancelled_caught:
            logger.warning("the %s hook of %r was cancelled at its time limit", name, self._whose)


async def call(hook: Callable[..., Any], *args: Any) -> None:
    """Call a hook, a plain function or a coroutine function. A plain function is not a checkpoint."""
    result = hook(*args)
    if result is not None and hasattr(result, "__await__"):
        await result


def single(error: Exception) -> Exception:
    """The one exception in `error`, however many groups it is in; `error` itself if there are several."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
