"""What the take-over tells HTTP responses about their connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Scope

from verbtrio.base.types import Shared, Waitable

LINK = "verbtrio.http"
"""The extension in the ASGI scope that holds the `Link`."""


@dataclass(eq=False, slots=True)
class Link(Shared):
    """A response's connection.

    Attributes:
        terminated: set when the server begins to shut down.
        abort: closes the connection, whatever is being written; over HTTP/2 it resets the stream.
        send_timeout: seconds that the connection waits for a client that takes nothing of this response. A response
            with a longer time limit of its own raises it.
    """

    terminated: Waitable
    abort: Callable[[], Awaitable[None]]
    send_timeout: float


def link_of(scope: Scope) -> Link | None:
    """The connection's `Link`; `None` without the take-over."""
    link: Link | None = (scope.get("extensions") or {}).get(LINK)
    return link
