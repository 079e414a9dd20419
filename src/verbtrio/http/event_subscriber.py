"""A room's member that can't have a WebSocket: it hears what is broadcast as server-sent events, and says nothing.

A text message is an event's data. A binary one is an event of the type `binary`, in base64. The end, where it is ours
to tell, is an event of the type `close`, with the code and the reason that a WebSocket's Close frame would carry.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from functools import partial
from typing import Any

import trio
from starlette.requests import HTTPConnection
from starlette.types import Scope

from verbtrio.base.close import (
    ABNORMAL_CLOSURE,
    NORMAL_CLOSURE,
    PEERS_ENDS,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TOKEN_EXPIRED,
    Cause,
    CloseInfo,
    check_close,
)
from verbtrio.base.counters import Counters
from verbtrio.base.errors import ConnectionClosed
from verbtrio.base.limits import Limits
from verbtrio.base.types import Data
from verbtrio.http.sse import EventStream, ServerSentEvent
from verbtrio.http.writer import CHUNK_BYTES, END_SECONDS, Writer
from verbtrio.messages.frame import Encode, Frame, encode

CLIENT_GONE = CloseInfo(Cause.GONE, ABNORMAL_CLOSURE)
FRAME_BYTES = 64
"""What a queued message costs beside its bytes, as in `Limits.max_backlog_bytes`."""


class EventSubscriber(HTTPConnection):
    """One client of an `app.sse` route. From Starlette's `HTTPConnection`: `headers`, `query_params`, `state`, ...

    Its properties may be read in any thread. Its methods raise `RuntimeError` in any other than the one in which the
    app is served (see `threads`), and change nothing there.

    Attributes:
        id: unique among all connections of all processes.
        dropped: messages that `Limits.backlog_policy` has dropped because the client reads too slowly.
    """

    def __init__(
        self,
        scope: Scope,
        limits: Limits,
        counters: Counters,
        check: Callable[[], None] = lambda: None,
        encode: Encode = encode,
    ) -> None:
        super().__init__(scope)
        self.id = uuid.uuid4().hex
        self.dropped = 0
        self._limits = limits
        self._counters = counters
        self._check = check
        self._encode = encode
        self.held: list[Frame] = []  # what rooms have broadcast since the last `flush`, bounded by the rooms
        self._queue: deque[Frame] = deque()  # bounded by `max_backlog_bytes`, see `flush`
        self._queued = 0  # bytes in `_queue`
        self._changed = trio.lowlevel.ParkingLot()
        self._body = trio.CancelScope()  # the response's, while there is one
        self._info: CloseInfo | None = None
        self._dismissed: CloseInfo | None = None  # how it is to end, since somebody has removed it from its room
        self.on_end: Callable[[CloseInfo], None] = lambda info: None
        """Called when it ends, at that moment."""

    def __repr__(self) -> str:
        return f"<EventSubscriber {self.id[:8]} {self.scope['path']!r}>"

    @property
    def params(self) -> dict[str, Any]:
        """The path's parameters."""
        params: dict[str, Any] = self.scope.get("path_params", {})
        return params

    @property
    def user(self) -> Any:
        """Who it is, as in `WebSocket.user`."""
        return self.scope.get("user")

    @property
    def closed(self) -> CloseInfo | None:
        """How it ended; `None` while it listens."""
        return self._info

    @property
    def outlet(self) -> EventSubscriber:
        """What rooms broadcast to: itself (see `rooms.Member`)."""
        return self

    def flush(self) -> None:
        """Queue what is held, within the backlog's limit, where the policy decides.

        One message may be larger than the limit, if nothing else is queued.
        """
        self._check()
        if not self.held:
            return
        frames = self.held.copy()
        self.held.clear()  # the same list for ever: rooms know it
        for frame in frames:
            if self._info is not None:
                return
            self._queue.append(frame)
            self._counters.sent += 1
            self._queued += _size(frame)
            if self._queued > self._limits.max_backlog_bytes and len(self._queue) > 1:
                self._overflow()
        self._changed.unpark_all()

    def send_nowait(self, data: Data) -> None:
        """Send `data` as an event, as a broadcast would be, or queue it where the client reads slowly.

        Raises:
            ConnectionClosed: the stream has ended.
            TypeError: `data` can't be encoded.
        """
        self._check()
        frame = self._encode(data)
        if self._info is not None:
            raise ConnectionClosed(self._info)
        self._put(frame)

    def _put(self, frame: Frame) -> None:
        """What the registry of users calls, as on a `WebSocket`."""
        self.held.append(frame)
        self.flush()

    def close_nowait(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """End the stream: with what is queued, and an event `close`. One that has ended stays as it is.

        Raises:
            ValueError: `code` or `reason` is none for a Close frame, and so none here.
            TypeError: `code` is no `int`, or `reason` no `str`.
        """
        self._check()
        check_close(code, reason)
        self.end(CloseInfo(Cause.KICKED, code, reason))

    def drain(self) -> None:
        """End the stream because the server shuts down."""
        self.end(CloseInfo(Cause.DRAIN, SERVICE_RESTART, "The server is restarting"))

    def end(self, info: CloseInfo) -> CloseInfo:
        """End the stream; return how it ended: the first call decides."""
        self.flush()  # what was said before is heard before (this checks the thread, too)
        if self._info is not None:
            return self._info
        if self._dismissed is not None and info.cause not in PEERS_ENDS:
            info = self._dismissed  # it was decided then
        self._info = info
        self.on_end(info)
        if info.cause in (Cause.GONE, Cause.SLOW, Cause.EXPIRED):  # it can't, won't or mustn't have the rest
            self._queue.clear()
            self._queued = 0
        self._body.deadline = trio.current_time() + END_SECONDS
        self._changed.unpark_all()
        return info

    def _end(self, info: CloseInfo) -> None:
        """What the registry of users calls, as on a `WebSocket`."""
        self.end(info)

    def _dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """For rooms (see `rooms.Member`): it is in its room for as long as it lives."""
        self._dismissed = info
        return partial(self.end, info)

    def _overflow(self) -> None:
        limit, policy = self._limits.max_backlog_bytes, self._limits.backlog_policy
        if policy == "close":
            self.end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: over {limit} bytes behind"))
            return
        take = self._queue.popleft if policy == "drop_oldest" else self._queue.pop
        while self._queued > limit and len(self._queue) > 1:
            self._queued -= _size(take())
            self.dropped += 1
            self._counters.dropped += 1

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """What is to be sent, written as events, until the end."""
        while True:
            if self._queue:
                yield self._take()
            elif self._info is not None:
                yield _farewell(self._info)
                return
            else:
                await self._changed.park()

    def _take(self) -> bytes:
        """What goes next: 64 KiB of messages, or one that is larger."""
        events, size = [], 0
        while self._queue and size < CHUNK_BYTES:
            frame = self._queue.popleft()
            self._queued -= _size(frame)
            events.append(_event(frame))
            size += len(events[-1])
        return b"".join(events)


class SubscriberResponse(EventStream):
    """The response a listener hears. A shutdown ends the listener, which then has its `close` event."""

    ends_at_shutdown = False

    def __init__(self, subscriber: EventSubscriber, **options: Any) -> None:
        super().__init__(subscriber._events(), send_timeout=subscriber._limits.send_timeout, **options)
        self._subscriber = subscriber

    async def _chunks(self, items: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        if self._retry is not None:
            yield ServerSentEvent(retry=self._retry).encode()
        async for chunk in items:
            yield chunk

    def _accompany(self, nursery: trio.Nursery, writer: Writer, body: trio.CancelScope) -> None:
        super()._accompany(nursery, writer, body)
        body.deadline = self._subscriber._body.deadline  # it may have ended already
        self._subscriber._body = body
        nursery.start_soon(self._expire)

    async def _expire(self) -> None:
        """End it when the token it came in with does. An `exp` is a wall-clock time (RFC 7519)."""
        expires = self._subscriber.scope.get("verbtrio.expires")
        if expires is not None:
            await trio.sleep(max(0.0, expires - time.time()))
            self._subscriber.end(CloseInfo(Cause.EXPIRED, TOKEN_EXPIRED, "Token expired"))


def _event(frame: Frame) -> bytes:
    payload = frame.payload
    if not frame.text:
        return b"event: binary\ndata: " + base64.b64encode(payload) + b"\n\n"
    if b"\n" in payload or b"\r" in payload:
        return ServerSentEvent(payload.decode()).encode()
    return b"data: " + payload + b"\n\n"


def _farewell(info: CloseInfo) -> bytes:
    return ServerSentEvent({"code": info.code, "reason": info.reason}, event="close").encode()


def _size(frame: Frame) -> int:
    return len(frame) + FRAME_BYTES
