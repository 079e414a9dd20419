"""Groups of routes: the prefix, the middleware and the settings they share, and the routes that are not theirs."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from trio.abc import Clock

from tests.support.memory import serving
from tests.test_app import http, rejected
from verbtrio import App, Group, Heartbeat, Limits, Upgrade, WebSocket


async def page(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {request.path_params}")


def logging_in(name: str, log: list[str]) -> Any:
    async def function(request: HTTPConnection, call_next: Any) -> Response:
        log.append(f"{name} {request.scope['type']}")
        response: Response = await call_next(request)
        response.headers["x-outermost"] = name
        return response

    return function


class TestPrefix:
    async def test_begins_every_path(self) -> None:
        app = App()
        group = app.group("/api/:tenant")
        for method in ("get", "post", "put", "patch", "delete"):
            getattr(group, method)("/things/:name")(page)
        async with http(app) as client:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                response = await client.request(method, "/api/us/things/it")
                assert response.text == "/api/us/things/it {'tenant': 'us', 'name': 'it'}"
            assert (await client.get("/things/it")).status_code == 404
            assert (await client.get("/api/us/it")).status_code == 404

    async def test_of_websockets(self, autojump_clock: Clock) -> None:
        app = App()

        @app.group("/api/:tenant").ws("/ws/:room")
        async def chat(ws: WebSocket, room: str, tenant: str) -> None:
            await ws.send([tenant, room, ws.params])

        async with serving(app) as service:
            client = await service.connect("/api/us/ws/lobby")
            assert await client.get_message() == '["us","lobby",{"tenant":"us","room":"lobby"}]'
            await client.aclose()

    async def test_tells_routes_apart(self, autojump_clock: Clock) -> None:
        """`ws.route` has the connections of this route, not those of another group's route with the same path."""
        app = App()

        for prefix in ("/a", "/b"):
            app.group(prefix).ws("/ws", open=lambda ws: ws.send_nowait(len(ws.route)))
        async with serving(app) as service:
            clients = [await service.connect(path) for path in ("/a/ws", "/b/ws", "/b/ws")]
            assert [await client.get_message() for client in clients] == ["1", "1", "2"]
            for client in clients:
                await client.aclose()

    async def test_of_groups_within_groups(self) -> None:
        log: list[str] = []
        app = App()
        outer = app.group("/a", middleware=[logging_in("outer", log)])
        outer.group("/b", middleware=[logging_in("inner", log)]).get("/c")(page)
        async with http(app) as client:
            assert (await client.get("/a/b/c")).text == "/a/b/c {}"
        assert log == ["outer http", "inner http"]

    def test_in_urls_by_name(self) -> None:
        app = App()
        app.group("/api/:tenant").get("/things/:name", name="thing")(page)
        assert app.url_path_for("thing", tenant="us", name="it") == "/api/us/things/it"

    @pytest.mark.parametrize("prefix", ["api", "/api/", "/", ":tenant"])
    def test_that_is_not_valid(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="a group's prefix is"):
            App().group(prefix)

    def test_a_parameter_that_is_in_no_path(self) -> None:
        async def handler(ws: WebSocket, room: str) -> None: ...

        with pytest.raises(TypeError, match="its parameters: tenant"):
            App().group("/:tenant").ws("/ws")(handler)


class TestWhatIsNotItsOwn:
    """A group leaves a request alone for which it has no route."""

    async def test_goes_on_to_what_comes_after(self) -> None:
        app = App()
        app.group("/api", middleware=[logging_in("one", [])]).get("/one")(page)
        app.group("/api").get("/two")(page)
        app.group("").get("/three")(page)
        app.get("/api/four")(page)
        async with http(app) as client:
            for path in ("/api/one", "/api/two", "/three", "/api/four"):
                response = await client.get(path)
                assert (response.text, "x-outermost" in response.headers) == (f"{path} {{}}", path == "/api/one")
            assert (await client.get("/api/five")).status_code == 404

    async def test_an_empty_group(self) -> None:
        app = App()
        app.group("")
        async with http(app) as client:
            assert (await client.get("/")).status_code == 404

    async def test_another_method_of_a_later_group(self) -> None:
        app = App()
        app.group("/api").get("/it")(page)
        app.group("/api").post("/it")(page)
        async with http(app) as client:
            assert (await client.post("/api/it")).status_code == 200
            assert (await client.put("/api/it")).status_code == 405

    async def test_a_slash_too_many(self) -> None:
        app = App()
        app.group("/api").get("/it")(page)
        async with http(app) as client:
            response = await client.get("/api/it/")
            assert (response.status_code, response.headers["location"]) == (307, "http://test/api/it")


class TestMiddleware:
    async def test_app_group_route_outermost_first(self, autojump_clock: Clock) -> None:
        """The same functions for HTTP and WebSockets, in the same order."""
        log: list[str] = []
        app = App(middleware=[logging_in("app", log)])
        app.use(logging_in("used", log))
        group = app.group("/api", middleware=[logging_in("group", log)])
        group.get("/page", middleware=[logging_in("route", log)])(page)
        group.ws("/ws", open=lambda ws: None, middleware=[logging_in("route", log)])

        async with http(app) as client:
            response = await client.get("/api/page")
        assert response.headers["x-outermost"] == "app"
        assert log == ["app http", "used http", "group http", "route http"]

        log.clear()
        async with serving(app) as service:
            connection = await service.connect("/api/ws")
            assert dict(connection.handshake_headers)[b"x-outermost"] == b"app"
            await connection.aclose()
        assert log == ["app websocket", "used websocket", "group websocket", "route websocket"]

    async def test_one_of_each_for_the_whole_group(self) -> None:
        """What a middleware counts, it counts for all routes of the group."""

        class Counting:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app
                self.count = 0

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                self.count += 1
                scope["count"] = self.count
                await self.app(scope, receive, send)

        async def count(request: Request) -> Response:
            return PlainTextResponse(str(request.scope["count"]))

        app = App()
        group = app.group("/api", middleware=[Middleware(Counting)])
        group.get("/one")(count)
        group.get("/two")(count)
        async with http(app) as client:
            assert [(await client.get(f"/api/{name}")).text for name in ("one", "two", "one")] == ["1", "2", "3"]

    async def test_cors_answers_a_preflight(self) -> None:
        """No route has the method OPTIONS: for a single route Starlette answers 405 before any middleware runs."""
        app = App()
        cors = Middleware(CORSMiddleware, allow_origins=["https://example.com"], allow_methods=["GET"])
        app.group("/api", middleware=[cors]).get("/it")(page)
        app.get("/other")(page)
        asking = {"Origin": "https://example.com", "Access-Control-Request-Method": "GET"}
        async with http(app) as client:
            response = await client.options("/api/it", headers=asking)
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (
                200,
                "https://example.com",
            )
            assert (await client.options("/other", headers=asking)).status_code == 405

    @pytest.mark.parametrize("where", ["app", "group", "route"])
    async def test_that_raises(self, where: str, caplog: pytest.LogCaptureFixture, autojump_clock: Clock) -> None:
        """The upgrade is denied, and the error logged once; HTTP gets a 500, which the server logs."""

        async def broken(request: Any, call_next: Any) -> Response:
            raise ValueError("mine")

        middleware: dict[str, Any] = {where: [broken]}
        app = App(middleware=middleware.get("app", ()))
        group = app.group("/api", middleware=middleware.get("group", ()))
        group.ws("/ws", open=lambda ws: None, middleware=middleware.get("route", ()))
        group.get("/page", middleware=middleware.get("route", ()))(page)
        async with serving(app) as service:
            rejection = await rejected(service, "/api/ws")
            assert (rejection.status_code, rejection.body) == (500, b"Internal Server Error")
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/api/page")).status_code == 500

    async def test_that_denies(self, autojump_clock: Clock) -> None:
        async def closed(request: Any, call_next: Any) -> Response:
            return PlainTextResponse("closed on Sundays", 403)

        app = App()
        app.group("/api", middleware=[closed]).ws("/ws", open=lambda ws: None)
        app.ws("/ws", open=lambda ws: ws.send_nowait("open"))
        async with serving(app) as service:
            client = await service.connect("/ws")
            assert await client.get_message() == "open"
            await client.aclose()
            rejection = await rejected(service, "/api/ws")
            assert (rejection.status_code, rejection.body) == (403, b"closed on Sundays")

    def test_of_another_type(self) -> None:
        wrong: Any = Upgrade
        with pytest.raises(TypeError, match="is not middleware"):
            App().group("/api", middleware=[wrong])


class TestSettings:
    def test_are_the_apps_or_the_groups_own(self) -> None:
        limits, heartbeat = Limits(send_timeout=1), Heartbeat(interval=5, timeout=10)
        app = App(limits=limits, heartbeat=heartbeat, compression=True)
        plain = app.group("/a")
        assert isinstance(plain, Group)
        assert (plain.limits, plain.heartbeat, plain.compression) == (limits, heartbeat, True)
        own = app.group("/b", limits=Limits(max_rooms=3), heartbeat=None, compression=False)
        merged = Limits(send_timeout=1, max_rooms=3)
        assert (own.limits, own.heartbeat, own.compression) == (merged, None, False)
        within = own.group("/c")
        assert (within.limits, within.heartbeat, within.compression) == (merged, None, False)

    async def test_reach_the_connections(self, autojump_clock: Clock) -> None:
        app = App()
        group = app.group("/api", limits=Limits(max_message_bytes=5))
        group.ws("/small", message=lambda ws, message: ws.send_nowait("taken"))
        group.ws("/large", message=lambda ws, message: ws.send_nowait("taken"), limits=Limits(max_message_bytes=6))
        async with serving(app) as service:
            small, large = await service.connect("/api/small"), await service.connect("/api/large")
            for client in (small, large):
                await client.send_message("123456")
            assert await large.get_message() == "taken"
            await large.aclose()
        assert small.closed is not None
        assert small.closed.code == 1009

    @pytest.mark.parametrize("settings", [{"limits": 5}, {"heartbeat": 5}])
    def test_of_another_type(self, settings: Any) -> None:
        with pytest.raises(TypeError, match=r"is a verbtrio\."):
            App().group("/api", **settings)


def test_repr() -> None:
    group = App().group("/api")
    group.get("/it")(page)
    assert repr(group) == "<Group '/api' (1 routes)>"
