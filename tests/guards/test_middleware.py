"""Middleware functions: their order, what they add to a handshake, how they deny it, and what if they fail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket as StarletteWebSocket
from trio.abc import Clock

from tests.conftest import Servers
from tests.support.memory import shake_hands
from tests.support.peers import Refused, connect
from tests.support.process import Server
from tests.support.ways import WAYS, clients_of
from verbtrio import App, WebSocket
from verbtrio.guards.middleware import FunctionMiddleware, Upgrade, UpgradeRequest, as_middleware

DENIAL: dict[str, Any] = {"websocket.http.response": {}}


class Exchange:
    """One request, and what the application sends in answer."""

    def __init__(self, kind: str, *, subprotocols: Sequence[str] = (), extensions: Any = DENIAL) -> None:
        self.scope: Scope = {
            "type": kind,
            "path": "/ws",
            "raw_path": b"/ws",
            "query_string": b"secret=1",
            "root_path": "",
            "headers": [(b"host", b"test"), (b"x-name", b"ada")],
            "subprotocols": list(subprotocols),
            "extensions": extensions,
        }
        if kind == "http":
            self.scope["method"] = "GET"
        self.sent: list[Message] = []

    async def run(self, app: Any) -> list[Message]:
        await app(self.scope, self._receive, self._send)
        return self.sent

    async def _receive(self) -> Message:
        kind = self.scope["type"]
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


class Endpoint:
    """A WebSocket application that accepts, and has something to say."""

    def __init__(self, log: list[str], *, subprotocol: str | None = None) -> None:
        self._log = log
        self._subprotocol = subprotocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._log.append("endpoint")
        await send({"type": "websocket.accept", "subprotocol": self._subprotocol, "headers": [(b"x-own", b"1")]})
        await send({"type": "websocket.send", "text": "hello"})


def wrapped(function: Any, app: Any) -> FunctionMiddleware:
    return FunctionMiddleware(app, dispatch=function)


async def deny_with(response: Any, **scope: Any) -> list[Message]:
    async def function(request: Any, call_next: Any) -> Response:
        assert isinstance(response, Response)
        return response

    log: list[str] = []
    sent = await Exchange("websocket", **scope).run(wrapped(function, Endpoint(log)))
    assert log == [], "the connection has not begun"
    return sent


class TestOrder:
    @pytest.mark.parametrize("kind", ["websocket", "http"])
    async def test_app_then_route_outermost_first(self, kind: str) -> None:
        log: list[str] = []

        def named(name: str) -> Any:
            async def function(request: HTTPConnection, call_next: Any) -> Response:
                log.append(f"{name} in")
                response: Response = await call_next(request)
                log.append(f"{name} out")
                return response

            return function

        async def page(request: Request) -> Response:
            log.append("endpoint")
            return PlainTextResponse("hello")

        middleware = as_middleware([named("three"), named("four")])
        app = Starlette(
            routes=[
                WebSocketRoute("/ws", Endpoint(log), middleware=middleware),
                Route("/ws", page, middleware=middleware),
            ],
            middleware=as_middleware([named("one"), named("two")]),
        )
        exchange = Exchange(kind)
        await exchange.run(app)
        ways_in = ["one in", "two in", "three in", "four in"]
        if kind == "http":
            ways_out = ["four out", "three out", "two out", "one out"]
            assert log == [*ways_in, "endpoint", *ways_out]
        else:
            # Each is over before the next begins: nothing of them stays for as long as the connection lives.
            assert log == [step for name in ways_in for step in (name, name.replace("in", "out"))] + ["endpoint"]
            assert [message["type"] for message in exchange.sent] == ["websocket.accept", "websocket.send"]

    async def test_what_one_puts_into_the_scope_the_next_sees(self) -> None:
        async def first(request: UpgradeRequest, call_next: Any) -> Any:
            request.scope["user"] = "ada"
            request.state.number = 5
            return await call_next(request)

        async def second(request: UpgradeRequest, call_next: Any) -> Any:
            seen.append((request.user, request.state.number, request.scope["user"]))
            return await call_next(request)

        seen: list[Any] = []
        await Exchange("websocket").run(wrapped(first, wrapped(second, Endpoint([]))))
        assert seen == [("ada", 5, "ada")]


class TestRequest:
    async def test_is_like_starlettes(self) -> None:
        async def function(request: UpgradeRequest, call_next: Any) -> Any:
            seen.append(
                (request.method, request.headers["x-name"], request.query_params["secret"], request.subprotocols)
            )
            request.subprotocols.append("mine")
            seen.append(request.subprotocols)
            return await call_next(request)

        seen: list[Any] = []
        exchange = Exchange("websocket", subprotocols=["a", "b"])
        await exchange.run(wrapped(function, Endpoint([])))
        assert seen == [("GET", "ada", "1", ["a", "b"]), ["a", "b"]]


class TestAccept:
    async def test_passes_as_it_is(self) -> None:
        async def function(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        assert (await Exchange("websocket").run(wrapped(function, Endpoint([])))) == [
            {"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-own", b"1")]},
            {"type": "websocket.send", "text": "hello"},
        ]

    async def test_headers_and_subprotocol_are_added(self) -> None:
        def adding(name: str, subprotocol: str) -> Any:
            async def function(request: Any, call_next: Any) -> Any:
                response = await call_next(request)
                assert isinstance(response, Upgrade)
                response.headers["X-Name"] = name
                response.set_cookie("from", name)
                response.subprotocol = subprotocol
                return response

            return function

        stack = wrapped(adding("outer", "o"), wrapped(adding("inner", "i"), Endpoint([])))
        accept, said = await Exchange("websocket").run(stack)
        assert accept["headers"][0] == (b"x-own", b"1")
        assert [value for name, value in accept["headers"] if name == b"x-name"] == [b"inner", b"outer"]
        assert [value[:10] for name, value in accept["headers"] if name == b"set-cookie"] == [
            b"from=inner",
            b"from=outer",
        ]
        assert accept["subprotocol"] == "i", "the innermost knows best"
        assert said == {"type": "websocket.send", "text": "hello"}

    async def test_the_endpoints_subprotocol_stands(self) -> None:
        async def function(request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.subprotocol = "bearer"
            return response

        accept, _ = await Exchange("websocket").run(wrapped(function, Endpoint([], subprotocol="chat")))
        assert accept["subprotocol"] == "chat"

    async def test_an_upgrade_begins_empty(self) -> None:
        """Nothing of an HTTP response's own headers (a length, a type) may get into the handshake."""
        assert (Upgrade().raw_headers, Upgrade().status_code) == ([], 101)


class TestDeny:
    async def test_with_status_headers_and_body(self) -> None:
        start, body = await deny_with(JSONResponse({"error": "no"}, 401, headers={"WWW-Authenticate": "Bearer"}))
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert (b"www-authenticate", b"Bearer") in start["headers"]
        assert (b"content-length", b"14") in start["headers"]
        assert body == {"type": "websocket.http.response.body", "body": b'{"error":"no"}'}

    async def test_after_the_upgrade_was_granted(self) -> None:
        """The endpoint is not called before the function is over, so it may still change its mind."""

        async def function(request: Any, call_next: Any) -> Response:
            assert isinstance(await call_next(request), Upgrade)
            return PlainTextResponse("changed my mind", 403)

        log: list[str] = []
        start, _ = await Exchange("websocket").run(wrapped(function, Endpoint(log)))
        assert (start["status"], log) == (403, [])

    @pytest.mark.parametrize("extensions", [{}, {"other": {}}])
    async def test_a_server_without_denial(self, extensions: Any) -> None:
        """It can say 403 and nothing else."""
        assert await deny_with(PlainTextResponse("no", 401), extensions=extensions) == [{"type": "websocket.close"}]

    async def test_a_server_that_names_no_extensions(self) -> None:
        async def function(request: Any, call_next: Any) -> Response:
            return PlainTextResponse("no", 401)

        exchange = Exchange("websocket")
        del exchange.scope["extensions"]
        assert await exchange.run(wrapped(function, Endpoint([]))) == [{"type": "websocket.close"}]

    async def test_a_stream(self) -> None:
        start, *body = await deny_with(StreamingResponse(iter([b"a", b"b"]), 418))
        assert start["status"] == 418
        assert b"".join(message["body"] for message in body) == b"ab"


class TestFailure:
    @pytest.mark.parametrize("after", [False, True])
    async def test_denies_with_500_and_is_logged_once(self, after: bool, caplog: pytest.LogCaptureFixture) -> None:
        async def function(request: Any, call_next: Any) -> Any:
            if after:
                await call_next(request)
            raise ValueError("ours alone")

        log: list[str] = []
        start, body = await Exchange("websocket").run(wrapped(function, Endpoint(log)))
        assert (start["status"], body["body"], log) == (500, b"Internal Server Error", [])
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("verbtrio.middleware", logging.ERROR)
        assert record.getMessage() == "middleware failed before the upgrade of '/ws'"
        assert record.exc_info is not None
        assert "secret" not in caplog.text.replace(__file__, "")

    async def test_of_the_endpoint_is_not_the_middlewares(self, caplog: pytest.LogCaptureFixture) -> None:
        """Once the connection has begun, its errors are its own."""

        async def function(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            raise ValueError("the endpoint's")

        exchange = Exchange("websocket")
        with pytest.raises(ValueError, match="the endpoint's"):
            await exchange.run(wrapped(function, app))
        assert exchange.sent == [{"type": "websocket.accept"}]
        assert caplog.records == []


class TestHttp:
    async def test_is_starlettes(self) -> None:
        async def function(request: Request, call_next: Any) -> Any:
            assert isinstance(request, Request)
            response = await call_next(request)
            response.headers["x-added"] = "1"
            return response

        start, *body = await Exchange("http").run(wrapped(function, PlainTextResponse("hello", 201)))
        assert (start["status"], (b"x-added", b"1") in start["headers"]) == (201, True)
        assert b"".join(message["body"] for message in body) == b"hello"

    async def test_a_failure_is_the_applications_to_handle(self) -> None:
        async def function(request: Request, call_next: Any) -> Any:
            raise ValueError("ours")

        with pytest.raises(ValueError, match="ours"):
            await Exchange("http").run(wrapped(function, PlainTextResponse("hello")))

    async def test_a_lifespan_passes(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": scope["type"]})

        assert await Exchange("lifespan").run(wrapped(None, app)) == [{"type": "lifespan"}]


def test_starlettes_middleware_is_left_as_it_is() -> None:
    async def function(request: Any, call_next: Any) -> Any: ...

    theirs = Middleware(FunctionMiddleware, dispatch=function)
    ours, left = as_middleware([function, theirs])
    assert left is theirs
    made: Any = (ours.cls, ours.kwargs)
    assert made == (FunctionMiddleware, {"dispatch": function})


class Watching:
    """An ASGI middleware that looks at each message, in both directions."""

    def __init__(self, app: ASGIApp, seen: list[str]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched_receive() -> Message:
            message = await receive()
            self._seen.append(message["type"])
            return message

        async def watched_send(message: Message) -> None:
            self._seen.append(message["type"])
            await send(message)

        await self._app(scope, watched_receive, watched_send)


HANDSHAKE = ["websocket.connect", "websocket.accept"]
CONVERSATION = [*HANDSHAKE, "websocket.receive", "websocket.send", "websocket.disconnect"]


class TestWhatAnASGIMiddlewareSees:
    @pytest.mark.parametrize("way", WAYS)
    async def test_of_a_route_of_ours(self, way: str, autojump_clock: Clock) -> None:
        """The handshake; the messages only over plain ASGI."""
        seen: list[str] = []
        app = App(middleware=[Middleware(Watching, seen=seen)])

        @app.ws("/ws")
        async def echo(ws: WebSocket[str]) -> None:
            async for message in ws:
                await ws.send(message)

        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("hello")
            assert await client.heard() == "hello"
            await client.close()
        assert seen == (CONVERSATION if way == "plain ASGI" else HANDSHAKE)

    @pytest.mark.parametrize("way", WAYS)
    async def test_of_another_route(self, way: str, autojump_clock: Clock) -> None:
        """All of it, over each way."""

        async def echo(websocket: StarletteWebSocket) -> None:
            await websocket.accept()
            async for message in websocket.iter_text():
                await websocket.send_text(message)

        seen: list[str] = []
        app = App(middleware=[Middleware(Watching, seen=seen)], routes=[WebSocketRoute("/ws", echo)])
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("hello")
            assert await client.heard() == "hello"
            await client.close()
        assert seen == CONVERSATION

    @pytest.mark.parametrize("way", WAYS)
    async def test_what_it_does_to_the_handshake(self, way: str, autojump_clock: Clock) -> None:
        """It may change the scope, or copy it, and deny the upgrade."""

        class Named:
            def __init__(self, app: ASGIApp) -> None:
                self._app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "websocket":
                    scope = {**scope, "user": "ada"}
                await self._app(scope, receive, send)

        class Closed:
            def __init__(self, app: ASGIApp) -> None: ...

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await PlainTextResponse("closed", 451)(scope, receive, send)

        app = App(middleware=[Middleware(Named)])
        app.ws("/ws", open=lambda ws: ws.send_nowait(ws.user))
        async with clients_of(app, way) as connect:
            client = await connect()
            assert await client.heard() == "ada"
            await client.close()
        app = App(middleware=[Middleware(Closed)])
        app.ws("/ws", open=lambda ws: None)
        async with clients_of(app, way) as connect:
            with pytest.raises(AssertionError, match="denied with 451"):
                await connect()


class TestServed:
    """Under hypercorn, all kinds at once: each does its work, and the connection is still ours alone."""

    @pytest.fixture
    def server(self, servers: Servers) -> Server:
        return servers.get("tests.apps.layered:app")

    @pytest.mark.parametrize("path", ["/ws", "/group/ws"])
    async def test_the_take_over_is_in_force(self, server: Server, path: str) -> None:
        async with connect(f"ws://127.0.0.1:{server.port}{path}") as peer:
            assert await peer.receive() == {"taken": True, "session": {}}
            await peer.close(4000, "the real code arrives")

    @pytest.mark.parametrize("path", ["/page", "/group/page"])
    async def test_http_goes_through_all(self, server: Server, path: str) -> None:
        async with httpx.AsyncClient(base_url=server.url) as client:
            response = await client.get(path, headers={"Origin": "https://example.com"})
            assert response.text == "hello " * 100
            assert response.headers["content-encoding"] == "gzip"
            assert response.headers["access-control-allow-origin"] == "https://example.com"
            assert response.headers["x-frame-options"] == "DENY"
            assert response.headers["x-added"] == "http"
            assert (await client.get(path, headers={"Host": "evil.com"})).status_code == 400

    async def test_a_denial_goes_through_all(self, server: Server) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            answer = await shake_hands(stream, headers=b"Origin: https://evil.com\r\n")
        assert b" 400 " in answer, "shake_hands asks for the host x, which is none of ours"
        assert b"x-frame-options" not in answer.lower(), "outside the middleware that adds it"

    @pytest.mark.parametrize(
        ("path", "entry"),
        [
            ("/broken", "middleware failed before the upgrade of '/broken/ws'"),
            ("/crashed", "the application failed on the WebSocket at '/crashed/ws'"),
        ],
    )
    async def test_a_failure_is_500_and_logged_once(self, server: Server, path: str, entry: str) -> None:
        def logged() -> int:
            entries = ("Error in ASGI Framework", entry)
            return sum(server.log_text().count(entry) for entry in entries)

        async def wait_logged(count: int) -> None:
            with trio.fail_after(10):
                while logged() < count:  # by another process, after its answer
                    await trio.sleep(0.01)

        before = logged()
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get(f"{path}/page")).status_code == 500
        await wait_logged(before + 1)
        with pytest.RaisesGroup(Refused, flatten_subgroups=True, allow_unwrapped=True) as refusal:
            async with connect(f"ws://127.0.0.1:{server.port}{path}/ws"):
                pass
        error: Any = refusal.value
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert error.status == 500
        await wait_logged(before + 2)
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/page")).status_code == 200  # and what was to be logged before it is there
        assert logged() == before + 2
