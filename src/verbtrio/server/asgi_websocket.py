"""The WebSocket of an application that is not ours (Starlette's `WebSocketRoute`, FastAPI), from its accept to its end.

    the application's call   the connection's own task
    ├─ reader                the worker's poller, or a task in the call's nursery (see `readers`)
    ├─ writer                only while there is backlog (see `outbox`)
    ├─ deadlines             the next ping, and the heartbeat's: one entry in the worker's timers
    └─ closing handshake     from whatever ends it first until the transport is closed: `Limits.close_timeout`

So pings and Close frames are answered while the application does something else. What is received waits in a bounded
inbox; while that is full the peer is not read, and its pings wait with its messages. An application is told of the end
(`websocket.disconnect`, `OSError` from `send`) and, as in ASGI, not cancelled; only the drain's time limit does that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

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
from verbtrio.base.timers import Timers
from verbtrio.connection.heartbeat import Beat, Heartbeat, Pulse
from verbtrio.connection.inbox import Inbox
from verbtrio.connection.outbox import Outbox
from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Disconnect, Event
from verbtrio.wire.message_deadline import LATE_SECONDS, NEVER, Assembler, MessageDeadline
from verbtrio.wire.poller import Poller
from verbtrio.wire.reader import PolledReader, Reader, TaskReader
from verbtrio.wire.stream_transport import StreamTransport
from verbtrio.wire.transport import Close, Ping

logger = logging.getLogger("verbtrio.foreign")

_UNREAD = (Cause.SIZE, Cause.PROTOCOL, Cause.HEARTBEAT)
"""Causes after which the peer may still be sending what nobody will read."""


class PeerGone(OSError):  # noqa: N818 -- a fact
    """The peer has left, or reads nothing: what ASGI's send raises (the one `OSError` that is not worth a log line)."""


def only(error: Exception) -> Exception:
    """What was raised, out of the groups around it alone: `except*` makes one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class Host(Protocol):
    """What all connections share: the hub."""

    timers: Timers
    poller: Poller | None
    nursery: trio.Nursery
    """Owns what a connection that the poller reads has beside its own task."""

    def add_session(self, session: Any) -> None: ...
    def discard_session(self, session: Any) -> None: ...
    def answered(self, status: int) -> None: ...
    def watch(self, terminated: Any) -> None: ...


class Conversation:
    """An open WebSocket, by ASGI's messages.

    Args:
        transport: the accepted connection.
        limits: inbox, backlog and times.
        heartbeat: pings are the protocol's, even where this says `json`: the messages are the application's. `None`:
            a silent peer is kept.
        host: the hub.
        nursery: owns the reader, where the poller can't read this connection, and what goes with it.
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
        self._peer_done = trio.Event()  # nothing more will come from the peer
        self._parting = trio.CancelScope(shield=True)
        self._over = trio.Event()
        now = trio.current_time()
        self._pulse = None if heartbeat is None else Pulse(heartbeat, now)
        self._unfinished: MessageDeadline | None = None  # there is one from the first message on that comes in pieces
        self._timer = self._timers.at(self._due(), self._tick)
        if limits.message_timeout < NEVER:
            transport.watch(self._begun)
        self._reader.start()

    # What the application calls

    async def receive(self) -> Message:
        """The next message; the disconnect at the end, as often as it is asked for. If cancelled, no message is lost.

        Raises:
            trio.BusyResourceError: another task is receiving: they would share the messages out by chance.
        """
        message = await self._inbox.get()
        if message is None:
            assert self.closed is not None
            if self.closed.cause is Cause.KICKED:  # the application's own close: when the closing handshake is over
                await self._over.wait()
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
        """Close behind what is being sent; returns when the closing handshake is over (RFC 6455 section 7.1.2), after
        `Limits.close_timeout` at the latest. If cancelled behind the Close frame, the handshake goes on without it."""
        with trio.move_on_after(self._limits.close_timeout):
            async with self._writing:
                pass
        self._end(CloseInfo(cause, code, reason))
        await self._over.wait()

    # What the server calls

    async def finish(self, *, failed: bool) -> None:
        """The application has returned, or failed: close what it left open, and wait until nothing is left."""
        try:
            self._end(CloseInfo(*((Cause.ERROR, INTERNAL_ERROR) if failed else (Cause.RETURNED, NORMAL_CLOSURE))))
            await self._over.wait()
        finally:
            self._reader.stop()
            self._outbox.shut()
            self._parting.cancel()

    def drain(self) -> None:
        """End it, because the server shuts down."""
        self._end(CloseInfo(Cause.DRAIN, SERVICE_RESTART, "The server is restarting"))

    def hurry(self, deadline: float) -> None:
        """Cut the closing handshake short at `deadline`."""
        self._parting.deadline = min(self._parting.deadline, deadline)

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
        if not self._reading and self._unfinished is not None:
            self._unfinished.pause(now)
        return self._reading

    @property
    def _has_room(self) -> bool:
        return self.closed is not None or not self._inbox.is_full

    def hung_up(self, now: float) -> None:
        """The application may still take what the peer has left unread; but if it takes nothing for the heartbeat's
        time-out, the connection ends."""
        self._hung_up = True

    def finished(self) -> None:
        self._peer_done.set()

    def failed(self, error: Exception) -> None:
        logger.error("reading from or writing to a WebSocket failed", exc_info=error)
        self._end(CloseInfo(Cause.ERROR, INTERNAL_ERROR))

    # What the outbox calls

    def slow(self, reason: str) -> None:
        self._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: {reason}"))

    def gone(self) -> None:
        """A write has found the peer gone. Its Close frame may still be unread: the reader tells, if it is at it."""
        if not self._reading or self._peer_done.is_set():
            self._end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))

    def low(self) -> None:
        """There is room in the inbox again."""
        if self._reading or not self._has_room:
            return
        if self._pulse is not None:  # its pong may stand behind what was not read
            self._pulse.heard(trio.current_time())
        self._reading, self._hung_up = True, False
        if self._unfinished is not None and self._unfinished.resume(trio.current_time()):
            self._reschedule()
        self._reader.resume()

    def written(self) -> None:
        """Nothing waits for that here."""

    # Deadlines

    def _begun(self, assembler: Assembler) -> None:
        """The peer has begun a message that is not whole yet."""
        if self._unfinished is None:
            self._unfinished = MessageDeadline(assembler, self._limits)
        if self._unfinished.begun(trio.current_time()) and self.closed is None:
            self._reschedule()

    def _due(self) -> float:
        due = NEVER if self._unfinished is None else self._unfinished.due
        return due if self._pulse is None else min(due, self._pulse.next)

    def _reschedule(self) -> None:
        self._timers.cancel(self._timer)
        self._timer = self._timers.at(self._due(), self._tick)

    def _tick(self, now: float, due: float) -> None:
        if self.closed is not None:
            return
        if self._unfinished is not None and self._unfinished.is_overdue(now):
            self._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, "Too slow: a message was not finished in time"))
            return
        if self._pulse is not None and self._is_dead(self._pulse, now, due):
            return
        self._timer = self._timers.at(self._due(), self._tick)

    def _is_dead(self, pulse: Pulse, now: float, due: float) -> bool:
        """Ping the peer where that is due; end the connection, and say so, where it has not answered."""
        if (not self._reading and not self._hung_up) or now - due > LATE_SECONDS:
            pulse.heard(now)  # we have not been reading: its silence is ours
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
        """Begin to end. The first call wins; what was received before can still be taken."""
        if self.closed is not None:
            return
        self.closed = info
        self._timers.cancel(self._timer)
        self._inbox.close()
        if info.cause is Cause.SLOW:
            self._outbox.clear()  # a peer that does not read has no use for more of the same
        if info.cause is Cause.GONE:
            self._outbox.shut()
        else:
            self._outbox.put_nowait(Close(info.code, info.reason))  # nothing, where the codec has said it already
        self.hurry(trio.current_time() + self._limits.close_timeout)
        self._nursery.start_soon(self._part)

    @trio.lowlevel.enable_ki_protection  # it may run in the hub's nursery, whose end is the worker's
    async def _part(self) -> None:
        """The closing handshake, shielded, within its deadline; then nothing is read or written any more."""
        assert self.closed is not None
        try:
            with self._parting:
                await self._outbox.wait_empty()
                if not self._outbox.broken and self.closed.cause is not Cause.HEARTBEAT:
                    await self._peer_done.wait()
            linger = self.closed.cause in _UNREAD and not self._outbox.broken and not self._parting.cancelled_caught
            self._reader.stop()
            self._outbox.shut()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limits.close_timeout):
                await self._transport.aclose(linger=linger)
        except Exception:  # a bug of ours: contained, and loud
            logger.exception("the end of a WebSocket failed")
        finally:
            self._over.set()
