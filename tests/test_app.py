"""The application: routes, middleware, users, and its answers to mistakes."""

from __future__ import annotations

from typing import Any

import httpx
import hypercorn.protocol.ws_stream
import pytest
import trio.testing
import trio_websocket
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.support.memory import serving, shake_hands
from verbtrio import App, Upgrade, WebSocket
from verbtrio.brokers import MemoryBroker
from verbtrio.middleware import CallNext


def http(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def rejected(client: Any, path: str = "/ws", **options: Any) -> trio_websocket.ConnectionRejected:
    """The rejection that connecting raises."""
    try:
        async with trio.open_nursery() as client._clients:
            await client.connect(path, **options)
    except* trio_websocket.ConnectionRejected as group:
        error: Any = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    assert isinstance(error, trio_websocket.ConnectionRejected)
    return error


class TestRoutes:
    async def test_every_method(self) -> None:
        app = App()
        for method in ("get", "post", "put", "patch", "delete"):

            async def endpoint(request: Request) -> Response:
                return PlainTextResponse(f"{request.method} {request.path_params['name']}")

            getattr(app, method)("/things/:name")(endpoint)
        async with http(app) as client:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                assert (await client.request(method, "/things/it")).text == f"{method} it"
            assert (await client.request("OPTIONS", "/things/it")).status_code == 405

    async def test_path_parameters(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws/:room/{seat:int}")
        async def handler(ws: WebSocket, seat: int, room: str) -> None:
            await ws.send([room, seat, ws.params, ws.query_params["q"]])

        async with serving(app) as service:
            client = await service.connect("/ws/a%20b/7?q=1")
            assert await client.get_message() == '["a b",7,{"room":"a b","seat":7},"1"]'
            await client.aclose()

    async def test_subprotocols_by_the_routes_preference(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws", subprotocols=["v2", "v1"])
        async def handler(ws: WebSocket) -> None:
            await ws.send(str(ws.subprotocol))

        async with serving(app) as service:
            for offered, agreed in ((["v1", "v2"], "v2"), (["v1"], "v1"), (["x"], None), (None, None)):
                client = await service.connect(subprotocols=offered)
                assert await client.get_message() == str(agreed)
                assert client.subprotocol == agreed
                await client.aclose()

    async def test_a_class_has_an_instance_a_connection(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        class Counter:
            def __init__(self) -> None:
                self.count = 0

            def message(self, ws: WebSocket, message: str) -> None:
                self.count += 1
                ws.send_nowait(str(self.count))

        async with serving(app) as service:
            for _ in range(2):
                client = await service.connect()
                for count in ("1", "2"):
                    await client.send_message("x")
                    assert await client.get_message() == count
                await client.aclose()

    def test_mistakes_show_when_the_route_is_made(self) -> None:
        app = App()
        with pytest.raises(TypeError, match="asks for 'seat', which the path doesn't have"):

            @app.ws("/ws/:room")
            async def handler(ws: WebSocket, seat: int) -> None: ...

        with pytest.raises(TypeError, match="none of the hooks"):
            app.ws("/ws")(dict)
        with pytest.raises(TypeError, match="is not a handler"):
            app.ws("/ws")(lambda ws: None)
        with pytest.raises(TypeError, match="decorates nothing"):
            app.ws("/ws", open=lambda ws: None)(lambda ws: None)

    async def test_compression_is_opt_in(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/off")
        @app.ws("/on", compression=True)
        async def handler(ws: WebSocket[str]) -> None:
            async for message in ws:
                await ws.send(message * 100)

        async with serving(app) as service:
            for path, granted in (("/off", False), ("/on", True)):
                peer = service.open_stream()
                answer = await shake_hands(peer, path, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
                assert (b"permessage-deflate" in answer) is granted
                await peer.send_all(b"\x81\x82\0\0\0\0hi")
                reply = await peer.receive_some()
                assert (reply[0], len(reply) > 200) == ((0xC1, False) if granted else (0x81, True))
                await trio.aclose_forcefully(peer)


class TestMiddleware:
    async def test_order_and_reach(self, autojump_clock: Clock) -> None:
        """App-wide before a route's, in the order given; the same function for HTTP and WebSocket."""
        app = App(middleware=[Middleware(GZipMiddleware)])
        order: list[str] = []

        def note(name: str) -> Any:
            async def middleware(request: Any, call_next: CallNext) -> Response:
                order.append(name)
                response = await call_next(request)
                response.headers[f"x-{name}"] = str(isinstance(response, Upgrade))
                order.append(f"/{name}")
                return response

            return middleware

        app.use(note("first"), note("second"))

        @app.get("/http", middleware=[note("third")])
        async def endpoint(request: Request) -> Response:
            order.append("endpoint")
            return PlainTextResponse("x")

        @app.ws("/ws", middleware=[note("third")])
        async def handler(ws: WebSocket) -> None:
            order.append("handler")

        expected = ["first", "second", "third"]
        async with http(app) as client:
            answer = await client.get("/http")
            assert [answer.headers[f"x-{name}"] for name in expected] == ["False"] * 3
        assert order == [*expected, "endpoint", "/third", "/second", "/first"]
        order.clear()
        async with serving(app) as service:
            peer = await service.connect()
            await peer.aclose()
            headers = dict(peer.handshake_headers)
            assert [headers[f"x-{name}".encode()] for name in expected] == [b"True"] * 3
        # For a WebSocket, each has returned before the next begins: none of them stays for the connection's life.
        assert order == ["first", "/first", "second", "/second", "third", "/third", "handler"]

    async def test_denial(self, autojump_clock: Clock) -> None:
        app = App()

        async def refuse(request: Any, call_next: CallNext) -> Response:
            return PlainTextResponse("not you", 418, headers={"X-Why": "because"})

        app.ws("/ws", open=lambda ws: None, middleware=[refuse])
        async with serving(app) as service:
            rejection = await rejected(service)
            assert (rejection.status_code, rejection.body) == (418, b"not you")
            assert (b"x-why", b"because") in (rejection.headers or ())

    async def test_an_exception_denies_with_500(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app = App()

        async def fail(request: Any, call_next: CallNext) -> Response:
            raise ValueError("on purpose")

        app.use(fail)
        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            assert (await rejected(service)).status_code == 500
        assert len(caplog.records) == 1

    async def test_too_late(self) -> None:
        app = App()
        async with http(app) as client:
            await client.get("/")
        with pytest.raises(RuntimeError, match="before the app has started"):
            app.use()


async def test_users(autojump_clock: Clock) -> None:
    """A user may have several connections; closing one leaves the others reachable."""
    app = App()

    async def who(request: Any, call_next: CallNext) -> Response:
        request.scope["user"] = {"id": int(request.query_params["id"])}
        return await call_next(request)

    app.ws("/ws", open=lambda ws: None, middleware=[who])
    async with serving(app) as service:
        one, two = await service.connect("/ws?id=1"), await service.connect("/ws?id=1")
        other = await service.connect("/ws?id=2")
        await trio.testing.wait_all_tasks_blocked()
        assert list(app.users) == ["1", "2"]
        assert (1 in app.users, "1" in app.users, 3 in app.users) == (True, True, False)
        assert await app.users.send(1, {"n": 1}) == 2
        assert await one.get_message() == await two.get_message() == '{"n":1}'
        await one.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await app.users.send("1", "still there") == 1
        assert await two.get_message() == "still there"
        assert await app.users.send(3, "nobody") == 0
        await two.aclose()
        await other.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert len(app.users) == 0


async def test_users_whoever_is_cancelled(autojump_clock: Clock) -> None:
    """What reaches a user has no part that a cancellation leaves out, and the coroutines are checkpoints."""
    app = App()

    async def who(request: Any, call_next: CallNext) -> Response:
        request.scope["user"] = {"id": 1}
        return await call_next(request)

    app.ws("/ws", open=lambda ws: None, middleware=[who])
    async with serving(app) as service:
        client = await service.connect()
        await trio.testing.wait_all_tasks_blocked()
        for user_id in (1, "nobody"):
            with trio.testing.assert_checkpoints():
                await app.users.send(user_id, "sent")
        with trio.CancelScope() as scope:
            scope.cancel()
            await app.users.send(1, "sent all the same")
        assert scope.cancelled_caught
        assert app.users.send_nowait(1, "at once") == 1
        heard = [await client.get_message() for _ in range(3)]
        assert heard == ["sent", "sent all the same", "at once"]
        with trio.testing.assert_checkpoints():
            assert await app.users.disconnect("nobody") == 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await app.users.disconnect(1, reason="closed all the same")
        assert scope.cancelled_caught
        assert app.users.disconnect_nowait(1) == 0
        await trio.sleep(1)
        assert client.closed is not None
        assert client.closed.reason == "closed all the same"


class TestMistakes:
    """A mistake raises where it is made, with what to do instead."""

    @pytest.mark.parametrize(
        ("hook", "problem"),
        [
            ({"close": lambda ws: None}, r"the close hook .* is called with \(ws, code, reason\)"),
            ({"open": lambda ws, request: None}, r"the open hook .* is called with \(ws\)"),
            ({"error": lambda: None}, r"the error hook .* is called with \(ws, error\)"),
        ],
    )
    def test_a_hook_that_cannot_be_called(self, hook: dict[str, Any], problem: str) -> None:
        with pytest.raises(TypeError, match=problem):
            App().ws("/ws", **hook)

    def test_a_hook_that_asks_for_a_path_parameter(self) -> None:
        class Chat:
            def open(self, ws: WebSocket, room: str) -> None: ...

        for add in (lambda: App().ws("/ws/:room", open=lambda ws, room: None), lambda: App().ws("/ws/:room")(Chat)):
            with pytest.raises(TypeError, match=r"'room'.*The path's parameters are in ws\.params"):
                add()

    def test_a_method_that_cannot_be_called(self) -> None:
        class Handler:
            def close(self, ws: WebSocket) -> None: ...

        with pytest.raises(TypeError, match=r"the close hook .* is called with \(ws, code, reason\)"):
            App().ws("/ws")(Handler)

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"heartbeat": False}, "or None for none, not False"),
            ({"heartbeat": 30}, "or None for none, not 30"),
            ({"limits": {"max_message_bytes": 5}}, r"limits is a verbtrio\.Limits"),
            ({"subprotocols": "chat"}, r"subprotocols is a sequence: \['chat'\]"),
        ],
    )
    def test_settings_of_another_type(self, settings: dict[str, Any], problem: str) -> None:
        with pytest.raises(TypeError, match=problem):
            App().ws("/ws", open=lambda ws: None, **settings)

    @pytest.mark.parametrize("broker", [MemoryBroker, "redis://localhost"])
    def test_a_broker_that_is_none(self, broker: Any) -> None:
        with pytest.raises(TypeError, match=r"broker is a verbtrio\.brokers\.Broker, such as MemoryBroker\(\), not "):
            App(broker=broker)

    def test_middleware_that_is_a_class(self) -> None:
        wrong: Any = GZipMiddleware
        with pytest.raises(TypeError, match=r"starlette\.middleware\.Middleware\(cls, \.\.\.\)"):
            App().use(wrong)

    async def test_middleware_that_returns_something_else(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App()

        async def forgets(request: Any, call_next: CallNext) -> Any:
            await call_next(request)

        app.use(forgets)
        app.ws("/ws", open=lambda ws: None)

        @app.get("/")
        async def endpoint(request: Request) -> Response:
            return PlainTextResponse("x")

        async with http(app) as client:
            with pytest.raises(TypeError, match="returned None; it must return a Response"):
                await client.get("/")
        async with serving(app) as service:
            assert (await rejected(service)).status_code == 500
        assert "returned None; it must return a Response" in (caplog.records[0].exc_text or "")


async def test_headers_of_middleware_are_on_every_answer(autojump_clock: Clock) -> None:
    app = App()

    async def stamp(request: Any, call_next: CallNext) -> Response:
        response = await call_next(request)
        response.headers["x-stamp"] = "1"
        return response

    async def refuse(request: Any, call_next: CallNext) -> Response:
        return PlainTextResponse("no", 418)

    app.use(stamp)
    app.ws("/ws", open=lambda ws: None, middleware=[refuse])

    @app.get("/")
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("x")

    async with http(app) as client:
        assert (await client.get("/")).headers["x-stamp"] == "1"
    async with serving(app) as service:
        rejection = await rejected(service)
        assert rejection.status_code == 418
        assert (b"x-stamp", b"1") in (rejection.headers or ())


@pytest.mark.parametrize(
    ("lines", "agreed"),
    [
        (b"Sec-WebSocket-Protocol:\r\n", b""),
        (b"Sec-WebSocket-Protocol: \t \r\n", b""),
        (b"Sec-WebSocket-Protocol: ,, ,\r\n", b""),
        (b"Sec-WebSocket-Protocol:\r\nSec-WebSocket-Protocol: ,v1,\r\n", b"v1"),
        (b"Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol:\r\n", b"v1"),
    ],
)
async def test_an_empty_offer_of_subprotocols(lines: bytes, agreed: bytes, autojump_clock: Clock) -> None:
    """It is none: the Centrifuge SDK for Python sends it."""
    app, seen = App(), list[Any]()

    @app.ws("/ws", subprotocols=["v1"])
    async def handler(ws: WebSocket) -> None:
        seen.append(ws.subprotocol)

    async with serving(app) as service:
        stream = service.open_stream()
        answer = await shake_hands(stream, headers=lines)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert answer.lower().count(b"sec-websocket-protocol") == bool(agreed)
        await trio.aclose_forcefully(stream)
        await service.wait_ended(10)
    assert seen == [agreed.decode() or None]


@pytest.mark.parametrize("value", [b"", b",", b" , ,"])
async def test_an_empty_offer_as_hypercorn_parses_it(value: bytes, autojump_clock: Clock) -> None:
    """Over plain ASGI the server parses the header: hypercorn offers the empty name."""
    app, seen = App(), list[Any]()

    @app.ws("/ws", subprotocols=["v1"])
    async def handler(ws: WebSocket) -> None:
        seen.append(ws.subprotocol)

    offered = hypercorn.protocol.ws_stream.Handshake([(b"sec-websocket-protocol", value)], "1.1").subprotocols
    assert offered
    assert set(offered) == {""}
    to_app, received = trio.open_memory_channel[Any](10)
    sent, from_app = trio.open_memory_channel[Any](10)
    to_app.send_nowait({"type": "websocket.connect"})
    scope: dict[str, Any] = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
    async with app.lifespan(), trio.open_nursery() as nursery:
        nursery.start_soon(app, {**scope, "subprotocols": offered}, received.receive, sent.send)
        answer = await from_app.receive()
        to_app.send_nowait({"type": "websocket.disconnect", "code": 1000, "reason": ""})
    assert (answer["type"], answer["subprotocol"], seen) == ("websocket.accept", None, [None])


async def test_a_subprotocol_that_middleware_has_agreed_on(autojump_clock: Clock) -> None:
    app = App()

    async def agree(request: Any, call_next: CallNext) -> Response:
        response = await call_next(request)
        assert isinstance(response, Upgrade)
        response.subprotocol = "bearer"
        return response

    @app.ws("/ws", middleware=[agree])
    async def handler(ws: WebSocket) -> None:
        await ws.send(str(ws.subprotocol))

    async with serving(app) as service:
        client = await service.connect(subprotocols=["bearer", "token"])
        assert await client.get_message() == client.subprotocol == "bearer"
        await client.aclose()


async def test_users_disconnected(autojump_clock: Clock) -> None:
    """Revocation: all of a user's connections, nobody else's, with a reason."""

    async def identify(request: Any, call_next: CallNext) -> Response:
        request.scope["user"] = {"id": request.query_params["id"]}
        return await call_next(request)

    app = App(middleware=[identify])
    app.ws("/ws", open=lambda ws: None)
    async with serving(app) as service:
        clients = [await service.connect(f"/ws?id={user}") for user in (1, 1, 2)]
        assert await app.users.disconnect("1", reason="Your account is closed") == 2
        assert await app.users.disconnect(1) == 0, "they are closing already"
        assert await app.users.disconnect(3) == 0
        with pytest.raises(ValueError, match="close code"):
            await app.users.disconnect(2, code=999)
        await trio.sleep(1)
        for client in clients[:2]:
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (1008, "Your account is closed")
        assert (clients[2].closed, list(app.users)) == (None, ["2"])
        await clients[2].aclose()
