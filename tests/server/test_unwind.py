"""Starlette's layers unwind when they have nothing more to do; anything else around a connection stays."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from tests.conftest import Servers
from tests.support.memory import Service, serving
from verbtrio import App, WebSocket
from verbtrio.security import CSRFProtection, SecurityHeaders

CallNext = Callable[[Any], Awaitable[Response]]


def waiting(service: Service) -> set[str]:
    """The modules whose coroutines wait for the end of the connection."""
    (task,) = service.connections.child_tasks
    found = set()
    coroutine: Any = task.coro
    while hasattr(coroutine, "cr_frame"):
        found.add(coroutine.cr_frame.f_globals["__name__"])
        coroutine = coroutine.cr_await
    return found


class Around:
    """An ASGI middleware with something open for as long as the call lasts."""

    def __init__(self, app: ASGIApp, log: list[str]) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._log.append("open")
        try:
            await self._app(scope, receive, send)
        finally:
            self._log.append("closed")


def talkative(log: list[str], **settings: Any) -> App:
    """An app that logs the end of its connection."""
    app = App(**settings)

    @app.ws("/ws")
    class Chat:
        async def message(self, ws: WebSocket, message: str) -> None:
            await ws.send(message)

        def close(self, ws: WebSocket, code: int, reason: str) -> None:
            log.append("end")

    return app


async def passes(request: HTTPConnection, call_next: CallNext) -> Response:
    return await call_next(request)


async def converse(app: App, asgi: Any = None, path: str = "/ws", pair: Any = None) -> set[str]:
    async with serving(app, asgi) as service:
        client = await service.connect(path, pair=pair)
        await client.send_message("hello")
        assert await client.get_message() == "hello"
        await wait_all_tasks_blocked()
        modules = waiting(service)
        await client.aclose()
    return modules


async def test_only_ours_is_left(autojump_clock: Clock) -> None:
    """Function middleware has returned before the connection begins, an inner app's, too."""
    log: list[str] = []
    inner, app = talkative(log, middleware=[passes]), App(middleware=[passes])
    app.mount("/inner", inner)
    for modules in (await converse(talkative(log)), await converse(app, path="/inner/ws")):
        assert "verbtrio.connection.lifecycle" in modules
        assert not [name for name in modules if name.startswith("starlette")]
    assert log == ["end", "end"]


class Somebody(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        return AuthCredentials(["talk"]), SimpleUser("somebody")


KNOWN = [
    Middleware(AuthenticationMiddleware, backend=Somebody()),
    Middleware(CORSMiddleware, allow_origins=["*"]),
    Middleware(GZipMiddleware),
    Middleware(SessionMiddleware, secret_key="a secret of thirty-two bytes, or more"),
    Middleware(TrustedHostMiddleware, allowed_hosts=["test"]),
    Middleware(SecurityHeaders),
    Middleware(CSRFProtection),
]


async def test_middleware_that_has_nothing_to_do_afterwards(autojump_clock: Clock) -> None:
    log: list[str] = []
    app = talkative(log, middleware=KNOWN, require_origin=False, trusted_proxies=["192.0.2.1"])

    @app.ws("/session")
    async def session(ws: WebSocket) -> None:
        async for _ in ws:
            await ws.send(f"{ws.user.display_name} {ws.session}")

    modules = await converse(app)
    assert not [name for name in modules if name.startswith("starlette")]
    assert not [name for name in modules if name.startswith(("verbtrio.guards", "verbtrio.routes"))]
    async with serving(app) as service:
        client = await service.connect("/session")
        await client.send_message("who, and what is in the session?")
        assert await client.get_message() == "somebody {}"
        await client.aclose()


async def test_a_redirect_to_https(servers: Servers, autojump_clock: Clock) -> None:
    """By itself, not among the above: it lets only clients with TLS past."""

    def pair() -> tuple[Any, Any]:
        client, server = trio.testing.memory_stream_pair()
        trusting = ssl.create_default_context()
        servers.authority.configure_trust(trusting)
        trusting.check_hostname = False
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(servers.certfile, servers.keyfile)
        return trio.SSLStream(client, trusting), trio.SSLStream(server, context, server_side=True)

    log: list[str] = []
    app = talkative(log, middleware=[Middleware(HTTPSRedirectMiddleware)])
    modules = await converse(app, pair=pair)
    assert not [name for name in modules if name.startswith("starlette")]


async def test_what_is_around_a_connection_stays_around_it(autojump_clock: Clock) -> None:
    log: list[str] = []
    await converse(talkative(log, middleware=[Middleware(Around, log=log)]))
    assert log == ["open", "end", "closed"]


async def test_around_the_whole_application(autojump_clock: Clock) -> None:
    log: list[str] = []
    app = talkative(log)
    await converse(app, Around(app, log))
    assert log == ["open", "end", "closed"]


async def test_in_another_framework(autojump_clock: Clock) -> None:
    log: list[str] = []
    app = talkative(log)
    outer = Starlette(
        routes=[Mount("/inner", app=app, middleware=[Middleware(Around, log=log)])], lifespan=app.lifespan
    )
    await converse(app, outer, "/inner/ws")
    assert log == ["open", "end", "closed"]


async def test_around_a_subclass(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything unknown among the callers counts."""
    log: list[str] = []

    class Watchful(Router):
        async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
            log.append("open")
            await super().app(scope, receive, send)
            log.append("closed")

    app = talkative(log)
    monkeypatch.setattr(app.router, "__class__", Watchful)
    app.router.middleware_stack = app.router.app
    await converse(app)
    assert log[0] == "open"
    assert log[-2:] == ["end", "closed"]


async def test_a_handler_that_is_cancelled(autojump_clock: Clock) -> None:
    """By the server, while it runs outside the application's call: all hooks run, and nothing is left."""
    log: list[str] = []
    app = talkative(log)
    async with serving(app) as service:
        client = await service.connect()
        await wait_all_tasks_blocked()
        service.connections.cancel_scope.cancel()
        with trio.fail_after(10):
            await client._close_handshake.wait()
    assert log == ["end"]
