"""What follows when a connection's handler is over: rooms are left, hooks called, hands shaken; all with deadlines."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from verbtrio.closing import Cause
from verbtrio.hooks import Handler
from verbtrio.readers import Reader
from verbtrio.websocket import WebSocket, call

logger = logging.getLogger("verbtrio.connection")


class Parting:
    """A connection's end, from the end of its handler until its transport is closed. Shielded, with deadlines.

    Args:
        ws: has ended (`ws.closed`).
        handler: whose error and close hooks are called.
        reader: stopped before the transport is closed.
        peer_done: nothing more will come from the peer; the event is set when that becomes so.
        flooded: what the peer may still send is not read any more.
        deadline: for all of it.
    """

    def __init__(
        self, ws: WebSocket[Any], handler: Handler, reader: Reader, *, peer_done: bool, flooded: bool, deadline: float
    ) -> None:
        assert ws.closed is not None
        assert ws._outbox is not None
        self._ws, self._info, self._outbox = ws, ws.closed, ws._outbox
        self._handler = handler
        self._reader = reader
        self._flooded = flooded
        self.peer_done = trio.Event()
        if peer_done:
            self.peer_done.set()
        self._scope = trio.CancelScope(shield=True, deadline=deadline)
        self._hook = trio.CancelScope(shield=True)

    def hurry(self, deadline: float) -> None:
        """Be done by `deadline`."""
        for scope in (self._scope, self._hook):
            scope.deadline = min(scope.deadline, deadline)

    async def run(self) -> None:
        """Leave the rooms; then hooks and closing handshake, side by side, each within its limit."""
        ws = self._ws
        for membership in list(ws._memberships.values()):
            if (hook := membership._leave()) is not None:
                ws._farewells.append((hook, membership.room))
        if not ws._farewells and not self._handler.has_last_words and self.peer_done.is_set() and self._outbox.is_empty:
            # The peer has closed and has its answer, and nobody wants to know: most connections, and a nursery, a
            # task and four scopes less for them.
            await self._let_go()
            return
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._shake_hands)
                await self._say_farewell()
        if self._scope.cancelled_caught:
            # The handshake was cut short; there is nothing more to wait for.
            self._reader.stop()
            with trio.move_on_after(0, shield=True):
                await ws._transport.aclose(linger=False)

    async def _shake_hands(self) -> None:
        """The closing handshake (RFC 6455 section 7.1.2): what is queued, our Close frame, the peer's."""
        with trio.move_on_after(self._ws._limits.close_timeout):
            await self._outbox.wait_empty()
            # A peer that has not answered pings gets our Close frame, but no time to be silent for once more.
            if not self._outbox.broken and self._info.cause is not Cause.HEARTBEAT:
                await self.peer_done.wait()
        await self._let_go()

    async def _let_go(self) -> None:
        self._reader.stop()
        unread = self._flooded or self._info.cause in (Cause.SIZE, Cause.PROTOCOL, Cause.HEARTBEAT)
        await self._ws._transport.aclose(linger=unread and not self._outbox.broken)

    async def _say_farewell(self) -> None:
        """Call the hooks: all of them within one time limit."""
        ws, info = self._ws, self._info
        deadline = trio.current_time() + ws._limits.hook_timeout
        for hook, room in ws._farewells:
            await self._call_hook("leave", partial(call, hook, room), deadline)
        if self._handler.has_last_words:
            if info.exception is not None:
                await self._call_hook("error", partial(self._handler.error, ws, info.exception), deadline)
            await self._call_hook("close", partial(self._handler.close, ws, info), deadline)

    async def _call_hook(self, name: str, hook: Callable[[], Awaitable[None]], deadline: float) -> None:
        """Call a hook; what it raises is logged and stops neither the next one nor the rest of the end.

        Past the deadline a hook is still called, and cancelled where it first waits: none is ever left out.
        """
        deadline = min(deadline, self._scope.deadline)
        try:
            with trio.CancelScope(shield=True, deadline=deadline) as self._hook:
                await hook()
            if self._hook.cancelled_caught:
                logger.warning("the %s hook of %r was ended at its time limit", name, self._ws)
        except* Exception as group:
            logger.error("the %s hook of %r raised", name, self._ws, exc_info=group)
