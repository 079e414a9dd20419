"""Commands that come by requests of their own: to the client's session, in this process or in another.

Behind a balancer such a request reaches any process. The one that has the session does all that there is to check, and
decides the answer; the one that was reached passes on the one and the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.base import Session
from verbtrio.multiplex.streamed import StreamedCarrier, StreamedClients

TAKEN, BAD_REQUEST, NOT_FOUND, TOO_LARGE, UNAVAILABLE = 204, 400, 404, 413, 503
ANSWER_SECONDS = 2.0
"""How long an answer may be on its way."""
LONGEST_SECONDS = 60.0
"""Another process is waited for no longer, even if its session would wait for room for ever."""
MAX_WAITING = 1000
"""So many requests of other processes may wait for room here. (Those of one session: `Limits.max_inbox_messages`.)"""


class Brought(msgspec.Struct, frozen=True, array_like=True):
    """What one request has brought, as it goes from process to process.

    Raises:
        TypeError: `data` is neither text nor bytes. (A decoder raises `msgspec.ValidationError`.)
    """

    session: str
    """The secret name of the client's session."""
    data: Any
    """Its commands: text in JSON, bytes in Protobuf. (msgspec knows no union of the two.)"""
    size: int
    """Of the request's body, in bytes."""

    def __post_init__(self) -> None:
        if not isinstance(self.data, str | bytes):
            raise TypeError(f"commands are text or bytes, not {type(self.data).__name__}")


class Emulation:
    """Brings commands to their sessions.

    Args:
        clients: those that are here.
        broker: the way to other processes.
        nursery: the hub's: it has a task for each request of another process that has to wait for room.
    """

    def __init__(self, clients: StreamedClients, broker: Session, nursery: trio.Nursery) -> None:
        self._clients = clients
        self._broker = broker
        self._nursery = nursery
        self._waiting = 0
        self._decoder = msgspec.msgpack.Decoder(Brought)

    async def bring(self, node: str, brought: Brought, seconds: float) -> int:
        """Have the process of that name take the commands, once its session has room for them; the status to answer
        with. If cancelled, they are not handled if the session is here; elsewhere they may be.

        Args:
            node: what the client calls its process: any text.
            brought: what its request has brought.
            seconds: how long another process has to take it. (Here the session's limits tell.)
        """
        if node == self._clients.node:
            found = self._find(brought)
            return found if isinstance(found, int) else await _take(found, brought)
        seconds = min(seconds, LONGEST_SECONDS) + ANSWER_SECONDS
        try:
            answer = await self._broker.forward(node, msgspec.msgpack.encode(brought), seconds)
        except BrokerUnavailable:
            return UNAVAILABLE
        if answer is None:
            return NOT_FOUND
        known = (TAKEN, BAD_REQUEST, NOT_FOUND, TOO_LARGE)
        return next((status for status in known if answer == b"%d" % status), UNAVAILABLE)

    def forwarded(self, message: bytes, answer: Callable[[bytes], None]) -> None:
        """See `Process`."""
        try:
            brought = self._decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer(b"%d" % BAD_REQUEST)
            return
        found = self._find(brought)
        if isinstance(found, int):
            answer(b"%d" % found)
        elif found.receive_nowait(brought.data):
            answer(b"%d" % TAKEN)
        elif self._waiting >= MAX_WAITING or self._nursery.cancel_scope.cancel_called:
            answer(b"%d" % UNAVAILABLE)
        else:
            self._waiting += 1
            self._nursery.start_soon(self._take_later, found, brought, answer, name="commands of another process")

    async def _take_later(self, carrier: StreamedCarrier, brought: Brought, answer: Callable[[bytes], None]) -> None:
        """Take the commands once there is room for them. If cancelled, they are not handled, and that is answered."""
        status = UNAVAILABLE
        try:
            status = await _take(carrier, brought)
        finally:
            self._waiting -= 1
            answer(b"%d" % status)

    def _find(self, brought: Brought) -> StreamedCarrier | int:
        """The session's carrier, or the answer to what it can't take."""
        carrier = self._clients.get(brought.session)
        if carrier is None:
            return NOT_FOUND
        if carrier.peer.encoding.is_binary is not isinstance(brought.data, bytes):
            return BAD_REQUEST
        if max(brought.size, len(brought.data)) > carrier.limits.max_message_bytes:
            return TOO_LARGE  # another endpoint's clients may send more
        return carrier


async def _take(carrier: StreamedCarrier, brought: Brought) -> int:
    """Take the commands, once there is room for them."""
    with suppress(trio.WouldBlock), trio.move_on_after(carrier.limits.send_timeout):
        # One that has ended takes nothing, and its response says how: after any other answer than this one, the
        # JavaScript SDK would not read that to its end.
        await carrier.receive(brought.data)
        return TAKEN
    return UNAVAILABLE
