"""The upgrade over HTTP/1.1: how the take-over finds the request, and how it is answered."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer

from verbtrio.base.errors import HandshakeError
from verbtrio.server.takeover.http1_heads import HeadConnection, asks_for_websocket
from verbtrio.server.takeover.targets import resource_of
from verbtrio.wire.handshake import RawHeaders


class UpgradeRequested(Exception):  # noqa: N818 -- a change of protocol, not an error
    """The peer asks for a WebSocket over HTTP/1.1.

    Attributes:
        method, target, version, headers: the request's, with the headers' names in lower case. The target, if it is
            valid, has become a path.
        early: bytes that came after the request.
        connection: returns h11's state, which has received the request.
    """

    def __init__(
        self,
        method: bytes,
        target: bytes,
        version: bytes,
        headers: RawHeaders,
        early: bytes,
        connection: Callable[[], h11.Connection],
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.early = early
        self.connection = connection


def upgrade_of(request: h11.Request, connection: h11.Connection) -> UpgradeRequested | None:
    """The upgrade that `request` asks for, if it does."""
    if not asks_for_websocket(request.method, request.headers):
        return None
    headers = [(bytes(name), bytes(value)) for name, value in request.headers]
    target, headers = resource_of(request.method, request.target, headers) or (request.target, headers)
    early, _ = connection.trailing_data
    return UpgradeRequested(request.method, target, request.http_version, headers, early, lambda: connection)


# A head that h11 would read in the same way. (The quantifiers are possessive: the time is linear.)
_FIELD = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]++:[\t\x20-\x7e\x80-\xff]*+\r\n"
_plain_head = re.compile(rb"GET (?P<target>/[!-~]*+) HTTP/1\.1\r\n(?P<fields>(?:%b)++)\r\n" % _FIELD).match
_NOT_PLAIN = (b"content-length", b"transfer-encoding")
_USUAL = {
    name: name
    for name in (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"cache-control",
        b"connection",
        b"cookie",
        b"host",
        b"origin",
        b"pragma",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
        b"user-agent",
        b"x-forwarded-for",
        b"x-forwarded-proto",
    )
}
"""The names that handshakes have: one object for all connections, instead of 50 bytes a header for each."""


def upgrade_in(data: bytes, config: Config) -> UpgradeRequested | None:
    """The upgrade request that a connection has begun with; `None` where `data` is anything else, or not all of it."""
    if data[:1] in (b"\r", b"\n"):
        return None  # empty lines first
    end = data.find(b"\r\n\r\n")
    if end < 0 or b"websocket" not in data.lower() or end + 4 > config.h11_max_incomplete_size:
        return None
    return _plain_upgrade(data) or _upgrade_by_h11(data, config)


def _plain_upgrade(data: bytes) -> UpgradeRequested | None:
    """An upgrade request as nearly all are; `None` where it takes h11 to read `data`. h11 needs 60 us for a request and
    its 101, a tenth of what a connection costs. This needs 6."""
    head = _plain_head(data)
    if head is None:
        return None
    headers = []
    for line in head["fields"].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        headers.append((_USUAL.get(name, name), value.strip(b" \t")))
    names = [name for name, _ in headers]
    if names.count(b"host") != 1 or any(name in _NOT_PLAIN for name in names):
        return None
    if not asks_for_websocket(b"GET", headers):
        return None

    def connection() -> h11.Connection:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head[0])
        connection.next_event()
        return connection

    return UpgradeRequested(b"GET", head["target"], b"1.1", headers, data[head.end() :], connection)


def _upgrade_by_h11(data: bytes, config: Config) -> UpgradeRequested | None:
    connection = HeadConnection(config.h11_max_incomplete_size)
    try:
        connection.receive_data(data)
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return None  # hypercorn answers
    return upgrade_of(request, connection) if isinstance(request, h11.Request) else None


class H11Response:
    """Answers the upgrade request (see `session.HandshakeResponse`). All but the 101 is checked and sent by h11."""

    def __init__(self, server: TCPServer, connection: Callable[[], h11.Connection]) -> None:
        self._server = server
        self._make_connection = connection
        self._connection: h11.Connection

    async def accept(self, headers: RawHeaders) -> None:
        # h11 would have nothing to decide, and the handshake has checked the characters.
        lines = [b"%s: %s\r\n" % header for header in headers]
        await self._write(b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(lines) + b"\r\n")

    async def start(self, status: int, headers: RawHeaders) -> None:
        self._connection = self._make_connection()
        headers = [*headers, (b"connection", b"close"), *self._server.config.response_headers("h11")]
        await self._send(h11.Response(status_code=status, headers=headers))

    async def body(self, data: bytes, *, more: bool) -> None:
        if data:
            await self._send(h11.Data(data=data))
        if not more:
            await self._send(h11.EndOfMessage())
            await self._server._close()

    async def refuse(self, error: HandshakeError) -> None:
        body = f"{error}\n".encode()
        length = (b"content-length", str(len(body)).encode())
        content_type = (b"content-type", b"text/plain; charset=utf-8")
        await self.start(error.status, [length, content_type, *error.headers])
        await self.body(body, more=False)

    async def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        stream: Any = self._server.stream
        if isinstance(stream, trio.SocketStream) and sys.platform != "win32":
            # In place, as messages are (see `wire.stream_transport`): that saves a scheduler's turn, 8 us.
            try:
                data = data[os.write(stream.socket.fileno(), data) :]
            except OSError:
                pass  # the buffer is full; if the connection is broken, `send_all` finds out
        if data:
            await stream.send_all(data)
