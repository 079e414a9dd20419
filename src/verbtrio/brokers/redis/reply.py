"""What Redis answers to a command that is on its way."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import trio

from verbtrio.base.errors import BrokerUnavailable


class Reply:
    """One command's answer. Wait for it with `await reply`; whoever doesn't may have a function called with it.

    Args:
        size: what the command takes while it is on its way, in bytes.
        then: called with the answer, or with the error. It may neither block nor raise.
    """

    __slots__ = ("_done", "_error", "_then", "_value", "is_awaited", "size")

    def __init__(self, size: int, then: Callable[[Any, BrokerUnavailable | None], None] | None = None) -> None:
        self.size = size
        self.is_awaited = then is not None
        self._then = then
        self._done: trio.Event | None = None
        self._value: Any = None
        self._error: BrokerUnavailable | None = None

    def resolve(self, value: Any, error: BrokerUnavailable | None = None) -> None:
        """The answer has come, or there will be none. Called once."""
        self._value, self._error = value, error
        if self._done is None:
            self._done = trio.Event()
        self._done.set()
        if self._then is not None:
            then, self._then = self._then, None
            then(value, error)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        """The answer. If cancelled, the command may have been carried out or not.

        Raises:
            BrokerUnavailable: there is none. The command may have been carried out or not.
        """
        self.is_awaited = True
        if self._done is None:
            self._done = trio.Event()
        await self._done.wait()
        if self._error is not None:
            # A new one: the same may be raised in several tasks.
            raise BrokerUnavailable(str(self._error)) from self._error
        return self._value
