"""A protocol of its own on a WebSocket connection: what the connection asks it when it ends. Pure.

A plain route has none (`WebSocketPeer.dialect` is `None`). A route whose messages are a protocol's commands and replies
sets one before the `Connection` is made. Then the protocol does what a plain route's connection does by itself: it
counts what the client sends, checks its tokens, pings it, and has the hub admit its client (`Hub.admit_client`).
"""

from __future__ import annotations

import logging
from typing import Protocol

from verbtrio.base.close import CloseInfo

logger = logging.getLogger("verbtrio.connection")


class Dialect(Protocol):
    """A protocol's side of one connection. Both methods are synchronous, and called only for a connection that has
    opened.

    What they raise is logged, and the connection ends all the same.
    """

    def closing(self, info: CloseInfo) -> CloseInfo:
        """What is recorded of this end: its code and its reason go out. What is held for the client is written first.

        Called once, before the Close frame is queued. The connection still takes data, and `closed` is not set yet. An
        end that this method causes itself (what it writes finds the peer gone, or too slow) changes nothing: the one
        that it was called for counts.

        Not called for ends that the peer causes, nor for those that the transport reports: by then a Close frame has
        come or gone, no data may follow (RFC 6455 section 5.5.1), and the code is RFC 6455's.
        """

    def ended(self, info: CloseInfo) -> None:
        """It has ended: leave all rooms and lists now. `info` has the code and the reason that went out.

        Called once, whatever ended it, when the Close frame is queued and before the registry's `leave`.
        """


def closing(dialect: Dialect, info: CloseInfo) -> CloseInfo:
    """What `dialect.closing` says; `info` itself where it fails."""
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
