"""The application: Starlette's, with WebSocket routes whose connections run in nurseries of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from verbtrio.base import logs
from verbtrio.base.errors import NotRunning
from verbtrio.base.limits import Limits
from verbtrio.base.types import DecodeHook, EncodeHook, Shared
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.contract.check import NURSERY, TAKE_OVER, TLS, UNWIND, can_be_had
from verbtrio.guards.middleware import MiddlewareFunction, as_middleware
from verbtrio.guards.origin import Origins
from verbtrio.guards.proxies import ProxyMiddleware, TrustedProxies
from verbtrio.hub.hub import Hub, Statistics, Users, open_hub
from verbtrio.messages.custom import check_hooks
from verbtrio.messages.frame import encoder
from verbtrio.rooms.local import Room, check_name
from verbtrio.routes.asyncapi import document
from verbtrio.routes.channels import channels
from verbtrio.routes.paths import PathRouter
from verbtrio.routes.routing import UNSET, Routes
from verbtrio.server import not_trio
from verbtrio.server.background import Background, at_work
from verbtrio.server.debugging import debugging

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]

logs.set_up()  # when verbtrio is imported: what is said before an app is served has its level, too


class App(Shared, Background, Routes, Starlette):
    """A realtime application: an ASGI application for hypercorn's Trio worker.

    Beside what is listed here, everything is Starlette's: requests, responses, static files, mounting, errors.

    Args:
        debug: for development. HTTP error responses show tracebacks; whoever holds the event loop for 100 ms or more is
            named in a warning; and Ctrl+C gets a handler or hook out of a computation (see `debugging`).
        lifespan: an async context manager `(app)` around the application's life, inside the hub.
        middleware: functions `(request, call_next)` or Starlette's `Middleware`, outermost first.
        routes, exception_handlers, max_body_size: as in Starlette.
        limits: what one connection may cost; each route may have its own.
        heartbeat: how silent peers are found, `None` for not at all; each route may have its own.
        compression: agree on permessage-deflate (RFC 7692) where the client offers it. Off by default: it costs
            32 KiB and more a connection, and time on every message. What is decompressed counts for the size limit.
        allowed_origins: whose pages may open WebSockets, beside the server's own: "https://example.com",
            "https://*.example.com" (all below it), "*" (everybody), "null" (files and sandboxed frames, and so whoever
            puts a page into one). Each group and route may have its own. Others get 403, and the log says what to add.
        require_origin: whether a handshake must have an `Origin`. Browsers always send one, other programs need not.
            By default it must where cookies may let it in, that is where a `SessionMiddleware` has been.
        trusted_proxies: the reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` tell the client's address
            and scheme: addresses and networks ("127.0.0.1", "10.0.0.0/8"), "unix" for one that connects by a UNIX
            socket; or a `TrustedProxies`, for `Forwarded` (RFC 7239).
        encode: `(value)`, called for each value to be sent that JSON has no form for, wherever that is; what it returns
            is sent in its place. `lambda model: model.model_dump(mode="json")` sends Pydantic's models.
        decode: `(type, value)`, called for a message type, or a part of one, that JSON has no form for: it makes one of
            a JSON value, or raises `ValueError`, `TypeError` or `MessageError`, with which the client is answered.
            With `adapter = functools.cache(pydantic.TypeAdapter)`, `lambda type, value:
            adapter(type).validate_python(value)` receives Pydantic's models, and unions of them, for which it is asked
            as a whole.
        drain_timeout: seconds the WebSockets have to end when the server shuts down: to read what is queued and the
            Close frame (1012), which is sent at once, and for their hooks. What is left then is cut. HTTP requests have
            hypercorn's `graceful_timeout` (3 s).
        take_over: let verbtrio read and write WebSocket connections itself under hypercorn (see
            docs/architecture.md). Without it they run over plain ASGI and share the server's weaknesses.
        http2_websockets: offer WebSockets over HTTP/2 (RFC 8441). Off by default: a browser then opens an HTTP/1.1
            connection for its socket.
        http2_cleartext: take HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3): for a proxy that speaks it
            to its servers. Off by default: no browser does, and a proxy that does not know of it can be led around its
            own rules. An `Upgrade: h2c` is ignored in any case.
    """

    _spans_processes = False
    """Whether rooms and users are those of several processes, as they would be with a broker between them."""

    def __init__(
        self,
        *,
        debug: bool = False,
        lifespan: Lifespan | None = None,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
        routes: Sequence[BaseRoute] | None = None,
        exception_handlers: Any = None,
        max_body_size: int | None = None,
        limits: Limits | None = None,
        heartbeat: Heartbeat | None = UNSET,
        compression: bool = False,
        allowed_origins: Sequence[str] = (),
        require_origin: bool | None = None,
        trusted_proxies: Sequence[str] | TrustedProxies = (),
        encode: EncodeHook | None = None,
        decode: DecodeHook | None = None,
        drain_timeout: float = 2.0,
        take_over: bool = True,
        http2_websockets: bool = False,
        http2_cleartext: bool = False,
    ) -> None:
        check_hooks(encode=encode, decode=decode)
        proxies = trusted_proxies if isinstance(trusted_proxies, TrustedProxies) else TrustedProxies(trusted_proxies)
        Starlette.__init__(
            self,
            debug=debug,
            middleware=[*_proxy_middleware(proxies), *as_middleware(middleware)],
            exception_handlers={ClientDisconnect: _nobody_is_there, **(exception_handlers or {})},
            max_body_size=max_body_size,
        )
        self.router = PathRouter(routes, lifespan=self.lifespan)
        Routes.__init__(
            self,
            self.router.routes,
            self._hub_here,
            limits=limits or Limits(),
            heartbeat=Heartbeat() if heartbeat is UNSET else heartbeat,
            compression=compression,
            origins=Origins(allowed_origins, require=require_origin),
            decode=decode,
        )
        Background.__init__(self, drain_timeout)
        self.encode_hook = encode
        self._inner_lifespan = lifespan
        self._take_over = take_over
        self._proxies = proxies
        self._http2_websockets = http2_websockets
        self._http2_cleartext = http2_cleartext
        self._hub: Hub | None = None

    # The application's life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application. A caller that does not run it by Trio is told so (see `not_trio`)."""
        if self._hub is None and not_trio.is_asyncio():
            await not_trio.refuse(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[Any]:
        """The application's life: the hub, the mounted apps' hubs and the application's own lifespan, open.

        The server enters it. An `App` mounted in another framework's application needs it entered there:

            Starlette(routes=[Mount("/chat", app=chat)], lifespan=chat.lifespan)

        Raises:
            NotRunning: it is entered in an asyncio event loop.
            RuntimeError: the app is running already.
        """
        return self._running([])

    @asynccontextmanager
    async def _running(self, family: list[tuple[Background, Hub]]) -> AsyncIterator[Any]:
        """The application's life, with those mounted in it. `family`: those that it is mounted in, with their hubs."""
        outermost = not family
        await not_trio.check_start()
        self._check_not_running()
        async with AsyncExitStack() as stack:
            opening = open_hub(drain_timeout=self._drain_timeout, limits=self.limits, encode=encoder(self.encode_hook))
            hub = await stack.enter_async_context(opening)
            state: dict[str, Any] = {}
            self._hub = hub
            stack.callback(setattr, self, "_hub", None)
            family.append((self, hub))
            for mounted in _mounted_apps(self.routes):
                await stack.enter_async_context(mounted._running(family))
            if self._inner_lifespan is not None:
                state |= await stack.enter_async_context(self._inner_lifespan(self)) or {}
            if outermost:
                can_be_had(NURSERY)
                if any(app._background for app, _ in family):
                    await stack.enter_async_context(at_work(family))
            if self._take_over and outermost and can_be_had(TAKE_OVER):
                for part in (TLS, UNWIND):
                    can_be_had(part)
                state |= self._take_connections_over(stack, hub)
            if outermost and not self._spans_processes:
                from verbtrio.server import workers  # here, as below

                workers.warn_if_several()
            if self.debug:
                stack.enter_context(debugging())
            yield state

    def _take_connections_over(self, stack: AsyncExitStack, hub: Hub) -> dict[str, Any]:
        """Begin the take-over, until `stack` is left; give what belongs into the lifespan's state."""
        # Imported here: hypercorn's worker takes 80 ms to import, and tools don't serve.
        from verbtrio.server.takeover.install import take_over
        from verbtrio.server.takeover.settings import TakeOverSettings

        settings = TakeOverSettings(
            hub,
            self.limits,
            heartbeat=self.heartbeat,
            proxies=self._proxies,
            http2_websockets=self._http2_websockets,
            http2_cleartext=self._http2_cleartext,
        )
        return stack.enter_context(take_over(settings))

    def _running_hub(self) -> Hub:
        if self._hub is None:
            not_trio.check()
            raise NotRunning(
                "this App is not being served (its lifespan is not running): it has no rooms, users or connections. "
                "If it is mounted in another application, enter its lifespan there: "
                "Starlette(..., lifespan=chat.lifespan), or `async with chat.lifespan():` in the "
                "lifespan you have (chat being the mounted App). In a test: "
                '`with TestClient(app, backend="trio") as client:`, or `async with app.lifespan():`'
            )
        return self._hub

    def _hub_here(self) -> Hub:
        """The hub, in the thread it belongs to.

        Raises:
            NotRunning: see `_running_hub`.
            RuntimeError: this is another thread.
        """
        hub = self._running_hub()
        hub.check()
        return hub

    def _check_not_running(self) -> None:
        if self._hub is not None:
            raise RuntimeError(
                "this App is running already, and has one lifespan at a time: serve it once, or make a second App"
            )

    # Middleware for all

    def use(self, *middleware: MiddlewareFunction | Middleware) -> None:
        """Add middleware to all routes, HTTP and WebSocket, mounted ones included: the first added is outermost."""
        if self.middleware_stack is not None:
            raise RuntimeError("middleware must be added before the app has started")
        self.user_middleware.extend(as_middleware(middleware))

    # Its description

    def asyncapi(
        self,
        path: str = "/asyncapi.json",
        *,
        title: str,
        version: str,
        description: str | None = None,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
    ) -> None:
        """Add a route that describes the WebSocket and event stream routes: an AsyncAPI 3.0 document, in JSON.

        What clients send is taken from the handlers' annotations, what they are sent from the routes' `sends=`. The
        messages' JSON Schemas are in it. Nothing is told to anybody without this call.

        Args:
            path: where it is.
            title, version, description: the application's, for the document.
            middleware: as in `get`.
        """

        async def describe(request: Request) -> Response:
            """Made anew where routes have been added: that takes milliseconds."""
            found = list(channels(self.routes))
            if made.get("of") != found:
                made["of"] = found
                made["body"] = JSONResponse(document(found, title=title, version=version, description=description)).body
            return Response(made["body"], media_type="application/json")

        made: dict[str, Any] = {}

        self.get(path, middleware=middleware)(describe)

    def asyncapi_document(self, *, title: str, version: str, description: str | None = None) -> dict[str, Any]:
        """The document that `asyncapi` serves, for a build step: the app needn't be running.

        Raises:
            TypeError: a type of a message has no JSON Schema.
        """
        return document(list(channels(self.routes)), title=title, version=version, description=description)

    # Who is here

    def room(self, name: str) -> Room:
        """This process's room of that name, to broadcast to or to count, whether anybody is in it or not (and true
        all the same: ask `len(room)`)."""
        check_name(name)
        return self._running_hub().rooms.room(name)

    @property
    def connections(self) -> Room:
        """All connections to this process, whatever their route."""
        return self._running_hub().connections

    @property
    def users(self) -> Users:
        """Who is connected to this process, by user id: the `id` (else `sub`) of `ws.user` where that is a mapping, its
        attribute `id`, or a text or number itself. A connection without one is in nobody's list."""
        return self._running_hub().users

    def statistics(self) -> Statistics:
        """This moment's figures.

        Raises:
            RuntimeError: called in another thread than the one in which the app is served: they would be of several.
        """
        return self._running_hub().statistics()

    # Serving

    async def serve(
        self,
        port: int | None = None,
        *,
        host: str = "127.0.0.1",
        certfile: str | None = None,
        keyfile: str | None = None,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve inside a Trio program: `urls = await nursery.start(app.serve, 0)`. See `server.serve`.

        Raises:
            NotRunning: it is called in an asyncio event loop.
            RuntimeError: it is being served already.
            OSError: the address can't be had: another program has it, or it is not one of this machine's.
            ValueError: the port is not valid (the environment's PORT, perhaps), or a file is missing.
        """
        not_trio.check("app.serve() needs Trio: call it by `trio.run(app.serve, 3000)`, or use `app.listen(3000)`")
        self._check_not_running()
        from verbtrio.server import serve

        await serve.serve(
            self,
            serve.config(port, host=host, certfile=certfile, keyfile=keyfile),
            drain_timeout=self._drain_timeout,
            task_status=task_status,
        )

    def listen(
        self,
        port: int | None = None,
        *,
        host: str = "127.0.0.1",
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        """Serve until SIGINT or SIGTERM: for scripts. `port`: the environment's PORT, else 3000.

        Raises:
            RuntimeError: it is being served already.
            SystemExit: the port or the certificate is not valid, or the address can't be had: one line, exit code 1.
        """
        self._check_not_running()
        from verbtrio.server import serve

        try:
            config = serve.config(port, host=host, certfile=certfile, keyfile=keyfile)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        serve.listen(self, config, drain_timeout=self._drain_timeout)


def _proxy_middleware(proxies: TrustedProxies) -> list[Middleware]:
    return [Middleware(ProxyMiddleware, proxies)] if proxies else []


async def _nobody_is_there(request: Request, error: Exception) -> Response:
    """The client left in the middle of its request: no error of the application's, and nobody to answer."""
    return Response(status_code=400)


def _mounted_apps(routes: Sequence[BaseRoute]) -> list[App]:
    """The apps mounted below, the nearest only: each looks after those mounted in itself."""
    found: list[App] = []
    for route in routes:
        app = getattr(route, "_base_app", None) or getattr(route, "app", None)
        if isinstance(app, App):
            if app not in found:
                found.append(app)
        elif isinstance(inner := getattr(route, "routes", None), list):
            found += [app for app in _mounted_apps(inner) if app not in found]
    return found
