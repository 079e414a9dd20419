"""What a connection reads from and writes to.

A transport turns the peer's bytes into events (`receive`) and packets into bytes (`write_nowait`, `write`). It does not
queue, time or decide anything: the outbox and the connection do. One task reads, one writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Event, Progress
from verbtrio.wire.message_deadline import Assembler


@dataclass(frozen=True, slots=True)
class Ping:
    """A protocol ping to send (RFC 6455 section 5.5.2)."""


@dataclass(frozen=True, slots=True)
class Close:
    """A Close frame to send."""

    code: int
    reason: str


Packet: TypeAlias = Frame | Ping | Close | bytes | memoryview
"""What can be written: a message, a control frame, or bytes that are frames already."""


class Transport(ABC):
    """The interface of both ways to a peer. The same tests run over both."""

    __slots__ = ()

    can_ping: bool
    """Whether a `Ping` reaches the peer, and its pong comes back as an event."""
    fd: int | None = None
    """The descriptor of a socket that only this transport reads and writes, for a `Poller`; `None` if there is none."""

    @abstractmethod
    async def receive(self) -> list[Event]:
        """Wait for the peer and return what it sent. The last event is a `Disconnect`; don't call it after that.

        If cancelled, nothing is lost.
        """

    def watch(self, on_begin: Callable[[Assembler], None]) -> None:
        """Call `on_begin` when the peer begins a message, or a control frame, that does not end in the same bytes.
        (From an ASGI server messages come whole, so it is never called.)"""
        return

    def receive_nowait(self) -> tuple[list[Event], int]:
        """As `receive`, for a transport with an `fd`: what is there now, if anything, and the work it was, in bytes."""
        raise NotImplementedError("this transport has no descriptor that could be polled")

    @property
    def has_unread(self) -> bool:
        """Whether something that was read has not been decoded: `receive` will not wait for the peer."""
        return False

    def progress(self) -> Progress:
        """How far the peer has got. (Behind an ASGI server, that is unknown.)"""
        return Progress()

    @abstractmethod
    def replies(self) -> bytes:
        """What the protocol itself has to send after `receive`: pongs, and a Close frame in reply."""

    @abstractmethod
    def pack(self, packet: Packet) -> Packet:
        """`packet` as the wire takes it. Call it once for each packet, in the order of writing."""

    def join(self, frames: Sequence[Frame]) -> bytes | None:
        """`frames` as one packet, in order; `None` if they can't be joined. The packet need not be written."""
        return None

    @abstractmethod
    def write_nowait(self, packet: Packet) -> Packet | None:
        """Pack `packet`, and write as much of it as goes without waiting. Return what is left, packed, or `None`.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """

    @abstractmethod
    async def write(self, packets: Sequence[Packet]) -> None:
        """Write all of the packed `packets`.

        If cancelled, some, all or none may have been written: then only `aclose` may follow.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """

    @abstractmethod
    async def aclose(self, *, linger: bool) -> None:
        """Close the connection. With `linger`, first read and discard for a moment what the peer still sends: closing a
        socket with unread data would reset the connection, and the peer would lose our Close frame.

        If cancelled, the stream is closed all the same.
        """
