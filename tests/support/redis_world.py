"""What is known of several processes on one Redis, and of their clients, while a plan is played."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import trio

from tests.support.redis_life import SIZES, Life
from tests.support.redis_server import RedisServer
from verbtrio import WebSocket
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position

USERS = ("ann", "bob", "ann", "eve")


@dataclass(eq=False)
class Said:
    """A message. `order`: when it was said. `state`: "open", "accepted" or "refused"; a broadcast is accepted."""

    number: int
    room: str
    life: Life
    kind: str
    order: int
    state: str = "open"


@dataclass(eq=False)
class Member:
    """One membership: `settled` is when it was complete, `None` before; `since` is where it goes on from."""

    room: str
    life: Life
    since: Position | None
    membership: Any = None
    settled: int | None = None
    heard: list[tuple[int, Position | None]] = field(default_factory=list)
    view: set[str] | None = None
    """Who is present, as it was told; `None`: not yet."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Of whoever waits for it to settle."""


@dataclass(eq=False)
class Client:
    """A user's device: it comes and goes, at one process or another, and remembers what it has got.

    Attributes:
        positions: the latest one that it has got, by room.
        got: the numbers of all that had a position, by room, since it last began anew there.
    """

    user: str
    life: Life | None = None
    stream: Any = None
    ws: WebSocket | None = None
    members: dict[str, Member] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    got: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in SIZES})


class World:
    """All of it.

    Args:
        server: the Redis.
        nursery: has the processes, and what takes its time.

    Attributes:
        lives: the processes there are now.
        all_lives: those there have been, too.
        said: every message, by its number.
        joining: how many joins are not complete.
        has_faults: whether there has been a fault.
        quiet: when all was quiet for the last time.
    """

    def __init__(self, server: RedisServer, nursery: trio.Nursery) -> None:
        self.server = server
        self.nursery = nursery
        self.clients = [Client(user) for user in USERS]
        self.lives: list[Life] = []
        self.all_lives: list[Life] = []
        self.said: dict[int, Said] = {}
        self.joining = 0
        self.has_faults = False
        self.quiet = 0
        self._owner: dict[tuple[str, Position], int] = {}
        self._order = 0

    def clock(self) -> int:
        """Counts what happens, in its order."""
        self._order += 1
        return self._order

    def own(self, room: str, position: Position, number: int) -> None:
        """This message has this position, and no other has."""
        assert self._owner.setdefault((room, position), number) == number, f"{room}: two messages are at {position}"

    def say(self, life: Life, room: str, kind: str) -> tuple[Said, dict[str, Any]]:
        """What a process says next in a room: as it is known here, and as it is sent."""
        order = self.clock()
        said = self.said[order] = Said(order, room, life, kind, order)
        return said, {"n": order, "room": room}

    async def published(self, life: Life, name: str, *, task_status: trio.TaskStatus[Said]) -> None:
        """Publish a message. `started` gives it; in the same step it is on its way."""
        said, message = self.say(life, name, "publish")
        task_status.started(said)
        try:
            position = await life.app.room(name).publish(message)
        except BrokerUnavailable:
            said.state = "refused"
            return
        said.state = "accepted"
        assert (position is None) == (not SIZES[name])
        if position is not None:
            self.own(name, position, said.number)
