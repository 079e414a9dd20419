"""How much of what it is sent a peer has acknowledged, as Linux's TCP_INFO tells.

Writes tell little: a socket's buffer may hold megabytes, and does not become writable until a third of it is free.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

_TCP_INFO_BYTES = 152
_UNACKNOWLEDGED = 24
"""Offset in Linux's `struct tcp_info`: segments sent and not acknowledged."""
_BYTES_ACKED = 120
"""Offset: bytes that the peer has acknowledged (Linux 4.1 and later)."""
_NOT_SENT = 144
"""Offset: bytes waiting to be sent (Linux 4.6 and later)."""


def acknowledged(stream: Any) -> int:
    """How many bytes the client's system has acknowledged; 0 where that is unknown (other systems, UNIX sockets)."""
    state = acknowledged_and_in_flight(stream)
    return 0 if state is None else state[0]


def acknowledged_and_in_flight(stream: Any) -> tuple[int, bool] | None:
    """How many bytes the peer's system has acknowledged, and whether more are in flight; `None` where unknown."""
    connection = getattr(getattr(stream, "transport_stream", stream), "socket", None)
    if connection is None or sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (segments,) = struct.unpack_from("=L", info, _UNACKNOWLEDGED)
        (count,) = struct.unpack_from("=Q", info, _BYTES_ACKED)
        (unsent,) = struct.unpack_from("=L", info, _NOT_SENT)
    except (OSError, struct.error):
        return None
    return int(count), bool(segments or unsent)
