"""An HTTP response as a carrier: what a client is sent goes out in it, and what it sends comes by requests of its own.

The client's session lives as long as the response. There is no Close frame: the code and the reason of its end go out
as a push, and then the response ends.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any

import trio

from verbtrio.base.close import ABNORMAL_CLOSURE, CANCEL_GRACE, DRAINED, PEERS_ENDS, POLICY_VIOLATION, Cause, CloseInfo
from verbtrio.base.counters import Counters
from verbtrio.base.limits import Limits
from verbtrio.connection import dialect
from verbtrio.connection.inbox import Inbox
from verbtrio.http.writer import CHUNK_BYTES, END_SECONDS
from verbtrio.messages.frame import Frame
from verbtrio.messages.waiting import PACKET_BYTES, Waiting
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.protocols.replies import DisconnectPush, Push

CLIENT_GONE = CloseInfo(Cause.GONE, ABNORMAL_CLOSURE)
TOO_SLOW = CloseInfo(Cause.SLOW, POLICY_VIOLATION, "Too slow: it did not take a message in time")
"""It can't be told: the response is cut off."""


class StreamedClients:
    """The clients of an app that HTTP responses carry, by the secret names of their sessions.

    Args:
        node: this process's name: a client says which one has its session.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._carriers: dict[str, StreamedCarrier] = {}

    def __len__(self) -> int:
        return len(self._carriers)

    def add(self, carrier: StreamedCarrier) -> str:
        """Returns the name by which the client's commands find it: nobody can guess it."""
        session = secrets.token_urlsafe(24)
        self._carriers[session] = carrier
        return session

    def get(self, session: str) -> StreamedCarrier | None:
        return self._carriers.get(session)

    def discard(self, session: str) -> None:
        """It has ended."""
        self._carriers.pop(session, None)


class StreamedCarrier:
    """One HTTP response as a carrier, with the connection's nursery and inbox.

    Args:
        name: "http_stream" or "sse".
        limits: the endpoint's.
        counters: the app's.
        on_end: called with it and how it has ended, at that moment.

    Attributes:
        peer: the client's; set before anything is written.
        inbox: what the client has sent.
        nursery: the session's, while that runs.
    """

    peer: ClientPeer
    returns_at_once = True

    def __init__(
        self,
        name: str,
        limits: Limits,
        counters: Counters,
        on_end: Callable[[StreamedCarrier, CloseInfo], None],
    ) -> None:
        self.name = name
        self.limits = limits
        self.closed: CloseInfo | None = None
        self.dropped = 0
        self.nursery: trio.Nursery | None = None
        self._room = trio.lowlevel.ParkingLot()
        self.inbox = Inbox(
            max_messages=limits.max_inbox_messages, max_bytes=limits.max_inbox_bytes, on_room=self._tell_room
        )
        self._counters = counters
        self._on_end = on_end
        self._is_ending = False
        self._is_writing = False  # the response has what was taken, and has not come back for more
        self._waiting: Waiting[Frame] | None = None  # there is one only while it is not empty: it takes 800 bytes
        self._changed = trio.lowlevel.ParkingLot()
        self._body = trio.CancelScope()  # the response's, while there is one

    @property
    def ws(self) -> Any:
        """What applications hold of it: the `Client`."""
        return self.peer.client

    def __repr__(self) -> str:
        return repr(self.peer)

    def bind_body(self, body: trio.CancelScope) -> None:
        """`body` is the scope of the response that takes the messages: it is cancelled some time after the end."""
        body.deadline = self._body.deadline  # it may have ended already
        self._body = body

    # What the client sends

    def begin(self, first: str | bytes) -> None:
        """Take the client's first message: the one that its request has brought."""
        self._counters.received += 1
        self.inbox.put_nowait(first)

    async def receive(self, message: str | bytes) -> None:
        """Take a message of the client's, once there is room for it. It is not handled if the connection has ended, or
        if this is cancelled. Always a checkpoint.

        Raises:
            trio.WouldBlock: the inbox is full, and as many messages wait for room as there is room for.
        """
        await trio.lowlevel.checkpoint()
        while not self.receive_nowait(message):
            if len(self._room) >= self.limits.max_inbox_messages:
                raise trio.WouldBlock
            await self._room.park()

    def receive_nowait(self, message: str | bytes) -> bool:
        """Take a message of the client's, or return `False` where there is no room. It is not handled if the connection
        has ended."""
        if self.inbox.is_full:
            return False
        if self.closed is None:
            self._counters.received += 1
            self.inbox.put_nowait(message)
        return True

    def _tell_room(self) -> None:
        self._room.unpark_all()

    # What it is sent: see `Carrier`

    def write(self, frame: Frame) -> None:
        if self.closed is not None:
            return
        if self._waiting is None:
            self._waiting = Waiting(self.limits, _size, exempt=1)
        self._counters.sent += 1
        self._count_dropped(self._waiting.add(frame))
        self._changed.unpark_all()
        if self._waiting.is_over:  # the policy does not drop (these)
            limit = self.limits.max_backlog_bytes
            self.end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: over {limit} bytes behind"))

    def drop(self, messages: int) -> None:
        self._counters.sent += messages
        self._count_dropped(messages)

    @property
    def queued(self) -> int:
        return 0 if self._waiting is None else self._waiting.bytes

    @property
    def is_empty(self) -> bool:
        """Never: everything waits until the response takes it, which joins what it takes."""
        return False

    @property
    def is_busy(self) -> bool:
        return self._is_writing or self._waiting is not None

    async def wait_below(self, size: int) -> None:
        await trio.lowlevel.checkpoint()
        while self.queued > size and self.closed is None:
            await self._changed.park()

    async def take(self) -> list[bytes] | None:
        """Wait for messages: 64 KiB of them, or one that is larger; `None` once the connection has ended and nothing is
        queued. If cancelled, nothing was taken."""
        self._is_writing = False
        while True:
            if taken := self._take_nowait(trio.current_time()):
                self._is_writing = True
                return taken
            if self.closed is not None:
                return None
            await self._changed.park()

    def _take_nowait(self, now: float) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self._waiting is not None:
            frame, late = self._waiting.take(CHUNK_BYTES - size if taken else math.inf, now)
            self._count_dropped(late)
            if not self._waiting:
                self._waiting = None
            if frame is None:
                break
            taken.append(frame.payload)
            size += _size(frame)
        self._changed.unpark_all()  # there is room again
        return taken

    def _count_dropped(self, messages: int) -> None:
        self.dropped += messages
        self._counters.dropped += messages

    # Its end

    def drain(self) -> None:
        """End, because the server shuts down."""
        self.end(DRAINED)

    def end(self, info: CloseInfo) -> None:
        """End the connection; the first call decides how. The client leaves all rooms and lists at once. What is queued
        goes out, with the code and the reason behind it; then the response ends."""
        if self._is_ending:
            return
        self._is_ending = True
        if info.cause not in PEERS_ENDS:
            info = dialect.closing(self.peer, info)
            self._say_goodbye(info)
        self.closed = info
        if info.cause is Cause.GONE:
            self._waiting = None
        self.inbox.close(discard=info.cause not in PEERS_ENDS)
        dialect.ended(self.peer, info)
        self._on_end(self, info)
        if self.nursery is not None:
            scope = self.nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + CANCEL_GRACE)
        self._body.deadline = trio.current_time() + END_SECONDS
        self._changed.unpark_all()

    def _say_goodbye(self, info: CloseInfo) -> None:
        if info.cause is Cause.SLOW:
            self._waiting = None  # a client that does not read has no use for more
        push = self.peer.encoding.pushed(Push(disconnect=DisconnectPush(info.code, info.reason)))
        if self._waiting is None:
            self._waiting = Waiting(self.limits, _size, exempt=1)
        self._count_dropped(self._waiting.add(push))


def _size(frame: Frame) -> int:
    return len(frame) + PACKET_BYTES
