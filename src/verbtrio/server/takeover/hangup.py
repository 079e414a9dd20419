"""Sees a client hang up while its connection is not being read.

hypercorn 0.18 does not read on while a request is answered, or while a body waits for its application. So it never sees
a client leave that has sent one byte more: the handler is not told, and the descriptor is not closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from verbtrio.wire.poller import Polled, Poller


class _Watch(Polled):
    def __init__(self, hang_up: Callable[[], None]) -> None:
        self._hang_up = hang_up

    def on_readable(self, now: float) -> int:
        return 0  # never asked for

    def on_hang_up(self, now: float) -> None:
        self._hang_up()

    def stop(self) -> None:
        """The poller has ended; there is nothing to release."""


@asynccontextmanager
async def watching(stream: Any, poller: Poller | None, hang_up: Callable[[], None]) -> AsyncIterator[None]:
    """While the block is entered, call `hang_up`, once, when the client has closed its half.

    Without epoll or a socket, that is seen only when the connection is read again.
    """
    socket = getattr(getattr(stream, "transport_stream", stream), "socket", None)
    fd = -1 if socket is None else socket.fileno()
    if poller is None or fd < 0:
        yield
        return
    watch = _Watch(hang_up)
    poller.watch(fd, watch)
    try:
        yield
    finally:
        poller.unwatch(fd, watch)
