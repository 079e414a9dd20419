"""The end of an HTTP connection, at which the client receives what it was sent last (RFC 9112 section 9.6).

A socket that is closed over unread data resets the connection, and its client loses the answer. So our half is closed
first, and what still comes is read and thrown away until the client closes: `LINGER_SECONDS` and `LINGER_BYTES` at
most.
"""

from __future__ import annotations

import math
from typing import Any

import trio
from hypercorn.events import Closed, RawData
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer

from verbtrio.wire.stream_transport import LINGER_BYTES, LINGER_SECONDS, drain


class LingeringServer(TCPServer):
    """hypercorn's connection, with this end."""

    _read_all = False
    _is_lingering = False
    _reading: trio.CancelScope

    async def _read_data(self) -> None:
        """Read until the client closes. Once everything is sent (`_end_http`), for `LINGER_SECONDS` at most."""
        left = LINGER_BYTES
        try:
            with self._reading:
                while left > 0:
                    try:
                        with trio.fail_after(self.config.read_timeout or math.inf):
                            data = bytes(await self.stream.receive_some(MAX_RECV))
                    except (trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError):
                        break
                    await self.protocol.handle(RawData(data))
                    if not data:
                        break
                    if self._is_lingering:
                        left -= len(data)
        finally:
            self._read_all = True
            if self._is_lingering:  # at once, whatever the application still does
                await trio.aclose_forcefully(self.stream)
        await self.protocol.handle(Closed())

    async def _end_http(self) -> None:
        """Close our half. The reader throws away what still comes."""
        if self._read_all:
            await self._close()
        elif not self._is_lingering:
            stream: Any = getattr(self.stream, "transport_stream", self.stream)
            try:
                await stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await trio.aclose_forcefully(self.stream)
            else:
                self._is_lingering = True
                self._reading.deadline = trio.current_time() + LINGER_SECONDS
        await self.protocol.handle(Closed())

    async def _close(self) -> None:
        """Close our half, let the client receive what was sent, and close. If cancelled, close at once."""
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await drain(self.stream, LINGER_BYTES)
        finally:
            await trio.aclose_forcefully(self.stream)
