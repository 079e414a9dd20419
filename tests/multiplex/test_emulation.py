"""Commands that come by requests of their own, and reach another process than the one that has the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from tests.support.memory import Service, serving
from tests.support.streamed import KINDS, Streamed, StreamedService, emulated, encode, serving_streams
from verbtrio import App, Client, Limits
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers import MemoryBroker

every_kind = pytest.mark.parametrize("kind", KINDS)


class Slow:
    """Has who refreshes its token wait: what comes after that waits in the inbox."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def authenticate(self, token: str) -> dict[str, Any]:
        if token == "again":
            await self.go_on.wait()
        return {}


def node(broker: MemoryBroker, auth: Slow, limits: Limits | None) -> App:
    app = App(broker=broker, limits=limits or Limits())
    app.centrifuge("/connection", auth=auth, anonymous=True, allowed_origins=["https://site.example"])
    app.rooms("open:{room}", subscribe=True, publish=True)

    @app.call("double")
    async def double(client: Client, data: int) -> int:
        return 2 * data

    return app


class Pair:
    """Two processes: clients have their sessions in the one, and their commands come to the other."""

    def __init__(self, one: StreamedService, other: Service, slow: Slow) -> None:
        self.one, self.other, self.slow = one, other, slow

    async def client(self, kind: str = "http_stream", /, **request: Any) -> Streamed:
        client = await self.one.client(kind, **request)
        client.posts_to = self.other
        return client


@asynccontextmanager
async def two_nodes(*, limits: Limits | None = None, there: Limits | None = None) -> AsyncIterator[Pair]:
    broker, slow = MemoryBroker(), Slow()
    async with serving(node(broker, slow, there)) as other, serving_streams(node(broker, slow, limits)) as one:
        yield Pair(one, other, slow)


@every_kind
async def test_a_command_is_passed_on(kind: str, autojump_clock: Clock) -> None:
    async with two_nodes() as pair:
        client = await pair.client(kind)
        assert (await client.ask("rpc", method="double", data=21))["rpc"]["data"] == 42
        await client.ask("subscribe", channel="open:x")
        pair.other.app.room("open:x").broadcast({"n": 1})
        await client.ask("publish", channel="open:x", data={"n": 2})
        await wait_all_tasks_blocked()
        assert client.published("open:x") == [{"n": 1}, {"n": 2}]
        await trio.sleep(100)  # pings are answered by requests, too
        assert not client.is_over


@every_kind
async def test_what_one_session_says_by_several_processes(kind: str, autojump_clock: Clock) -> None:
    async with two_nodes() as pair:
        client = await pair.client(kind)
        for number in range(20):
            client.posts_to = (pair.other, pair.one.service)[number % 2]
            assert (await client.ask("rpc", method="double", data=number))["rpc"]["data"] == 2 * number


async def test_no_session_can_be_guessed(autojump_clock: Clock) -> None:
    async with two_nodes() as pair:
        client = await pair.client()
        ping = encode("http_stream", {"send": {"data": 1}})
        for session in ("", client.session[:-1], client.session.swapcase(), client.node, "x" * 60_000):
            assert await client.post(emulated("http_stream", session, client.node, ping)) == 404
        for name in ("", "another", client.node[:-1], client.node.upper() + "A", client.session, "x" * 60_000):
            assert await client.post(emulated("http_stream", client.session, name, ping)) == 404
        assert await client.say({"send": {"data": 1}}) == 204
        await client.leave()
        await trio.sleep(1)
        assert await client.say({"send": {"data": 1}}) == 404


async def test_the_checks_of_the_process_that_has_it(autojump_clock: Clock) -> None:
    """Its encoding, and its limits."""
    async with two_nodes(limits=Limits(max_message_bytes=1000)) as pair:
        client, binary = await pair.client(), await pair.client("protobuf")
        data = encode("http_stream", {"send": {"data": 1}})
        assert await client.post(emulated("http_stream", binary.session, binary.node, data)) == 400
        assert await client.say({"send": {"data": "x" * 500}}) == 204
        assert await client.say({"send": {"data": "x" * 1000}}) == 413


async def test_the_checks_of_the_process_that_was_reached(autojump_clock: Clock) -> None:
    """What it refuses goes nowhere."""
    async with two_nodes(there=Limits(max_message_bytes=1000)) as pair:
        client = await pair.client()
        before = pair.one.app.statistics().received
        assert await client.say({"send": {"data": "x" * 1000}}) == 413
        data = encode("http_stream", {"send": {"data": 1}})
        assert await client.say_raw(data, origin="https://elsewhere.example") == 403
        assert await client.post(b"{") == 400
        assert pair.one.app.statistics().received == before
        assert await client.say_raw(data, origin="https://site.example") == 204


async def test_the_broker_is_away(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is not the session that is gone."""

    async def forward(*arguments: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        raise BrokerUnavailable("it is away")

    async with two_nodes() as pair:
        client = await pair.client()
        session: Any = pair.other.app._running_hub().host.session
        monkeypatch.setattr(session, "forward", forward)
        assert await client.say(client.command("ping")) == 503


@pytest.mark.parametrize("answer", [b"", b"200", b"204 ", b"999", b"x" * 1000])
async def test_an_answer_that_is_none(answer: bytes, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forward(*arguments: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        return answer

    async with two_nodes() as pair:
        client = await pair.client()
        session: Any = pair.other.app._running_hub().host.session
        monkeypatch.setattr(session, "forward", forward)
        assert await client.say(client.command("ping")) == 503


class TestAFullInbox:
    """As within one process: they wait for room, no more of them than there is room for, and not for ever."""

    async def full(self, pair: Pair) -> Streamed:
        client = await pair.client(token="x")
        await client.say(client.command("refresh", token="again"))
        for _ in range(3):
            assert await client.say(client.command("ping")) == 204
        return client

    async def test_requests_wait_for_room(self, autojump_clock: Clock) -> None:
        async with two_nodes(limits=Limits(max_inbox_messages=3)) as pair, trio.open_nursery() as nursery:
            client = await self.full(pair)
            statuses: list[int] = []

            async def say() -> None:
                statuses.append(await client.say(client.command("ping")))

            for _ in range(20):
                nursery.start_soon(say)
            await trio.sleep(1)
            assert statuses == [503] * 17
            pair.slow.go_on.set()
            await trio.sleep(1)
            assert sorted(statuses) == [204] * 3 + [503] * 17

    async def test_not_for_ever(self, autojump_clock: Clock) -> None:
        async with two_nodes(limits=Limits(max_inbox_messages=3, send_timeout=4)) as pair:
            client = await self.full(pair)
            begin, lost = trio.current_time(), client.command("ping")
            assert await client.say(lost) == 503
            assert trio.current_time() - begin == pytest.approx(4)
            pair.slow.go_on.set()
            await trio.sleep(1)
            assert client.replies(lost["id"]) == [], "what is refused is not handled"

    async def test_the_session_ends_while_they_wait(self, autojump_clock: Clock) -> None:
        async with two_nodes(limits=Limits(max_inbox_messages=3)) as pair, trio.open_nursery() as nursery:
            client = await self.full(pair)
            statuses: list[int] = []

            async def say() -> None:
                statuses.append(await client.say(client.command("ping")))

            nursery.start_soon(say)
            await trio.sleep(1)
            await client.leave()
            await trio.sleep(1)
            assert statuses == [204]

    async def test_so_many_in_all(self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("verbtrio.multiplex.emulation.MAX_WAITING", 1)
        async with two_nodes(limits=Limits(max_inbox_messages=3)) as pair, trio.open_nursery() as nursery:
            client = await self.full(pair)
            nursery.start_soon(client.say, client.command("ping"))
            await trio.sleep(1)
            assert await client.say(client.command("ping")) == 503
            pair.slow.go_on.set()
            await trio.sleep(1)
            assert await client.say(client.command("ping")) == 204, "nobody waits any more"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"no message",
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode(["session", 1, 1]),
        msgspec.msgpack.encode(["session", None, 1]),
        msgspec.msgpack.encode([b"session", "", 1]),
        msgspec.msgpack.encode(["session", "", "1"]),
        b"\x93\xa1\xff\xa0\x01",  # a session that is no UTF-8
    ],
)
async def test_what_is_no_request_is_answered(message: bytes, autojump_clock: Clock) -> None:
    """It comes from whoever shares the broker: the process goes on, whatever it is."""
    broker = MemoryBroker()
    async with serving_streams(node(broker, Slow(), None)) as service:
        session = service.hub.host.session
        assert await session.forward(session.node, message, 10) == b"400"
        assert await session.forward(session.node, msgspec.msgpack.encode(["session", "", 1]), 10) == b"404"
