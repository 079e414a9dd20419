"""Which connections are present in rooms: each by itself, in all processes."""

from __future__ import annotations

from typing import Any

import trio

from verbtrio.brokers.records import ConnectionChange, PresenceChange, Present, PresentConnection
from verbtrio.testing.broker_checks import Checks, Node
from verbtrio.testing.broker_presence import is_refused


def joined(connection: str, user: str, info: Any = None, details: Any = None) -> ConnectionChange:
    """What is told of a connection that comes."""
    return ConnectionChange("join", connection, user, info, details)


def left(connection: str, user: str, info: Any = None, details: Any = None) -> ConnectionChange:
    """What is told of a connection that goes."""
    return ConnectionChange("leave", connection, user, info, details)


class ConnectionChecks(Checks):
    """`enter`, `update`, `exit`, `connections`, `Process.connection_changed`."""

    async def connections_told(self, nodes: list[Node], room: str, *changes: ConnectionChange) -> None:
        """Wait until these are the changes of the room's connections in each process; no other may have come."""
        for node in nodes:
            process = node.process
            await self.until(node, lambda process: len(process.connection_changes_in(room)) >= len(changes))
            assert process.connection_changes_in(room) == list(changes)

    async def connected(self, node: Node, room: str, expected: dict[str, PresentConnection]) -> None:
        """Wait until these are the room's connections, in this order, as this process is told."""
        found: dict[str, PresentConnection] | None = None
        with trio.move_on_after(self.patience):
            while (found := await node.session.connections(room)) != expected:
                await trio.sleep(0.01)
        assert found == expected
        assert list(found) == list(expected)

    async def test_each_connection(self) -> None:
        """Whoever its user is, and in whichever process it is."""
        room = self.name()
        async with self.processes(3) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other, _ = nodes
            one.session.enter(room, "c3", "ann", {"name": "Ann"}, ["phone"])
            came = [joined("c3", "ann", {"name": "Ann"}, ["phone"])]
            await self.connections_told(nodes, room, *came)
            other.session.enter(room, "c1", "ann", None)  # gives no info: the user has that of the other one
            came.append(joined("c1", "ann"))
            await self.connections_told(nodes, room, *came)
            one.session.enter(room, "c2", "c2", None, {"é": [True, 1]})  # a connection without a user
            came.append(joined("c2", "c2", None, {"é": [True, 1]}))
            await self.connections_told(nodes, room, *came)
            expected = {
                "c3": PresentConnection("ann", {"name": "Ann"}, ["phone"]),
                "c1": PresentConnection("ann"),
                "c2": PresentConnection("c2", None, {"é": [True, 1]}),
            }
            for node in nodes:
                await self.connected(node, room, expected)
                assert await node.session.connections(self.name()) == {}
            await self.present(other, room, {"ann": Present({"name": "Ann"}, 2), "c2": Present(None, 1)})
            one.session.exit(room, "c3", 0)
            went = [*came, left("c3", "ann", {"name": "Ann"}, ["phone"])]
            await self.connections_told(nodes, room, *went)
            other.session.exit(room, "c1", 0)
            went.append(left("c1", "ann"))
            await self.connections_told(nodes, room, *went)
            one.session.exit(room, "c2", 0)
            await self.connections_told(nodes, room, *went, left("c2", "c2", None, {"é": [True, 1]}))
            for node in nodes:
                await self.connected(node, room, {})

    async def test_a_connection_has_no_grace(self) -> None:
        """It has gone at once, and comes back as another one; its user has not left."""
        room = self.name()
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other = nodes
            one.session.enter(room, "c1", "ann", "info", 1)
            one.session.exit(room, "c1", self.patience * 10)
            changes = [joined("c1", "ann", "info", 1), left("c1", "ann", "info", 1)]
            await self.connections_told(nodes, room, *changes)
            for node in nodes:
                await self.connected(node, room, {})
                await self.present(node, room, {"ann": Present("info", 0)})
            other.session.enter(room, "c2", "ann", None)
            await self.connections_told(nodes, room, *changes, joined("c2", "ann"))
            await self.connected(one, room, {"c2": PresentConnection("ann")})
            for node in nodes:
                assert node.process.changes_in(room) == [("join", "ann", "info")]

    async def test_the_end_of_a_grace_is_told_of_no_connection(self) -> None:
        """It has been told already."""
        room, grace = self.name(), 0.2
        async with self.processes(2) as (one, other):
            await other.subscribe(room)
            one.session.enter(room, "c1", "ann", None)
            one.session.exit(room, "c1", grace)
            await self.until(other, lambda process: len(process.changes_in(room)) == 2)
            assert other.process.connection_changes_in(room) == [joined("c1", "ann"), left("c1", "ann")]

    async def test_other_info_is_no_news_of_the_connection(self) -> None:
        """It has it from then on: what it does not give again stays, and other connections keep their own."""
        room = self.name()
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other = nodes
            session = one.session
            session.enter(room, "c1", "ann", 1, "details")
            session.enter(room, "c2", "ann", 2, "others")
            second = PresentConnection("ann", 2, "others")
            await self.connected(other, room, {"c1": PresentConnection("ann", 1, "details"), "c2": second})
            session.enter(room, "c1", "ann", None)
            session.enter(room, "c1", "ann", 3)
            await self.connected(other, room, {"c1": PresentConnection("ann", 3, "details"), "c2": second})
            session.enter(room, "c1", "ann", None, "newer")
            await self.connected(other, room, {"c1": PresentConnection("ann", 3, "newer"), "c2": second})
            session.update(room, "c1", {"a": True})
            await self.connected(other, room, {"c1": PresentConnection("ann", {"a": True}, "newer"), "c2": second})
            session.update(room, "c1", None)
            session.update(room, "nobody", "x")
            await self.connected(other, room, {"c1": PresentConnection("ann", None, "newer"), "c2": second})
            session.exit(room, "c1", 0)
            changes = [joined("c1", "ann", 1, "details"), joined("c2", "ann", 2, "others")]
            await self.connections_told(nodes, room, *changes, left("c1", "ann", None, "newer"))

    async def test_what_a_connection_gives_is_a_copy(self) -> None:
        """What the caller, or whoever asks, does to it afterwards is no change."""
        room, given = self.name(), {"mood": "good"}
        async with self.processes(1) as (one,):
            one.session.enter(room, "c1", "ann", given, given)
            given["mood"] = "bad"
            expected = {"c1": PresentConnection("ann", {"mood": "good"}, {"mood": "good"})}
            await self.connected(one, room, expected)
            found: Any = (await one.session.connections(room))["c1"]
            found.info["mood"] = found.details["mood"] = "ugly"
            await self.connected(one, room, expected)

    async def test_details_that_json_has_no_form_for(self) -> None:
        """They are refused before anything has changed."""
        room = self.name()
        async with self.processes(1) as (one,):
            await one.subscribe(room)
            session = one.session
            assert is_refused(lambda: session.enter(room, "c1", "ann", None, object()))
            session.enter(room, "c1", "ann", "info", "details")
            assert is_refused(lambda: session.enter(room, "c1", "ann", "other", object()))
            assert is_refused(lambda: session.enter(room, "c1", "bob", "other", object()))
            session.enter(room, "c2", "bob", None)
            await self.connections_told([one], room, joined("c1", "ann", "info", "details"), joined("c2", "bob"))
            expected = {"c1": PresentConnection("ann", "info", "details"), "c2": PresentConnection("bob")}
            await self.connected(one, room, expected)
            assert one.process.changes_in(room) == [("join", "ann", "info"), ("join", "bob", None)]

    async def test_a_connection_that_becomes_another_users(self) -> None:
        """It goes and comes. What it gave as the other user is gone with that one."""
        room = self.name()
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            one, other = nodes
            one.session.enter(room, "c1", "ann", "a", "details")
            one.session.enter(room, "c2", "ann", None)
            one.session.enter(room, "c1", "bob", None)
            changes = [joined("c1", "ann", "a", "details"), joined("c2", "ann")]
            changes += [left("c1", "ann", "a", "details"), joined("c1", "bob")]
            await self.connections_told(nodes, room, *changes)
            expected = {"c2": PresentConnection("ann"), "c1": PresentConnection("bob")}
            await self.connected(other, room, expected)

    async def test_users_and_connections_are_told_in_one_order(self) -> None:
        """A user comes before its connections, and leaves after them, whatever happens at the same time, and whatever
        a process does when it is told."""
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
                    node.session.enter(room, name, f"{name} {number % 2}", number)
                    await trio.lowlevel.checkpoint()
                    node.session.enter(room, f"{name} too", f"{name} {number % 2}", None)
                    if number % 2:
                        node.session.exit(room, name, 0)
                    await trio.lowlevel.checkpoint()
                node.session.exit(room, f"{name} too", 0)
                node.session.exit(room, name, 0)

            async with trio.open_nursery() as nursery:
                for index, node in enumerate(nodes):
                    nursery.start_soon(come_and_go, node, f"user{index}")
                for number in range(5):
                    first.session.enter(room, f"slow{number}", f"slow{number}", None)
            await self.connected(first, room, {})
            await self.present(first, room, {})
            first.session.enter(room, "last", "last", None)
            for node in nodes:
                await self.until(node, lambda process: joined("last", "last") in process.all_changes_in(room))
                assert node.process.all_changes_in(room) == first.process.all_changes_in(room)
            self._check_nesting(first.process.all_changes_in(room))

    def _check_nesting(self, changes: list[PresenceChange | ConnectionChange]) -> None:
        """Each connection is told of while its user is present; when all is told, only the last one is left."""
        there: dict[str, set[str]] = {}
        for change in changes:
            if isinstance(change, PresenceChange):
                if change.kind == "join":
                    assert there.setdefault(change.user, set()) == set()
                elif change.kind == "leave":
                    assert there.pop(change.user) == set()
            elif change.kind == "join":
                assert change.connection not in there[change.user]
                there[change.user].add(change.connection)
            else:
                there[change.user].remove(change.connection)
        assert there == {"last": {"last"}}

    async def test_a_sessions_end_takes_its_connections_with_it(self) -> None:
        """The others are told of each, and keep their own."""
        room = self.name()
        async with self.brokers() as make, self.opened(make()) as stays:
            await stays.subscribe(room)
            stays.session.enter(room, "s1", "ann", None)
            came = [joined("s1", "ann")]
            await self.connections_told([stays], room, *came)
            async with self.opened(make()) as goes:
                goes.session.enter(room, "g1", "ann", "info", 1)
                goes.session.enter(room, "g2", "bob", None)
                came += [joined("g1", "ann", "info", 1), joined("g2", "bob")]
                await self.connections_told([stays], room, *came)
            with trio.fail_after(self.at_once):
                await self.connected(stays, room, {"s1": PresentConnection("ann")})
                await self.until(stays, lambda process: len(process.connection_changes_in(room)) >= 5)
            ended = stays.process.connection_changes_in(room)[3:]
            assert sorted(ended, key=lambda change: change.connection) == [
                left("g1", "ann", "info", 1),
                left("g2", "bob"),
            ]

    async def test_connection_names_are_not_mixed_up(self) -> None:
        """Neither rooms' nor users' nor connections'."""
        mark, names = self.name(""), self.odd_names
        rooms = names[:6]
        async with self.processes(2) as (one, other):
            for room in rooms:
                for name in names:
                    one.session.enter(mark + room, name, f"{name[-9:]}!", None, name[-9:])
            expected = {name: PresentConnection(f"{name[-9:]}!", None, name[-9:]) for name in names}
            for room in rooms:
                await self.connected(other, mark + room, expected)
            for name in names[1:]:
                one.session.exit(mark + rooms[0], name, 0)
            await self.connected(other, mark + rooms[0], {"": expected[""]})
            await self.connected(other, mark + rooms[1], expected)
