"""What clients can say, and what others can write into the same Redis: it costs no process its link."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.support.redis_processes import HISTORY, check_clean, connected, process, processes
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers.redis.names import Names
from verbtrio.messages.frame import Frame

NAMES = Names("verbtrio")
LARGE = b"x" * 1024 * 1024


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_a_history_that_is_larger_than_an_answer_may_be(server: RedisServer) -> None:
    """Redis cuts off a subscriber for whom more than 32 MB wait. So a history is read in parts, all the same as one."""
    async with processes(server, 2) as (one, two):
        await two.subscribe("kept")
        accepted = two.proxy.accepted
        two.proxy.stall("down")
        said = []
        for number in range(40):
            payload = b"%d:" % number + LARGE
            said.append(payload)
            with trio.fail_after(60):
                await one.session.publish("kept", Frame(payload, text=True), HISTORY)
        two.proxy.cut()
        two.proxy.flow()
        await two.until(
            lambda: [payload[:3] for payload in two.process.payloads("kept")] == [each[:3] for each in said]
        )
        with trio.fail_after(60):
            await connected(two)
            links = two.proxy.accepted
            page = await two.session.history("kept", HISTORY, since=None, limit=None, reverse=False)
            assert [each.frame.payload for each in page.messages] == said
            assert page.is_complete
            page = await two.session.history("kept", HISTORY, since=None, limit=38, reverse=True)
            assert [each.frame.payload for each in page.messages] == said[:1:-1]
            since = Position(page.position.epoch, 3)
            page = await two.session.history("kept", HISTORY, since=since, limit=None, reverse=False)
            assert [each.frame.payload for each in page.messages] == said[3:]
            assert page.is_complete
        assert two.proxy.accepted == links > accepted
    await check_clean(server)


async def test_text_that_is_no_utf_8(server: RedisServer) -> None:
    """A position's epoch, for one: a client has said it."""
    async with process(server) as one:
        await one.session.publish("kept", Frame(b"x", text=True), HISTORY)
        page = await one.session.history("kept", HISTORY, since=Position("\ud800", 1), limit=None, reverse=False)
        assert not page.is_complete
        assert one.proxy.accepted == 1


async def test_an_item_of_a_history_that_is_none(server: RedisServer) -> None:
    """Whoever has written it: it is there without its text, and the others are read."""
    async with process(server) as one:
        await one.subscribe("kept")
        position = await one.session.publish("kept", Frame(b"first", text=True), HISTORY)
        server.ask("XADD", NAMES.history("kept").decode(), "2-0", "m", "!garbage")
        server.ask("HSET", NAMES.top("kept").decode(), "t", "2")
        last = await one.session.publish("kept", Frame(b"last", text=True), HISTORY)
        await one.until(lambda: len(one.process.payloads("kept")) == 3)
        assert one.process.payloads("kept") == [b"first", b"", b"last"]
        page = await one.session.history("kept", HISTORY, since=position, limit=None, reverse=False)
        assert [each.frame.payload for each in page.messages] == [b"", b"last"]
        assert page.position == last
        assert one.proxy.accepted == 1


async def test_garbage_on_its_channels(server: RedisServer) -> None:
    """It is left out."""
    async with process(server) as one:
        await one.subscribe("kept")
        for channel in (NAMES.channel("kept"), NAMES.everybody, NAMES.inbox(one.session.node)):
            for kind in "MNGPUDLFRAX":
                for rest in ("", "\x7f", "\x00\x00\x00\x01a", "\x00\x00\x00\x01a" * 4):
                    server.ask("PUBLISH", channel.decode(), f"\x00\x00\x00\x01{kind}{rest}")
        await one.session.publish("kept", Frame(b"last", text=True), HISTORY)
        await one.until(lambda: b"last" in one.process.payloads("kept"))
        assert one.proxy.accepted == 1


async def test_presence_that_is_larger_than_an_answer_may_be(server: RedisServer) -> None:
    """Who asks for it is refused; the link stays."""
    async with process(server, max_pending_bytes=1 << 28, timeout=30) as one:
        info = "x" * (1 << 20)
        for number in range(40):
            one.session.enter("room", str(number), str(number), info)
            await one.session.count("room")
        with trio.fail_after(60), pytest.raises(BrokerUnavailable, match="too much"):
            await one.session.presence("room")
        assert one.session.health.is_connected
        assert one.proxy.accepted == 1
