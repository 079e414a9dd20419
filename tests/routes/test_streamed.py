"""Clients without a WebSocket: their responses, their commands, and their ends."""

from __future__ import annotations

import json
import time
from typing import Any

import h11
import pytest
import trio
import trio.testing
from starlette.responses import Response
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.streamed import KINDS, StreamedService, encode, serving_streams
from verbtrio import App, Client, Limits, Subscription
from verbtrio.auth import JWTAuth


async def pass_through(request: Any, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


every_kind = pytest.mark.parametrize("kind", KINDS)


def chat(*, limits: Limits | None = None, **options: Any) -> App:
    app = App(limits=limits) if limits is not None else App()
    app.centrifuge("/connection", **options)
    app.rooms("open:{room}", subscribe=True, publish=True)

    @app.rooms("chat:{room}")
    async def room(sub: Subscription[Any], room: str) -> None:
        async for said in sub:
            await sub.publish({"said": said})

    @app.call("double")
    async def double(client: Client, data: int) -> int:
        return 2 * data

    return app


class TestWhatItCanDo:
    @every_kind
    async def test_all_of_it(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client, other = await service.client(kind), await service.client("http_stream")
            assert client.replies(1)[0]["connect"]["ping"] == 25
            assert client.session != other.session
            assert client.node == other.node
            for one in (client, other):
                assert "error" not in await one.ask("subscribe", channel="open:lobby")
            assert "error" not in await client.ask("publish", channel="open:lobby", data={"text": "Grüße\u2028\r\n"})
            await service.settle()
            assert client.published() == other.published() == [{"text": "Grüße\u2028\r\n"}]
            assert (await client.ask("rpc", method="double", data=21))["rpc"]["data"] == 42
            await client.ask("subscribe", channel="chat:lobby")
            await client.ask("publish", channel="chat:lobby", data="hi")
            await service.settle()
            assert client.published("chat:lobby") == [{"said": "hi"}]
            statistics = service.app.statistics()
            assert (statistics.streams, statistics.opened) == (2, 2)
            await client.leave()
            await trio.sleep(1)
            statistics = service.app.statistics()
            assert (statistics.streams, statistics.ended) == (1, {"gone": 1})

    @every_kind
    async def test_what_is_said_in_one_tick_is_one_chunk(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.client(kind)
            await client.ask("subscribe", channel="open:lobby")
            await service.settle()
            seen = len(client.pieces)
            for number in range(10):
                service.app.room("open:lobby").broadcast({"n": number})
            await service.settle()
            assert client.published() == [{"n": number} for number in range(10)]
            assert len(client.pieces) == seen + 1

    @every_kind
    async def test_a_chunk_is_64_kib_at_most(self, kind: str, autojump_clock: Clock) -> None:
        """And each has whole replies: the JavaScript SDK decodes each by itself."""
        async with serving_streams(chat()) as service:
            client = await service.client(kind)
            await client.ask("subscribe", channel="open:lobby")
            await service.settle()
            del client.pieces[:]
            for number in range(60):
                service.app.room("open:lobby").broadcast({"n": number, "text": "äöü" * 700})
            await service.settle()
            assert [said["n"] for said in client.published()] == list(range(60))
            assert len(client.pieces) > 2
            assert max(map(len, client.pieces)) <= 64 * 1024
            ends = {"sse": b"\n\n", "http_stream": b"\n"}
            if kind in ends:
                assert all(piece.endswith(ends[kind]) for piece in client.pieces)

    async def test_json_chunks_are_ascii(self, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.client("http_stream")
            await client.ask("subscribe", channel="open:ä\U0001f600")
            service.app.room("open:ä\U0001f600").broadcast({"ü\U0001f600": "ß\u2028"})
            await service.settle()
            assert client.published("open:ä\U0001f600") == [{"ü\U0001f600": "ß\u2028"}]
            assert b"".join(client.pieces).isascii()
            await client.say_raw(b"no command")
            assert (await client.end())[0] == 3501
            assert b"".join(client.pieces).isascii()

    async def test_line_breaks_split_no_event(self, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.client("sse")
            await client.ask("subscribe", channel="open:lobby")
            said = ["a\r\n\r\nb", "event: x\ndata: y\n\n", "\r", "\u2028\u2029\x85", ": c\n\n"]
            for one in said:
                service.app.room("open:lobby").broadcast(one)
                service.app.room("open:lobby").broadcast({one: one})
            command = json.dumps(client.command("publish", channel="open:lobby", data="?"))
            raw = command.replace('"?"', '{"raw": \r 1 \r\r, "b":\r[2]}')
            assert await client.say_raw(raw.encode()) == 204
            await service.settle()
            expected: list[Any] = []
            for one in said:
                expected += [one, {one: one}]
            assert client.published() == [*expected, {"raw": 1, "b": [2]}]
            assert all(b"\r" not in piece for piece in client.pieces)

    @pytest.mark.parametrize(
        ("kind", "media_type"),
        [
            ("http_stream", "application/x-ndjson"),
            ("sse", "text/event-stream; charset=utf-8"),
            ("protobuf", "application/octet-stream"),
        ],
    )
    async def test_the_head(self, kind: str, media_type: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.client(kind)
            headers = client.headers
            assert headers["content-type"] == media_type
            assert headers["cache-control"] == "no-store"
            assert headers["x-accel-buffering"] == "no"
            assert headers["vary"] == "Origin"

    async def test_facts_of_the_facade(self, autojump_clock: Clock) -> None:
        seen: list[Any] = []

        async def connect(client: Client, data: Any) -> None:
            seen.append((client.transport, client.encoding, data))

        async with serving_streams(chat(connect=connect)) as service:
            for kind in KINDS:
                await service.client(kind, data={"x": 1})
        assert seen == [
            ("http_stream", "json", {"x": 1}),
            ("sse", "json", {"x": 1}),
            ("http_stream", "protobuf", {"x": 1}),
        ]

    async def test_several_commands_in_the_first_message(self, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = service.new("http_stream")
            commands = ({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:x"}}, {"id": 3, "rpc": {}})
            await client.begin(encode("http_stream", *commands))
            client.read_on()
            assert (await client.reply(3))["error"]["code"] == 104
            assert [line["id"] for line in client.lines] == [1, 2, 3]
            assert service.app.statistics().received == 1


class TestPings:
    @every_kind
    async def test_they_are_answered(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat(ping=5, pong_timeout=2)) as service:
            client = await service.client(kind)
            await trio.sleep(60)
            assert client.lines.count({}) >= 11
            assert not client.is_over

    @every_kind
    async def test_no_pong(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat(ping=5, pong_timeout=2)) as service:
            client = await service.client(kind)
            client.answers_pings = False
            begin = trio.current_time()
            assert await client.end() == (3012, "no pong")
            assert 4.5 <= trio.current_time() - begin <= 7
            await trio.sleep(1)
            assert await client.say({}) == 404
            assert service.app.statistics().ended == {"heartbeat": 1}

    @every_kind
    async def test_a_pong_that_nobody_asked_for(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.client(kind)
            assert await client.say({}) == 204
            assert await client.end() == (3501, "bad request")

    async def test_a_ping_that_is_being_written(self, autojump_clock: Clock) -> None:
        """It can't be answered before the client has it."""
        async with serving_streams(chat(ping=5, pong_timeout=2)) as service:
            client = service.new("http_stream")
            first = encode("http_stream", {"id": 1, "connect": {}})
            await client.begin(first, pair=trio.testing.lockstep_stream_pair)
            line = json.loads((await client.exchange.until(b"\n")).decode())
            client.session, client.node = line["connect"]["session"], line["connect"]["node"]
            await trio.sleep(10)
            client.read_on()
            await trio.sleep(60)
            assert not client.is_over
            assert not client.is_cut


class TestBehindMiddleware:
    """Starlette's kind, which puts a queue of its own before the response."""

    @every_kind
    async def test_its_end(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat(middleware=[pass_through])) as service:
            client, gone = await service.client(kind), await service.client(kind)
            for one in (client, gone):
                await one.ask("subscribe", channel="open:x")
            await gone.leave()
            await trio.sleep(1)
            assert service.app.statistics().ended == {"gone": 1}
            service.app.room("open:x").broadcast("last words")
            await service.service.shut_down()
            assert await client.end() == (3001, "shutdown")
            assert client.published() == ["last words"]

    async def test_a_client_that_does_not_read(self, autojump_clock: Clock) -> None:
        async with serving_streams(chat(middleware=[pass_through])) as service:
            client = service.new("http_stream")
            first = encode("http_stream", {"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:x"}})
            await client.begin(first, pair=trio.testing.lockstep_stream_pair)
            await trio.sleep(1)
            for _ in range(5):
                service.app.room("open:x").broadcast("x" * 100_000)
            begin = trio.current_time()
            await service.service.wait_ended(15)
            assert trio.current_time() - begin < 12
            service.assert_nobody()


class TestItsEnd:
    @every_kind
    async def test_the_application_ends_it(self, kind: str, autojump_clock: Clock) -> None:
        app = chat()

        @app.call("leave")
        async def leave(client: Client) -> None:
            app.room("open:lobby").broadcast("last words")
            await client.disconnect(4100, "off you go")

        async with serving_streams(app) as service:
            client = await service.client(kind)
            await client.ask("subscribe", channel="open:lobby")
            await client.say(client.command("rpc", method="leave"))
            assert await client.end() == (4100, "off you go")
            assert client.published() == ["last words"], "what was said before comes before"
            service.assert_nobody()
            assert app.statistics().ended == {"closed": 1}

    @pytest.mark.parametrize(
        ("first", "code"),
        [
            (b"", 3501),
            (b" \n\t", 3501),
            (b"{", 3501),
            (b"[]", 3501),
            (b"\xff\xfe", 3501),
            (b"[" * 5000, 3501),
            (b'{"id":1}', 3501),
            (b"{}", 3501),
            (b'{"id":1,"rpc":{}}', 3501),
            (b'{"connect":{}}', 3501),
            (b'{"id":1,"connect":{"token":"x"}}', 3500),
        ],
    )
    async def test_a_first_message_that_is_no_connect(self, first: bytes, code: int, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            for kind in ("http_stream", "sse"):
                if kind == "sse" and not first.isascii():
                    continue
                client = await service.new(kind).begin(first)
                client.read_on()
                begin = trio.current_time()
                assert (await client.end())[0] == code
                assert trio.current_time() == begin, "at once: it has no session to say more in"
                await service.settle()
                service.assert_nobody()

    @pytest.mark.parametrize("first", [b"", b"\0", b"\x05abc", b"\xff" * 20, b"\x02\x08\x01"])
    async def test_the_same_in_protobuf(self, first: bytes, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.new("protobuf").begin(first)
            client.read_on()
            begin = trio.current_time()
            assert (await client.end())[0] == 3501
            assert trio.current_time() == begin

    async def test_no_connect_in_the_address(self, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = service.new("sse")
            client.exchange = await _exchange(service).request("/connection/sse")
            client.read_on()
            assert (await client.end())[0] == 3501

    @every_kind
    async def test_connect_is_refused(self, kind: str, autojump_clock: Clock) -> None:
        """After the error the connection is of no more use; it ends when the client leaves, or when it is stale."""

        async def connect(client: Client, data: Any) -> None:
            raise RuntimeError("a hook that fails")

        async with serving_streams(chat(connect=connect)) as service:
            client = await service.new(kind).begin(encode(kind, {"id": 1, "connect": {}}))
            client.read_on()
            assert (await client.reply(1))["error"]["code"] == 100
            assert await client.end() == (3502, "stale")

    @every_kind
    async def test_the_server_shuts_down(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.client(kind)
            await client.ask("subscribe", channel="open:lobby")
            service.app.room("open:lobby").broadcast("last words")
            await service.service.shut_down()
            assert await client.end() == (3001, "shutdown")
            assert client.published() == ["last words"]
            assert service.app.statistics().ended == {"drain": 1}

    @every_kind
    async def test_nobody_is_let_in_then(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            service.hub._drain.begun = True
            late = await service.new(kind).begin(encode(kind, {"id": 1, "connect": {}}), origin="http://test")
            assert (late.status, late.headers["retry-after"]) == (503, "1")
            assert late.headers["access-control-allow-origin"] == "http://test"

    async def test_a_shutdown_while_the_body_comes(self, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = service.new("http_stream")
            exchange = client.exchange = _exchange(service)
            await exchange.begin("/connection/http_stream", method="POST", headers={"transfer-encoding": "chunked"})
            await service.settle()
            service.hub._drain.begun = True
            await exchange.send(h11.Data(data=encode("http_stream", {"id": 1, "connect": {}})))
            await exchange.send(h11.EndOfMessage())
            await exchange.head()
            client.read_on()
            assert await client.end() == (3001, "shutdown")

    @every_kind
    async def test_what_it_sent_before_it_left_is_handled(self, kind: str, autojump_clock: Clock) -> None:
        done: list[Any] = []
        app = App()
        started, go_on = trio.Event(), trio.Event()

        class Slow:
            async def authenticate(self, token: str) -> dict[str, Any]:
                if token == "again":
                    started.set()
                    await go_on.wait()
                return {}

        app.centrifuge("/connection", auth=Slow(), message=lambda client, data: done.append(data))
        async with serving_streams(app) as service:
            client = await service.client(kind, token="first")
            assert await client.say(client.command("refresh", token="again")) == 204
            await started.wait()
            for number in (1, 2, 3):
                assert await client.say({"send": {"data": number}}) == 204
            await client.leave()
            await trio.sleep(0.05)
            service.assert_nobody()
            assert done == [], "they wait"
            go_on.set()
            await trio.sleep(0.1)
            assert sorted(done) == [1, 2, 3]

    async def test_a_handler_has_100_ms(self, autojump_clock: Clock) -> None:
        ends: list[float] = []
        app = App()
        app.centrifuge("/connection")

        @app.rooms("a")
        async def room(sub: Subscription[Any]) -> None:
            await sub.accept()
            try:
                await trio.sleep_forever()
            finally:
                ends.append(trio.current_time())

        async with serving_streams(app) as service:
            client = await service.client("http_stream")
            await client.ask("subscribe", channel="a")
            begin = trio.current_time()
            await client.leave()
            await service.settle()
            service.assert_nobody()
            await trio.sleep(1)
            assert ends == [pytest.approx(begin + 0.1)]

    async def test_the_token_of_middleware_expires(
        self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        auth = JWTAuth("a secret of thirty-two bytes, or more")
        token = auth.issue({"sub": "7"}, expires_in=100)
        monkeypatch.setattr(time, "time", lambda begin=time.time(): begin + 10)  # noqa: B008 -- a clock that stands
        async with serving_streams(chat(middleware=[auth])) as service:
            client = service.new("http_stream")
            await client.begin(encode("http_stream", {"id": 1, "connect": {}}), authorization=f"Bearer {token}")
            client.read_on()
            result = (await client.reply(1))["connect"]
            client.session, client.node = result["session"], result["node"]
            begin = trio.current_time()
            assert len(service.app.users) == 1
            code, _ = await client.end()
            assert code == 3005
            assert 88 < trio.current_time() - begin < 92


class TestAClientThatDoesNotRead:
    @every_kind
    async def test_one_write_has_its_time(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = await service.new(kind).begin(
                encode(kind, {"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:x"}}),
                pair=trio.testing.lockstep_stream_pair,
            )
            begin = trio.current_time()
            await trio.sleep(9.9)
            assert service.app.statistics().streams == 1
            await trio.sleep(0.2)
            service.assert_nobody()
            await service.service.wait_ended(1)
            assert trio.current_time() - begin < 11
            client.read_on()
            await client.ended()
            assert client.is_cut
            assert service.app.statistics().ended == {"slow": 1}

    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest", "latest"])
    async def test_the_backlogs_policy(self, policy: Any, autojump_clock: Clock) -> None:
        limits = Limits(max_backlog_bytes=2000, high_water_bytes=2000, backlog_policy=policy)
        async with serving_streams(chat(limits=limits)) as service:
            client = await service.client("http_stream")
            await client.ask("subscribe", channel="open:x")
            await service.settle()
            room = service.app.room("open:x")
            for number in range(100):  # without a checkpoint
                room.broadcast({"n": number})
            if policy in ("close", "latest"):
                assert await client.end() == (3008, "slow")
                assert client.published() == []
                await service.settle()
                assert service.app.statistics().ended == {"slow": 1}
                return
            await service.settle()
            numbers = [said["n"] for said in client.published()]
            assert 5 < len(numbers) < 30
            assert (
                numbers == list(range(100))[-len(numbers) :] if policy == "drop_oldest" else list(range(len(numbers)))
            )
            assert service.app.statistics().dropped == 100 - len(numbers)

    @pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
    async def test_replies_are_not_dropped(self, policy: Any, autojump_clock: Clock) -> None:
        limits = Limits(max_backlog_bytes=4000, high_water_bytes=4000, backlog_policy=policy)
        async with serving_streams(chat(limits=limits)) as service:
            client = await service.client("http_stream")
            await client.ask("subscribe", channel="open:x")
            await service.settle()
            room = service.app.room("open:x")
            member: Any = next(iter(room.here))
            for number in range(100):
                room.broadcast({"n": number})
            ids = [client.command("ping") for _ in range(20)]
            for command in ids:  # each is answered at once, with an error
                member._session._take(json.dumps(command))
            del member
            for number in range(100):
                room.broadcast({"n": number})
            await service.settle()
            for command in ids:
                await client.reply(command["id"])
            assert 0 < len(client.published()) < 200

    async def test_replies_alone_over_the_limit(self, autojump_clock: Clock) -> None:
        """No policy drops them, so the client is too slow."""
        limits = Limits(max_backlog_bytes=2000, high_water_bytes=2000, backlog_policy="drop_oldest")
        async with serving_streams(chat(limits=limits)) as service:
            client = await service.client("http_stream")
            commands = [client.command("ping") for _ in range(200)]
            assert await client.say(*commands) == 204
            code, _ = await client.end()
            assert code in (3008,)

    @pytest.mark.parametrize("kind", ["http_stream", "protobuf"])
    async def test_the_end_of_one_that_does_not_read(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client = service.new(kind)
            await client.begin(encode(kind, {"id": 1, "connect": {}}), pair=trio.testing.lockstep_stream_pair)
            await trio.sleep(1)
            await service.service.shut_down()
            await service.service.wait_ended(1.5)
            assert service.app.statistics().ended == {"drain": 1}


def _exchange(service: StreamedService) -> Exchange:
    return Exchange(service.service.open_stream())
