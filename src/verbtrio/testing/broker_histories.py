"""What rooms remember."""

from __future__ import annotations

import trio

from verbtrio.base.position import Position
from verbtrio.brokers.records import History, Page
from verbtrio.messages.frame import Frame
from verbtrio.testing.broker_checks import Checks, Node, text

ALL = History(size=1000)


async def ask(
    node: Node,
    room: str,
    history: History = ALL,
    *,
    since: Position | None = None,
    limit: int | None = None,
    reverse: bool = False,
) -> Page:
    """The room's history, as that process is told."""
    return await node.session.history(room, history, since=since, limit=limit, reverse=reverse)


async def say(node: Node, room: str, payload: object, history: History = ALL) -> Position:
    """Publish it, and return its position."""
    position = await node.session.publish(room, text(str(payload)), history)
    assert position is not None
    return position


def offsets(page: Page) -> list[int]:
    """Those of the page's messages."""
    return [message.position.offset for message in page.messages]


class HistoryChecks(Checks):
    """`publish` with a history, `history`."""

    async def test_a_history_is_everybodys(self) -> None:
        """Who published what, where, makes no difference; text stays text, and bytes stay bytes."""
        room = self.name()
        frames = [text("hello"), Frame(b"\0\xff", text=False), text(""), Frame(b"", text=False), text("x" * 2**20)]
        async with self.processes(2) as nodes:
            published = []
            for number, frame in enumerate(frames):
                published.append(await nodes[number % 2].session.publish(room, frame, ALL))
            first = published[0]
            assert first is not None
            assert published == [Position(first.epoch, offset) for offset in range(1, 6)]
            for node in nodes:
                page = await ask(node, room)
                assert [message.position for message in page.messages] == published
                assert [(message.frame.text, message.frame.payload) for message in page.messages] == [
                    (frame.text, frame.payload) for frame in frames
                ]
                assert (page.position, page.oldest, page.is_complete) == (published[-1], first, True)

    async def test_a_room_where_nothing_was_said(self) -> None:
        """Its position is a beginning: what comes next comes after it."""
        room = self.name()
        async with self.processes(2) as (one, other):
            page = await ask(one, room)
            assert (page.messages, page.position.offset, page.oldest, page.is_complete) == ((), 0, None, True)
            assert (await ask(other, room)).position == page.position
            assert await say(other, room, "first") == Position(page.position.epoch, 1)
            later = await ask(one, room, since=page.position)
            assert (offsets(later), later.is_complete) == ([1], True)

    async def test_pages(self) -> None:
        """Of ten messages, of which five are remembered, with each limit, from each position, both ways."""
        room, history = self.name(), History(size=5)
        async with self.processes(2) as (one, other):
            for number in range(10):
                newest = await say(one, room, number + 1, history)
            kept = [6, 7, 8, 9, 10]
            for since in (None, *range(13)):
                for limit in (None, 0, 1, 3, 5, 100):
                    for reverse in (False, True):
                        position = None if since is None else Position(newest.epoch, since)
                        page = await ask(other, room, history, since=position, limit=limit, reverse=reverse)
                        if since is None:
                            expected = kept[::-1] if reverse else kept
                        elif reverse:
                            expected = [offset for offset in reversed(kept) if offset < since]
                        else:
                            expected = [offset for offset in kept if offset > since]
                        assert offsets(page) == expected[:limit], (since, limit, reverse)
                        assert [int(message.frame.payload) for message in page.messages] == offsets(page)
                        assert page.position == newest
                        assert page.oldest == Position(newest.epoch, 6)
                        assert page.is_complete == (since is None or reverse or 5 <= since <= 10), (since, reverse)

    async def test_a_position_of_another_epoch(self) -> None:
        """All there is, and not complete."""
        room = self.name()
        async with self.processes(1) as (one,):
            for number in range(3):
                await say(one, room, number)
            for offset in (0, 2, 3, 100):
                for reverse in (False, True):
                    page = await ask(one, room, since=Position("another", offset), reverse=reverse)
                    assert offsets(page) == ([3, 2, 1] if reverse else [1, 2, 3])
                    assert not page.is_complete

    async def test_only_what_is_published_with_a_history_is_remembered(self) -> None:
        """And has an offset: nothing else makes a hole."""
        room = self.name()
        async with self.processes(2) as (one, other):
            first = await say(one, room, "kept")
            assert await other.session.publish(room, text("not kept"), None) is None
            one.session.broadcast(room, text("not kept"), (), None)
            assert await say(other, room, "kept") == Position(first.epoch, 2)
            assert [message.data for message in (await ask(one, room)).messages] == ["kept", "kept"]

    async def test_a_smaller_size_forgets(self) -> None:
        """The size that counts is the one of the latest message."""
        room = self.name()
        async with self.processes(1) as (one,):
            for number in range(5):
                await say(one, room, number)
            await say(one, room, 5, History(size=2))
            page = await ask(one, room, History(size=2))
            assert (offsets(page), page.oldest) == ([5, 6], Position(page.position.epoch, 5))

    async def test_forgotten_in_time(self) -> None:
        """After the last message. No position is ever given twice."""
        room, history = self.name(), History(ttl=0.2)
        async with self.processes(2) as (one, other):
            first = await say(one, room, "a", history)
            second = await say(one, room, "b", history)

            async def is_forgotten() -> bool:
                page = await ask(other, room, history)
                assert offsets(page) in ([1, 2], [2], [])
                return not page.messages

            await self.eventually(is_forgotten)
            page = await ask(one, room, history, since=first)
            assert (page.messages, page.oldest, page.is_complete) == ((), None, False)
            third = await say(other, room, "c", history)
            assert third.epoch != second.epoch or third.offset == second.offset + 1

    async def test_each_message_extends_the_time_of_all(self) -> None:
        """`ttl` counts from the last one; asking does not count."""
        room, history = self.name(), History(ttl=0.6)
        async with self.processes(1) as (one,):
            begin = trio.current_time()
            await say(one, room, "a", history)
            await trio.sleep(0.4)
            if trio.current_time() - begin > history.ttl:
                return  # a machine that busy shows nothing
            begin = trio.current_time()
            await say(one, room, "b", history)
            await trio.sleep(0.4)
            page = await ask(one, room, history)
            assert offsets(page) == [1, 2] or trio.current_time() - begin > history.ttl
            with trio.fail_after(self.patience):
                while (await ask(one, room, history)).messages:
                    await trio.sleep(0.05)
