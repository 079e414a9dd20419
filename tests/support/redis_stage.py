"""Several processes on one Redis beside what they promise: steps are played in real time, faults among them, and when
all is quiet again, what each client has got is checked.

What may be is fixed by what was told: without a gap nothing is missing; with a fault, it was seen or a gap was told.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio
import trio.testing

from tests.support.redis_life import SIZES, Life, live, read_frames
from tests.support.redis_quiet import PATIENCE, Quiet
from tests.support.redis_server import RedisServer
from tests.support.redis_world import Client, Member, World
from tests.support.room_clients import shake_hands
from verbtrio import ConnectionClosed, Denied, HistoryGap
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position


class RedisStage:
    """The processes, their clients, and what is known of both.

    Args:
        server: the Redis.
        nursery: has the processes, and what takes its time.
        options: of each process's `RedisBroker`.
        processes: how many.
    """

    def __init__(self, server: RedisServer, nursery: trio.Nursery, options: dict[str, Any], processes: int = 3) -> None:
        self._world = World(server, nursery)
        self._quiet = Quiet(self._world)
        self._options = options
        self._processes = processes

    async def begin(self) -> None:
        for _ in range(self._processes):
            self._world.lives.append(await self._live())
        for number in range(len(self._world.clients)):
            await self._connect(number, number % self._processes)

    async def _live(self) -> Life:
        life: Life = await self._world.nursery.start(live, self._world.server, self._world.clock, self._options)
        self._world.all_lives.append(life)
        return life

    async def play(self, plan: list[tuple[Any, ...]]) -> None:
        """Each step is a name and arguments: see the methods."""
        for step in plan:
            await getattr(self, f"_{step[0]}")(*step[1:])

    async def finish(self) -> None:
        """Check it all, end all, and check that Redis has nothing left."""
        await self._settle()
        for client in self._world.clients:
            await self._hang_up(client)
        # Whoever is dead is cleared away by those who live; so are the graces.
        await self._quiet.until(self._quiet.has_forgotten_the_dead, "what dead processes have left is gone")
        for life in self._world.lives:
            await life.end(killed=False)
        await self._quiet.until(lambda: not self._quiet.leftovers(), self._quiet.show_leftovers)
        self._quiet.check_ears()

    # Clients

    async def _connect(self, number: int, process: int) -> None:
        client = self._world.clients[number]
        client.life = life = self._world.lives[process % len(self._world.lives)]
        client.stream = life.service.open_stream()
        with trio.fail_after(PATIENCE):
            await shake_hands(client.stream, f"/ws?user={client.user}")
            client.ws = await life.opened.receive()
        self._world.nursery.start_soon(self._read, client, client.stream, client.members)

    async def _read(self, client: Client, stream: Any, members: dict[str, Member]) -> None:
        data = bytearray()
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            while chunk := await stream.receive_some(65536):
                data += chunk
                for message in read_frames(data):
                    if (member := members.get(message["room"])) is None:
                        continue
                    if "n" in message:
                        self._hear(client, member, message)
                    else:
                        self._see(member, message)

    def _hear(self, client: Client, member: Member, message: dict[str, Any]) -> None:
        text = message.get("position")
        position = None if text is None else Position.parse(text)
        number = message["n"]
        member.heard.append((number, position))
        if position is not None:
            self._world.own(member.room, position, number)
            assert number not in client.got[member.room], f"{number} in {member.room} came twice"
            client.got[member.room].add(number)
            client.positions[member.room] = position

    def _see(self, member: Member, message: dict[str, Any]) -> None:
        if message["type"] == "presence_state":
            member.view = set(message["users"])
        else:
            assert member.view is not None, "nobody is told of changes before the state"
            member.view |= {*message["joins"], *message["updates"]}
            member.view -= {*message["leaves"]}

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
        client = self._world.clients[number]
        rooms = [*client.members]
        await self._hang_up(client)
        await self._connect(number, process)
        for name in rooms:
            await self._join(number, name, True)

    async def _join(self, number: int, name: str, resumes: bool) -> None:
        client = self._world.clients[number]
        if client.ws is None or client.life is None or name in client.members:
            return
        since = client.positions.get(name) if resumes and SIZES[name] else None
        if since is None:
            client.got[name].clear()
        member = Member(name, client.life, since)
        client.members[name] = member
        presence = {"v": number} if name == "team:a" else None
        member.membership = client.ws.join(name, since=None if since is None else str(since), presence=presence)
        self._world.joining += 1
        self._world.nursery.start_soon(self._complete, client, client.members, member)

    async def _complete(self, client: Client, members: dict[str, Member], member: Member) -> None:
        """Wait until a join is complete, and its room subscribed to."""
        try:
            with member.scope:
                await member.membership
                while member.settled is None:
                    try:
                        await member.life.session.wait_subscribed(member.room)
                        member.settled = self._world.clock()
                    except BrokerUnavailable:
                        await trio.sleep(0.02)
        except (HistoryGap, BrokerUnavailable, ConnectionClosed, Denied) as error:
            if members.get(member.room) is member:
                del members[member.room]
            if isinstance(error, HistoryGap) and client.positions.get(member.room) == member.since:
                del client.positions[member.room]
        finally:
            self._world.joining -= 1

    async def _leave(self, number: int, name: str) -> None:
        client = self._world.clients[number]
        if (member := client.members.get(name)) is not None:
            with suppress(ConnectionClosed):
                await member.membership.leave()
            await trio.testing.wait_all_tasks_blocked()  # what was on its way to the client
            member.scope.cancel()
            if client.members.get(name) is member:
                del client.members[name]

    # Messages

    async def _publish(self, process: int, name: str) -> None:
        world = self._world
        await world.nursery.start(world.published, world.lives[process % len(world.lives)], name)

    async def _broadcast(self, process: int, name: str) -> None:
        life = self._world.lives[process % len(self._world.lives)]
        said, message = self._world.say(life, name, "broadcast")
        said.state = "accepted"
        life.app.room(name).broadcast(message)

    async def _history(self, process: int, name: str) -> None:
        """A page of the history is in order, and without holes."""
        if SIZES[name]:
            with suppress(BrokerUnavailable):
                page = await self._world.lives[process % len(self._world.lives)].app.room(name).history()
                positions = [message.position for message in page.messages]
                top, size = page.position, min(SIZES[name], page.position.offset)
                assert positions == [Position(top.epoch, top.offset - size + 1 + index) for index in range(size)]
                for message in page.messages:
                    self._world.own(name, message.position, message.json()["n"])

    # Faults

    async def _cut(self, process: int) -> None:
        self._world.has_faults = True
        self._world.lives[process % len(self._world.lives)].proxy.cut()

    async def _abandon(self, process: int) -> None:
        self._world.has_faults = True
        self._world.lives[process % len(self._world.lives)].proxy.abandon()

    async def _stall(self, process: int, seconds: float, direction: Any) -> None:
        """For a moment nothing goes through. It goes on by itself, while other steps are played."""
        self._world.has_faults = True
        proxy = self._world.lives[process % len(self._world.lives)].proxy
        proxy.stall(direction)

        async def flow() -> None:
            await trio.sleep(seconds)
            proxy.flow()

        self._world.nursery.start_soon(flow)

    async def _delay(self, process: int, seconds: float) -> None:
        self._world.has_faults = True
        self._world.lives[process % len(self._world.lives)].proxy.delay(seconds)

    async def _refuse(self, process: int, seconds: float) -> None:
        """The process loses Redis, and does not find it for a moment."""
        self._world.has_faults = True
        proxy = self._world.lives[process % len(self._world.lives)].proxy
        proxy.refuse()
        proxy.cut()

        async def accept() -> None:
            await trio.sleep(seconds)
            proxy.accept()

        self._world.nursery.start_soon(accept)

    async def _flush_scripts(self) -> None:
        self._world.has_faults = True
        self._world.server.ask("SCRIPT", "FLUSH")

    async def _restart(self) -> None:
        """Redis dies, and has forgotten everything."""
        self._world.has_faults = True
        self._world.server.restart()

    async def _replace(self, process: int, killed: bool) -> None:
        """A process ends, and another takes its place."""
        self._world.has_faults = True
        process %= len(self._world.lives)
        life = self._world.lives[process]
        for client in self._world.clients:
            if client.life is life:
                await self._hang_up(client)
        await life.end(killed=killed)
        self._world.lives[process] = await self._live()

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def _settle(self) -> None:
        """End the faults; wait until all is as it should be; check what everybody has got."""
        for life in self._world.lives:
            life.proxy.flow()
            life.proxy.delay(0)
            life.proxy.accept()
        await self._quiet.settle()
