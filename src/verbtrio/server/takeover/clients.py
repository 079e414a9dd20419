"""The TCP connections of each client, counted whatever they are for."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from typing import Any

import trio
from hypercorn.trio.tcp_server import MAX_RECV

from verbtrio.guards.proxies import TrustedProxies
from verbtrio.guards.quotas import client_key
from verbtrio.server.takeover.addresses import addresses_of

logger = logging.getLogger("verbtrio.hypercorn")

ANSWER = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n"


class TooMany(Exception):  # noqa: N818 -- an answer, not a failure of ours
    """A client has as many connections as it may have."""


class Clients:
    """The clients of one application, with their TCP connections counted.

    Args:
        limit: connections that a client may have (`Limits.max_tcp_connections_per_client`); `None`: nothing is counted.
        proxies: their connections are not counted: they carry many clients.
    """

    def __init__(self, limit: int | None, proxies: TrustedProxies) -> None:
        self._limit = limit
        self._proxies = proxies
        self._counters = Counter[str]()

    def __len__(self) -> int:
        """The number of clients at the moment."""
        return len(self._counters)

    def admit(self, stream: trio.abc.Stream) -> str | None:
        """Count the connection. Returns what to give to `leave`; `None`: it is not counted.

        Raises:
            TooMany: its client has too many; nothing has changed.
        """
        key = self._key(stream)
        if key is None or self._limit is None:
            return None
        if self._counters[key] >= self._limit:
            logger.info("a connection from %s is refused: it has %d (max_tcp_connections_per_client)", key, self._limit)
            raise TooMany
        self._counters[key] += 1
        return key

    def leave(self, key: str | None) -> None:
        """The connection has ended for which `admit` has returned `key`."""
        if key is not None:
            self._counters[key] -= 1
            if not self._counters[key]:
                del self._counters[key]

    def _key(self, stream: trio.abc.Stream) -> str | None:
        """The client that the connection counts for; `None`: it is not counted."""
        if self._limit is None:
            return None
        try:
            client, _ = addresses_of(stream)
        except OSError:  # the client has gone
            return None
        if client is None or not client[0] or self._proxies.trusts(str(client[0])):
            return None  # (a UNIX socket is a proxy's)
        return client_key(client)


def turn_away(stream: Any) -> None:
    """Answer 429 if that can be written at once. Does not wait; the caller closes."""
    if isinstance(stream, trio.SocketStream) and sys.platform != "win32":
        fd = stream.socket.fileno()
        try:
            os.read(fd, MAX_RECV)  # unread data would reset the connection, and the answer would be lost
        except OSError:
            pass  # nothing has come yet
        try:
            os.write(fd, ANSWER)
        except OSError:
            pass  # the client has gone
