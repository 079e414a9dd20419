"""What follows when a connection has ended and its handler is over: the last hooks and the closing handshake, side by
side, with deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from verbtrio.base.calls import Calls
from verbtrio.base.close import Cause
from verbtrio.connection.handler import Handler
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.wire.reader import Reader


class Ending:
    """A connection's end, from the end of its handler until its transport is closed. Shielded, with deadlines.

    Args:
        peer: the connection, which has ended (`peer.closed`).
        handler: whose error and close hooks are called.
        reader: stopped before the transport is closed.
        calls: calls the hooks.
        errors: what the error hook is called with.
        peer_done: nothing more will come from the peer. (The attribute is an event, set as soon as that is so.)
        flooded: what the peer still sends is not read.
        deadline: for all of it.
    """

    def __init__(
        self,
        peer: WebSocketPeer[Any],
        handler: Handler,
        reader: Reader,
        calls: Calls,
        errors: Sequence[Exception],
        *,
        peer_done: bool,
        flooded: bool,
        deadline: float,
    ) -> None:
        assert peer.closed is not None
        self._peer, self._info, self._outbox = peer, peer.closed, peer.outbox
        self._handler = handler
        self._reader = reader
        self._calls = calls
        self._errors = errors
        self._flooded = flooded
        self.peer_done = trio.Event()
        if peer_done:
            self.peer_done.set()
        self._scope = trio.CancelScope(shield=True, deadline=deadline)

    def hurry(self, deadline: float) -> None:
        """Be done by `deadline`."""
        self._scope.deadline = min(self._scope.deadline, deadline)

    async def run(self) -> None:
        """Hooks and closing handshake, side by side, each within its limit."""
        peer = self._peer
        has_hooks = peer.memberships.owed or self._handler.has_late_hooks
        if not has_hooks and self.peer_done.is_set() and self._outbox.is_empty:
            # The peer has closed and has its answer, and there are no hooks: so it is for most connections, which are
            # spared a nursery, a task and four scopes.
            await self._let_go()
            return
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._close_handshake)
                await self._call_hooks()
        if self._scope.cancelled_caught:
            # The handshake was cut short; there is nothing more to wait for.
            self._reader.stop()
            with trio.move_on_after(0, shield=True):
                await peer.transport.aclose(linger=False)

    async def _close_handshake(self) -> None:
        """The closing handshake (RFC 6455 section 7.1.2): write what is queued and our Close frame, wait for the
        peer's."""
        with trio.move_on_after(self._peer.limits.close_timeout):
            await self._outbox.wait_empty()
            # A peer that has not answered pings gets our Close frame, but no more time to be silent.
            if not self._outbox.broken and self._info.cause is not Cause.HEARTBEAT:
                await self.peer_done.wait()
        await self._let_go()

    async def _let_go(self) -> None:
        self._reader.stop()
        unread = self._flooded or self._info.cause in (Cause.SIZE, Cause.PROTOCOL, Cause.HEARTBEAT)
        await self._peer.transport.aclose(linger=unread and not self._outbox.broken)

    async def _call_hooks(self) -> None:
        """Call the leave, error and close hooks, all within one time limit."""
        peer, ws, calls = self._peer, self._peer.ws, self._calls
        deadline = min(trio.current_time() + peer.limits.hook_timeout, self._scope.deadline)
        for hook, room in peer.memberships.owed:
            await calls.call("leave", hook, room, ws, deadline=deadline)
        for error in self._errors:
            await calls.tell(error, deadline=deadline)
        if self._handler.has_late_hooks:
            await calls.call("close", self._handler.close, ws, self._info, deadline=deadline)
