"""Which routes an application's AsyncAPI document has, and their addresses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket as StarletteWebSocket

from verbtrio import App, WebSocket
from verbtrio.routes.asyncapi import Channel
from verbtrio.routes.channels import channels


async def page(request: Request) -> Response:
    return PlainTextResponse("")


async def foreign(socket: StarletteWebSocket) -> None: ...


def test_those_of_verbtrio_wherever_they_are() -> None:
    inner = App()
    inner.ws("/ws", message=lambda ws, message: None)
    app = App(routes=[Route("/starlette", page), WebSocketRoute("/foreign", foreign)])
    app.get("/page")(page)
    app.sse("/events/:room", sends=int)
    group = app.group("/api/:version").group("/deep")

    async def pass_on(request: object, call_next: object) -> Response:
        raise NotImplementedError

    @group.ws("/ws/{n:int}", sends=dict, middleware=[pass_on])
    async def handler(ws: WebSocket[list[int]]) -> None:
        """What it is."""

    app.mount("/static", StaticFiles(directory="."))
    app.mount("/inner", inner)
    app.routes.append(Mount("/plain/{name}", routes=[Mount("/deeper", app=inner)]))
    assert list(channels(app.routes)) == [
        Channel("/events/{room}", None, int, "Server-sent events"),
        Channel("/api/{version}/deep/ws/{n}", list[int], dict, "What it is."),
        Channel("/inner/ws", str | bytes),
        Channel("/plain/{name}/deeper/ws", str | bytes),
    ]
