"""The one way to write a streamed response's body."""

from __future__ import annotations

import trio
from starlette.types import Send

from verbtrio.http.link import Link

CHUNK_BYTES = 64 * 1024
"""The most that one ASGI message carries, and that one `send_timeout` is for."""
END_SECONDS = 1.0
"""How long the end of a response may take that the server has ended."""


class Writer:
    """Writes whole pieces, one at a time, each within the time limit.

    Args:
        send: ASGI's.
        timeout: seconds that each 64 KiB may take; `None` for no limit.
        link: the connection's, if there is one.
        response: cancelled if the response is cut off.

    Attributes:
        written_at: when the last piece was sent, on Trio's clock.
        is_overdue: whether the client has not taken a piece in time, so that the response is cut off.
    """

    def __init__(self, send: Send, timeout: float | None, link: Link | None, response: trio.CancelScope) -> None:
        self._send = send
        self._timeout = float("inf") if timeout is None else timeout
        self._link = link
        self._response = response
        self._lock = trio.Lock()
        self.written_at = trio.current_time()
        self.is_overdue = False

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`. If the client does not take it in time, or this is cancelled, the response is cut off."""
        async with self._lock:
            view = memoryview(data)
            for begin in range(0, len(view), CHUNK_BYTES):
                await self._put(bytes(view[begin : begin + CHUNK_BYTES]), more=True)
            self.written_at = trio.current_time()

    async def finish(self, *, within: float) -> None:
        """End the response. If that takes more than `within` seconds, cut it off."""
        with trio.move_on_after(within) as limit:
            async with self._lock:
                await self._put(b"", more=False)
        if limit.cancelled_caught:
            await self._cut()

    async def _put(self, piece: bytes, *, more: bool) -> None:
        """Send one piece. If it can't be sent whole, for whatever reason, cut the response off."""
        sent = False
        try:
            with trio.move_on_after(self._timeout) as limit:
                await self._send({"type": "http.response.body", "body": piece, "more_body": more})
                sent = True
            self.is_overdue = limit.cancelled_caught
        except OSError:
            pass  # ASGI 2.4: the client has left
        finally:
            if not sent:
                await self._cut()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _cut(self) -> None:
        """End the response where it is."""
        self._response.cancel()
        if self._link is not None:
            # Middleware between us and the connection would go on waiting for the client.
            await self._link.abort()
