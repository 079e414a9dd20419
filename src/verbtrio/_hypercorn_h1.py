"""The take-over's half for HTTP/1.1: where an upgrade leaves hypercorn's hands, and how it is answered."""

from __future__ import annotations

from typing import Any

import h11
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer

from verbtrio.errors import HandshakeError
from verbtrio.handshake import RawHeaders


class Upgrade(Exception):  # noqa: N818 -- a turn in the conversation, not an error
    """The peer asks for a WebSocket over HTTP/1.1."""

    def __init__(self, request: h11.Request, connection: h11.Connection) -> None:
        self.request = request
        self.connection = connection


def _asks_for_websocket(request: h11.Request) -> bool:
    # As generous as hypercorn's own test (any case, any white space of ISO-8859-1): what it takes for a WebSocket
    # must not get past us. What RFC 6455 makes of the request is for the handshake to say.
    upgrade, connection = "", ""
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value.decode("latin-1").strip().lower()
        elif name == b"connection":
            connection += "," + value.decode("latin-1").lower()
    tokens = [token.strip() for token in connection.split(",")]
    return upgrade == "websocket" and "upgrade" in tokens and request.method.upper() == b"GET"


def upgrade_in(data: bytes, config: Config) -> Upgrade | None:
    """The upgrade request that a connection has begun with; `None` where `data` is anything else, or not all of it."""
    if b"\r\n\r\n" not in data or b"websocket" not in data.lower():
        return None
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)
    try:
        connection.receive_data(data)
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return None  # hypercorn answers
    return Upgrade(request, connection) if isinstance(request, h11.Request) and _asks_for_websocket(request) else None


class H11(H11Protocol):
    """hypercorn's HTTP/1.1, up to an upgrade."""

    async def _create_stream(self, request: h11.Request) -> None:
        if _asks_for_websocket(request):
            assert isinstance(self.connection, h11.Connection), "only an upgrade would replace it"
            raise Upgrade(request, self.connection)
        await super()._create_stream(request)


class H11Response:
    """Answers the upgrade request with h11, which knows what may stand in a response."""

    def __init__(self, server: TCPServer, connection: h11.Connection) -> None:
        self._server = server
        self._connection = connection

    async def accept(self, headers: RawHeaders) -> None:
        await self._send(h11.InformationalResponse(status_code=101, headers=headers, reason=b"Switching Protocols"))

    async def start(self, status: int, headers: RawHeaders) -> None:
        headers = [*headers, (b"connection", b"close"), *self._server.config.response_headers("h11")]
        await self._send(h11.Response(status_code=status, headers=headers))

    async def body(self, data: bytes, *, more: bool) -> None:
        if data:
            await self._send(h11.Data(data=data))
        if not more:
            await self._send(h11.EndOfMessage())
            await self._server._close()

    async def refuse(self, error: HandshakeError) -> None:
        """The answer to a request that is no valid upgrade."""
        body = f"{error}\n".encode()
        length = (b"content-length", str(len(body)).encode())
        content_type = (b"content-type", b"text/plain; charset=utf-8")
        await self.start(error.status, [length, content_type, *error.headers])
        await self.body(body, more=False)

    async def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            await self._server.stream.send_all(data)
