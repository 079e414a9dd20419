"""What a connection reads from and writes to, and the plain way to do it: ASGI's receive and send.

A transport turns the peer into events (`receive`) and packets into bytes (`write_nowait`, `write`). It does not
queue, time or decide anything: that is the outbox's and the connection's. One task reads, one writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trio
from starlette.types import Receive, Send

from verbtrio.base.close import ABNORMAL_CLOSURE, MESSAGE_TOO_BIG, NO_STATUS_RECEIVED, Cause
from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Closed, Event, Progress
from verbtrio.wire.unfinished import Source


@dataclass(frozen=True, slots=True)
class Ping:
    """A protocol ping to send (RFC 6455 section 5.5.2)."""


@dataclass(frozen=True, slots=True)
class Close:
    """A Close frame to send."""

    code: int
    reason: str


Packet: TypeAlias = Frame | Ping | Close | bytes | memoryview
"""What can be written: a message, a control frame, or bytes that are on the wire's terms already."""


class Transport(ABC):
    """Both ways to a peer behind one interface; the same tests run over both."""

    __slots__ = ()

    can_ping: bool
    """Whether a `Ping` reaches the peer, and its pong comes back as an event."""
    fd: int | None = None
    """The descriptor of a socket that nobody else reads or writes: for a `Poller`."""

    @abstractmethod
    async def receive(self) -> list[Event]:
        """Wait for the peer and return what it sent; the last event is `Closed`, after which it isn't called.

        A cancelled call has lost nothing.
        """

    def watch(self, on_begin: Callable[[Source], None]) -> None:
        """Have `on_begin` called when the peer has begun a message, or a control frame, that is not whole with the same
        bytes; with what tells whether it still isn't. Never, where messages come whole, from a server."""
        return

    def receive_nowait(self) -> tuple[list[Event], int]:
        """As `receive`, for a transport with an `fd`: what is there now, if anything, and its worth in bytes."""
        raise NotImplementedError("this transport has no descriptor that could be polled")

    @property
    def has_unread(self) -> bool:
        """Whether something that was read is still to be looked at: `receive` will not wait for the peer."""
        return False

    def progress(self) -> Progress:
        """What the peer has done so far. (Of a server nothing is known.)"""
        return Progress()

    @abstractmethod
    def replies(self) -> bytes:
        """What the protocol itself owes the peer after `receive` (pongs, its half of a close)."""

    @abstractmethod
    def pack(self, packet: Packet) -> Packet:
        """`packet` on the wire's terms. Call it once for each, in the order in which they are written."""

    def join(self, frames: Sequence[Frame]) -> bytes | None:
        """`frames` as one packed packet, in order; `None` where messages can't be joined. It may be thrown away."""
        return None

    @abstractmethod
    def write_nowait(self, packet: Packet) -> Packet | None:
        """Write as much of a packed `packet` as goes at once; return what is left, `None` if that's nothing.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """

    @abstractmethod
    async def write(self, packets: Sequence[Packet]) -> None:
        """Write all of the packed `packets`. If cancelled, some, all or none may have been written: then only abort.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """

    @abstractmethod
    async def aclose(self, *, linger: bool) -> None:
        """Let go of the peer. With `linger`, what it still sends is read and thrown away for a moment first:
        a socket closed over unread data resets the connection, and the peer would lose our Close frame.

        If cancelled, the stream is closed all the same.
        """


class ASGITransport(Transport):
    """ASGI's own messages: other servers' way, and the way when the take-over is off.

    It can promise no more than the server behind it: hypercorn, for one, reports every close as 1006 and shields
    a send to a peer that has stopped reading from being cancelled. There are no pings either.
    """

    can_ping = False

    def __init__(self, receive: Receive, send: Send, *, max_message_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_message_bytes = max_message_bytes
        self._closed = False

    async def receive(self) -> list[Event]:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            code = int(message.get("code") or NO_STATUS_RECEIVED)
            cause = Cause.GONE if code == ABNORMAL_CLOSURE else Cause.PEER
            return [Closed(cause, code, message.get("reason") or "")]
        text = message.get("text")
        data: str | bytes = message["bytes"] if text is None else text
        if self._is_too_big(data):
            return [Closed(Cause.SIZE, MESSAGE_TOO_BIG, f"over {self._max_message_bytes} bytes")]
        return [data]

    def replies(self) -> bytes:
        return b""

    def pack(self, packet: Packet) -> Packet:
        return packet

    def write_nowait(self, packet: Packet) -> Packet | None:
        return packet  # a send may block here: that is the writer's to wait for

    async def write(self, packets: Sequence[Packet]) -> None:
        try:
            for packet in packets:
                if self._closed:
                    break
                if isinstance(packet, Frame):
                    kind = {"text": packet.payload.decode()} if packet.text else {"bytes": packet.payload}
                    await self._send({"type": "websocket.send", **kind})
                elif isinstance(packet, Close):
                    self._closed = True
                    await self._send({"type": "websocket.close", "code": packet.code, "reason": packet.reason})
            else:
                await trio.lowlevel.checkpoint()
        except OSError as error:  # ASGI: what `send` raises once the peer is gone
            raise trio.BrokenResourceError(str(error)) from error

    async def aclose(self, *, linger: bool) -> None:
        await trio.lowlevel.checkpoint()  # the server closes when the app returns

    def _is_too_big(self, data: str | bytes) -> bool:
        limit = self._max_message_bytes
        if len(data) > limit:
            return True
        # A character is 4 bytes of UTF-8 at most, so only long texts need counting.
        return isinstance(data, str) and 4 * len(data) > limit and len(data.encode()) > limit
