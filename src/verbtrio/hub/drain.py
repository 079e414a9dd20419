"""The end of everything that an app serves, when its server shuts down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import trio

from verbtrio.connection.handler_nursery import describe_unfinished
from verbtrio.connection.lifecycle import Connection

logger = logging.getLogger("verbtrio.hub")

CUT_SECONDS = 0.5
"""Seconds for closing the connections that are cut at the drain's deadline."""

SPREAD_FROM = 100
"""So many clients that come back by themselves, or more, are not all ended at the same moment."""
SPREAD_STEP = 0.02
"""Seconds between two steps of that."""

MAX_GIVEN_UP_SHOWN = 3
"""How many of the connections that were given up the log names."""


class Drainable(Protocol):
    """What the drain ends besides connections: an upgrade request, or the WebSocket of an application that is not
    ours."""

    def drain(self) -> None:
        """End, because the server shuts down."""

    def hurry(self, deadline: float) -> None:
        """Be cut short at `deadline`."""


class Streaming(Protocol):
    """A client that an HTTP response carries. The drain ends it, and the server waits for its response.

    Attributes:
        returns_at_once: its client comes back by itself, within a second.
    """

    returns_at_once: bool

    def drain(self) -> None:
        """End, because the server shuts down."""


class Drain:
    """Everything that has to end before the server does, and how it is made to.

    Args:
        seconds: how long the drain may take.

    Attributes:
        begun: the server shuts down: nobody is let in any more.
        until: cancelled when the drain begins: for what ends before the connections do.
        connections: those that are open.
        ending: those that have begun to end, and are not gone.
        streams: clients that HTTP responses carry: event subscribers, for example.
        sessions: see `Drainable`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = float("inf")
        self._changed = trio.lowlevel.ParkingLot()
        self.begun = False
        self.until = trio.CancelScope()
        self.connections: set[Connection] = set()
        self.ending: set[Connection] = set()
        self.streams: set[Streaming] = set()
        self.sessions: set[Drainable] = set()

    def enter(self, connection: Connection) -> None:
        """The connection is open."""
        self.connections.add(connection)
        if self.begun:  # its handshake was in progress when the drain began
            connection.drain()
            connection.hurry(self._deadline)

    def leave(self, connection: Connection) -> None:
        """The connection has begun to end."""
        self.connections.discard(connection)
        self.ending.add(connection)

    def forget(self, connection: Connection) -> None:
        """Nothing of the connection is left."""
        self.ending.discard(connection)
        self._changed.unpark_all()

    def enter_stream(self, stream: Streaming) -> None:
        """The client has come."""
        self.streams.add(stream)
        if self.begun:
            stream.drain()

    def add_session(self, session: Drainable) -> None:
        """Drain `session` with the connections."""
        self.sessions.add(session)
        if self.begun:
            session.drain()
            session.hurry(self._deadline)

    def discard_session(self, session: Drainable) -> None:
        """The session has ended, or has become a connection of ours."""
        self.sessions.discard(session)
        if self.begun:
            self._changed.unpark_all()

    async def run(self) -> None:
        """End every connection, with 1012 or its protocol's code, and wait until they are gone, for the drain's time
        limit at most. Connections that something shielded still holds are then given up: their sockets are closed, with
        one line in the log.

        No connection is let in from now on. If cancelled, the connections still end, but are not waited for.
        """
        self.begun = True
        self.until.cancel()
        self._deadline = min(self._deadline, trio.current_time() + self._seconds)
        # Clients of a protocol of their own come back by themselves.
        connections = [connection for connection in self.connections if connection.peer.dialect is not None]
        streams = [stream for stream in self.streams if stream.returns_at_once]
        if len(connections) + len(streams) < SPREAD_FROM:
            connections, streams = [], []
        for one in (*self.sessions, *self.connections.difference(connections)):
            one.drain()
        for stream in self.streams.difference(streams):
            stream.drain()
        for begun in (*self.sessions, *self.ending):
            begun.hurry(self._deadline)
        await self._spread([*connections, *streams])
        with trio.move_on_at(self._deadline + CUT_SECONDS):
            while self.ending or self.sessions:
                await self._changed.park()
        await self._give_up()

    async def _spread(self, clients: Sequence[Connection | Streaming]) -> None:
        """End clients one after the other, in half of the time that is left: they come back by themselves, each within
        a second, and would all come at once. If cancelled, those that are left end at once."""
        begun = trio.current_time()
        half = (self._deadline - begun) / 2
        ended = 0
        try:
            while ended < len(clients) and (passed := trio.current_time() - begun) < half:
                while ended < len(clients) * passed / half:
                    self._end(clients[ended])
                    ended += 1
                await trio.sleep(SPREAD_STEP)
        finally:
            for client in clients[ended:]:
                self._end(client)

    def _end(self, client: Connection | Streaming) -> None:
        client.drain()
        if isinstance(client, Connection) and client in self.ending:
            client.hurry(self._deadline)

    async def _give_up(self) -> None:
        """Close the sockets of connections that have not ended."""
        left, self.ending = self.ending, set()
        if left:
            shown = "; ".join([describe_unfinished(connection.peer) for connection in islice(left, MAX_GIVEN_UP_SHOWN)])
            logger.warning(
                "%d connections did not end within %g s and are given up, while something of theirs is shielded from"
                " cancellation, or being started: %s%s",
                *(len(left), self._seconds, shown, "; ..." if len(left) > MAX_GIVEN_UP_SHOWN else ""),
            )
        for connection in left:
            await connection.give_up()
        if self.sessions:
            logger.warning("%d WebSockets of other applications did not end in time", len(self.sessions))
