"""Types and names that several layers share."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeAlias

JSON: TypeAlias = Any
"""Any JSON value: what `WebSocket[JSON]` receives. (A precise recursive alias helps nobody's type checker.)"""

Data: TypeAlias = Any
"""What can be sent: `str` as text, `bytes` as binary, anything else as JSON text (by msgspec, which calls the app's
`encode=` hook for values that JSON has no form for)."""

EncodeHook: TypeAlias = Callable[[Any], Any]
"""`(value)`: returns what to send instead of a value that JSON has no form for."""

DecodeHook: TypeAlias = Callable[[Any, Any], Any]
"""`(type, value)`: returns an instance of a type that JSON has no form for, made from a JSON value."""

EXTENSION = "verbtrio.stream"
"""The extension in the ASGI scope that holds the take-over's `Session`."""

Hook: TypeAlias = Callable[..., Any]
"""A hook: a plain function or a coroutine function. What open and message hooks return is sent: see `answers`."""


class Shared:
    """An object in an ASGI scope that copies of the scope, even deep ones, share with the original.

    It is for what exists once: a connection, an application. Middleware (hypercorn's `ProxyFixMiddleware`) deep-copies
    the scope before it changes it, and would otherwise try to copy sockets, tasks and events.
    """

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Waitable(Protocol):
    """An event that tasks can wait for: hypercorn's, or Trio's."""

    async def wait(self) -> None: ...


class ReadyState(enum.IntEnum):
    """The states of the browser's `WebSocket.readyState`."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3
