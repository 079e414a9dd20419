"""Readers: one task per connection, or one poller for all sockets of a worker.

Both feed a `Sink`, which says after each portion whether it wants more. If not, the reader waits for `resume`. Tasks
read HTTP/2, plain ASGI, memory streams, and everything on systems without epoll. The poller reads sockets, plain or
under TLS: it saves two task switches a message and 4 KB a connection, and notices that a peer has gone while it is not
being read.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import trio

from verbtrio.wire.events import Disconnect, Event
from verbtrio.wire.poller import Polled, Poller
from verbtrio.wire.transport import Transport

logger = logging.getLogger("verbtrio.readers")


class Sink(Protocol):
    """What a reader feeds: a connection."""

    def take(self, events: Sequence[Event], now: float) -> bool:
        """Take what the peer sent. Returns whether to read on. If not, the sink calls `resume` once it has room."""

    def hung_up(self, now: float) -> None:
        """The peer has gone, or has shut down its sending side, and there was no room for all that it had sent."""

    def finished(self) -> None:
        """Reading is over, for whatever reason. Called once."""

    def failed(self, error: Exception) -> None:
        """A bug of ours ended the reading. `finished` follows."""


class Reader(ABC):
    """Feeds `sink` from `transport`, from `start` to the peer's end, or to `stop`."""

    def __init__(self, transport: Transport, sink: Sink) -> None:
        self._transport = transport
        self._sink = sink

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def resume(self) -> None:
        """Read on, after `Sink.take` has returned false."""

    @abstractmethod
    def stop(self) -> None:
        """Stop reading. May be called twice, and before `start`."""


class TaskReader(Reader):
    """Reads in a task of its own, in `nursery`. The task is shielded, since the closing handshake needs a reader even
    after a cancellation from outside; `stop` ends it."""

    def __init__(self, transport: Transport, sink: Sink, nursery: trio.Nursery) -> None:
        super().__init__(transport, sink)
        self._nursery = nursery
        self._scope = trio.CancelScope(shield=True)
        self._room = trio.lowlevel.ParkingLot()
        self._paused = False

    def start(self) -> None:
        self._nursery.start_soon(self._run)

    def resume(self) -> None:
        self._paused = False
        self._room.unpark_all()

    def stop(self) -> None:
        self._scope.cancel()

    async def _run(self) -> None:
        try:
            with self._scope:
                ended = False
                while not ended:
                    events = await self._transport.receive()
                    ended = bool(events) and isinstance(events[-1], Disconnect)
                    self._paused = not self._sink.take(events, trio.current_time())
                    while self._paused and not ended:
                        await self._room.park()
        except Exception as error:
            self._sink.failed(error)
        finally:
            self._sink.finished()


class PolledReader(Reader, Polled):
    """Reads in the poller's turns."""

    def __init__(self, transport: Transport, sink: Sink, poller: Poller) -> None:
        super().__init__(transport, sink)
        assert transport.fd is not None
        self._fd = transport.fd
        self._poller = poller
        self._paused = False
        self._running = False

    def start(self) -> None:
        self._poller.add(self._fd, self)
        self._running = True
        if self._transport.has_unread:
            self._poller.revisit(self._fd)

    def resume(self) -> None:
        if self._running and self._paused:
            self._paused = False
            self._poller.resume(self._fd)
            if self._transport.has_unread:
                self._poller.revisit(self._fd)

    def stop(self) -> None:
        if self._running:
            self._running = False
            self._poller.discard(self._fd)
            self._sink.finished()

    def on_readable(self, now: float) -> int:
        if self._paused:
            return 0
        try:
            events, worth = self._transport.receive_nowait()
            wants_more = self._sink.take(events, now)
        except Exception as error:
            self._sink.failed(error)
            self.stop()
            return 0
        if not self._running:
            pass  # stopped meanwhile
        elif events and isinstance(events[-1], Disconnect):
            self.stop()
        elif not wants_more:
            self._paused = True
            self._poller.pause(self._fd)
        elif self._transport.has_unread:
            self._poller.revisit(self._fd)
        return worth

    def on_hang_up(self, now: float) -> None:
        if self._paused:
            self._sink.hung_up(now)
        else:
            self.on_readable(now)
