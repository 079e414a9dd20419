"""A room's member that can't have a WebSocket: it receives the room's messages as server-sent events, and sends none.

`EventSubscriber` is what applications hold, `SubscriberPeer` what the framework keeps about it; the HTTP response that
takes its messages is in `subscriber_response`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeAlias

import trio
from starlette.types import Scope

from verbtrio.base.close import (
    ABNORMAL_CLOSURE,
    PEERS_ENDS,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    Cause,
    CloseInfo,
    check_close,
)
from verbtrio.base.counters import Counters
from verbtrio.base.errors import ConnectionClosed, HistoryGap
from verbtrio.base.limits import Limits
from verbtrio.base.position import Position
from verbtrio.base.types import Data
from verbtrio.http.sse import ServerSentEvent
from verbtrio.http.writer import CHUNK_BYTES, END_SECONDS
from verbtrio.messages.frame import Encode, Frame, encode
from verbtrio.messages.waiting import PACKET_BYTES, Waiting
from verbtrio.rooms.member import Member
from verbtrio.rooms.settling import Settling, refusal

CLIENT_GONE = CloseInfo(Cause.GONE, ABNORMAL_CLOSURE)


class EventSubscriber(Member):
    """One client of an `app.sse` route."""

    def __init__(self, scope: Scope, peer: SubscriberPeer) -> None:
        super().__init__(scope, peer)
        peer.subscriber = self

    def __repr__(self) -> str:
        return f"<EventSubscriber {self.id[:8]} {self.scope['path']!r}>"


class EventBlock(bytes):
    """An event that goes out as it is, among the messages. It is not a message: no policy drops it."""

    __slots__ = ()


Packet: TypeAlias = Frame | EventBlock
"""What is queued for a client."""


class SubscriberPeer:
    """What the framework keeps about an event subscriber: what is queued for it, and how it ended.

    Attributes:
        subscriber: the facade, which sets this itself.
        held: what rooms have broadcast since the last `flush`, bounded by the rooms.
        closed: how it ended; `None` while it is open.
        dropped: messages dropped by `Limits.backlog_policy`, or because their time was over.
        on_end: called when it ends, at that moment.
        settling: what is left of the join, to be run beside the response; `None` for nothing.
    """

    subscriber: EventSubscriber
    returns_at_once = False  # after `retry`: its client's default is 3 s

    def __init__(
        self,
        limits: Limits,
        counters: Counters,
        check: Callable[[], None] = lambda: None,
        encode: Encode = encode,
    ) -> None:
        self.limits = limits
        self.held: list[Frame] = []
        self.closed: CloseInfo | None = None
        self.dropped = 0
        self.on_end: Callable[[CloseInfo], None] = lambda info: None
        self.settling: Settling | None = None
        self._counters = counters
        self._check = check
        self._encode = encode
        self._waiting: Waiting[Packet] | None = None  # there is one only while it is not empty: it takes 800 bytes
        self._changed = trio.lowlevel.ParkingLot()
        self._body = trio.CancelScope()  # the response's, while there is one
        self._dismissed: CloseInfo | None = None  # how it ends, since it was removed from its room

    @property
    def outlet(self) -> SubscriberPeer:
        """Itself: rooms append to `held`, and call `flush`."""
        return self

    def encode(self, data: Data) -> Frame:
        """The app's encoder. It may call a hook of the application's: not in another thread."""
        self._check()
        return self._encode(data)

    def flush(self) -> None:
        """Queue what is held; beyond the backlog limit, `backlog_policy` decides.

        One message may be larger than the limit, if nothing else is queued.
        """
        self._check()
        if not self.held:
            return
        frames = self.held.copy()
        self.held.clear()  # always the same list: rooms know it
        for frame in frames:
            if self.closed is not None:
                return
            self._counters.sent += 1
            self._queue(frame)
        self._changed.unpark_all()

    def _queue(self, packet: Packet) -> None:
        if self._waiting is None:
            self._waiting = Waiting(self.limits, _size, exempt=1)
        self._count_dropped(self._waiting.add(packet))
        if self._waiting.is_over:  # the policy does not drop (these)
            limit = self.limits.max_backlog_bytes
            self.end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: over {limit} bytes behind"))

    def drop(self, messages: int) -> None:
        """So many messages were dropped before they came here: they count as those that are dropped here."""
        self._counters.sent += messages
        self._count_dropped(messages)

    def put(self, frame: Frame) -> None:
        """Queue `frame` for this subscriber alone. Raises `ConnectionClosed` where it has ended."""
        self._check()
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        self.held.append(frame)
        self.flush()

    def close(self, code: int, reason: str) -> None:
        """End the stream: with what is queued, and an event `close`. See `Member.close_nowait`."""
        self._check()
        check_close(code, reason)
        self.end(CloseInfo(Cause.KICKED, code, reason))

    def drain(self) -> None:
        """End the stream because the server shuts down."""
        self.end(CloseInfo(Cause.DRAIN, SERVICE_RESTART, "The server is restarting"))

    def end(self, info: CloseInfo) -> CloseInfo:
        """End the stream; return how it ended: the first call decides."""
        self.flush()  # what was said before is received before (this checks the thread, too)
        if self.closed is not None:
            return self.closed
        if self._dismissed is not None and info.cause not in PEERS_ENDS:
            info = self._dismissed  # it was decided then
        self.closed = info
        self._stop_settling()
        self.on_end(info)
        if info.cause in (Cause.GONE, Cause.SLOW, Cause.EXPIRED):  # it can't, won't or mustn't have the rest
            self._waiting = None
        self._body.deadline = trio.current_time() + END_SECONDS
        self._changed.unpark_all()
        return info

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """It was removed from its room, and so it ends: it is in that room for as long as it lives."""
        self._dismissed = info
        self._stop_settling()
        return partial(self.end, info)

    def _stop_settling(self) -> None:
        """It is not in its room any more."""
        if self.settling is not None:
            self.settling.cancel()

    @property
    def queued(self) -> int:
        """Bytes that are queued."""
        return 0 if self._waiting is None else self._waiting.bytes

    async def wait_below(self, size: int) -> None:
        """Wait while more than so many bytes are queued. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.queued > size:
            await self._changed.park()

    # What it is told about the room's history

    def begins(self, position: Position) -> None:
        """It is at this position: the client learns so by an event without data, which it does not see."""
        self._put_event(ServerSentEvent(id=str(position)))

    def missed(self, gap: HistoryGap) -> None:
        """The client learns by an event `gap` what it has missed, and goes on from there."""
        oldest = None if gap.oldest is None else str(gap.oldest)
        data = {"oldest": oldest, "last": str(gap.last)}
        self._put_event(ServerSentEvent(data, event="gap", id=str(gap.last)))

    def gap_in(self, key: Hashable) -> bool:
        """The client learns by an event `gap` that it has missed something. How far the history reaches is not known
        here: the id of the next message says where the client is."""
        self._put_event(ServerSentEvent({"oldest": None, "last": None}, event="gap"))
        return False

    def _put_event(self, event: ServerSentEvent) -> None:
        self.flush()  # what was said before is received before
        if self.closed is None:
            self._queue(EventBlock(event.encode()))
            self._changed.unpark_all()

    def refused(self, error: Exception) -> None:
        """It can't be in the room, whose task has failed or is not ready in time; or the broker is away."""
        self.end(refusal(error))

    def bind_body(self, body: trio.CancelScope) -> None:
        """`body` is the scope of the response that takes the messages: it is cancelled some time after the end."""
        body.deadline = self._body.deadline  # it may have ended already
        self._body = body

    async def take(self) -> list[Packet] | None:
        """Wait for messages: 64 KiB of them, or one that is larger; `None` once it has ended and nothing is queued.

        If cancelled, nothing was taken.
        """
        while True:
            frames = self._take_nowait(trio.current_time())
            if frames:
                return frames
            if self.closed is not None:
                return None
            await self._changed.park()

    def _take_nowait(self, now: float) -> list[Packet]:
        frames: list[Packet] = []
        size = 0
        while self._waiting is not None and size < CHUNK_BYTES:
            frame, late = self._waiting.take(math.inf, now)
            self._count_dropped(late)
            if frame is not None:
                frames.append(frame)
                size += _size(frame)
            if not self._waiting:
                self._waiting = None
        self._changed.unpark_all()  # there is room again
        return frames

    def _count_dropped(self, messages: int) -> None:
        self.dropped += messages
        self._counters.dropped += messages


def _size(packet: Packet) -> int:
    return len(packet) + PACKET_BYTES
