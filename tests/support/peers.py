"""The client's side of a conversation, over each of the ways a client may come in."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio
import trio_websocket

from tests.support.http2 import Http2Denied, open_http2_websocket

TIMEOUT = 10.0


class Peer(Protocol):
    """A connected client."""

    async def send(self, message: Any) -> None:
        """Send a `str` as it is, anything else as JSON."""

    async def receive(self) -> Any:
        """The next message, decoded from JSON."""

    async def close(self, code: int = 1000, reason: str = "") -> None: ...

    async def closed(self) -> tuple[int, str]:
        """Wait for the server's close; its code and reason."""


class Refused(Exception):  # noqa: N818 -- an answer
    """The upgrade was denied."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__(status, body)


class _Http1Peer:
    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection

    async def send(self, message: Any) -> None:
        await self._connection.send_message(message if isinstance(message, str) else json.dumps(message))

    async def receive(self) -> Any:
        with trio.fail_after(TIMEOUT):
            return json.loads(await self._connection.get_message())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        with trio.fail_after(TIMEOUT):
            await self._connection.aclose(code, reason)

    async def closed(self) -> tuple[int, str]:
        with trio.fail_after(TIMEOUT):
            try:
                while True:
                    await self._connection.get_message()
            except trio_websocket.ConnectionClosed as error:
                reason = error.reason
        if reason is None:
            return 1006, ""
        return reason.code, reason.reason or ""


@asynccontextmanager
async def connect(
    url: str, *, tls: ssl.SSLContext | None = None, http2: bool = False, **options: Any
) -> AsyncIterator[Peer]:
    """Connect to a `ws://` or `wss://` URL. Raises `Refused` where the upgrade is denied."""
    if http2:
        try:
            async with open_http2_websocket(url) as peer:
                yield peer
        except Http2Denied as error:
            raise Refused(error.status, error.body) from None
        return
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    stream: Any = await trio.open_tcp_stream(parts.hostname, parts.port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname=parts.hostname, https_compatible=True)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    refused: Refused | None = None
    try:
        # trio-websocket's own `open_websocket_url` leaves the socket of a rejected handshake open: ours to close.
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(TIMEOUT):
                connection = await trio_websocket.wrap_client_stream(nursery, stream, parts.netloc, path, **options)
            try:
                yield _Http1Peer(connection)
            finally:
                with trio.move_on_after(TIMEOUT):
                    await connection.aclose()
            nursery.cancel_scope.cancel()
    except* trio_websocket.ConnectionRejected as group:
        rejection = group.exceptions[0]
        while isinstance(rejection, BaseExceptionGroup):
            rejection = rejection.exceptions[0]
        refused = Refused(rejection.status_code, rejection.body or b"")
    if refused is not None:
        raise refused
