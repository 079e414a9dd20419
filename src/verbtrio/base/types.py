"""Names for types that several layers share."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeAlias

JSON: TypeAlias = Any
"""Any JSON value: what `WebSocket[JSON]` receives. (A precise recursive alias helps nobody's type checker.)"""

Data: TypeAlias = Any
"""What can be sent: `str` goes as text, `bytes` as binary, anything else as JSON text (by msgspec, which asks the app's
`encode=` hook for what JSON has no form for)."""

EncodeHook: TypeAlias = Callable[[Any], Any]
"""`(value)`: what is sent in the place of a value that JSON has no form for."""

DecodeHook: TypeAlias = Callable[[Any, Any], Any]
"""`(type, value)`: an instance of a type that JSON has no form for, made of a JSON value."""

EXTENSION = "verbtrio.stream"
"""The ASGI scope's extension that holds the take-over's `Session`."""

Hook: TypeAlias = Callable[..., Any]
"""A hook may be a plain function or a coroutine function. What open and message hooks return is sent: see `answers`."""


class Shared:
    """An object in ASGI scopes that a copy of a scope, a deep one too, shares with the original.

    It stands for what there is once: a connection, an application. Middleware (hypercorn's `ProxyFixMiddleware`) copies
    a scope deeply, in order to change what is its own, and would try to copy sockets, tasks and events with it.
    """

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Waitable(Protocol):
    """An event that can be waited for: hypercorn's, or Trio's."""

    async def wait(self) -> None: ...


class ReadyState(enum.IntEnum):
    """The states of the browser's `WebSocket.readyState`."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3
