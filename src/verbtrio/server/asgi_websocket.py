"""The WebSocket of an application that is not ours (Starlette's `WebSocketRoute`, FastAPI), from its accept to its end.

    the application's call   the connection's own task
    ├─ reader                the worker's poller, or a task in the call's nursery (see `wire.reader`)
    ├─ writer                only while there is backlog (see `connection.outbox`)
    ├─ deadlines             the next ping, and the heartbeat's timeout: one entry in the worker's timers
    └─ closing handshake     from the end until the transport is closed (see `asgi_closing`)

So pings and Close frames are answered while the application does something else. What is received waits in a bounded
inbox. While that is full, the peer is not read, and its pings wait with its messages. At the end the application
receives `websocket.disconnect`, and `send` raises `OSError`. As in ASGI, it is not cancelled, but for the drain's time
limit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio
from starlette.types import Message

from verbtrio.base.close import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    Cause,
    CloseInfo,
)
from verbtrio.base.counters import Counters
from verbtrio.base.limits import Limits
from verbtrio.connection.heartbeat import Beat, Heartbeat, Pulse
from verbtrio.connection.inbox import Inbox
from verbtrio.connection.outbox import Outbox
from verbtrio.messages.frame import Frame
from verbtrio.server.asgi_closing import Closing
from verbtrio.server.host import Host
from verbtrio.wire.events import Disconnect, Event
from verbtrio.wire.message_deadline import LATE_SECONDS, NEVER, Assembler, MessageDeadline
from verbtrio.wire.reader import PolledReader, Reader, TaskReader
from verbtrio.wire.stream_transport import StreamTransport
from verbtrio.wire.transport import Close, Ping

logger = logging.getLogger("verbtrio.foreign")


class PeerGone(OSError):  # noqa: N818 -- a fact
    """The peer has left, or reads nothing. Raised by ASGI's send; the one `OSError` that is not worth a log line."""


class Conversation:
    """An open WebSocket, read and written by ASGI's messages.

    Args:
        transport: the accepted connection.
        limits: inbox, backlog and times.
        heartbeat: pings are always the protocol's, even with `json=True`: the messages are the application's. `None`:
            a silent peer is kept.
        host: the hub.
        nursery: owns the reader and the other tasks of a connection that the poller can't read.
    """

    def __init__(
        self,
        transport: StreamTransport,
        limits: Limits,
        heartbeat: Heartbeat | None,
        host: Host,
        nursery: trio.Nursery | None,
    ) -> None:
        self.closed: CloseInfo | None = None
        """How it ended, or is ending."""
        self._transport = transport
        self._limits = limits
        self._timers = host.timers
        self._inbox = Inbox(max_messages=limits.max_inbox_messages, max_bytes=limits.max_inbox_bytes, on_room=self.low)
        self._reader: Reader
        if nursery is None:
            assert host.poller is not None
            nursery = host.nursery
            self._reader = PolledReader(transport, self, host.poller)
        else:
            self._reader = TaskReader(transport, self, nursery)
        self._nursery = nursery
        self._outbox = Outbox(transport, nursery, limits, self, Counters())
        self._writing = trio.Lock()
        self._reading = True
        self._hung_up = False
        self._peer_done = False  # nothing more comes from the peer
        self._closing: Closing | None = None  # once `closed` is set
        now = trio.current_time()
        self._pulse = None if heartbeat is None else Pulse(heartbeat, now)
        self._message_deadline: MessageDeadline | None = None  # from the first message on that comes in pieces
        self._timer = self._timers.at(self._due(), self._tick)
        if limits.message_timeout < NEVER:
            transport.watch(self._begun)
        self._reader.start()

    # What the application calls

    async def receive(self) -> Message:
        """The next message; at the end the disconnect, whenever it is called again. If cancelled, no message is lost.

        Raises:
            trio.BusyResourceError: another task is receiving: each would get some of the messages, by chance.
        """
        message = await self._inbox.get()
        if message is None:
            assert self.closed is not None
            if self.closed.cause is Cause.KICKED:  # the application's own close
                await self._wait_closed()
            return {"type": "websocket.disconnect", "code": self.closed.code, "reason": self.closed.reason}
        return {
            "type": "websocket.receive",
            "text": message if isinstance(message, str) else None,
            "bytes": message if isinstance(message, bytes) else None,
        }

    async def send(self, frame: Frame) -> None:
        """Send a message; returns when it is written. If cancelled, it is sent whole all the same, or not at all.

        Raises:
            PeerGone: the connection is closed, or the peer has not read for `Limits.send_timeout`.
        """
        async with self._writing:
            if self.closed is not None or self._outbox.broken:
                raise PeerGone("the WebSocket is closed")
            self._outbox.put_nowait(frame)
            await self._outbox.wait_empty()
        self._check_written()

    def _check_written(self) -> None:
        if self.closed is not None and self.closed.cause is Cause.SLOW:
            raise PeerGone(self.closed.reason)
        if self._outbox.broken:
            raise PeerGone("the peer is gone")

    async def close(self, code: int, reason: str, cause: Cause = Cause.KICKED) -> None:
        """Close behind what is being sent. Returns when the closing handshake is over (RFC 6455 section 7.1.2), after
        `Limits.close_timeout` at the latest. If cancelled behind the Close frame, the handshake goes on by itself."""
        with trio.move_on_after(self._limits.close_timeout):
            async with self._writing:
                pass
        self._end(CloseInfo(cause, code, reason))
        await self._wait_closed()

    # What the server calls

    async def finish(self, *, failed: bool) -> None:
        """The application has returned, or failed: close what it left open, and wait until nothing is left."""
        try:
            self._end(CloseInfo(*((Cause.ERROR, INTERNAL_ERROR) if failed else (Cause.RETURNED, NORMAL_CLOSURE))))
            await self._wait_closed()
        finally:
            self._reader.stop()
            self._outbox.shut()
            if self._closing is not None:
                self._closing.cancel()

    def drain(self) -> None:
        """Close with 1012: the server shuts down."""
        self._end(CloseInfo(Cause.DRAIN, SERVICE_RESTART, "The server is restarting"))

    def hurry(self, deadline: float) -> None:
        """Cut the closing handshake, which has begun, short at `deadline`."""
        assert self._closing is not None
        self._closing.hurry(deadline)

    # What the reader calls

    def take(self, events: Sequence[Event], now: float) -> bool:
        replies = self._transport.replies()
        if self._pulse is not None:
            self._pulse.heard(now)
        for event in events:
            if isinstance(event, str | bytes):
                self._inbox.put_nowait(event)
            elif isinstance(event, Disconnect):
                if replies:
                    self._outbox.put_nowait(replies)
                    replies = b""
                self._end(CloseInfo(event.cause, event.code, event.reason))
                if event.cause is Cause.GONE:
                    self._outbox.shut()
        if replies:
            self._outbox.put_nowait(replies)
        self._reading = self._has_room
        if not self._reading and self._message_deadline is not None:
            self._message_deadline.pause(now)
        return self._reading

    @property
    def _has_room(self) -> bool:
        return self.closed is not None or not self._inbox.is_full

    def hung_up(self, now: float) -> None:
        """The application may still take what has not been read. If it takes nothing for the heartbeat's timeout, the
        connection ends."""
        self._hung_up = True

    def finished(self) -> None:
        self._peer_done = True
        if self._closing is not None:
            self._closing.peer_done.set()

    def failed(self, error: Exception) -> None:
        logger.error("reading from or writing to a WebSocket failed", exc_info=error)
        self._end(CloseInfo(Cause.ERROR, INTERNAL_ERROR))

    # What the outbox calls

    def slow(self, reason: str) -> None:
        self._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: {reason}"))

    def gone(self) -> None:
        """A write has found the peer gone. Its Close frame may still be unread: then the reader ends the connection."""
        if not self._reading or self._peer_done:
            self._end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))

    def low(self) -> None:
        """There is room in the inbox again."""
        if self._reading or not self._has_room:
            return
        if self._pulse is not None:  # the pong may be behind what was not read
            self._pulse.heard(trio.current_time())
        self._reading, self._hung_up = True, False
        if self._message_deadline is not None and self._message_deadline.resume(trio.current_time()):
            self._reschedule()
        self._reader.resume()

    def written(self) -> None:
        """`send` waits for that by itself."""

    # Deadlines

    def _begun(self, assembler: Assembler) -> None:
        """The peer has begun a message that is not whole yet."""
        if self._message_deadline is None:
            self._message_deadline = MessageDeadline(assembler, self._limits)
        if self._message_deadline.begun(trio.current_time()) and self.closed is None:
            self._reschedule()

    def _due(self) -> float:
        due = NEVER if self._message_deadline is None else self._message_deadline.due
        return due if self._pulse is None else min(due, self._pulse.next)

    def _reschedule(self) -> None:
        self._timers.cancel(self._timer)
        self._timer = self._timers.at(self._due(), self._tick)

    def _tick(self, now: float, due: float) -> None:
        if self.closed is not None:
            return
        if self._message_deadline is not None and self._message_deadline.is_overdue(now):
            self._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, "Too slow: a message was not finished in time"))
            return
        if self._pulse is not None and self._is_dead(self._pulse, now, due):
            return
        self._timer = self._timers.at(self._due(), self._tick)

    def _is_dead(self, pulse: Pulse, now: float, due: float) -> bool:
        """Ping the peer where that is due. If it has not answered in time, end the connection and return `True`."""
        if (not self._reading and not self._hung_up) or now - due > LATE_SECONDS:
            pulse.heard(now)  # its silence is our fault: we have not been reading
        if not self._hung_up:
            pulse.look(self._outbox.progress(), now)
        beat = pulse.due(now)
        if beat is Beat.PING:
            self._outbox.put_nowait(Ping())
        elif beat is Beat.DEAD and self._hung_up:
            self._end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))
        elif beat is Beat.DEAD:
            self._end(CloseInfo(Cause.HEARTBEAT, pulse.settings.code, pulse.settings.reason))
        return beat is Beat.DEAD

    # The end

    def _end(self, info: CloseInfo) -> None:
        """Begin to end. The first call wins. What was received before can still be taken."""
        if self.closed is not None:
            return
        self.closed = info
        self._timers.cancel(self._timer)
        self._inbox.close()
        if info.cause is Cause.SLOW:
            self._outbox.clear()  # a peer that does not read has no use for it
        if info.cause is Cause.GONE:
            self._outbox.shut()
        else:
            self._outbox.put_nowait(Close(info.code, info.reason))  # nothing, where the codec has sent one
        timeout = self._limits.close_timeout
        self._closing = Closing(self._transport, self._reader, self._outbox, info.cause, timeout)
        if self._peer_done:
            self._closing.peer_done.set()
        self._nursery.start_soon(self._closing.run)

    async def _wait_closed(self) -> None:
        """Wait until the closing handshake is over."""
        assert self._closing is not None
        await self._closing.over.wait()
