"""A connection's life: one nursery in which the handler, its heartbeat and its memberships end together.

    Connection.run           the task the server gave us
    ├─ reader                feeds `take`: a task in a nursery of ours, or the worker's poller (see `readers`)
    ├─ deadlines             the next ping, the heartbeat's and the token's: one entry in the worker's timers
    ├─ writer                only while there is backlog (see `outbox`)
    └─ handler's nursery     `ws.nursery`: the handler itself, and what it starts

Whatever comes first (`WebSocket._end` records it once) sends the Close frame, leaves all rooms and registries, closes
the inbox and cancels the handler's nursery within `CANCEL_GRACE`. Then, shielded, with deadlines: leave hooks, the
error hook and the close hook run, while the closing handshake takes place beside them. Then reading and writing stop
and nothing is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import trio

from verbtrio.base.calls import Calls
from verbtrio.base.close import (
    ABNORMAL_CLOSURE,
    CANCEL_GRACE,
    DRAINED,
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    TOKEN_EXPIRED,
    Cause,
    CloseInfo,
)
from verbtrio.base.timers import Timer
from verbtrio.connection.ending import Ending
from verbtrio.connection.handlers import Handler
from verbtrio.connection.handling import handle
from verbtrio.connection.heartbeat import PING_MESSAGE, Beat, Heartbeat, Pulse, is_pong
from verbtrio.connection.outbox import Outbox
from verbtrio.connection.registry import Registry
from verbtrio.connection.screening import screening_for
from verbtrio.connection.websocket import WebSocket
from verbtrio.guards.quotas import Slot
from verbtrio.wire.events import Disconnect, Event, Pong
from verbtrio.wire.message_deadline import LATE_SECONDS, NEVER, Assembler, MessageDeadline
from verbtrio.wire.reader import PolledReader, Reader, TaskReader
from verbtrio.wire.transport import Ping

logger = logging.getLogger("verbtrio.connection")


class Connection:
    """One connection's life, from the handshake's end until nothing of it is left.

    Args:
        ws: what the handler holds.
        handler: what to run.
        heartbeat: `None`: a silent peer is kept. (So it is where protocol pings can't be sent: over plain ASGI.)
        slot: what it counts for.
    """

    __slots__ = (
        "_calls",
        "_ending",
        "_errors",
        "_expires",
        "_flooded",
        "_handler",
        "_hurry",
        "_peer_done",
        "_pulse",
        "_reader",
        "_reading",
        "_registry",
        "_screening",
        "_timer",
        "_unfinished",
        "_unread",
        "_unread_until",
        "slot",
        "user_id",
        "ws",
    )

    def __init__(self, ws: WebSocket[Any], handler: Handler, heartbeat: Heartbeat | None, slot: Slot) -> None:
        self.ws = ws
        self.slot = slot
        self.user_id: str | None = None
        """For the registry."""
        self._handler = handler
        self._calls = Calls(ws, partial(handler.error, ws) if handler.has_last_words else None)
        self._errors: tuple[Exception, ...] = ()  # what was raised, for the error hook: the handler's, and ours
        self._pulse: Pulse | None = None
        if heartbeat is not None and (heartbeat.json or ws._transport.can_ping):
            self._pulse = Pulse(heartbeat, trio.current_time())
        self._screening = screening_for(ws, slot.buckets, self._renew_expiry)
        self._expires = _expiry(ws)
        self._reader: Reader
        self._registry: Registry
        self._timer: Timer
        self._peer_done = False  # nothing more will come from the peer, or nobody is reading any more
        self._reading = True  # else it is the handler's turn: there is no room for more
        self._unread_until = NEVER  # of a peer that has gone and left something unread
        self._unread = 0
        self._unfinished: MessageDeadline | None = None  # there is one from the first message on that comes in pieces
        self._flooded = False  # what the peer may still send is not read
        self._hurry = NEVER
        self._ending: Ending | None = None

    async def run(self, registry: Registry) -> None:
        """Run the connection. Never raises an `Exception`; `ws.closed` tells how it ended.

        If cancelled (the server's hard stop), the handler is cancelled at once; the hooks and the closing handshake
        still have their time limits.
        """
        transport = self.ws._transport
        if registry.poller is not None and transport.fd is not None:
            await self._run(registry, PolledReader(transport, self, registry.poller), registry.nursery)
        else:
            async with trio.open_nursery() as nursery:
                await self._run(registry, TaskReader(transport, self, nursery), nursery)
                nursery.cancel_scope.cancel()

    async def _run(self, registry: Registry, reader: Reader, writers: trio.Nursery) -> None:
        ws = self.ws
        self._registry, self._reader = registry, reader
        outbox = Outbox(ws._transport, writers, ws._limits, self, registry.counters)
        ws._open(outbox, self._calls, self._ended)
        ws._inbox.on_room = self.low
        self._timer = registry.timers.at(self._due(), self._tick)
        if ws._limits.message_timeout < NEVER:
            ws._transport.watch(self._begun)
        try:
            try:
                registry.enter(self)
                reader.start()
                await handle(ws, self._handler, self._may_begin, self._owe)
            finally:
                ws._end(DRAINED)  # only where the handler did not begin
                await self._part()
        except* Exception:
            # A bug of ours, not the handler's: contained, and loud.
            logger.exception("%r broke", ws)
        finally:
            outbox.shut()
            reader.stop()
            registry.timers.cancel(self._timer)
            ws._over = True
            registry.forget(self)
        assert ws.closed is not None, "_end has been called above"
        logger.debug("%r ended: %s %d %r", ws, ws.closed.cause, ws.closed.code, ws.closed.reason)

    def drain(self) -> None:
        """End the connection because the server shuts down."""
        self.ws._end(DRAINED)

    def hurry(self, deadline: float) -> None:
        """Cut the handler, the closing handshake and the hooks short at `deadline`."""
        self._hurry = deadline
        self._calls.hurry(deadline)
        if hasattr(self.ws, "nursery"):
            scope = self.ws.nursery.cancel_scope
            scope.deadline = min(scope.deadline, deadline)
        if self._ending is not None:
            self._ending.hurry(deadline)

    async def give_up(self) -> None:
        """Let go of the peer and of the registry, although the handler, or a hook, is not over, and nothing can end it.

        Once it is, the hooks that are left are called, and cancelled where they first wait. If cancelled, the peer is
        let go all the same.
        """
        assert self.ws._outbox is not None
        self.ws._outbox.shut()
        self._reader.stop()
        with trio.move_on_after(0, shield=True):
            await self.ws._transport.aclose(linger=False)
        self._registry.forget(self)

    async def _may_begin(self) -> bool:
        """Whether the handler's first line may run."""
        if self.ws.closed is not None:  # let in while the server was already shutting down
            return False
        if self._screening is not None and not await self._screening.wait_admitted():
            return False
        if not self._registry.admit(self):
            return False
        if self._screening is not None:
            self._screening.share(self.slot.buckets, trio.current_time())
        return True

    def _owe(self, error: Exception) -> None:
        """The error hook is to be told."""
        self._errors = (*self._errors, error)

    # What the reader calls

    def take(self, events: Sequence[Event], now: float) -> bool:
        ws, pulse = self.ws, self._pulse
        outbox, inbox = ws._outbox, ws._inbox
        assert outbox is not None
        replies = ws._transport.replies()
        self._unread_until = NEVER
        by_message = pulse is not None and pulse.settings.json
        if pulse is not None and not by_message:
            pulse.heard(now)
        for event in events:
            if isinstance(event, (str, bytes)):
                outbox.counters.received += 1
                if self._screening is not None and not self._screening.passes(event, now):
                    if self._screening.is_flooded:
                        self._turn_away()
                        break
                elif by_message and is_pong(event):
                    assert pulse is not None
                    pulse.heard(now)
                else:
                    inbox.put_nowait(event)
            elif isinstance(event, Disconnect):
                if replies:  # behind what the messages before it were answered with, and nothing behind it
                    outbox.put_nowait(replies)
                    replies = b""
                ws._end(CloseInfo(event.cause, event.code, event.reason))
                if event.cause is Cause.GONE:
                    outbox.shut()
            else:
                assert isinstance(event, Pong)
        if replies:
            outbox.put_nowait(replies)
        if self._has_room:
            self._reading = True
            return True
        self._reading = False
        if self._unfinished is not None:
            self._unfinished.pause(now)
        return False

    @property
    def _has_room(self) -> bool:
        """Whether to read on. When it has ended, always: the peer's Close frame is still to come."""
        inbox, outbox = self.ws._inbox, self.ws._outbox
        assert outbox is not None
        if self.ws.closed is not None:
            return True
        # A handler that is called in place does not wait for a peer that reads slowly: so we wait for it.
        return not (inbox.is_full or (inbox.is_served and not outbox.is_low))

    def hung_up(self, now: float) -> None:
        self._unread = len(self.ws._inbox)
        self._unread_until = now + CANCEL_GRACE
        self._reschedule()

    def failed(self, error: Exception) -> None:
        logger.error("reading from or writing to %r failed", self.ws, exc_info=error)
        if self.ws.closed is None:
            self._owe(error)
        self.ws._end(CloseInfo(Cause.ERROR, INTERNAL_ERROR, "Internal server error", error))
        self.written()

    def finished(self) -> None:
        self._peer_done = True
        if self._ending is not None:
            self._ending.peer_done.set()

    def low(self) -> None:
        """There is room again, for what is received or for what is sent."""
        if not self._has_room:  # for the one, but not for the other
            return
        if self._pulse is not None:  # its answer may stand behind what we did not read
            self._pulse.heard(trio.current_time())
        self._unread_until = NEVER
        self._reading = True
        if self._unfinished is not None and self._unfinished.resume(trio.current_time()) and self.ws.closed is None:
            self._reschedule()
        self._reader.resume()

    def _begun(self, source: Assembler) -> None:
        """The peer has begun a message that is not whole yet."""
        if self._unfinished is None:
            self._unfinished = MessageDeadline(source, self.ws._limits)
        if self._unfinished.begun(trio.current_time()):
            self._reschedule()

    def _turn_away(self) -> None:
        """Read no more of the peer, which sends too much, or does not finish what it sends."""
        self._flooded = True
        self._reader.stop()

    # Deadlines

    def _due(self) -> float:
        due = min(self._expires, self._unread_until)
        if self._unfinished is not None:
            due = min(due, self._unfinished.due)
        return due if self._pulse is None else min(due, self._pulse.next)

    def _reschedule(self) -> None:
        self._registry.timers.cancel(self._timer)
        self._timer = self._registry.timers.at(self._due(), self._tick)

    def _renew_expiry(self) -> None:
        """Another token counts from now on."""
        self._expires = _expiry(self.ws)
        self._reschedule()

    def _tick(self, now: float, due: float) -> None:
        """What is due at `due`, seen to at `now`."""
        ws, pulse = self.ws, self._pulse
        if ws.closed is not None:
            return
        if now >= self._expires:
            ws._end(CloseInfo(Cause.EXPIRED, TOKEN_EXPIRED, "Token expired"))
        elif now >= self._unread_until and len(ws._inbox) < self._unread:
            self._unread, self._unread_until = len(ws._inbox), now + CANCEL_GRACE  # it is being taken
        elif now >= self._unread_until:
            self._gone_unread()
        elif self._unfinished is not None and self._unfinished.is_overdue(now):
            ws._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, "Too slow: a message was not finished in time"))
            self._turn_away()
        elif pulse is not None:
            if not self._reading or now - due > LATE_SECONDS:
                pulse.heard(now)  # we have not been reading: its silence is ours
            assert ws._outbox is not None
            pulse.look(ws._outbox.progress(), now)
            beat = pulse.due(now)
            if beat is Beat.PING:
                ws._outbox.put_nowait(PING_MESSAGE if pulse.settings.json else Ping())
            elif beat is Beat.DEAD:
                ws._end(CloseInfo(Cause.HEARTBEAT, pulse.settings.code, pulse.settings.reason))
        self._timer = self._registry.timers.at(self._due(), self._tick)

    def _gone_unread(self) -> None:
        """The peer has gone, and the handler has taken nothing of what it left for as long as the grace lasts."""
        ws = self.ws
        ws._end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))
        assert ws._outbox is not None
        ws._outbox.shut()
        ws.nursery.cancel_scope.cancel()

    # The end

    def _ended(self) -> None:
        """What `WebSocket._end` calls."""
        self._registry.leave(self)
        self.written()

    def written(self) -> None:
        """Nothing is queued any more. Where that is because our Close frame is out, or can't go out, the next
        connection of this client or user may come in: nobody waits for hooks."""
        ws, outbox = self.ws, self.ws._outbox
        assert outbox is not None
        if ws.closed is not None and (outbox.is_empty or outbox.broken or ws.closed.cause is Cause.GONE):
            self.slot.release()

    async def _part(self) -> None:
        limits = self.ws._limits
        limit = trio.current_time() + max(limits.hook_timeout, limits.close_timeout)
        self._ending = Ending(
            self.ws,
            self._handler,
            self._reader,
            self._calls,
            self._errors,
            peer_done=self._peer_done,
            flooded=self._flooded,
            deadline=min(limit, self._hurry),
        )
        await self._ending.run()

    def slow(self, reason: str) -> None:
        self.ws._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: {reason}"))
        self.written()

    def gone(self) -> None:
        """A write has found the peer gone. What it sent before may still be unread, its Close frame among it: that the
        reader has to tell, if it is at it."""
        if not self._reading or self._peer_done:
            self.ws._end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))
        self.written()


def _expiry(ws: WebSocket[Any]) -> float:
    """When the token expires, on Trio's clock; `inf` without one. An `exp` is a wall-clock time (RFC 7519)."""
    expires = ws.scope.get("verbtrio.expires")
    return float("inf") if expires is None else trio.current_time() + (expires - time.time())
