"""Every kind of middleware there is, around routes that tell what has become of them."""

from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from verbtrio import App, WebSocket
from verbtrio.base.types import EXTENSION
from verbtrio.security import CSRFProtection, SecurityHeaders


async def pass_on(request: Any, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


async def add(request: Any, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["x-added"] = request.scope["type"]
    return response


class Crash:
    """An ASGI middleware that fails."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("a middleware that fails")


async def fail(request: Any, call_next: Any) -> Response:
    raise ValueError("a middleware that fails")


app = App(
    trusted_proxies=["192.0.2.1"],
    require_origin=False,
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"]),
        Middleware(SecurityHeaders),
        Middleware(CORSMiddleware, allow_origins=["https://example.com"]),
        Middleware(CSRFProtection),
        Middleware(GZipMiddleware, minimum_size=10),
        Middleware(SessionMiddleware, secret_key="a secret of thirty-two bytes, or more"),
        Middleware(BaseHTTPMiddleware, dispatch=pass_on),  # Starlette's own: for HTTP alone
        add,
    ],
)
group = app.group("/group", middleware=[Middleware(GZipMiddleware), add])
broken = app.group("/broken", middleware=[fail])
crashed = app.group("/crashed", middleware=[Middleware(Crash)])


async def tell(ws: WebSocket) -> None:
    await ws.send({"taken": ws.scope["extensions"][EXTENSION].is_taken, "session": ws.scope["session"]})


async def page(request: Request) -> Response:
    return PlainTextResponse("hello " * 100)


for routes in (app, group, broken, crashed):
    routes.ws("/ws", open=tell)
    routes.get("/page")(page)
