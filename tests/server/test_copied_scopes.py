"""A scope can be copied, deeply too: middleware does that before it changes something in it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.middleware import ProxyFixMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket as StarletteWebSocket
from trio.abc import Clock

from tests.conftest import Servers
from tests.support.http import Exchange
from tests.support.memory import Service, serving, socket_stream_pair
from tests.support.peers import connect
from verbtrio import App, Stream, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.base.types import EXTENSION
from verbtrio.http.link import LINK

KEY = "a secret of thirty-two bytes, or more"


class CopyDeeply:
    """What `ProxyFixMiddleware` does, and a look at what came of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            copied = copy.deepcopy(scope)
            for extension in (EXTENSION, LINK):
                assert copied["extensions"].get(extension) is scope["extensions"].get(extension)
            for name in ("app", "verbtrio.auth"):
                assert copied.get(name) is scope.get(name)
            assert copied["state"].keys() == scope["state"].keys()
            scope = copied
        await self.app(scope, receive, send)


async def echo(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close(4000, "enough")


def everything(middleware: list[Any] | None = None, route_middleware: list[Any] | None = None) -> App:
    """An app with each kind of route there is."""
    app = App(middleware=middleware or [], routes=[WebSocketRoute("/foreign", echo, middleware=route_middleware)])
    inner = app.group("/group", middleware=route_middleware or [])

    @inner.ws("/ws")
    async def talk(ws: WebSocket[str]) -> None:
        async for message in ws:
            await ws.send(f"{message} {ws.scope['extensions'][EXTENSION].is_taken}")

    @inner.get("/page")
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    @inner.get("/stream")
    async def stream(request: Request) -> Response:
        assert request.scope["extensions"][LINK].send_timeout == 60

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        return Stream(pieces())

    inner.sse("/events", room="news")
    return app


async def converse(service: Service) -> None:
    """Use all of it."""
    client = await service.connect("/group/ws")
    await client.send_message("hello")
    assert await client.get_message() == "hello True"
    await client.aclose()
    client = await service.connect("/foreign")
    await client.send_message("hello")
    assert await client.get_message() == "hello"
    await client._close_handshake.wait()
    assert client.closed is not None
    assert (client.closed.code, client.closed.reason) == (4000, "enough")
    for path, body in (("/group/page", b"page"), ("/group/stream", b"ab")):
        exchange = await Exchange(service.open_stream()).request(path)
        assert exchange.status == 200
        assert await exchange.rest() == body
    stream = service.open_stream()
    exchange = await Exchange(stream).request("/group/events")
    assert exchange.status == 200
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("mode", ["legacy", "modern"])
@pytest.mark.parametrize("pair", [trio.testing.memory_stream_pair, socket_stream_pair])
async def test_behind_hypercorns_proxy_fix(mode: Any, pair: Any, autojump_clock: Clock) -> None:
    app = everything()
    asgi: Any = app
    async with serving(app, ProxyFixMiddleware(asgi, mode=mode)) as service:
        service.pair = pair
        await converse(service)


async def test_as_the_apps_and_the_routes_middleware(autojump_clock: Clock) -> None:
    """There the scope has the app, its router and the route's endpoint in it, too."""
    fix: Any = ProxyFixMiddleware
    for middleware in (Middleware(fix), Middleware(CopyDeeply)):
        async with serving(app := everything([middleware], [middleware]), app) as service:
            await converse(service)


async def test_in_a_mounted_app(autojump_clock: Clock) -> None:
    """(Around it the scope has Starlette's application in it, which can't be copied deeply.)"""
    app = everything([Middleware(CopyDeeply)])
    outer = Starlette(routes=[Mount("/", app=app)], lifespan=app.lifespan)
    async with serving(app, outer) as service:
        await converse(service)


async def test_behind_a_token(autojump_clock: Clock) -> None:
    auth = JWTAuth(KEY, algorithms=["HS256"])
    app = App(middleware=[auth, Middleware(CopyDeeply)])

    @app.ws("/ws")
    async def talk(ws: WebSocket) -> None:
        await ws.send(ws.user["sub"])

    async with serving(app) as service:
        client = await service.connect(f"/ws?token={auth.issue({'sub': 'ana'})}")
        assert await client.get_message() == "ana"
        await client.aclose()


async def test_the_servers_own_state(servers: Servers) -> None:
    """Under a real hypercorn, which puts the lifespan's state into each scope."""
    server = servers.get("tests.apps.proxied:app")
    async with connect(f"ws://127.0.0.1:{server.port}/ws") as peer:
        assert await peer.receive() == {"client": "127.0.0.1", "taken": True}
