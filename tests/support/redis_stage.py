"""Several processes on one Redis beside what they promise: steps are played in real time, faults among them, and when
all is quiet again, what each client has got is checked.

What may be is fixed by what was told: without a gap nothing is missing; with a fault, it was seen or a gap was told.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from tests.support.redis_life import SIZES, Life, live, read_frames
from tests.support.redis_server import RedisServer
from tests.support.room_clients import shake_hands
from verbtrio import ConnectionClosed, Denied, HistoryGap, WebSocket
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position

USERS = ("ann", "bob", "ann", "eve")
PATIENCE = 40.0
"""Seconds for what comes soon, on a machine that has much else to do."""


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


class RedisStage:
    """The processes, their clients, and what is known of both.

    Args:
        server: the Redis.
        nursery: has the processes, and what takes its time.
        options: of each process's `RedisBroker`.
        processes: how many.
    """

    def __init__(self, server: RedisServer, nursery: trio.Nursery, options: dict[str, Any], processes: int = 3) -> None:
        self.clients = [Client(user) for user in USERS]
        self.lives: list[Life] = []
        self.said: dict[int, Said] = {}
        self.all_lives: list[Life] = []
        self._server = server
        self._nursery = nursery
        self._options = options
        self._processes = processes
        self._order = 0
        self._owner: dict[tuple[str, Position], int] = {}
        self._joining = 0
        self.has_faults = False

    def _clock(self) -> int:
        self._order += 1
        return self._order

    async def begin(self) -> None:
        for _ in range(self._processes):
            self.lives.append(await self._live())
        for number in range(len(self.clients)):
            await self._connect(number, number % self._processes)

    async def _live(self) -> Life:
        life: Life = await self._nursery.start(live, self._server, self._clock, self._options)
        self.all_lives.append(life)
        return life

    async def play(self, plan: list[tuple[Any, ...]]) -> None:
        """Each step is a name and arguments: see the methods."""
        for step in plan:
            await getattr(self, f"_{step[0]}")(*step[1:])

    async def finish(self) -> None:
        """Check it all, end all, and check that Redis has nothing left."""
        await self._settle()
        for client in self.clients:
            await self._hang_up(client)
        # Whoever is dead is cleared away by those who live; so are the graces.
        await self._until(self._has_forgotten_the_dead, "what dead processes have left is gone")
        for life in self.lives:
            await life.end(killed=False)
        await self._until(lambda: not self._leftovers(), lambda: f"nothing is left in Redis but {self._leftovers()}")
        self._check_ears()

    # Clients

    async def _connect(self, number: int, process: int) -> None:
        client = self.clients[number]
        client.life = life = self.lives[process % len(self.lives)]
        client.stream = life.service.open_stream()
        with trio.fail_after(PATIENCE):
            await shake_hands(client.stream, f"/ws?user={client.user}")
            client.ws = await life.opened.receive()
        self._nursery.start_soon(self._read, client, client.stream, client.members)

    async def _read(self, client: Client, stream: Any, members: dict[str, Member]) -> None:
        data = bytearray()
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            while chunk := await stream.receive_some(65536):
                data += chunk
                for message in read_frames(data):
                    if "n" in message and (member := members.get(message["room"])) is not None:
                        self._hear(client, member, message)

    def _hear(self, client: Client, member: Member, message: dict[str, Any]) -> None:
        text = message.get("position")
        position = None if text is None else Position.parse(text)
        number = message["n"]
        member.heard.append((number, position))
        if position is not None:
            assert self._owner.setdefault((member.room, position), number) == number, "two messages have one position"
            assert number not in client.got[member.room], f"{number} in {member.room} came twice"
            client.got[member.room].add(number)
            client.positions[member.room] = position

    async def _hang_up(self, client: Client) -> None:
        if client.stream is not None:
            await trio.aclose_forcefully(client.stream)
            for member in client.members.values():
                member.scope.cancel()
            client.life = client.stream = client.ws = None
            client.members = {}
            await trio.testing.wait_all_tasks_blocked()

    async def _move(self, number: int, process: int) -> None:
        """A client is cut off, and comes back to a process, which may be the same: into the same rooms, from where it
        was."""
        client = self.clients[number]
        rooms = [*client.members]
        await self._hang_up(client)
        await self._connect(number, process)
        for name in rooms:
            await self._join(number, name, True)

    async def _join(self, number: int, name: str, resumes: bool) -> None:
        client = self.clients[number]
        if client.ws is None or client.life is None or name in client.members:
            return
        since = client.positions.get(name) if resumes and SIZES[name] else None
        if since is None:
            client.got[name].clear()
        member = Member(name, client.life, since)
        client.members[name] = member
        presence = {"v": number} if name == "team:a" else None
        member.membership = client.ws.join(name, since=None if since is None else str(since), presence=presence)
        self._joining += 1
        self._nursery.start_soon(self._complete, client, client.members, member)

    async def _complete(self, client: Client, members: dict[str, Member], member: Member) -> None:
        """Wait until a join is complete, and its room subscribed to."""
        try:
            with member.scope:
                await member.membership
                while member.settled is None:
                    try:
                        await member.life.session.wait_subscribed(member.room)
                        member.settled = self._clock()
                    except BrokerUnavailable:
                        await trio.sleep(0.02)
        except (HistoryGap, BrokerUnavailable, ConnectionClosed, Denied) as error:
            if members.get(member.room) is member:
                del members[member.room]
            if isinstance(error, HistoryGap) and client.positions.get(member.room) == member.since:
                del client.positions[member.room]
        finally:
            self._joining -= 1

    async def _leave(self, number: int, name: str) -> None:
        client = self.clients[number]
        if (member := client.members.get(name)) is not None:
            with suppress(ConnectionClosed):
                await member.membership.leave()
            await trio.testing.wait_all_tasks_blocked()  # what was on its way to the client
            member.scope.cancel()
            if client.members.get(name) is member:
                del client.members[name]

    # Messages

    def _say(self, life: Life, room: str, kind: str) -> tuple[Said, dict[str, Any]]:
        order = self._clock()
        said = self.said[order] = Said(order, room, life, kind, order)
        return said, {"n": order, "room": room}

    async def _publish(self, process: int, name: str) -> None:
        await self._nursery.start(self._published, self.lives[process % len(self.lives)], name)

    async def _published(self, life: Life, name: str, *, task_status: trio.TaskStatus[Said]) -> None:
        said, message = self._say(life, name, "publish")
        task_status.started(said)
        try:
            position = await life.app.room(name).publish(message)
        except BrokerUnavailable:
            said.state = "refused"
            return
        said.state = "accepted"
        assert (position is None) == (not SIZES[name])
        if position is not None:
            assert self._owner.setdefault((name, position), said.number) == said.number, "two messages, one position"

    async def _broadcast(self, process: int, name: str) -> None:
        life = self.lives[process % len(self.lives)]
        said, message = self._say(life, name, "broadcast")
        said.state = "accepted"
        life.app.room(name).broadcast(message)

    async def _history(self, process: int, name: str) -> None:
        """A page of the history is in order, and without holes."""
        if SIZES[name]:
            with suppress(BrokerUnavailable):
                page = await self.lives[process % len(self.lives)].app.room(name).history()
                positions = [message.position for message in page.messages]
                assert [each.offset for each in positions] == [*range(page.position.offset + 1)][-len(positions) :][
                    : len(positions)
                ]
                assert len({each.epoch for each in positions}) <= 1
                assert len(positions) == min(SIZES[name], page.position.offset)
                for message in page.messages:
                    number = message.json()["n"]
                    assert self._owner.setdefault((name, message.position), number) == number

    # Faults

    async def _cut(self, process: int) -> None:
        self.has_faults = True
        self.lives[process % len(self.lives)].proxy.cut()

    async def _abandon(self, process: int) -> None:
        self.has_faults = True
        self.lives[process % len(self.lives)].proxy.abandon()

    async def _stall(self, process: int, seconds: float, direction: Any) -> None:
        """For a moment nothing goes through. It goes on by itself, while other steps are played."""
        self.has_faults = True
        proxy = self.lives[process % len(self.lives)].proxy
        proxy.stall(direction)

        async def flow() -> None:
            await trio.sleep(seconds)
            proxy.flow()

        self._nursery.start_soon(flow)

    async def _delay(self, process: int, seconds: float) -> None:
        self.has_faults = True
        self.lives[process % len(self.lives)].proxy.delay(seconds)

    async def _refuse(self, process: int, seconds: float) -> None:
        """The process loses Redis, and does not find it for a moment."""
        self.has_faults = True
        proxy = self.lives[process % len(self.lives)].proxy
        proxy.refuse()
        proxy.cut()

        async def accept() -> None:
            await trio.sleep(seconds)
            proxy.accept()

        self._nursery.start_soon(accept)

    async def _flush_scripts(self) -> None:
        self.has_faults = True
        self._server.ask("SCRIPT", "FLUSH")

    async def _restart(self) -> None:
        """Redis dies, and has forgotten everything."""
        self.has_faults = True
        self._server.restart()

    async def _replace(self, process: int, killed: bool) -> None:
        """A process ends, and another takes its place."""
        self.has_faults = True
        process %= len(self.lives)
        life = self.lives[process]
        for client in self.clients:
            if client.life is life:
                await self._hang_up(client)
        await life.end(killed=killed)
        self.lives[process] = await self._live()

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    # Quiet

    async def _settle(self) -> None:
        """End the faults; wait until all is as it should be; check what everybody has got."""
        for life in self.lives:
            life.proxy.flow()
            life.proxy.delay(0)
            life.proxy.accept()
        await self._until(self._is_connected, "all processes reach Redis")
        await self._until(lambda: not self._joining, "all joins are complete")
        await self._until(self._nothing_open, "all publishes are answered")
        await self._hear_markers()
        for client in self.clients:
            for member in client.members.values():
                self._check_heard(member)
        self._check_ears()
        await self._until(self._counts_are_right, self._show_counts)
        await self._until(self._presence_is_right, self._show_presence)

    def _is_connected(self) -> bool:
        return all(life.session.health.is_connected for life in self.lives)

    def _nothing_open(self) -> bool:
        return not any(said.state == "open" for said in self.said.values())

    async def _hear_markers(self) -> None:
        """Each process says something in each room. When that has come everywhere, so has all before it."""
        with trio.fail_after(PATIENCE):
            while True:
                await self._subscribed()
                markers = [
                    await self._nursery.start(self._published, life, name) for life in self.lives for name in SIZES
                ]
                with trio.move_on_after(3):
                    while not all(said.state != "open" for said in markers):
                        await trio.sleep(0.005)
                    if all(said.state == "accepted" for said in markers):
                        while not self._have_come(markers):
                            await trio.sleep(0.005)
                        return

    async def _subscribed(self) -> None:
        for life in self.lives:
            for name in SIZES:
                while True:
                    with suppress(BrokerUnavailable):
                        await life.session.wait_subscribed(name)
                        break
                    await trio.sleep(0.02)

    def _have_come(self, markers: list[Said]) -> bool:
        for client in self.clients:
            for name, member in client.members.items():
                heard = {number for number, _ in member.heard}
                if any(said.room == name and said.number not in heard for said in markers):
                    return False
        return True

    def _check_heard(self, member: Member) -> None:
        name, life = member.room, member.life
        numbers = [number for number, _ in member.heard]
        assert len(set(numbers)) == len(numbers), f"{name}: something came twice: {numbers}"
        last = member.since
        for number, position in member.heard:
            said = self.said[number]
            assert said.room == name
            if position is None:
                continue
            if last is not None and position != Position(last.epoch, last.offset + 1):
                assert position.epoch != last.epoch or position.offset > last.offset, f"{name}: {position} after {last}"
                assert position in life.ear.licensed[name], f"{name}: {position} after {last}, and no gap was told"
            last = position
        newest: dict[Any, int] = {}
        for number in numbers:
            said = self.said[number]
            # What is broadcast comes to the members that are here at once, before what was published a moment ago.
            key = (said.life, said.kind if said.life is life or SIZES[name] else "")
            assert number > newest.get(key, 0), f"{name}: {number} after {newest[key]}, of one process"
            newest[key] = number
        assert member.settled is not None
        heard = set(numbers)
        for said in self.said.values():
            if said.room != name or said.state != "accepted" or said.order < member.settled or said.number in heard:
                continue
            assert self._may_be_missing(said, life), (
                f"{name}: {said.kind} {said.number} is missing: no gap told"
            )

    def _may_be_missing(self, said: Said, life: Life) -> bool:
        if said.kind == "broadcast" and said.life.was_killed:
            return True  # whoever knew of it is dead
        return any(order > said.order for order in life.ear.gaps[said.room])

    def _check_ears(self) -> None:
        for life in self.all_lives:
            assert not life.ear.mistakes, life.ear.mistakes
            if not self.has_faults:
                assert not any(life.ear.gaps.values()), f"gaps without a fault: {life.ear.gaps}"

    # Counts and presence

    def _members(self, name: str) -> list[Client]:
        return [client for client in self.clients if name in client.members]

    async def _counts_are_right(self) -> bool:
        for name in SIZES:
            expected = len(self._members(name))
            for life in self.lives:
                room = life.app.room(name)
                if await room.count() != expected or (room.here and len(room) != expected):
                    return False
        return True

    def _show_counts(self) -> str:
        lives = [{name: len(life.app.room(name)) for name in SIZES} for life in self.lives]
        return f"the counts are {[(name, len(self._members(name))) for name in SIZES]}: {lives}"

    async def _presence_is_right(self) -> bool:
        expected: dict[str, int] = {}
        for client in self._members("team:a"):
            expected[client.user] = expected.get(client.user, 0) + 1
        for life in self.lives:
            present = await life.app.room("team:a").presence()
            self._present = {user: one.connections for user, one in present.items()}
            if self._present != expected:
                return False
        return True

    def _show_presence(self) -> str:
        return f"present are {[client.user for client in self._members('team:a')]}: {self._present}"

    def _has_forgotten_the_dead(self) -> bool:
        keys = self._server.ask("KEYS", "*")
        living = self._server.ask("ZCARD", "verbtrio:{processes}:p")
        return living == len(self.lives) and not any(key.endswith(("}:g", "}:u", "}:c", "}:n")) for key in keys)

    def _leftovers(self) -> list[str]:
        """Keys that would stay for ever, channels that somebody listens on, and connections."""
        keys = [f"key {key}" for key in self._server.ask("KEYS", "*") if self._server.ask("TTL", key) == -1]
        channels = [f"channel {channel}" for channel in self._server.ask("PUBSUB", "CHANNELS")]
        return keys + channels + [f"connection {each['id']}" for each in self._server.connections()]

    async def _until(self, condition: Any, what: Any) -> None:
        """Ask again and again until it is so."""
        with trio.move_on_after(PATIENCE):
            while True:
                with suppress(BrokerUnavailable):
                    found = condition()
                    if found if isinstance(found, bool) else await found:
                        return
                await trio.sleep(0.01)
        raise AssertionError(f"it did not come to this: {what if isinstance(what, str) else what()}")
