"""Users and counts: what the other processes have."""

from __future__ import annotations

from functools import partial

import trio

from verbtrio.brokers.base import Session
from verbtrio.messages.frame import Frame
from verbtrio.testing.broker_checks import Checks, text


class UserChecks(Checks):
    """`send_user`, `disconnect_user` and their `_nowait`; `counted`, `elsewhere`, `count`."""

    async def test_send_to_a_user(self) -> None:
        """In the other processes; it is told how many connections that reached."""
        user, frames = self.name("user"), [text("hello"), Frame(b"\0\xff", text=False), text(""), text("x" * 2**20)]
        async with self.processes(3) as (one, *others):
            one.process.users = {user: 100}
            others[0].process.users, others[1].process.users = {user: 2}, {user: 3}
            for frame in frames:
                assert await one.session.send_user(user, frame) == 5
            assert await one.session.send_user(self.name("user"), text("nobody")) == 0
            for other in others:
                sent = [call for call in other.process.sent if call[0] == user]
                assert sent == [(user, frame.text, frame.payload) for frame in frames]
            assert one.process.sent == []

    async def test_send_to_a_user_without_waiting(self) -> None:
        """In order; its own process is left out, too."""
        user = self.name("user")
        async with self.processes(3) as (one, *others):
            for number in range(20):
                one.session.send_user_nowait(user, text(str(number)))
            for other in others:
                await self.until(other, lambda process: len(process.sent) >= 20)
                assert other.process.sent == [(user, True, str(number).encode()) for number in range(20)]
            await trio.sleep(self.quiet)
            assert one.process.sent == []

    async def test_disconnect_a_user(self) -> None:
        """In the other processes, with this code and reason."""
        user = self.name("user")
        async with self.processes(3) as (one, *others):
            one.process.users = {user: 100}
            others[0].process.users = {user: 2}
            assert await one.session.disconnect_user(user, 4000, "é\N{PILE OF POO}") == 2
            one.session.disconnect_user_nowait(user, 1008, "")
            for other in others:
                await self.until(other, lambda process: len(process.disconnected) >= 2)
                assert other.process.disconnected == [(user, 4000, "é\N{PILE OF POO}"), (user, 1008, "")]
            await trio.sleep(self.quiet)
            assert one.process.disconnected == []

    async def test_alone(self) -> None:
        """There is nobody to ask."""
        async with self.processes(1) as (one,):
            one.process.users = {"ann": 3}
            assert await one.session.send_user("ann", text("hello")) == 0
            assert await one.session.disconnect_user("ann", 1000, "") == 0
            one.session.send_user_nowait("ann", text("hello"))
            one.session.disconnect_user_nowait("ann", 1000, "")
            one.session.broadcast("room", text("hello"), (), None)
            assert one.session.elsewhere("room") == 0
            assert (one.process.sent, one.process.disconnected, one.process.relayed) == ([], [], [])

    async def test_users_are_not_mixed_up(self) -> None:
        """Whatever their names."""
        async with self.processes(2) as (one, other):
            for number, user in enumerate(self.odd_names):
                other.process.users[user] = number
            for number, user in enumerate(self.odd_names):
                assert await one.session.send_user(user, text(str(number))) == number
                assert await one.session.disconnect_user(user, 1000, user[:9]) == number
            assert [user for user, *_ in other.process.sent] == list(self.odd_names)
            assert other.process.disconnected == [(user, 1000, user[:9]) for user in self.odd_names]

    async def test_counts(self) -> None:
        """Of a room that others have members in: known to those who have, too, and to all who ask."""
        room, other_room = self.name(), self.name()
        async with self.processes(3) as nodes:
            for node, here in zip(nodes, (1, 2, 0), strict=True):
                node.process.members[room] = here
                if here:
                    await node.subscribe(room)
                    node.session.counted(room, here)
            one, two, three = nodes
            for node in nodes:
                await self.eventually(partial(_is, node.session, room, 3))
                assert await node.session.count(other_room) == 0
            with trio.fail_after(self.patience):
                while (one.session.elsewhere(room), two.session.elsewhere(room)) != (2, 1):
                    await trio.sleep(0.01)
            two.process.members[room] = 5
            two.session.counted(room, 5)
            with trio.fail_after(self.patience):
                while one.session.elsewhere(room) != 5:
                    await trio.sleep(0.01)
            await three.subscribe(room)  # those that come later learn what was before
            with trio.fail_after(self.patience):
                while three.session.elsewhere(room) != 6:
                    await trio.sleep(0.01)
            two.process.members[room] = 0
            two.session.counted(room, 0)
            two.session.unsubscribe(room)
            with trio.fail_after(self.patience):
                while one.session.elsewhere(room) != 0:
                    await trio.sleep(0.01)
            await self.eventually(partial(_is, three.session, room, 1))


async def _is(session: Session, room: str, expected: int) -> bool:
    return await session.count(room) == expected
