"""The application: Starlette's, with WebSocket routes whose connections run in nurseries of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from verbtrio.base import logs
from verbtrio.base.limits import Limits
from verbtrio.base.types import DecodeHook, EncodeHook, Shared
from verbtrio.brokers.base import Broker
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.guards.middleware import MiddlewareFunction, as_middleware
from verbtrio.guards.origin import Origins
from verbtrio.guards.proxies import ProxyMiddleware, TrustedProxies
from verbtrio.hub.hub import Hub
from verbtrio.hub.statistics import Statistics
from verbtrio.hub.users import Users
from verbtrio.messages.custom import check_hooks
from verbtrio.rooms.room import Room, check_name
from verbtrio.routes.asyncapi import document
from verbtrio.routes.channels import channels, description_endpoint
from verbtrio.routes.health import HealthRoutes
from verbtrio.routes.mounted import mounted
from verbtrio.routes.paths import PathRouter
from verbtrio.routes.rooms import RoomDeclarations
from verbtrio.routes.settings import UNSET, RouteSettings
from verbtrio.server import not_trio
from verbtrio.server.lifespan import AppLifespan
from verbtrio.server.tasks.background import Background

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]

logs.set_up()  # when verbtrio is imported: so that what is logged before an app is served has its level, too


class App(Shared, Background, RoomDeclarations, HealthRoutes, Starlette):
    """A realtime application: an ASGI application for hypercorn's Trio worker.

    Apart from what is listed here, everything is Starlette's: requests, responses, static files, mounting, errors.

    Args:
        debug: for development. HTTP error responses show tracebacks; a function that holds the event loop for 100 ms or
            more is named in a warning; and Ctrl+C gets a handler or hook out of a computation (see `debugging`).
        lifespan: an async context manager `(app)` around the application's life, inside the hub.
        middleware: functions `(request, call_next)` or Starlette's `Middleware`, outermost first.
        routes, exception_handlers, max_body_size: as in Starlette.
        limits: what one connection may cost; each route may have its own.
        heartbeat: how silent peers are found, `None` for not at all; each route may have its own.
        compression: agree on permessage-deflate (RFC 7692) where the client offers it. Off by default: it costs
            32 KiB and more a connection, and time on every message. The size limit counts the decompressed message.
        allowed_origins: which pages may open WebSockets besides the server's own: "https://example.com",
            "https://*.example.com" (all below it), "*" (all pages), "null" (files and sandboxed frames, and so anybody
            who puts a page into one). Each group and route may have its own. Others get 403, and the log says what to
            add.
        require_origin: whether a handshake must have an `Origin`. Browsers always send one, other programs need not.
            By default it must where cookies may let it in, that is where there is a `SessionMiddleware`.
        trusted_proxies: the reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed for the
            client's address and scheme: addresses and networks ("127.0.0.1", "10.0.0.0/8"), "unix" for one that
            connects by a UNIX socket; or a `TrustedProxies`, for `Forwarded` (RFC 7239).
        encode: `(value)`, called for each value to be sent that JSON has no form for, at any depth; what it returns is
            sent in its place. `lambda model: model.model_dump(mode="json")` sends Pydantic's models.
        decode: `(type, value)`, called for a message type, or a part of one, that JSON has no form for: it makes an
            instance from a JSON value, or raises `ValueError`, `TypeError` or `MessageError`, which becomes the answer
            to the client. With `adapter = functools.cache(pydantic.TypeAdapter)`, `lambda type, value:
            adapter(type).validate_python(value)` receives Pydantic's models. For a union of them it is called once,
            with the union.
        broker: what connects this app with other processes, or with another app of the same program
            (`MemoryBroker`). Default: a `MemoryBroker` of its own: rooms and users are those of this process.
        drain_timeout: seconds the WebSockets have to end when the server shuts down. In that time clients read what is
            queued and the Close frame (1012), which is sent at once, and hooks run; then the rest is cut. HTTP requests
            have hypercorn's `graceful_timeout` (3 s).
        take_over: let verbtrio read and write WebSocket connections itself under hypercorn (see
            docs/architecture.md). Without it they run over plain ASGI and share the server's weaknesses.
        http2_websockets: offer WebSockets over HTTP/2 (RFC 8441). Off by default: a browser then opens an HTTP/1.1
            connection for its socket.
        http2_cleartext: accept HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3), from a proxy that speaks
            it to its servers. Off by default: no browser does, and a request may be smuggled past the rules of a proxy
            that does not know of it. An `Upgrade: h2c` is ignored in any case.
    """

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
        broker: Broker | None = None,
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
            middleware=[*([Middleware(ProxyMiddleware, proxies)] if proxies else ()), *as_middleware(middleware)],
            exception_handlers={ClientDisconnect: _nobody_is_there, **(exception_handlers or {})},
            max_body_size=max_body_size,
        )
        self.router = PathRouter(routes, lifespan=self.lifespan)
        taking_over = partial(
            _taking_over, self, proxies, http2_websockets=http2_websockets, http2_cleartext=http2_cleartext
        )
        Background.__init__(self, lambda: self._life.hub is not None)
        RoomDeclarations.__init__(self, lambda: self._life.hub is not None, decode)
        self._life: AppLifespan = AppLifespan(
            self,
            lifespan=lifespan,
            tasks=self._background,
            room_table=self._room_table,
            mounted=lambda: [app._life for app in mounted(self.routes, App)],
            take_over=taking_over if take_over else None,
            drain_timeout=drain_timeout,
        )
        settings = RouteSettings(
            limits=Limits() if limits is None else limits,
            heartbeat=Heartbeat() if heartbeat is UNSET else heartbeat,
            compression=compression,
            origins=Origins(allowed_origins, require=require_origin),
            decode=decode,
        )
        HealthRoutes.__init__(self, self.router.routes, self._life.hub_here, settings)
        self.encode_hook = encode
        self.broker = _checked(broker)

    # The application's life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application. A caller that does not run on Trio is told so (see `not_trio`)."""
        if self._life.hub is None and not_trio.is_asyncio():
            await not_trio.refuse(scope, receive, send)
            return
        if self._life.state:  # mounted in another App, with a lifespan of its own; the dict is this request's
            scope.setdefault("state", {}).update(self._life.state)
        await super().__call__(scope, receive, send)

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[Any]:
        """The application's life: the hub, the mounted apps' hubs and the application's own lifespan, open.

        The server enters it. For an `App` mounted in another framework's application, that one has to enter it:

            Starlette(routes=[Mount("/chat", app=chat)], lifespan=chat.lifespan)

        Raises:
            NotRunning: it is entered in an asyncio event loop.
            RuntimeError: the app is running already.
        """
        return self._life.run()

    def _running_hub(self) -> Hub:
        return self._life.running_hub()

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
        document includes the messages' JSON Schemas. Without this call nothing is published.

        Args:
            path: the route's.
            title, version, description: the application's, for the document.
            middleware: as in `get`.
        """
        info = {"title": title, "version": version, "description": description}
        self.get(path, middleware=middleware)(description_endpoint(lambda: channels(self.routes), info))

    def asyncapi_document(self, *, title: str, version: str, description: str | None = None) -> dict[str, Any]:
        """The document that `asyncapi` serves, for a build step: the app need not be running.

        Raises:
            TypeError: a message's type has no JSON Schema.
        """
        return document(list(channels(self.routes)), title=title, version=version, description=description)

    # Who is here

    def room(self, name: str) -> Room:
        """This process's room of that name, to broadcast to or to count, whether anybody is in it or not. (An empty
        room is true, too: use `len(room)`.)"""
        check_name(name)
        return Room(self._running_hub().rooms, name)

    @property
    def connections(self) -> Room:
        """All connections to this process, whatever their route."""
        return self._running_hub().connections

    @property
    def users(self) -> Users:
        """Who is connected to this process, by user id: the `id` (else `sub`) of `ws.user` where that is a mapping, its
        attribute `id`, or `ws.user` itself where that is a `str` or an `int`. One without an id is not listed."""
        return self._running_hub().users

    def statistics(self) -> Statistics:
        """The figures of this moment.

        Raises:
            RuntimeError: called in another thread than the app's: there they would not be of one moment.
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
            ValueError: the port is not valid (perhaps the environment's PORT), or a file is missing.
        """
        not_trio.check("app.serve() needs Trio: call it by `trio.run(app.serve, 3000)`, or use `app.listen(3000)`")
        self._life.check_not_running()
        from verbtrio.server import serve

        await serve.serve(
            self,
            serve.config(port, host=host, certfile=certfile, keyfile=keyfile),
            drain_timeout=self._life.drain_timeout,
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
        self._life.check_not_running()
        from verbtrio.server import serve

        try:
            config = serve.config(port, host=host, certfile=certfile, keyfile=keyfile)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        serve.listen(self, config, drain_timeout=self._life.drain_timeout)


def _taking_over(app: App, proxies: TrustedProxies, hub: Hub, **http2: bool) -> AbstractContextManager[dict[str, Any]]:
    """A block for which the connections are taken over; gives what goes into the lifespan's state."""
    # Imported here: hypercorn's worker takes 80 ms to import, and tools don't serve.
    from verbtrio.server.takeover.install import take_over
    from verbtrio.server.takeover.settings import TakeOverSettings

    return take_over(TakeOverSettings(hub, app.limits, heartbeat=app.heartbeat, proxies=proxies, **http2))


async def _nobody_is_there(request: Request, error: Exception) -> Response:
    """The client has left in the middle of its request: not the application's error, and nobody reads the answer."""
    return Response(status_code=400)


def _checked(broker: object) -> Broker | None:
    """Raise `TypeError` for what is no broker: a class of one, or an address."""
    if broker is not None and not isinstance(broker, Broker):
        raise TypeError(f"broker is a verbtrio.brokers.Broker, such as MemoryBroker(), not {broker!r:.100}")
    return broker
