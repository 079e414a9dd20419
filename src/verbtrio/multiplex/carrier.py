"""What carries a client's messages: a WebSocket, or the response of an HTTP request."""

from __future__ import annotations

from typing import Any, Protocol

from verbtrio.base.close import CloseInfo
from verbtrio.base.limits import Limits
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.messages.frame import Frame


class Carrier(Protocol):
    """The one way to a client. Everything but `wait_below` is synchronous."""

    @property
    def name(self) -> str:
        """How the client is connected: "websocket", "http_stream" or "sse"."""

    @property
    def limits(self) -> Limits: ...

    @property
    def closed(self) -> CloseInfo | None:
        """How the connection ended; `None` while it is open."""

    @property
    def dropped(self) -> int:
        """Messages dropped or replaced by `Limits.backlog_policy`, or late by their `ttl`."""

    def drop(self, messages: int) -> None:
        """So many messages were dropped before they came here."""

    @property
    def queued(self) -> int:
        """Bytes that are queued."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued, so that what is written goes out at once."""

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way, in either direction, behind which a pong may stand."""

    def write(self, frame: Frame) -> None:
        """Send a message, or queue it within the backlog limit; beyond it `backlog_policy` decides. Does nothing once
        the connection has ended."""

    async def wait_below(self, size: int) -> None:
        """Wait while more than so many bytes are queued, and the connection has not ended. Always a checkpoint."""

    def end(self, info: CloseInfo) -> object:
        """End the connection; the first call decides how."""


class WebSocketCarrier:
    """A WebSocket as a carrier."""

    __slots__ = ("_peer",)

    name = "websocket"

    def __init__(self, peer: WebSocketPeer[Any]) -> None:
        self._peer = peer

    @property
    def limits(self) -> Limits:
        return self._peer.limits

    @property
    def closed(self) -> CloseInfo | None:
        return self._peer.closed

    @property
    def dropped(self) -> int:
        return self._peer.dropped

    def drop(self, messages: int) -> None:
        self._peer.drop(messages)

    @property
    def queued(self) -> int:
        return self._peer.queued

    @property
    def is_empty(self) -> bool:
        return self._peer.outbox.is_empty

    @property
    def is_busy(self) -> bool:
        return not self._peer.outbox.is_empty or self._peer.transport.progress().partial_bytes > 0

    def write(self, frame: Frame) -> None:
        self._peer.outbox.put_nowait(frame)

    async def wait_below(self, size: int) -> None:
        await self._peer.wait_below(size)

    def end(self, info: CloseInfo) -> None:
        self._peer.end(info)
