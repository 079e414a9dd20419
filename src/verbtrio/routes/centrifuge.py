"""Adding an endpoint for the SDKs of the Centrifuge protocol, and the functions that their clients call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute

from verbtrio.base.limits import Limits
from verbtrio.base.mistakes import explained
from verbtrio.guards.cross_origin import CrossOrigin
from verbtrio.guards.middleware import MiddlewareFunction, as_middleware
from verbtrio.hub.hub import Hub
from verbtrio.multiplex.calls import Call
from verbtrio.multiplex.settings import Authenticator, ClientSettings
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.json_encoding import JSON
from verbtrio.protocols.protobuf_encoding import protobuf
from verbtrio.routes.client_endpoint import ClientEndpoint
from verbtrio.routes.http_routes import starlette_path
from verbtrio.routes.routing import Routes
from verbtrio.routes.settings import RouteSettings
from verbtrio.routes.streamed_endpoint import EmulationEndpoint, StreamedEndpoint

F = TypeVar("F", bound=Callable[..., Any])


class ClientRoutes(Routes):
    """Adds endpoints for clients: part of an `App`."""

    def __init__(self, routes: list[BaseRoute], hub: Callable[[], Hub], settings: RouteSettings) -> None:
        super().__init__(routes, hub, settings)
        self._calls: dict[str, Call] = {}
        self._emulation: dict[str, EmulationEndpoint] = {}

    @explained()
    def call(self, name: str) -> Callable[[F], F]:
        """Let clients of `app.centrifuge` call a function, by this name: a decorator.

            @app.call("rename")
            async def rename(client: Client, data: Rename) -> Renamed: ...

        It is called with the client, and with what the client has sent, of the type that the annotation says. What it
        returns is the answer. Each call runs in a task of its own in the client's nursery. It is cancelled when its
        caller has gone, or has waited for as long as it would; by default for `Limits.call_timeout`. A plain function
        costs less: it is called in place, by the task that has read the message (one for all connections), in the
        client's context. It must not block, and no deadline ends it.

        `CallError(code, message)` answers with an error of the application's own; `Denied` with 103. What is not of the
        type gets 107. Anything else that is raised is logged, and the caller is told no more than "internal server
        error" (100).

        Args:
            name: what clients call it by.

        Raises:
            TypeError: it is not a function `(client, data)` or `(client)`; or JSON has no form for what it takes.
            ValueError: there is a function of that name, or the name is empty.
        """
        if not name:
            raise ValueError('a call has a name: write @app.call("rename")')
        if name in self._calls:
            raise ValueError(f"there is a call {name!r:.100} already: give this one another name")

        def decorate(function: F) -> F:
            self._calls[name] = Call(function, self._settings.decode)
            return function

        return decorate

    @explained()
    def centrifuge(
        self,
        path: str,
        *,
        auth: Authenticator | None = None,
        anonymous: bool = False,
        connect: Callable[..., Any] | None = None,
        message: Callable[..., Any] | None = None,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
        limits: Limits | None = None,
        compression: bool | None = None,
        allowed_origins: Sequence[str] | None = None,
        require_origin: bool | None = None,
        ping: float = 25.0,
        pong_timeout: float = 10.0,
        token_slack: float = 25.0,
        personal: str | None = None,
        force_join_leave: bool = False,
        emulation: str = "/emulation",
    ) -> None:
        """Add an endpoint for the SDKs of the Centrifuge protocol.

            app.centrifuge("/connection", auth=JWTAuth(key))

        It adds a WebSocket at `path` + "/websocket" and, for clients that can't have one, `path` + "/http_stream" and
        `path` + "/sse"; what those clients send comes to `emulation`. Clients speak JSON, or Protobuf where the extra
        `protobuf` is installed.

        Clients subscribe to rooms that `app.rooms` opens to them, and call functions of `@app.call`.

        Args:
            path: what the paths begin with.
            auth: checks the tokens of connections and subscriptions; `None`: clients are anonymous, or known by
                middleware.
            anonymous: let clients in without a token, although there is `auth`.
            connect: `(client, data)`, called when a client connects, with what it has sent then. What it returns is the
                data of the reply. It may raise `Denied`.
            message: `(client, data)`, called with what a client sends without expecting an answer.
            middleware, limits, compression, allowed_origins, require_origin: as in `ws`.
            ping: seconds between two pings.
            pong_timeout: seconds within which each has to be answered.
            token_slack: seconds that a client has to bring another token once its token has expired. (SDKs ask for one
                then, not before.)
            personal: the name of a room that each user is subscribed to when it connects: `"#{user}"`.
            emulation: where the commands of clients without a WebSocket come to: the JavaScript SDK's
                `emulationEndpoint`, which has the same default. The middleware of this endpoint is not around it: a
                command has the secret name of its session, and nothing else. Endpoints may share one path.
            force_join_leave: tell all subscribers who comes and goes, in rooms with `join_leave`, and not only those
                who ask.

        Raises:
            TypeError, ValueError: a setting has the wrong type, or is not possible.
        """
        path = starlette_path(path).rstrip("/")
        start, _, end = path.rpartition("/")
        if end in ("websocket", "http_stream", "sse"):
            raise ValueError(f"it adds /{end} to its path itself: write app.centrifuge({start!r})")
        decode = self._settings.decode
        clients = ClientSettings(
            auth=auth,
            anonymous=anonymous,
            connect=None if connect is None else Call(connect, decode),
            message=None if message is None else Call(message, decode),
            calls=self._calls,
            ping=ping,
            pong_timeout=pong_timeout,
            token_slack=token_slack,
            personal=personal,
            force_join_leave=force_join_leave,
        )
        settings = self._current.override(limits, None, compression, allowed_origins, require_origin)
        wrapped = as_middleware(middleware)
        hub, full = self._hub_now, self._prefix + path
        binary = _protobuf()
        encodings: dict[str, Encoding] = {} if binary is None else {"centrifuge-protobuf": binary}
        encodings["centrifuge-json"] = JSON
        endpoint = ClientEndpoint(full, hub, settings, clients, encodings)
        self._add(WebSocketRoute(f"{path}/websocket", endpoint, middleware=wrapped))
        cross_origin = CrossOrigin(settings.origins)
        for name in ("http_stream", "sse"):
            streamed = StreamedEndpoint(name, full, hub, cross_origin, settings, clients, binary)
            self._add(Route(f"{path}/{name}", streamed, methods=[streamed.method], middleware=wrapped))
            # A preflight request has no cookie or token: middleware would refuse it.
            self._add(Route(f"{path}/{name}", streamed, methods=["OPTIONS"]))
        self._add_emulation(starlette_path(emulation), cross_origin, settings.limits, binary)

    def _add_emulation(self, path: str, cross_origin: CrossOrigin, limits: Limits, binary: Encoding | None) -> None:
        """Have the commands of an endpoint's clients come to `path`, as those of others may already."""
        bounds = limits.max_message_bytes, limits.send_timeout
        if (endpoint := self._emulation.get(path)) is not None:
            endpoint.share(cross_origin, *bounds)
            return
        endpoint = self._emulation[path] = EmulationEndpoint(self._hub_now, cross_origin, *bounds, binary)
        self._add(Route(path, endpoint, methods=[endpoint.method, "OPTIONS"]))


def _protobuf() -> Encoding | None:
    """The Protobuf encoding; `None` where it is not installed."""
    try:
        return protobuf()
    except ImportError:
        return None
