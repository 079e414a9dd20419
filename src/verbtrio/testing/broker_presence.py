"""Who is present in rooms: once a user, in all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from verbtrio.brokers.records import PresenceChange, Present
from verbtrio.testing.broker_checks import Checks, Node


def is_refused(call: Callable[[], None]) -> bool:
    """Whether it raises a `TypeError`."""
    try:
        call()
    except TypeError:
        return True
    return False


class PresenceChecks(Checks):
    """`enter`, `update`, `exit`, `presence`, `Process.changed`."""

    async def told(self, nodes: list[Node], room: str, *changes: tuple[str, str, object]) -> None:
        """Wait until these are the room's changes in each process; no other may have come."""
        for node in nodes:
            process = node.process
            await self.until(node, lambda process: len(process.changes_in(room)) >= len(changes))
            assert process.changes_in(room) == list(changes)

    async def test_once_a_user(self) -> None:
        """However many connections, in however many processes."""
        room = self.name()
        async with self.processes(3) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other, _ = nodes
            one.session.enter(room, "c1", "ann", {"name": "Ann"})
            await self.told(nodes, room, ("join", "ann", {"name": "Ann"}))
            one.session.enter(room, "c2", "ann", {"name": "Ann"})
            other.session.enter(room, "c3", "ann", {"name": "Ann"})
            other.session.enter(room, "c4", "c4", None)  # a connection without a user
            joined = [("join", "ann", {"name": "Ann"}), ("join", "c4", None)]
            await self.told(nodes, room, *joined)
            expected = {"ann": Present({"name": "Ann"}, 3), "c4": Present(None, 1)}
            for node in nodes:
                await self.present(node, room, expected)
                assert list(await node.session.presence(room)) == ["ann", "c4"]  # in the order in which they came
            one.session.exit(room, "c1", 0)
            other.session.exit(room, "c3", 0)
            await self.present(other, room, {"ann": Present({"name": "Ann"}, 1), "c4": Present(None, 1)})
            one.session.exit(room, "c2", 0)
            await self.told(nodes, room, *joined, ("leave", "ann", {"name": "Ann"}))
            other.session.exit(room, "c4", 0)
            await self.told(nodes, room, *joined, ("leave", "ann", {"name": "Ann"}), ("leave", "c4", None))
            for node in nodes:
                await self.present(node, room, {})

    async def test_public_info(self) -> None:
        """It changes by `update`, and by a connection that enters with another one; the same again is no change, nor is
        none of a connection that enters."""
        room = self.name()
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other = nodes
            one.session.enter(room, "c1", "ann", 1)
            await self.present(other, room, {"ann": Present(1, 1)})
            other.session.enter(room, "c2", "ann", 2)
            await self.told(nodes, room, ("join", "ann", 1), ("update", "ann", 2))
            one.session.update(room, "c1", {"a": [True, None, "é"]})
            one.session.update(room, "c1", {"a": [True, None, "é"]})
            one.session.update(room, "c1", {"a": [1, None, "é"]})
            one.session.enter(room, "c1", "ann", None)
            one.session.update(room, "c1", "b")
            one.session.update(room, "c1", None)
            one.session.update(room, "nobody", "x")
            one.session.update(self.name(), "c1", "x")
            one.session.exit(room, "c1", 0)
            infos = (2, {"a": [True, None, "é"]}, {"a": [1, None, "é"]}, "b", None)
            await self.told(nodes, room, ("join", "ann", 1), *[("update", "ann", info) for info in infos])
            assert [str(info) for _, _, info in other.process.changes_in(room)][2] == "{'a': [True, None, 'é']}"
            await self.present(other, room, {"ann": Present(None, 1)})

    async def test_public_info_is_a_copy(self) -> None:
        """What the caller does to it afterwards is no change yet, and one as soon as it is told."""
        room, info = self.name(), {"mood": "good"}
        async with self.processes(2) as nodes:
            one, other = nodes
            await one.subscribe(room)
            await other.subscribe(room)
            one.session.enter(room, "c1", "ann", info)
            info["mood"] = "bad"
            await self.present(other, room, {"ann": Present({"mood": "good"}, 1)})
            one.session.update(room, "c1", info)
            await self.told(nodes, room, ("join", "ann", {"mood": "good"}), ("update", "ann", {"mood": "bad"}))
            found: Any = (await one.session.presence(room))["ann"].info
            found["mood"] = "ugly"
            await self.present(one, room, {"ann": Present({"mood": "bad"}, 1)})

    async def test_public_info_that_json_has_no_form_for(self) -> None:
        """It is refused before anything has changed."""
        room = self.name()
        async with self.processes(1) as (one,):
            await one.subscribe(room)
            assert is_refused(lambda: one.session.enter(room, "c1", "ann", object()))
            one.session.enter(room, "c1", "ann", "info")
            assert is_refused(lambda: one.session.update(room, "c1", object()))
            assert is_refused(lambda: one.session.enter(room, "c1", "bob", object()))
            one.session.enter(room, "c2", "bob", None)
            await self.told([one], room, ("join", "ann", "info"), ("join", "bob", None))
            await self.present(one, room, {"ann": Present("info", 1), "bob": Present(None, 1)})

    async def test_exits_of_those_who_are_not_there(self) -> None:
        """They do nothing: unknown ones, those that have gone, those in another room."""
        room, elsewhere = self.name(), self.name()
        async with self.processes(1) as (one,):
            await one.subscribe(room, elsewhere)
            one.session.exit(room, "nobody", 0)
            one.session.enter(room, "c1", "ann", None)
            one.session.enter(room, "c2", "ann", None)
            one.session.exit(elsewhere, "c1", 0)
            one.session.exit(room, "ann", 0)
            one.session.exit(room, "c1", 0)
            one.session.exit(room, "c1", 0)
            await self.present(one, room, {"ann": Present(None, 1)})
            await self.present(one, elsewhere, {})
            await self.told([one], room, ("join", "ann", None))

    async def test_grace(self) -> None:
        """A user whose last connection has gone is there, with none, for some time; then leaves."""
        room, grace = self.name(), 0.3
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other = nodes
            one.session.enter(room, "c1", "ann", "info")
            await self.told(nodes, room, ("join", "ann", "info"))
            begin = trio.current_time()
            one.session.exit(room, "c1", grace)
            await self.until(other, lambda process: len(process.changes_in(room)) > 1)
            assert trio.current_time() - begin > grace * 0.9
            await self.told(nodes, room, ("join", "ann", "info"), ("leave", "ann", "info"))
            await self.present(other, room, {})

    async def test_grace_leaves_the_user_present(self) -> None:
        """With no connection; and nobody is told anything."""
        room = self.name()
        async with self.processes(2) as (one, other):
            await other.subscribe(room)
            one.session.enter(room, "c1", "ann", "info")
            one.session.exit(room, "c1", self.patience * 10)
            await self.present(other, room, {"ann": Present("info", 0)})
            await self.told([other], room, ("join", "ann", "info"))

    async def test_a_reload_is_neither_join_nor_leave(self) -> None:
        """Even if the user comes back to another process, and goes and comes again and again."""
        room, grace = self.name(), 0.4
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other = nodes
            one.session.enter(room, "c0", "ann", "info")
            await self.present(other, room, {"ann": Present("info", 1)})
            for number in range(3):
                here, there = nodes[number % 2], nodes[(number + 1) % 2]
                here.session.exit(room, f"c{number}", grace if number else self.patience * 10)
                there.session.enter(room, f"c{number + 1}", "ann", "info")
                await self.present(here, room, {"ann": Present("info", 1)})
            await trio.sleep(grace + self.quiet)
            await self.told(nodes, room, ("join", "ann", "info"))
            await self.present(one, room, {"ann": Present("info", 1)})
            # A grace that is over by then does not shorten the next one.
            begin = trio.current_time()
            other.session.exit(room, "c3", grace)
            await self.told(nodes, room, ("join", "ann", "info"), ("leave", "ann", "info"))
            assert trio.current_time() - begin > grace * 0.9

    async def test_a_connection_of_another_user(self) -> None:
        """The first user has lost it; another connection of that user stays."""
        room = self.name()
        async with self.processes(1) as (one,):
            await one.subscribe(room)
            one.session.enter(room, "c1", "ann", "a")
            one.session.enter(room, "c1", "bob", "b")
            joined = [("join", "ann", "a"), ("leave", "ann", "a"), ("join", "bob", "b")]
            await self.told([one], room, *joined)
            await self.present(one, room, {"bob": Present("b", 1)})
            one.session.enter(room, "c2", "bob", "b")
            one.session.enter(room, "c2", "ann", "a")
            await self.told([one], room, *joined, ("join", "ann", "a"))
            await self.present(one, room, {"bob": Present("b", 1), "ann": Present("a", 1)})
            one.session.exit(room, "c1", 0)
            await self.told([one], room, *joined, ("join", "ann", "a"), ("leave", "bob", "b"))

    async def test_all_are_told_in_one_order(self) -> None:
        """Whatever happens at the same time, and whatever a process does when it is told."""
        room = self.name()
        async with self.processes(3) as nodes:
            for node in nodes:
                await node.subscribe(room)
            first = nodes[0]

            def send_away(changed_room: str, change: PresenceChange) -> None:
                if (changed_room, change.kind) == (room, "join") and change.user.startswith("slow"):
                    first.session.exit(room, change.user, 0)

            first.process.when_changed = send_away

            async def come_and_go(node: Node, name: str) -> None:
                for number in range(5):
                    node.session.enter(room, f"{name}{number}", name, number)
                    await trio.lowlevel.checkpoint()
                    node.session.exit(room, f"{name}{number}", 0)
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                for index, node in enumerate(nodes):
                    nursery.start_soon(come_and_go, node, f"user{index}")
                for number in range(5):
                    first.session.enter(room, f"slow{number}", f"slow{number}", None)
            for node in nodes:
                process = node.process
                await self.until(node, lambda process: len(process.changes_in(room)) >= 40)
                assert process.changes_in(room) == first.process.changes_in(room)
                kinds: dict[str, list[str]] = {}
                for kind, user, _ in process.changes_in(room):
                    kinds.setdefault(user, []).append(kind)
                assert all(of_user == ["join", "leave"] * (len(of_user) // 2) for of_user in kinds.values())

    async def test_present_names_are_not_mixed_up(self) -> None:
        """Neither rooms' nor users' nor connections'."""
        mark = self.name("")
        rooms = self.odd_names[:6]
        async with self.processes(2) as (one, other):
            for room in rooms:
                for name in self.odd_names:
                    one.session.enter(mark + room, name, name, name[-9:])
            for room in rooms:
                await self.present(other, mark + room, {name: Present(name[-9:], 1) for name in self.odd_names})
            for name in self.odd_names[1:]:
                one.session.exit(mark + rooms[0], name, 0)
            await self.present(other, mark + rooms[0], {"": Present("", 1)})
            await self.present(other, mark + rooms[1], {name: Present(name[-9:], 1) for name in self.odd_names})
