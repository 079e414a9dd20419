"""A protocol of its own on a WebSocket connection: what the connection asks it when it ends. Pure.

A plain route has none (`WebSocketPeer.dialect` is `None`). A route whose messages are a protocol's commands and replies
sets one before the `Connection` is made. Then the protocol does what a plain route's connection does by itself: it
counts what the client sends, checks its tokens, pings it, and has the hub admit its client (`Hub.admit_client`).
"""

from __future__ import annotations

import logging
from typing import Protocol

from verbtrio.base.close import PEERS_ENDS, Cause, CloseInfo

logger = logging.getLogger("verbtrio.connection")

WIRE_ENDS = (*PEERS_ENDS, Cause.SIZE, Cause.PROTOCOL)
"""Ends that the transport reports. By then a Close frame has been received or sent, or none can be: no data may follow
(RFC 6455 section 5.5.1), and the code is RFC 6455's."""


class Dialect(Protocol):
    """A protocol's side of one connection. Both methods are synchronous, and called only for a connection that has
    opened.

    What they raise is logged, and the connection ends all the same.
    """

    def closing(self, info: CloseInfo) -> CloseInfo:
        """The code and the reason that go out for this end; the cause and the exception stay as they are. What is held
        for the client is written first.

        Called once, before the Close frame is queued, and not for `WIRE_ENDS`. The connection still takes data, and
        `closed` is not set yet. An end that this method causes itself (what it writes finds the peer gone, or too slow)
        changes nothing: the one that it was called for counts.
        """

    def ended(self, info: CloseInfo) -> None:
        """It has ended: leave all rooms and lists now. `info` has the code and the reason that went out.

        Called once, whatever ended it, when the Close frame is queued and before the registry's `leave`.
        """


def closing(dialect: Dialect, info: CloseInfo) -> CloseInfo:
    """What `dialect.closing` says; `info` itself for `WIRE_ENDS`, and where it fails."""
    if info.cause in WIRE_ENDS:
        return info
    try:
        return dialect.closing(info)
    except Exception:  # a bug of ours: without its end, the connection would never leave
        logger.exception("%r failed to close", dialect)
        return info


def ended(dialect: Dialect, info: CloseInfo) -> None:
    """Call `dialect.ended`; what it raises must not keep the connection in the lists it leaves next."""
    try:
        dialect.ended(info)
    except Exception:
        logger.exception("%r failed to leave", dialect)
