"""The take-over's count of TCP connections: how many a client has, whatever they are for."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from hypercorn.trio.tcp_server import MAX_RECV

from verbtrio.guards.proxies import TrustedProxies
from verbtrio.guards.quotas import client_key
from verbtrio.server.takeover.negotiation import addresses_of

logger = logging.getLogger("verbtrio.hypercorn")

ANSWER = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n"


class Clients:
    """The clients of one application, with their TCP connections counted.

    Args:
        limit: how many one may have (`Limits.max_tcp_connections_per_client`); `None`: nothing is counted.
        proxies: whose connections are not counted: they are those of many clients.
    """

    def __init__(self, limit: int | None, proxies: TrustedProxies) -> None:
        self._limit = limit
        self._proxies = proxies
        self._counters = Counter[str]()

    def __len__(self) -> int:
        """How many clients there are at the moment."""
        return len(self._counters)

    @contextmanager
    def admitting(self, stream: trio.abc.Stream) -> Iterator[bool]:
        """Count the connection while the block is entered; `False` where its client has too many."""
        key = self._key(stream)
        if key is None or self._limit is None:
            yield True
            return
        if self._counters[key] >= self._limit:
            logger.info("a connection from %s is refused: it has %d (max_tcp_connections_per_client)", key, self._limit)
            yield False
            return
        self._counters[key] += 1
        try:
            yield True
        finally:
            self._counters[key] -= 1
            if not self._counters[key]:
                del self._counters[key]

    def _key(self, stream: trio.abc.Stream) -> str | None:
        """What the connection is counted by; `None`: by nothing."""
        if self._limit is None:
            return None
        try:
            client, _ = addresses_of(stream)
        except OSError:  # it has gone
            return None
        if client is None or not client[0] or self._proxies.trusts(str(client[0])):
            return None  # a UNIX socket is a proxy's, which has many clients
        return client_key(client)


def turn_away(stream: Any) -> None:
    """Say that there are too many, if that can be said at once. Does not wait; the caller closes."""
    if isinstance(stream, trio.SocketStream) and sys.platform != "win32":
        fd = stream.socket.fileno()
        try:
            os.read(fd, MAX_RECV)  # what is left unread would reset the connection, and the answer be lost
        except OSError:
            pass  # nothing yet
        try:
            os.write(fd, ANSWER)
        except OSError:
            pass  # it has gone
