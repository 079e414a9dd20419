"""What a peer gets done: how much it has taken of what it is sent, and how much of a message it has sent.

A write says little of it: a socket's buffer may hold megabytes, and lets nobody write until a third of it is free.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

_TCP_INFO_BYTES = 152
_UNACKNOWLEDGED = 24
"""Where Linux keeps, in its `struct tcp_info`, how many segments are on their way."""
_BYTES_ACKED = 120
"""How many bytes the peer has acknowledged (Linux 4.1 and later)."""
_NOT_SENT = 144
"""How many bytes wait to be sent (Linux 4.6 and later)."""


def acknowledged(stream: Any) -> int:
    """How many bytes the client's system has taken so far; 0 where nothing tells (other systems, UNIX sockets)."""
    sent = on_its_way(stream)
    return 0 if sent is None else sent[0]


def on_its_way(stream: Any) -> tuple[int, bool] | None:
    """How many bytes the peer's system has taken, and whether others are on their way; `None` where nothing tells."""
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
