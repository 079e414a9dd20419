"""A connection's life: one nursery in which the handler, its heartbeat and its memberships end together.

    Connection.run           the task the server gave us
    ├─ reader                feeds `take`: a task in a nursery of ours, or the worker's poller (see `wire.reader`)
    ├─ deadlines             the next ping, the heartbeat's and the token's: one entry in the worker's timers
    ├─ writer                only while there is backlog (see `outbox`)
    └─ handler's nursery     `ws.nursery`: the handler itself, and the tasks it starts

Whatever ends it first (`WebSocketPeer.end` records it once) sends the Close frame, leaves all rooms and registries,
closes the inbox and cancels the handler's nursery within `CANCEL_GRACE`. Then, shielded, with deadlines, the leave
hooks, the error hook and the close hook run, while the closing handshake takes place beside them. Then reading and
writing stop, and nothing is left.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import trio

from verbtrio.base.calls import Calls
from verbtrio.base.close import ABNORMAL_CLOSURE, DRAINED, INTERNAL_ERROR, POLICY_VIOLATION, Cause, CloseInfo
from verbtrio.connection.deadlines import Deadlines
from verbtrio.connection.ending import Ending
from verbtrio.connection.handler import Handler
from verbtrio.connection.handler_nursery import handle
from verbtrio.connection.heartbeat import Heartbeat, Pulse, is_pong
from verbtrio.connection.outbox import Outbox
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.connection.registry import Registry
from verbtrio.connection.screening import screening_for
from verbtrio.guards.quotas import Slot
from verbtrio.wire.events import Disconnect, Event, Pong
from verbtrio.wire.message_deadline import NEVER
from verbtrio.wire.reader import PolledReader, Reader, TaskReader

logger = logging.getLogger("verbtrio.connection")


class Connection:
    """One connection's life, from the handshake's end until nothing of it is left.

    Args:
        peer: the connection.
        handler: what to run.
        heartbeat: `None` keeps silent peers. (Over plain ASGI protocol pings can't be sent; one with `json=True` can.)
            A peer with a dialect is pinged by that, and not by this.
        slot: its place in the connection counts.
    """

    __slots__ = (
        "_calls",
        "_deadlines",
        "_ending",
        "_errors",
        "_flooded",
        "_handler",
        "_hurry",
        "_peer_done",
        "_pulse",
        "_reader",
        "_registry",
        "_screening",
        "peer",
        "slot",
        "user_id",
    )

    def __init__(self, peer: WebSocketPeer[Any], handler: Handler, heartbeat: Heartbeat | None, slot: Slot) -> None:
        self.peer = peer
        self.slot = slot
        self.user_id: str | None = None
        """For the registry."""
        self._handler = handler
        self._calls = Calls(peer, partial(handler.error, peer.ws) if handler.has_late_hooks else None)
        self._errors: tuple[Exception, ...] = ()  # what was raised, for the error hook: the handler's, and ours
        self._pulse: Pulse | None = None
        if heartbeat is not None and peer.dialect is None and (heartbeat.json or peer.transport.can_ping):
            self._pulse = Pulse(heartbeat, trio.current_time())
        self._deadlines = Deadlines(peer, self._pulse, self)
        self._screening = screening_for(peer, slot.buckets, self._deadlines.renew_expiry)
        self._reader: Reader
        self._registry: Registry
        self._peer_done = False  # nothing more will come from the peer, or it is not read any more
        self._flooded = False  # stop reading: the peer sends too much, or never finishes
        self._hurry = NEVER
        self._ending: Ending | None = None

    def run(self, registry: Registry) -> Coroutine[Any, Any, None]:
        """Run the connection. Never raises an `Exception`; `ws.closed` tells how it ended.

        If cancelled (the server's hard stop), the handler is cancelled at once; the hooks and the closing handshake
        still have their time limits. (It is not awaited here: that would be a frame more for each connection.)
        """
        transport = self.peer.transport
        if registry.poller is None or transport.fd is None:
            return self._run_in_nursery(registry)
        return self._run(registry, PolledReader(transport, self, registry.poller), registry.nursery)

    async def _run_in_nursery(self, registry: Registry) -> None:
        async with trio.open_nursery() as nursery:
            await self._run(registry, TaskReader(self.peer.transport, self, nursery), nursery)
            nursery.cancel_scope.cancel()

    async def _run(self, registry: Registry, reader: Reader, writers: trio.Nursery) -> None:
        peer = self.peer
        self._registry, self._reader = registry, reader
        outbox = Outbox(peer.transport, writers, peer.limits, self, registry.counters)
        peer.open(outbox, self._calls, self)
        peer.inbox.on_room = self.low
        self._deadlines.start(registry.timers)
        try:
            try:
                registry.enter(self)
                reader.start()
                await handle(peer, self._handler, self._may_begin, self._record_error)
            finally:
                peer.end(DRAINED)  # only where the handler did not begin
                await self._wind_down()
        except* Exception:
            # A bug of ours, not the handler's: contained, and loud.
            logger.exception("%r broke", peer)
        finally:
            outbox.shut()
            reader.stop()
            self._deadlines.stop()
            peer.over()
            registry.forget(self)
        assert peer.closed is not None, "it has been ended above"
        logger.debug("%r ended: %s %d %r", peer, peer.closed.cause, peer.closed.code, peer.closed.reason)

    def drain(self) -> None:
        """End the connection because the server shuts down."""
        self.peer.end(DRAINED)

    def hurry(self, deadline: float) -> None:
        """Cut the handler, the closing handshake and the hooks short at `deadline`."""
        self._hurry = deadline
        self._calls.hurry(deadline)
        if self.peer.nursery is not None:
            scope = self.peer.nursery.cancel_scope
            scope.deadline = min(scope.deadline, deadline)
        if self._ending is not None:
            self._ending.hurry(deadline)

    async def give_up(self) -> None:
        """Close the transport and leave the registry, although the handler, or a hook, has not ended and can't be made
        to.

        Once it has, the remaining hooks are called, and cancelled where they first wait. If cancelled, the transport is
        closed all the same.
        """
        self.peer.outbox.shut()
        self._reader.stop()
        with trio.move_on_after(0, shield=True):
            await self.peer.transport.aclose(linger=False)
        self._registry.forget(self)

    async def _may_begin(self) -> bool:
        """Whether the handler's first line may run."""
        if self.peer.closed is not None:  # let in while the server was already shutting down
            return False
        if self._screening is not None and not await self._screening.wait_admitted():
            return False
        if not self._registry.admit(self):
            return False
        if self._screening is not None:
            self._screening.share(self.slot.buckets, trio.current_time())
        return True

    def _record_error(self, error: Exception) -> None:
        """The error hook has to be called with `error`."""
        self._errors = (*self._errors, error)

    # What the reader calls

    def take(self, events: Sequence[Event], now: float) -> bool:
        peer, pulse = self.peer, self._pulse
        outbox, inbox = peer.outbox, peer.inbox
        replies = peer.transport.replies()
        self._deadlines.unread_until = NEVER
        by_message = pulse is not None and pulse.settings.json
        if pulse is not None and not by_message:
            pulse.heard(now)
        for event in events:
            if isinstance(event, (str, bytes)):
                outbox.counters.received += 1
                if self._screening is not None and not self._screening.passes(event, now):
                    if self._screening.is_flooded:
                        self.turn_away()
                        break
                elif by_message and is_pong(event):
                    assert pulse is not None
                    pulse.heard(now)
                else:
                    inbox.put_nowait(event)
            elif isinstance(event, Disconnect):
                if replies:  # the reply to the Close frame, behind the answers to earlier messages
                    outbox.put_nowait(replies)
                    replies = b""
                peer.end(CloseInfo(event.cause, event.code, event.reason), is_reported=True)
                if event.cause is Cause.GONE:
                    outbox.shut()
            else:
                assert isinstance(event, Pong)
        if replies:
            outbox.put_nowait(replies)
        if self._has_room:
            self._deadlines.reading = True
            return True
        self._deadlines.pause(now)
        return False

    @property
    def _has_room(self) -> bool:
        """Whether to read on. After the connection's end, always: the peer's Close frame is still to come."""
        peer = self.peer
        if peer.closed is not None:
            return True
        # A handler that is called in place does not wait for a peer that reads slowly: so the reader waits for it.
        return not (peer.inbox.is_full or (peer.inbox.is_served and not peer.outbox.is_low))

    def hung_up(self, now: float) -> None:
        self._deadlines.hung_up(now)

    def failed(self, error: Exception) -> None:
        logger.error("reading from or writing to %r failed", self.peer, exc_info=error)
        if self.peer.closed is None:
            self._record_error(error)
        self.peer.end(CloseInfo(Cause.ERROR, INTERNAL_ERROR, "Internal server error", error))
        self.written()

    def finished(self) -> None:
        self._peer_done = True
        if self._ending is not None:
            self._ending.peer_done.set()

    def low(self) -> None:
        """There is room again, for what is received or for what is sent."""
        if self._has_room:
            self._deadlines.resume(trio.current_time())
            self._reader.resume()

    def turn_away(self) -> None:
        """Read no more of the peer, which sends too much, or does not finish what it sends."""
        self._flooded = True
        self._reader.stop()

    # What the outbox calls

    def slow(self, reason: str) -> None:
        self.peer.end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: {reason}"))
        self.written()

    def gone(self) -> None:
        """A write has found the peer gone. What it sent before may still be unread, its Close frame among it: as long
        as the peer is being read, that ends the connection."""
        if not self._deadlines.reading or self._peer_done:
            self.peer.end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))
        self.written()

    def written(self) -> None:
        """Nothing is queued any more. If that is because the Close frame is out, or can't go out, the next connection
        of this client or user may come in: it does not wait for hooks."""
        closed, outbox = self.peer.closed, self.peer.outbox
        if closed is not None and (outbox.is_empty or outbox.broken or closed.cause is Cause.GONE):
            self.slot.release()

    # The end

    def ended(self) -> None:
        """What `WebSocketPeer.end` calls."""
        self._registry.leave(self)
        self.written()

    async def _wind_down(self) -> None:
        limits = self.peer.limits
        limit = trio.current_time() + max(limits.hook_timeout, limits.close_timeout)
        self._ending = Ending(
            self.peer,
            self._handler,
            self._reader,
            self._calls,
            self._errors,
            peer_done=self._peer_done,
            flooded=self._flooded,
            deadline=min(limit, self._hurry),
        )
        await self._ending.run()
