"""Who is in a room, for clients that ask. In a large room the answer may be a second old.

To read who is there takes 50 ms of the loop with 10,000 connections, and a client asks with 50 bytes. When as many come
back at the same time, each of their pages may ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import trio

from verbtrio.base.timers import Timers
from verbtrio.multiplex.news import info_of
from verbtrio.protocols.replies import ClientInfo
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.local import Rooms

LARGE = 500
"""So many members make a room a large one."""
KEPT_SECONDS = 1.0
"""For how long an answer about a large room is kept."""


class App(Protocol):
    """What this uses of the app."""

    rooms: Rooms
    host: RoomHost
    timers: Timers


class _Answer:
    """About one large room; `clients` is `None` until they have been read, by one of those who ask at a time."""

    __slots__ = ("clients", "lock")

    def __init__(self) -> None:
        self.clients: Mapping[str, ClientInfo] | None = None
        self.lock = trio.Lock()


class PresentClients:
    """Who is in the rooms of an app.

    Args:
        app: the app's parts.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._answers: dict[str, _Answer] = {}

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._answers)

    async def of(self, room: str) -> Mapping[str, ClientInfo]:
        """Who is in the room, which has presence, by connection.

        Raises:
            BrokerUnavailable: it can't be reached.
        """
        app = self._app
        if app.rooms.count(room) + app.host.elsewhere(room) < LARGE:
            return await self._read(room)
        if (answer := self._answers.get(room)) is None:
            answer = self._answers[room] = _Answer()
            app.timers.at(trio.current_time() + KEPT_SECONDS, partial(self._forget, room))
        async with answer.lock:
            if answer.clients is None:
                answer.clients = await self._read(room)
            return answer.clients

    async def _read(self, room: str) -> Mapping[str, ClientInfo]:
        connections = await self._app.host.connections(room)
        return {connection: info_of(connection, known) for connection, known in connections.items()}

    def _forget(self, room: str, now: float, when: float) -> None:
        del self._answers[room]
