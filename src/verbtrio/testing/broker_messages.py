"""Broadcasts and publications: to whom, and in which order."""

from __future__ import annotations

import trio

from verbtrio.base.position import Position
from verbtrio.brokers.records import History
from verbtrio.messages.frame import Frame
from verbtrio.testing.broker_checks import Checks, Node, text


class MessageChecks(Checks):
    """`broadcast`, `publish`, `subscribe`, `wait_subscribed`."""

    async def test_a_publication_reaches_all_subscribed_processes(self) -> None:
        """Its publisher, too; as it was, whatever it is."""
        room = self.name()
        frames = [
            text("hello"),
            text(""),
            text("é\N{PILE OF POO}\0"),
            Frame(b"", text=False),
            Frame(bytes(range(256)), text=False),
            Frame(b"x" * 2**20, text=False),
            text("x" * 2**20),
        ]
        async with self.processes(3) as nodes:
            for node in nodes:
                await node.subscribe(room)
            for frame in frames:
                assert await nodes[0].session.publish(room, frame, None) is None
            await self.delivered(nodes, room, len(frames))
            for node in nodes:
                assert [tuple(call) for call in node.process.delivered if call.room == room] == [
                    (room, frame.text, frame.payload, None) for frame in frames
                ]

    async def test_what_is_published_without_waiting(self) -> None:
        """A broker that can't says so, and has done nothing. For one that can, it is as what is published."""
        room, history = self.name(), History(size=1000)
        async with self.processes(2) as nodes:
            for node in nodes:
                await node.subscribe(room)
            first = await nodes[0].session.publish(room, text("0"), history)
            assert first is not None
            said = ["0"]
            try:
                position = nodes[0].session.publish_nowait(room, text("1"), history)
            except trio.WouldBlock:
                pass
            else:
                assert position == Position(first.epoch, first.offset + 1)
                said.append("1")
            last = await nodes[1].session.publish(room, text("2"), history)
            said.append("2")
            assert last == Position(first.epoch, first.offset + len(said) - 1)
            await self.delivered(nodes, room, len(said))
            for node in nodes:
                calls = [(call.payload, call.position) for call in node.process.delivered if call.room == room]
                assert calls == [
                    (message.encode(), Position(first.epoch, first.offset + index))
                    for index, message in enumerate(said)
                ]

    async def test_all_see_one_order(self) -> None:
        """Whoever publishes at the same time: that of the offsets. What `publish` returned is what was delivered."""
        room, history, returned = self.name(), History(size=1000), {}

        async def publish(node: Node, name: str) -> None:
            for number in range(10):
                payload = f"{name}/{number}".encode()
                position = await node.session.publish(room, text(payload), history)
                assert position is not None
                returned[payload] = position

        async with self.processes(3) as nodes:
            for node in nodes:
                await node.subscribe(room)
            async with trio.open_nursery() as nursery:
                for index, node in enumerate(nodes):
                    nursery.start_soon(publish, node, f"{index}a")
                    nursery.start_soon(publish, node, f"{index}b")
            await self.delivered(nodes, room, 60)
            assert sorted(position.offset for position in returned.values()) == list(range(1, 61))
            in_order = sorted(returned.items(), key=lambda item: item[1])
            for node in nodes:
                calls = [(call.payload, call.position) for call in node.process.delivered if call.room == room]
                assert calls == in_order
                page = await node.session.history(room, history, since=None, limit=None, reverse=False)
                assert [(message.frame.payload, message.position) for message in page.messages] == in_order

    async def test_nothing_is_lost_between_a_page_and_what_follows(self) -> None:
        """Subscribe, ask for the history, go on with what was delivered after it."""
        room, history = self.name(), History(size=1000)
        async with self.processes(2) as (publisher, reader):

            async def publish() -> None:
                for number in range(60):
                    await publisher.session.publish(room, text(str(number)), history)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                await reader.subscribe(room)
                page = await reader.session.history(room, history, since=None, limit=None, reverse=False)
            await self.until(
                reader,
                lambda process: (
                    page.position.offset == 60
                    or any(call.position and call.position.offset == 60 for call in process.delivered)
                ),
            )
            seen = [message.position for message in page.messages]
            live = [call.position for call in reader.process.delivered if call.position is not None]
            seen += [position for position in live if position > page.position]
            assert [position.offset for position in seen] == list(range(1, 61))

    async def test_subscriptions_are_counted(self) -> None:
        """Two members have come, and one has gone."""
        room = self.name()
        async with self.processes(2) as (one, other):
            await one.subscribe(room, room)
            one.session.unsubscribe(room)
            await one.session.wait_subscribed(room)
            await other.session.publish(room, text("still here"), None)
            await self.delivered([one], room, 1)
            one.session.unsubscribe(room)
            await one.subscribe(room)
            await other.session.publish(room, text("again"), None)
            await self.delivered([one], room, 2)
            assert one.process.payloads(room) == [b"still here", b"again"]

    async def test_a_broadcast_goes_to_the_other_processes(self) -> None:
        """In order, with whom it is not for. The process that broadcasts has done it for its own members."""
        room, other_room = self.name(), self.name()
        async with self.processes(3) as nodes:
            for node in nodes:
                await node.subscribe(room, other_room)
            session = nodes[0].session
            session.broadcast(room, text("all"), (), None)
            session.broadcast(room, Frame(b"\0\xff", text=False), ["a", "b"], None)
            session.broadcast(other_room, text(""), {"\N{PILE OF POO}": None}.keys(), "")
            session.broadcast(room, text("last"), {"a"}, "user")
            expected = [
                (room, True, b"all", frozenset(), None),
                (room, False, b"\0\xff", frozenset({"a", "b"}), None),
                (other_room, True, b"", frozenset({"\N{PILE OF POO}"}), ""),
                (room, True, b"last", frozenset({"a"}), "user"),
            ]
            for node in nodes[1:]:
                await self.until(node, lambda process: len(process.relayed) >= 4)
                by_room = sorted((tuple(call) for call in node.process.relayed), key=lambda call: call[0] != room)
                assert by_room == sorted(expected, key=lambda call: call[0] != room)
            await trio.sleep(self.quiet)
            assert nodes[0].process.relayed == []
            assert [node.process.delivered for node in nodes] == [[], [], []]

    async def test_rooms_are_not_mixed_up(self) -> None:
        """Whatever their names."""
        history = History()
        mark = self.name("")  # the back end may remember the names of an earlier run
        async with self.processes(2) as (one, other):
            await other.subscribe(*self.odd_names)
            for number, room in enumerate(self.odd_names):
                await one.session.publish(room, text(f"{mark} {number}"), history)
                one.session.broadcast(room, text(f"{mark} {number}"), (), None)
            count = len(self.odd_names)
            await self.until(other, lambda process: min(len(process.delivered), len(process.relayed)) >= count)
            for number, room in enumerate(self.odd_names):
                payload = f"{mark} {number}".encode()
                assert other.process.payloads(room) == [payload]
                assert [call.payload for call in other.process.relayed if call.room == room] == [payload]
                page = await other.session.history(room, history, since=None, limit=1, reverse=True)
                assert [message.frame.payload for message in page.messages] == [payload]
