"""The take-over's HTTP phase: which protocol a connection speaks, and how that changes (HTTP/2 by its preface)."""

from __future__ import annotations

from typing import Any

from hypercorn.events import RawData
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.utils import parse_socket_addr

from verbtrio.server.takeover.http1 import H11
from verbtrio.server.takeover.http2 import H2


class Protocols:
    """The protocol spoken on a connection, which may change (hypercorn's `ProtocolWrapper`, with our H11 and H2).

    Args:
        server: the `TakeOverServer` whose connection it is.
        alpn: what TLS has agreed on.
        ssl, client, local: as for hypercorn's protocols.
    """

    def __init__(self, server: Any, alpn: str, ssl: bool, client: Any, local: Any) -> None:
        self._server = server
        self._arguments = (ssl, client, local, server.protocol_send)
        self._protocol = self._make(H2 if alpn == "h2" else H11)

    async def initiate(self) -> None:
        await self._protocol.initiate()

    async def handle(self, event: Any) -> None:
        try:
            await self._protocol.handle(event)
        except H2ProtocolAssumedError as error:
            self._protocol = self._make(H2)
            await self._protocol.initiate()
            await self._protocol.handle(RawData(error.data))

    @property
    def spoken(self) -> Any:
        """What is spoken at the moment."""
        return self._protocol

    async def refuse(self) -> None:
        """Answer 400 where the request was at fault and nothing has been answered yet."""
        protocol = self._protocol
        if isinstance(protocol, H11):
            await protocol.refuse(400)

    def end(self) -> None:
        """The connection is read no further, whatever has ended that: what a timer would send has no use any more, and
        no task to send it."""
        if isinstance(self._protocol, H2):
            self._protocol.closed = True

    def _make(self, kind: Any) -> Any:
        server = self._server
        protocol = kind(
            server.app, server.config, server.context, server._task_group, server.state.copy(), *self._arguments
        )
        if kind is H2:
            protocol.offer(server.serve_tunnel if server.settings.http2_websockets else None)
        else:
            ssl = self._arguments[0]  # where ALPN is what chooses (RFC 9113 section 3.2)
            protocol.begin(knows_http2=server.settings.http2_cleartext and not ssl)
        return protocol


def addresses_of(stream: Any) -> tuple[Any, Any]:
    """The peer's address and ours; `None` for a stream that has none (a test's, a UNIX socket's)."""
    stream = getattr(stream, "transport_stream", stream)
    socket = getattr(stream, "socket", None)
    if socket is None:
        return None, None
    return (
        parse_socket_addr(socket.family, socket.getpeername()),
        parse_socket_addr(socket.family, socket.getsockname()),
    )
