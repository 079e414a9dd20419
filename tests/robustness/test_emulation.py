"""What a stranger can do to clients without a WebSocket by `/emulation`, and what badly behaved clients do to their own
sessions."""

from __future__ import annotations

import json
import logging
from typing import Any

import h11
import httpx
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import serving
from tests.support.streamed import KINDS, ASGIRequest, Streamed, emulated, encode, serving_streams
from verbtrio import App, Client, Limits
from verbtrio.auth import JWTAuth
from verbtrio.multiplex.session import ClientSession

every_kind = pytest.mark.parametrize("kind", KINDS)
every_encoding = pytest.mark.parametrize("kind", ["http_stream", "protobuf"])
KEY = "a secret of thirty-two bytes, or more"
SEEN = [HealthCheck.function_scoped_fixture]


def an_app(*, limits: Limits | None = None, **options: Any) -> App:
    app = App(limits=limits) if limits is not None else App()
    app.centrifuge("/connection", **options)
    app.rooms("open:{room}", subscribe=True, publish=True)

    @app.call("double")
    async def double(client: Client, data: int) -> int:
        await trio.sleep(data % 3)
        return 2 * data

    return app


class TestSessions:
    @every_kind
    async def test_none_can_be_guessed(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            client = await service.client(kind)
            ping = encode(kind, {"send": {"data": 1}})
            session = client.session
            assert len(session) >= 32
            guesses = ["", session[:-1], session + "A", session.swapcase(), client.node, "\0", "x" * 60_000]
            for guess in guesses:
                assert await client.post(emulated(kind, guess, client.node, ping)) == 404
            for node in ("", "another", client.node.upper(), session):
                assert await client.post(emulated(kind, session, node, ping)) == 404
            assert await client.post(emulated(kind, session, client.node, ping)) == 204
            assert service.app.statistics().received == 2, "connect, and that one"

    async def test_one_of_another_encoding(self, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            json_, binary = await service.client("http_stream"), await service.client("protobuf")
            for one, other in ((json_, binary), (binary, json_)):
                data = encode(one.kind, {"send": {"data": 1}})
                assert await one.post(emulated(one.kind, other.session, other.node, data)) == 400
            await service.settle()
            assert not json_.is_over
            assert not binary.is_over

    async def test_a_client_is_known_by_no_other_secret(self, autojump_clock: Clock) -> None:
        """Neither its id, which others learn, nor its token gets a command in; and the session is told to it alone."""
        app = an_app(auth=JWTAuth(KEY))
        app.rooms("seen:{room}", subscribe=True, presence=True, join_leave=True)
        token = JWTAuth(KEY).issue({"sub": "ada"})
        async with serving_streams(app) as service:
            ada = await service.client("http_stream", token=token)
            eve = await service.client("http_stream", token=JWTAuth(KEY).issue({"sub": "eve"}))
            for one in (eve, ada):
                await one.ask("subscribe", channel="seen:x", join_leave=True)
            await eve.ask("presence", channel="seen:x")
            await service.settle()
            heard = json.dumps(eve.lines[1:])
            (id_,) = [line["connect"]["client"] for line in ada.lines if "connect" in line]
            assert id_ in heard, "she knows that"
            assert ada.session not in heard
            for guess in (id_, token, "ada"):
                assert await eve.post(emulated("http_stream", guess, ada.node, b"no command")) == 404
            await service.settle()
            assert not ada.is_over

    @every_kind
    async def test_it_is_over_with_the_response(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            client = await service.client(kind)
            await client.leave()
            await trio.sleep(1)
            assert await client.say({"send": {"data": 1}}) == 404

    async def test_last_words_are_read_to_their_end(self, autojump_clock: Clock) -> None:
        """After a 404 the JavaScript SDK would close the response: it is the answer once that is over."""
        async with serving_streams(an_app()) as service:
            client = service.new("http_stream")
            await client.begin(encode("http_stream", {"id": 1, "connect": {}}))
            line = json.loads((await client.exchange.until(b"\n")).decode())
            client.session, client.node = line["connect"]["session"], line["connect"]["node"]
            await service.settle()
            for one in service.app.connections.here:
                one.close_nowait(4500, "that was all")
            del one  # nothing may refer to it once it has left
            assert await client.say({"send": {"data": 1}}) == 204
            assert service.app.statistics().received == 1, "it is thrown away"
            client.read_on()
            assert await client.end() == (4500, "that was all")

    async def test_it_is_no_ones_before_connect_is_answered(self, autojump_clock: Clock) -> None:
        async def connect(client: Client, data: Any) -> None:
            await trio.sleep(5)

        async with serving_streams(an_app(connect=connect)) as service:
            client = await service.new("http_stream").begin(encode("http_stream", {"id": 1, "connect": {}}))
            client.read_on()
            await trio.sleep(1)
            assert client.lines == []
            assert "session" in (await client.reply(1))["connect"]


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"x"',
            b"\xff",
            b"[" * 50_000,
            b'{"session":1,"node":"x","data":""}',
            b'{"session":"x","node":null,"data":""}',
            b'{"session":"x","node":"x","data":{}}',
            b'{"session":"\\ud800","node":"x","data":""}',
        ],
    )
    async def test_json_that_is_none(self, body: bytes, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            assert await service.new("http_stream").post(body) in (400, 404)

    @every_encoding
    async def test_cut_anywhere(self, kind: str, autojump_clock: Clock) -> None:
        """No cut body reaches a session, but as one whose command is cut; and that ends no other."""
        async with serving_streams(an_app()) as service:
            other = await service.client(kind)
            client = await service.client(kind)
            whole = emulated(kind, client.session, client.node, encode(kind, {"send": {"data": 1}}))
            statuses = set()
            for length in range(len(whole)):
                statuses.add(await client.post(whole[:length]))
            assert statuses <= {400, 404, 204}
            await service.settle()
            assert not client.is_over
            before = service.app.statistics().received  # in Protobuf, a body without its last field is one, too
            assert before <= 3
            assert await client.post(whole) == 204
            assert service.app.statistics().received == before + 1
            assert (await other.ask("rpc", method="double", data=3))["rpc"]["data"] == 6

    @every_encoding
    async def test_commands_cut_anywhere(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            command = encode(kind, {"id": 2, "subscribe": {"channel": "open:x", "data": {"a": [1]}}})
            for length in range(1, len(command)):
                client = await service.client(kind)
                assert await client.say_raw(command[:length]) == 204
                assert await client.end() == (3501, "bad request")
            await service.settle()
            service.assert_nobody()

    async def test_too_large(self, autojump_clock: Clock) -> None:
        async with serving_streams(an_app(limits=Limits(max_message_bytes=1000))) as service:
            client = await service.client("http_stream")
            assert await client.say({"send": {"data": "x" * 500}}) == 204
            assert await client.say({"send": {"data": "x" * 1000}}) == 413
            for kind in KINDS:
                first = encode(kind, {"id": 1, "connect": {"data": "x" * 1000}})
                refused = await service.new(kind).begin(first, origin="http://test")
                assert refused.status == 413
                assert refused.headers["access-control-allow-origin"] == "http://test"

    async def test_too_large_for_its_own_endpoint(self, autojump_clock: Clock) -> None:
        """Where endpoints share a path, each client has its own endpoint's limit."""
        app = an_app(limits=Limits(max_message_bytes=1000))
        app.centrifuge("/large", limits=Limits(max_message_bytes=100_000))
        async with serving_streams(app) as service:
            small, large = await service.client("http_stream"), await service.new("http_stream").connect(path="/large")
            assert await large.say({"send": {"data": "x" * 5000}}) == 204
            assert await small.say({"send": {"data": "x" * 5000}}) == 413
            assert await large.say({"send": {"data": "x" * 100_000}}) == 413

    async def test_a_body_in_chunks(self, autojump_clock: Clock) -> None:
        async with serving_streams(an_app(limits=Limits(max_message_bytes=1000))) as service:
            client = await service.client("http_stream")
            body = emulated("http_stream", client.session, client.node, b'{"send":{"data":1}}')
            for padding, status in ((b"", 204), (b" " * 2000, 413)):
                exchange = Exchange(service.service.open_stream())
                await exchange.begin("/emulation", method="POST", headers={"transfer-encoding": "chunked"})
                for byte in body + padding:
                    await exchange.send(h11.Data(data=bytes((byte,))))
                await exchange.send(h11.EndOfMessage())
                assert (await exchange.head()).status == status
                await exchange.aclose()

    @pytest.mark.parametrize("path", ["/emulation", "/connection/http_stream"])
    async def test_a_client_that_leaves_within_it(
        self, path: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving_streams(an_app()) as service:
            exchange = Exchange(service.service.open_stream())
            await exchange.begin(path, method="POST", headers={"content-length": "100"})
            await exchange.send(h11.Data(data=b"x"))
            await service.settle()
            await exchange.aclose()
            await service.service.wait_ended(1)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    @pytest.mark.parametrize("content_type", ["", "text/plain", "application/json; charset=utf-8", "x/y"])
    async def test_other_content_types_are_json(self, content_type: str, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            client = service.new("http_stream")
            await client.begin(encode("http_stream", {"id": 1, "connect": {}}), **{"content-type": content_type})
            client.read_on()
            result = (await client.reply(1))["connect"]
            client.session, client.node = result["session"], result["node"]
            assert await client.say_raw(b'{"send":{"data":1}}', **{"content-type": content_type}) == 204

    async def test_content_types_of_protobuf(self, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            client = service.new("protobuf")
            first = encode("protobuf", {"id": 1, "connect": {}})
            await client.begin(first, **{"content-type": "Application/Octet-Stream ; x=y"})
            client.read_on()
            await client.reply(1)

    async def test_without_protobuf(self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("verbtrio.routes.centrifuge._protobuf", lambda: None)
        async with serving_streams(an_app()) as service:
            client = await service.new("protobuf").begin(b"\0", origin="http://test")
            assert client.status == 415
            assert await client.post(b"\0") == 415
            assert (await service.client("http_stream")).status == 200

    async def test_any_bytes(self, autojump_clock: Clock) -> None:
        """Whatever is sent is answered, and is no failure of ours."""
        bodies: list[bytes] = []

        @given(st.one_of(st.binary(max_size=60), _json_bodies))
        @settings(max_examples=40, deadline=None, suppress_health_check=SEEN, database=None)
        def draw(body: bytes) -> None:
            bodies.append(body)

        draw()
        app = an_app()
        async with app.lifespan():
            for body in bodies:
                for content_type in (b"application/json", b"application/octet-stream"):
                    for path in ("/emulation", "/connection/http_stream"):
                        request = ASGIRequest(app, path, body, content_type)
                        with trio.fail_after(15):
                            await request.run()
                        assert request.status in ((400, 404) if path == "/emulation" else (200,))
                        assert request.is_whole
            assert app.statistics().streams == 0
            assert set(app.statistics().ended) == {"protocol"}


_json_bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["session", "node", "data", "id", "connect", "rpc", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


class TestMethods:
    @pytest.mark.parametrize(
        ("path", "method", "status"),
        [
            ("/connection/sse", "HEAD", 200),
            ("/connection/http_stream", "HEAD", 405),
            ("/connection/http_stream", "GET", 405),
            ("/connection/sse", "POST", 405),
            ("/emulation", "GET", 405),
            ("/emulation", "HEAD", 405),
            ("/emulation", "DELETE", 405),
            ("/connection/sse", "OPTIONS", 204),
            ("/connection/http_stream", "OPTIONS", 204),
            ("/emulation", "OPTIONS", 204),
            ("/connection/websocket", "GET", 426),
        ],
    )
    async def test_each_path_has_its_own(self, path: str, method: str, status: int, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            exchange = await Exchange(service.service.open_stream()).request(path, method=method)
            await exchange.aclose()
            assert exchange.status == status
            assert service.app.statistics().opened == 0


class TestOrder:
    @given(st.permutations(list(range(8))), st.sampled_from(KINDS))
    @settings(max_examples=15, deadline=None)
    def test_commands_that_overtake_each_other(self, order: list[int], kind: str) -> None:
        """Each is answered once, whatever the order."""

        async def main() -> None:
            async with serving_streams(an_app()) as service:
                client = await service.client(kind)
                commands = [
                    client.command("subscribe", channel="open:x"),
                    client.command("publish", channel="open:x", data=1),
                    client.command("unsubscribe", channel="open:x"),
                    client.command("subscribe", channel="open:x"),
                    client.command("rpc", method="double", data=1),
                    client.command("rpc", method="nothing"),
                    client.command("presence_stats", channel="open:y"),
                    client.command("history", channel="open:x"),
                ]
                statuses = []

                async def say(number: int) -> None:
                    statuses.append(await client.say(commands[number]))

                async with trio.open_nursery() as nursery:
                    for number in order:
                        nursery.start_soon(say, number)
                assert statuses == [204] * 8
                for command in commands:
                    await client.reply(command["id"])
                await service.settle()
                assert not client.is_over
                assert sorted(line["id"] for line in client.lines if "id" in line) == list(range(1, 10))

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    @every_encoding
    async def test_ten_thousand_in_one(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            client, other = await service.client(kind), await service.client("http_stream")
            commands = [client.command("ping") for _ in range(10_000)]
            assert await client.say(*commands) == 204
            assert (await other.ask("rpc", method="double", data=3))["rpc"]["data"] == 6
            assert (await client.reply(commands[-1]["id"]))["error"]["code"] == 108
            assert [line["id"] for line in client.lines if line.get("id", 0) > 1] == [one["id"] for one in commands]


class TestAFullInbox:
    def app(self, **limits: Any) -> tuple[App, trio.Event]:
        go_on = trio.Event()

        class Slow:
            async def authenticate(self, token: str) -> dict[str, Any]:
                if token == "again":
                    await go_on.wait()
                return {}

        return an_app(auth=Slow(), limits=Limits(**limits)), go_on

    async def test_requests_wait_for_room(self, autojump_clock: Clock) -> None:
        app, go_on = self.app(max_inbox_messages=3)
        async with serving_streams(app) as service, trio.open_nursery() as nursery:
            client = await service.client("http_stream", token="x")
            await client.say(client.command("refresh", token="again"))
            statuses: list[int] = []

            async def say(command: Any) -> None:
                statuses.append(await client.say(command))

            commands = [client.command("ping") for _ in range(5)]
            for command in commands:
                nursery.start_soon(say, command)
            await trio.sleep(1)
            assert statuses == [204, 204, 204]
            go_on.set()
            await service.settle()
            assert statuses == [204] * 5
            for command in commands:
                await client.reply(command["id"])

    async def test_and_then_are_told_so(self, autojump_clock: Clock) -> None:
        app, go_on = self.app(max_inbox_messages=3, send_timeout=4)
        async with serving_streams(app) as service:
            client = await service.client("http_stream", token="x")
            await client.say(client.command("refresh", token="again"))
            for _ in range(3):
                assert await client.say(client.command("ping")) == 204
            begin = trio.current_time()
            lost = client.command("ping")
            assert await client.say(lost) == 503
            assert trio.current_time() - begin == pytest.approx(4)
            go_on.set()
            await trio.sleep(1)
            assert client.replies(lost["id"]) == [], "what is refused is not handled"

    async def test_no_more_wait_than_there_is_room_for(self, autojump_clock: Clock) -> None:
        """Each has a body that is kept."""
        app, go_on = self.app(max_inbox_messages=3)
        async with serving_streams(app) as service, trio.open_nursery() as nursery:
            client = await service.client("http_stream", token="x")
            await client.say(client.command("refresh", token="again"))
            statuses: list[int] = []

            async def say() -> None:
                statuses.append(await client.say(client.command("ping")))

            for _ in range(20):
                nursery.start_soon(say)
            await trio.sleep(1)
            assert sorted(statuses) == [204] * 3 + [503] * 14
            go_on.set()
            await service.settle()
            assert sorted(statuses) == [204] * 6 + [503] * 14

    async def test_the_session_ends_while_they_wait(self, autojump_clock: Clock) -> None:
        app, _ = self.app(max_inbox_messages=3)
        async with serving_streams(app) as service, trio.open_nursery() as nursery:
            client = await service.client("http_stream", token="x")
            await client.say(client.command("refresh", token="again"))
            statuses: list[int] = []

            async def say() -> None:
                statuses.append(await client.say(client.command("ping")))

            for _ in range(5):
                nursery.start_soon(say)
            await trio.sleep(1)
            await client.leave()
            await service.settle()
            assert statuses == [204] * 5
            service.assert_nobody()

    async def test_who_waits_may_leave(self, autojump_clock: Clock) -> None:
        app, go_on = self.app(max_inbox_messages=1)
        async with serving_streams(app) as service, trio.open_nursery() as nursery:
            client = await service.client("http_stream", token="x")
            await client.say(client.command("refresh", token="again"))
            await client.say(client.command("ping"))
            nursery.start_soon(client.say, client.command("ping"))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
            await trio.sleep(1)
            go_on.set()
            await service.settle()
            assert not client.is_over


class TestPagesOfOtherOrigins:
    @every_kind
    async def test_they_are_refused(self, kind: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async with serving_streams(an_app()) as service:
            client = await service.client(kind)
            evil = {"origin": "https://evil.example"}
            assert await client.say_raw(encode(kind, {"send": {}}), **evil) == 403
            refused = await service.new(kind).begin(encode(kind, {"id": 1, "connect": {}}), **evil)
            assert refused.status == 403
            assert "access-control-allow-origin" not in refused.headers
            assert "'https://evil.example'" in caplog.text
            assert client.session not in caplog.text
            assert service.app.statistics().opened == 1

    async def test_an_image_of_theirs(self, autojump_clock: Clock) -> None:
        """Its GET has cookies, and no `Origin`."""
        async with serving_streams(an_app()) as service:
            first = encode("sse", {"id": 1, "connect": {}}, {"id": 2, "rpc": {"method": "double", "data": 1}})
            refused = await service.new("sse").begin(first, **{"sec-fetch-site": "cross-site", "cookie": "a=b"})
            assert refused.status == 403
            assert service.app.statistics().opened == 0

    @every_kind
    async def test_those_that_are_allowed(self, kind: str, autojump_clock: Clock) -> None:
        app = an_app(allowed_origins=["https://good.example"])
        async with serving_streams(app) as service:
            client = service.new(kind)
            await client.begin(encode(kind, {"id": 1, "connect": {}}), origin="https://good.example")
            assert client.status == 200
            assert client.headers["access-control-allow-origin"] == "https://good.example"
            assert client.headers["access-control-allow-credentials"] == "true"

    @pytest.mark.parametrize("path", ["/connection/http_stream", "/connection/sse", "/emulation"])
    async def test_preflights_meet_no_middleware(self, path: str, autojump_clock: Clock) -> None:
        """A browser sends no token and no cookie with them."""
        asked: list[str] = []

        async def nobody(request: Request, call_next: Any) -> Response:
            asked.append(request.method)
            return PlainTextResponse("Unauthorized", 401)

        app = an_app(allowed_origins=["https://good.example"], middleware=[nobody])
        async with serving_streams(app) as service:
            for origin, status in (("https://good.example", 204), ("https://evil.example", 403)):
                headers = {"origin": origin, "access-control-request-method": "POST"}
                headers["access-control-request-headers"] = "content-type"
                exchange = Exchange(service.service.open_stream())
                await exchange.request(path, method="OPTIONS", headers=headers)
                await exchange.aclose()
                assert exchange.status == status
                assert exchange.headers.get("access-control-allow-headers") == (
                    "content-type" if status == 204 else None
                )
            assert asked == []
            refused = await service.new("http_stream").begin(b"", origin="https://good.example")
            assert refused.status == 401

    async def test_a_session_wants_an_origin(self, autojump_clock: Clock) -> None:
        app = App(middleware=[Middleware(SessionMiddleware, secret_key="x" * 32)])
        app.centrifuge("/connection")
        async with serving_streams(app) as service:
            first = encode("http_stream", {"id": 1, "connect": {}})
            assert (await service.new("http_stream").begin(first)).status == 403
            client = await service.new("http_stream").begin(first, origin="http://test", cookie="session=x")
            assert client.status == 200
            client.read_on()
            result = (await client.reply(1))["connect"]
            client.session, client.node = result["session"], result["node"]
            assert await client.say({"send": {}}) == 403
            assert await client.say_raw(b'{"send":{}}', origin="http://test") == 204
            assert await client.say_raw(b'{"send":{}}', **{"sec-fetch-site": "same-origin"}) == 204

    async def test_endpoints_that_share_a_path(self, autojump_clock: Clock) -> None:
        app = App()
        app.centrifuge("/a", allowed_origins=["https://a.example"])
        app.centrifuge("/b", allowed_origins=["https://b.example"])
        app.centrifuge("/c", emulation="/c/emulation")
        async with serving_streams(app) as service:
            for name in ("a", "b"):
                client = await service.new("http_stream").connect(path=f"/{name}")
                assert await client.say_raw(b'{"send":{}}', origin=f"https://{name}.example") == 204
                assert await client.say_raw(b'{"send":{}}', origin="https://c.example") == 403
            client = await service.new("http_stream", "/c/emulation").connect(path="/c")
            assert await client.say({"send": {}}) == 204


class TestWhereItIs:
    async def test_two_apps(self, autojump_clock: Clock) -> None:
        """Each has its own sessions: the other's get a 404."""
        one, two = an_app(), an_app()
        outer = Starlette(routes=[Mount("/one", app=one), Mount("/two", app=two)])
        async with two.lifespan(), serving(one, outer) as service, trio.open_nursery() as nursery:
            client = Streamed(service, nursery, "http_stream", "/one/emulation")
            await client.connect(path="/one/connection")
            stranger = Streamed(service, nursery, "http_stream", "/two/emulation")
            await stranger.connect(path="/two/connection")
            assert await client.say({"send": {}}) == 204
            client._emulation, stranger._emulation = stranger._emulation, client._emulation
            for each in (client, stranger):
                assert await each.say({"send": {}}) == 404, "another node"
            await client.leave()
            await stranger.leave()

    async def test_a_path_with_parameters(self, autojump_clock: Clock) -> None:
        app = App()
        app.centrifuge("/{team}/connection", connect=lambda client, data: client.scope["path_params"])
        async with serving_streams(app) as service:
            client = await service.new("sse").connect(path="/red/connection")
            assert client.lines[0]["connect"]["data"] == {"team": "red"}

    @pytest.mark.parametrize(("path", "base"), [("/", ""), ("/connection/", "/connection")])
    async def test_a_path_that_ends_with_a_slash(self, path: str, base: str, autojump_clock: Clock) -> None:
        app = App()
        app.centrifuge(path)
        async with serving_streams(app) as service:
            client = await service.new("http_stream").connect(path=base)
            assert client.status == 200

    def test_a_group_has_no_half_of_it(self) -> None:
        group = App().group("/api")
        assert not hasattr(group, "centrifuge")
        assert not hasattr(group, "call")

    async def test_without_the_take_over(self, autojump_clock: Clock) -> None:
        app = an_app()
        async with app.lifespan():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                response = await client.post("/emulation", json={"session": "x", "node": "y", "data": "{}"})
                assert response.status_code == 404
                # ASGITransport takes a response as a whole, so it is one that ends at once.
                response = await client.post("/connection/http_stream", content=b"nothing")
            assert response.status_code == 200
            assert json.loads(response.text) == {"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}
            assert app.statistics().ended == {"protocol": 1}

    async def test_outside_the_lifespan(self) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(an_app()), base_url="http://test") as client:
            assert (await client.post("/emulation")).status_code == 500
            assert (await client.get("/connection/sse")).status_code == 500


class TestFailures:
    @every_kind
    async def test_of_ours(
        self, kind: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client is told that much; the log has the rest."""
        async with serving_streams(an_app()) as service:
            client = await service.client(kind)

            def fails(self: ClientSession, *args: Any) -> None:
                raise ValueError("a secret")

            monkeypatch.setattr(ClientSession, "_handle", fails)
            assert await client.say({"send": {"data": 1}}) == 204
            assert await client.end() == (3004, "internal server error")
            await service.settle()
            assert service.app.statistics().ended == {"error": 1}
            assert "a secret" in caplog.text
            assert b"secret" not in b"".join(client.pieces)

    @every_kind
    async def test_a_second_connect(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(an_app()) as service:
            client = await service.client(kind)
            assert await client.say(client.command("connect")) == 204
            assert await client.end() == (3501, "bad request")


class TestLimits:
    @pytest.mark.parametrize(
        "limits",
        [Limits(max_connections_per_client=1), Limits(max_connections_per_second_per_client=0.1, connection_burst=1)],
    )
    async def test_connections_from_one_address(self, limits: Limits, autojump_clock: Clock) -> None:
        app = an_app(limits=limits)
        first = b'{"id":1,"connect":{}}'
        async with app.lifespan(), trio.open_nursery() as nursery:
            one, two = (ASGIRequest(app, "/connection/http_stream", first) for _ in range(2))
            nursery.start_soon(one.run)
            assert await one.until(1) is not None
            await two.run()
            assert two.status == 429
            one.gone.set()

    @every_kind
    async def test_connections_are_counted(self, kind: str, autojump_clock: Clock) -> None:
        app = an_app(limits=Limits(max_connections=2))
        async with serving_streams(app) as service:
            client = await service.client(kind)
            peer = await service.service.connect("/connection/websocket")
            refused = await service.new(kind).begin(encode(kind, {"id": 1, "connect": {}}), origin="http://test")
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")
            assert refused.headers["access-control-allow-origin"] == "http://test"
            await client.leave()
            await trio.sleep(1)
            again = await service.client(kind)
            assert again.status == 200
            await peer.aclose()

    async def test_connections_of_a_user(self, autojump_clock: Clock) -> None:
        app = an_app(auth=JWTAuth(KEY), limits=Limits(max_connections_per_user=1))
        token = JWTAuth(KEY).issue({"sub": "ada"})
        async with serving_streams(app) as service:
            client = await service.client("http_stream", token=token)
            assert len(app.users) == 1
            second = service.new("sse")
            await second.begin(encode("sse", {"id": 1, "connect": {"token": token}}))
            second.read_on()
            assert (await second.end())[0] == 3504
            assert not client.is_over
            assert await app.users.disconnect("ada", code=4500, reason="revoked") == 1
            assert await client.end() == (4500, "revoked")

    @every_kind
    async def test_commands_are_counted(self, kind: str, autojump_clock: Clock) -> None:
        app = an_app(limits=Limits(max_messages_per_second=1, message_burst=5))
        async with serving_streams(app) as service:
            client = await service.client(kind)
            commands = [client.command("rpc", method="double", data=3) for _ in range(6)]
            for command in commands:
                await client.say(command)
            replies = [await client.reply(command["id"]) for command in commands]
            assert [reply.get("error", {}).get("code") for reply in replies].count(111) == 2
            for _ in range(10):
                await client.say(client.command("rpc", method="double", data=3))
            assert await client.end() == (3013, "too many requests")
            assert app.statistics().ended == {"rate": 1}
