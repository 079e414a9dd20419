"""The closing handshake of a WebSocket whose application is not ours, until its transport is closed."""

from __future__ import annotations

import logging

import trio

from verbtrio.base.close import Cause
from verbtrio.connection.outbox import Outbox
from verbtrio.wire.reader import Reader
from verbtrio.wire.stream_transport import StreamTransport

logger = logging.getLogger("verbtrio.foreign")

_UNREAD = (Cause.SIZE, Cause.PROTOCOL, Cause.HEARTBEAT)
"""Causes after which the peer may still be sending what nobody reads."""


class Closing:
    """A WebSocket's closing handshake. Made when the end begins; the outbox has our Close frame.

    Args:
        transport, reader, outbox: the connection's. When `run` is over they are closed.
        cause: why it ends.
        timeout: `Limits.close_timeout`, for the handshake, and again to close the transport.

    Attributes:
        peer_done: set when nothing more comes from the peer.
        over: set when the transport is closed.
    """

    def __init__(
        self, transport: StreamTransport, reader: Reader, outbox: Outbox, cause: Cause, timeout: float
    ) -> None:
        self._transport = transport
        self._reader = reader
        self._outbox = outbox
        self._cause = cause
        self._timeout = timeout
        self._scope = trio.CancelScope(shield=True, deadline=trio.current_time() + timeout)
        self.peer_done = trio.Event()
        self.over = trio.Event()

    def hurry(self, deadline: float) -> None:
        """Cut the handshake short at `deadline`."""
        self._scope.deadline = min(self._scope.deadline, deadline)

    def cancel(self) -> None:
        """Cut the handshake short now."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection  # it may run in the hub's nursery, which ends the worker when it fails
    async def run(self) -> None:
        """Run the closing handshake, shielded, within its deadline. Then nothing is read or written any more."""
        outbox = self._outbox
        try:
            with self._scope:
                await outbox.wait_empty()
                if not outbox.broken and self._cause is not Cause.HEARTBEAT:
                    await self.peer_done.wait()
            linger = self._cause in _UNREAD and not outbox.broken and not self._scope.cancelled_caught
            self._reader.stop()
            outbox.shut()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._timeout):
                await self._transport.aclose(linger=linger)
        except Exception:  # a bug of ours: contained, and logged
            logger.exception("the end of a WebSocket failed")
        finally:
            self.over.set()
