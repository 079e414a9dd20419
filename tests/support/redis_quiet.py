"""What must be so once all is quiet: what each client has got, how many members there are, who is present."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from tests.support.redis_life import SIZES, Life
from tests.support.redis_world import Client, Member, Said, World
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position

PATIENCE = 40.0
"""Seconds for what comes soon, on a machine that has much else to do."""


class Quiet:
    """Brings a world to rest, and checks it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._present: dict[str, int] = {}

    async def settle(self) -> None:
        """Wait until all is as it should be; check what everybody has got. There are no faults any more."""
        await self.until(self._is_connected, "all processes reach Redis")
        await self.until(lambda: not self._world.joining, "all joins are complete")
        await self.until(self._nothing_open, "all publishes are answered")
        await self._hear_markers()
        for client in self._world.clients:
            for member in client.members.values():
                self._check_heard(member)
        self.check_ears()
        await self.until(self._counts_are_right, self._show_counts)
        await self.until(self._presence_is_right, self._show_presence)
        await self.until(self._views_are_right, "clients see who is present")
        self._world.quiet = self._world.clock()

    def _is_connected(self) -> bool:
        return all(life.session.health.is_connected for life in self._world.lives)

    def _nothing_open(self) -> bool:
        return not any(said.state == "open" for said in self._world.said.values())

    async def _hear_markers(self) -> None:
        """Each process says something in each room. When that has come everywhere, so has all before it."""
        with trio.fail_after(PATIENCE):
            while True:
                await self._subscribed()
                markers = [
                    await self._world.nursery.start(self._world.published, life, name)
                    for life in self._world.lives
                    for name in SIZES
                ]
                with trio.move_on_after(3):
                    while not all(said.state != "open" for said in markers):
                        await trio.sleep(0.005)
                    if all(said.state == "accepted" for said in markers):
                        while not self._have_come(markers):
                            await trio.sleep(0.005)
                        return

    async def _subscribed(self) -> None:
        for life in self._world.lives:
            for name in SIZES:
                while True:
                    with suppress(BrokerUnavailable):
                        await life.session.wait_subscribed(name)
                        break
                    await trio.sleep(0.02)

    def _have_come(self, markers: list[Said]) -> bool:
        for client in self._world.clients:
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
            said = self._world.said[number]
            assert said.room == name
            if position is None:
                continue
            if last is not None and position != Position(last.epoch, last.offset + 1):
                assert position.epoch != last.epoch or position.offset > last.offset, f"{name}: {position} after {last}"
                assert position in life.ear.licensed[name], f"{name}: {position} after {last}, and no gap was told"
            last = position
        newest: dict[Any, int] = {}
        for number in numbers:
            said = self._world.said[number]
            # What is broadcast comes to the members that are here at once, before what was published a moment ago.
            key = (said.life, said.kind if said.life is life or SIZES[name] else "")
            assert number > newest.get(key, 0), f"{name}: {number} after {newest[key]}, of one process"
            newest[key] = number
        assert member.settled is not None
        heard = set(numbers)
        for said in self._world.said.values():
            if said.room != name or said.state != "accepted" or said.order < max(member.settled, self._world.quiet):
                continue
            if said.number in heard:
                continue
            assert self._may_be_missing(said, life), f"{name}: {said.kind} {said.number} is missing: no gap told"

    def _may_be_missing(self, said: Said, life: Life) -> bool:
        if said.kind == "broadcast" and said.life.was_killed:
            return True  # whoever knew of it is dead
        if said.kind == "broadcast" and SIZES[said.room] and any(order > self._world.quiet for order in life.losses):
            return True  # what a process misses of a history it reads; what no history has is reported of other rooms
        return any(order > said.order for order in life.ear.gaps[said.room])

    def check_ears(self) -> None:
        for life in self._world.all_lives:
            assert not life.ear.mistakes, life.ear.mistakes
            if not self._world.has_faults:
                assert not any(life.ear.gaps.values()), f"gaps without a fault: {life.ear.gaps}"

    # Counts and presence

    def _members(self, name: str) -> list[Client]:
        return [client for client in self._world.clients if name in client.members]

    async def _counts_are_right(self) -> bool:
        for name in SIZES:
            expected = len(self._members(name))
            for life in self._world.lives:
                room = life.app.room(name)
                if await room.count() != expected or (room.here and len(room) != expected):
                    return False
        return True

    def _show_counts(self) -> str:
        lives = [{name: len(life.app.room(name)) for name in SIZES} for life in self._world.lives]
        return f"the counts are {[(name, len(self._members(name))) for name in SIZES]}: {lives}"

    async def _presence_is_right(self) -> bool:
        expected: dict[str, int] = {}
        for client in self._members("team:a"):
            expected[client.user] = expected.get(client.user, 0) + 1
        for life in self._world.lives:
            present = await life.app.room("team:a").presence()
            self._present = {user: one.connections for user, one in present.items()}
            if self._present != expected:
                return False
        return True

    def _show_presence(self) -> str:
        return f"present are {[client.user for client in self._members('team:a')]}: {self._present}"

    def _views_are_right(self) -> bool:
        members = [client.members["team:a"] for client in self._members("team:a")]
        present = {client.user for client in self._members("team:a")}
        return all(member.view == present for member in members)

    def has_forgotten_the_dead(self) -> bool:
        keys = self._world.server.ask("KEYS", "*")
        living = self._world.server.ask("ZCARD", "verbtrio:{processes}:p")
        return living == len(self._world.lives) and not any(key.endswith(("}:g", "}:u", "}:c", "}:n")) for key in keys)

    def leftovers(self) -> list[str]:
        """Keys that would stay for ever, channels that somebody listens on, and connections."""
        keys = [f"key {key}" for key in self._world.server.ask("KEYS", "*") if self._world.server.ask("TTL", key) == -1]
        channels = [f"channel {channel}" for channel in self._world.server.ask("PUBSUB", "CHANNELS")]
        return keys + channels + [f"connection {each['id']}" for each in self._world.server.connections()]

    def show_leftovers(self) -> str:
        return f"nothing is left in Redis but {self.leftovers()}"

    async def until(self, condition: Any, what: Any) -> None:
        """Ask again and again until it is so."""
        with trio.move_on_after(PATIENCE):
            while True:
                with suppress(BrokerUnavailable):
                    found = condition()
                    if found if isinstance(found, bool) else await found:
                        return
                await trio.sleep(0.01)
        raise AssertionError(f"it did not come to this: {what if isinstance(what, str) else what()}")
