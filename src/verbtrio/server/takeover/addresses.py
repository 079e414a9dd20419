"""The addresses of a connection's two ends."""

from __future__ import annotations

from typing import Any

from hypercorn.utils import parse_socket_addr


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
