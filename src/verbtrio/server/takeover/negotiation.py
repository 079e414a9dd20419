"""Which protocol a connection speaks in its HTTP phase, and how that changes: to HTTP/2, by its preface."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.trio.tcp_server import TCPServer

from verbtrio.server.takeover.addresses import addresses_of
from verbtrio.server.takeover.http1 import H11
from verbtrio.server.takeover.http2 import H2
from verbtrio.server.takeover.http2_tunnel import Tunnel
from verbtrio.server.takeover.requests import RequestTasks
from verbtrio.server.takeover.settings import TakeOverSettings


class Protocols:
    """The protocol spoken on a connection, which may change (hypercorn's `ProtocolWrapper`, with our H11 and H2).

    Args:
        server: the connection.
        tasks: owns the tasks of its requests.
        settings: the application's.
        alpn: the protocol that TLS has negotiated; "http/1.1" without TLS.
        send: takes what the protocol sends.
        serve_tunnel: runs one WebSocket over HTTP/2.

    Attributes:
        spoken: the protocol at the moment.
    """

    def __init__(
        self,
        server: TCPServer,
        tasks: RequestTasks,
        settings: TakeOverSettings,
        alpn: str,
        send: Callable[[Any], Awaitable[None]],
        serve_tunnel: Callable[[Tunnel], Awaitable[None]],
    ) -> None:
        stream: Any = server.stream
        self._server = server
        self._tasks = tasks
        self._settings = settings
        self._is_tls = isinstance(stream, trio.SSLStream)
        self._addresses = addresses_of(stream)
        self._send = send
        self._serve_tunnel = serve_tunnel if settings.http2_websockets else None
        self.spoken: H11 | H2 = self._http2() if alpn == "h2" else self._http1()

    async def initiate(self) -> None:
        await self.spoken.initiate()

    async def handle(self, event: Any) -> None:
        try:
            await self.spoken.handle(event)
        except H2ProtocolAssumedError as error:
            self.spoken = self._http2()
            await self.spoken.initiate()
            await self.spoken.handle(RawData(error.data))

    async def refuse(self) -> None:
        """Answer 400 where the request was at fault and nothing has been answered yet."""
        if isinstance(self.spoken, H11):
            await self.spoken.refuse(400)

    def end(self) -> None:
        """The connection is not read any more. What a timer would send is of no use now, and has no task to send it."""
        if isinstance(self.spoken, H2):
            self.spoken.closed = True

    def _http1(self) -> H11:
        protocol = H11(*self._arguments())
        # Over TLS it is ALPN that chooses HTTP/2, not the preface (RFC 9113 section 3.2).
        protocol.begin(knows_http2=self._settings.http2_cleartext and not self._is_tls)
        return protocol

    def _http2(self) -> H2:
        protocol = H2(*self._arguments())
        protocol.begin(self._serve_tunnel)
        return protocol

    def _arguments(self) -> tuple[Any, ...]:
        """What hypercorn's protocols are constructed with."""
        server = self._server
        connection = (server.app, server.config, server.context, self._tasks, server.state.copy())
        return (*connection, self._is_tls, *self._addresses, self._send)
