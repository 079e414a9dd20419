"""A connection's life: one nursery in which the handler, its heartbeat and its memberships end together.

    Connection.run           the task the server gave us
    ├─ io nursery            until the transport is let go
    │  ├─ reader             what the peer sends: to the inbox, until its Close frame or the end of its stream
    │  ├─ timer              the next ping, the heartbeat's and the token's deadlines
    │  └─ writer             only while there is backlog (see outbox)
    └─ handler's nursery     `ws.nursery`: the handler itself, and what it starts

Whatever comes first (`WebSocket._end` records it once) closes the inbox and cancels the handler's nursery within
`CANCEL_GRACE`. Then, shielded, with deadlines: memberships are removed, leave hooks, the error hook and the close
hook run, while the closing handshake takes place beside them. Then the io nursery is cancelled and nothing is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from verbtrio.closing import (
    INTERNAL_ERROR,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TOKEN_EXPIRED,
    Cause,
    CloseInfo,
)
from verbtrio.errors import ConnectionClosed, LimitExceeded
from verbtrio.events import GONE, Closed, Pong
from verbtrio.gate import gate_for
from verbtrio.heartbeat import PING_MESSAGE, Beat, Heartbeat, Pulse, is_pong
from verbtrio.hooks import Handler
from verbtrio.outbox import Outbox
from verbtrio.transports import Ping
from verbtrio.websocket import WebSocket, call

logger = logging.getLogger("verbtrio.connection")

LATE_SECONDS = 1.0
"""A timer that is this late has been asleep itself (a stopped process): peers are not to blame for what it missed."""

DRAINED = CloseInfo(Cause.DRAIN, SERVICE_RESTART, "The server is restarting")


class Connection:
    """One connection's life, from the handshake's end until nothing of it is left.

    Args:
        ws: what the handler holds.
        handler: what to run.
        heartbeat: `None`: a silent peer is kept. (So it is where protocol pings can't be sent: over plain ASGI.)
    """

    def __init__(self, ws: WebSocket[Any], handler: Handler, heartbeat: Heartbeat | None) -> None:
        self.ws = ws
        self._handler = handler
        self._pulse: Pulse | None = None
        if heartbeat is not None and (heartbeat.json or ws._transport.can_ping):
            self._pulse = Pulse(heartbeat, trio.current_time())
        self._gate = gate_for(ws)
        self._peer_done = trio.Event()  # nothing more will come from the peer, or nobody is reading any more
        # Shielded, so that a cancellation from outside leaves the closing handshake a reader; `run` ends it.
        self._reading = trio.CancelScope(shield=True)
        self._parting = trio.CancelScope(shield=True)
        self._hook = trio.CancelScope(shield=True)

    async def run(self, *, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        """Run the connection. Never raises an `Exception`; `ws.closed` tells how it ended.

        `enter` is called when it is open, before the handler's first line; `leave` when it has ended, before the hooks.

        If cancelled (the server's hard stop), the handler is cancelled at once; the hooks and the closing handshake
        still have their time limits.
        """
        ws = self.ws
        try:
            async with trio.open_nursery() as io:
                ws._outbox = self._outbox = Outbox(
                    ws._transport, io, ws._limits, on_slow=self._slow, on_gone=self._gone
                )
                enter()
                io.start_soon(self._read)
                if self._pulse is not None or "verbtrio.expires" in ws.scope:
                    io.start_soon(self._keep_time)
                try:
                    await self._handle()
                finally:
                    ws._end(DRAINED)  # only where a cancellation from outside has come first
                    leave()
                    await self._part()
                    self._outbox.shut()
                    self._reading.cancel()
                    io.cancel_scope.cancel()
        except* Exception:
            # A bug of ours, not the handler's: contained, and loud.
            logger.exception("%r broke", ws)
        finally:
            ws._over.set()
        assert ws.closed is not None, "_end has been called above"
        logger.debug("%r ended: %s %d %r", ws, ws.closed.cause, ws.closed.code, ws.closed.reason)

    def drain(self) -> None:
        """End the connection because the server shuts down."""
        self.ws._end(DRAINED)

    def hurry(self, deadline: float) -> None:
        """Cut the closing handshake and the hooks short at `deadline`."""
        for scope in (self._parting, self._hook):
            scope.deadline = min(scope.deadline, deadline)

    async def _handle(self) -> None:
        """Run the handler in its nursery; whatever it raises becomes the end of this connection alone."""
        ws = self.ws
        try:
            async with trio.open_nursery() as ws.nursery:
                if ws.closed is not None:  # let in while the server was already shutting down
                    return
                await self._handler.run(ws)
                ws._end(CloseInfo(Cause.RETURNED, NORMAL_CLOSURE))
                ws.nursery.cancel_scope.cancel()
        except* ConnectionClosed as group:
            _, others = group.split(lambda e: isinstance(e, ConnectionClosed) and e.info is ws.closed)
            if others is not None:  # another connection's end, which the handler did not expect
                self._failed(others)
        except* Exception as group:
            self._failed(group)

    def _failed(self, group: ExceptionGroup[Exception]) -> None:
        error: Exception = group
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, LimitExceeded):
            self.ws._end(CloseInfo(Cause.RATE, POLICY_VIOLATION, str(error)))
            return
        logger.error("the handler of %r raised", self.ws, exc_info=error)
        self.ws._end(CloseInfo(Cause.ERROR, INTERNAL_ERROR, "Internal server error", error))

    async def _read(self) -> None:
        """Read from the peer until it has nothing more to say. Ends the connection, and answers control frames."""
        ws = self.ws
        try:
            with self._reading:
                closed = await self._read_until_closed()
                ws._end(CloseInfo(closed.cause, closed.code, closed.reason))
                if closed.cause is Cause.GONE:
                    self._outbox.shut()
        except Exception as error:  # a bug of ours: contained, and loud
            logger.exception("reading from %r failed", ws)
            ws._end(CloseInfo(Cause.ERROR, INTERNAL_ERROR, "Internal server error", error))
        finally:
            self._peer_done.set()

    async def _read_until_closed(self) -> Closed:
        ws, pulse = self.ws, self._pulse
        while True:
            events = await ws._transport.receive()
            if replies := ws._transport.replies():
                self._outbox.put_nowait(replies)
            if pulse is not None and not pulse.settings.json:
                pulse.heard(trio.current_time())
            for event in events:
                if isinstance(event, str | bytes):
                    self._take(event)
                elif isinstance(event, Closed):
                    return event
                else:
                    assert isinstance(event, Pong)
                if self._gate is not None and self._gate.is_flooded:
                    return Closed(Cause.RATE, POLICY_VIOLATION, "Too many messages")
            if ws._inbox.is_full:
                await ws._inbox.wait_room()
                if pulse is not None:  # its answer may stand behind what we did not read
                    pulse.heard(trio.current_time())

    def _take(self, message: str | bytes) -> None:
        if self._gate is not None and not self._gate.passes(message, trio.current_time()):
            return
        if self._pulse is not None and self._pulse.settings.json and is_pong(message):
            self._pulse.heard(trio.current_time())
        else:
            self.ws._inbox.put_nowait(message)

    async def _keep_time(self) -> None:
        """The connection's deadlines: the heartbeat's and the token's."""
        ws = self.ws
        expires = _expiry(ws)
        pulse = self._pulse
        while ws.closed is None:
            due = expires if pulse is None else min(expires, pulse.next)
            await trio.sleep_until(due)
            now = trio.current_time()
            if now >= expires:
                ws._end(CloseInfo(Cause.EXPIRED, TOKEN_EXPIRED, "Token expired"))
            elif pulse is not None:
                if ws._inbox.is_full or now - due > LATE_SECONDS:
                    pulse.heard(now)  # we have not been reading: its silence is ours
                beat = pulse.due(now)
                if beat is Beat.PING:
                    self._outbox.put_nowait(PING_MESSAGE if pulse.settings.json else Ping())
                elif beat is Beat.DEAD:
                    ws._end(CloseInfo(Cause.HEARTBEAT, pulse.settings.code, pulse.settings.reason))

    async def _part(self) -> None:
        """Hooks and closing handshake, side by side, each within its limit."""
        limits = self.ws._limits
        self.hurry(trio.current_time() + max(limits.hook_timeout, limits.close_timeout))
        with self._parting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._shake_hands)
                await self._say_farewell()
        if self._parting.cancelled_caught:
            # The handshake was cut short; there is nothing more to wait for.
            with trio.move_on_after(0, shield=True):
                await self.ws._transport.aclose(linger=False)

    async def _shake_hands(self) -> None:
        """The closing handshake (RFC 6455 section 7.1.2): what is queued, our Close frame, the peer's."""
        ws, info = self.ws, self.ws.closed
        assert info is not None
        with trio.move_on_after(ws._limits.close_timeout):
            await self._outbox.wait_empty()
            if not self._outbox.broken:
                await self._peer_done.wait()
        unread = info.cause in (Cause.SIZE, Cause.PROTOCOL) or (self._gate is not None and self._gate.is_flooded)
        linger = unread and not self._outbox.broken
        await ws._transport.aclose(linger=linger)

    async def _say_farewell(self) -> None:
        """Leave the rooms, then call the hooks: all of them within one time limit."""
        ws, info = self.ws, self.ws.closed
        assert info is not None
        farewells = ws._farewells
        for membership in list(ws._memberships.values()):
            if (hook := membership._leave()) is not None:
                farewells.append((hook, membership.room))
        deadline = trio.current_time() + ws._limits.hook_timeout
        for hook, room in farewells:
            await self._call_hook("leave", partial(call, hook, room), deadline)
        if info.exception is not None:
            await self._call_hook("error", partial(self._handler.error, ws, info.exception), deadline)
        await self._call_hook("close", partial(self._handler.close, ws, info), deadline)

    async def _call_hook(self, name: str, hook: Callable[[], Awaitable[None]], deadline: float) -> None:
        """Call a hook; what it raises is logged and stops neither the next one nor the rest of the end.

        Past the deadline a hook is still called, and cancelled where it first waits: none is ever left out.
        """
        deadline = min(deadline, self._parting.deadline)
        try:
            with trio.CancelScope(shield=True, deadline=deadline) as self._hook:
                await hook()
            if self._hook.cancelled_caught:
                logger.warning("the %s hook of %r was ended at its time limit", name, self.ws)
        except* Exception as group:
            logger.error("the %s hook of %r raised", name, self.ws, exc_info=group)

    def _slow(self, reason: str) -> None:
        self.ws._end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, f"Too slow: {reason}"))

    def _gone(self) -> None:
        """A write has found the peer gone. What it sent before may still be unread, its Close frame among it: that the
        reader has to tell, if it is at it."""
        if self.ws._inbox.is_full or self._peer_done.is_set():
            self.ws._end(CloseInfo(GONE.cause, GONE.code))


def _expiry(ws: WebSocket[Any]) -> float:
    """When the token expires, on Trio's clock; `inf` without one. An `exp` is a wall-clock time (RFC 7519)."""
    expires = ws.scope.get("verbtrio.expires")
    return float("inf") if expires is None else trio.current_time() + (expires - time.time())
