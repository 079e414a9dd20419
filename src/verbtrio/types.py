"""Names for types that several layers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

JSON: TypeAlias = Any
"""Any JSON value: what `WebSocket[JSON]` receives. (A precise recursive alias helps nobody's type checker.)"""

Data: TypeAlias = Any
"""What can be sent: `str` goes as text, `bytes` as binary, anything else as JSON text (by msgspec)."""

EXTENSION = "verbtrio.stream"
"""The ASGI scope's extension that holds the take-over's `Session`."""

Hook: TypeAlias = Callable[..., Awaitable[None] | None]
"""A hook may be a plain function or a coroutine function."""
