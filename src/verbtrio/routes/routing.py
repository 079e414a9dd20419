"""Where routes are added: an `App`, and groups of its routes with a prefix and middleware in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute, compile_path

from verbtrio.base.limits import Limits
from verbtrio.base.mistakes import explained
from verbtrio.base.types import DecodeHook, Hook
from verbtrio.connection.handlers import HandlerKind, handler_kind, hooks_kind
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.guards.middleware import MiddlewareFunction, as_middleware
from verbtrio.guards.origin import Origins
from verbtrio.guards.quotas import Quotas
from verbtrio.http.sse import KEEP_ALIVE
from verbtrio.hub.hub import Hub
from verbtrio.routes.event_stream_route import EventStreamEndpoint, Guard
from verbtrio.routes.groups import GroupMount, check_not_taken
from verbtrio.routes.http_endpoint import http_endpoint
from verbtrio.routes.websocket_route import WebSocketEndpoint

F = TypeVar("F", bound=Callable[..., Any])

UNSET: Any = object()
"""The default of an argument for which `None` means something."""


class RouteOptions(TypedDict, total=False):
    """What `get` and its like take beside the path: as in `ws`."""

    middleware: Sequence[MiddlewareFunction | Middleware]
    name: str | None


class Routes:
    """What an `App` and a `Group` have in common: the methods that add routes.

    Args:
        routes: the list of routes that is added to.
        hub: gives the app's hub; raises `NotRunning` outside the app's lifespan.
        prefix: what stands before the paths of these routes, as Starlette writes it.
        tree: all of the app's routes, with the groups'. Default: `routes`.
        limits, heartbeat, compression, origins: for routes that say nothing else.
        places: where their connections are counted beside the app's.
        decode: the app's hook.

    Raises:
        TypeError: `limits` or `heartbeat` is none.
    """

    def __init__(
        self,
        routes: list[BaseRoute],
        hub: Callable[[], Hub],
        *,
        prefix: str = "",
        tree: list[BaseRoute] | None = None,
        limits: Limits,
        heartbeat: Heartbeat | None,
        compression: bool,
        origins: Origins,
        quotas: tuple[Quotas, ...] = (),
        decode: DecodeHook | None = None,
    ) -> None:
        _check_settings(limits, heartbeat)
        self._added = routes
        self._hub_now = hub
        self._prefix = prefix
        self._tree = routes if tree is None else tree
        self.limits = limits
        self.heartbeat = heartbeat
        self.compression = compression
        self.origins = origins
        self._quotas = quotas
        self._decode = decode

    @explained()
    def ws(
        self,
        path: str,
        *,
        open: Hook | None = None,  # noqa: A002 -- the field's name for it
        message: Hook | None = None,
        close: Hook | None = None,
        error: Hook | None = None,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
        limits: Limits | None = None,
        heartbeat: Heartbeat | None = UNSET,
        compression: bool | None = None,
        allowed_origins: Sequence[str] | None = None,
        require_origin: bool | None = None,
        subprotocols: Sequence[str] = (),
        sends: Any = None,
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Add a WebSocket route: with hooks at once, without them as a decorator of a coroutine or a class.

            @app.ws("/ws/:room")
            async def chat(ws: WebSocket[Say], room: str) -> None: ...

            app.ws("/ws", open=welcome, message=echo)

        Args:
            path: `:room` and `{room}` are parameters; `{n:int}` converts.
            open: `(ws)`, called first.
            message: `(ws, message)`, called for each message.
            close: `(ws, code, reason)`, called once when the connection has ended, whatever ended it.
            error: `(ws, error)`, called for what any of the others, a leave hook or a task of `ws.nursery` has
                raised, whether that has ended the connection or came afterwards.
            middleware: as in `App`, for this route alone, inside the app's and the group's.
            limits, heartbeat, compression, allowed_origins, require_origin: for this route instead of the app's or
                the group's. Of `limits` those count that are named; the others stay the app's or the group's.
            subprotocols: what the handler speaks, in its order of preference.
            sends: the type of what clients are sent, a union where there are several: for `app.asyncapi` alone.
            name: the route's name, for `url_path_for`.

        Hooks may be plain functions or coroutine functions. They run in the connection's task, as a handler does, with
        two exceptions. A message hook that is a plain function is called by the task that has read the message (one for
        all connections, or one of the framework's for this one), which saves a switch of tasks: so what belongs to a
        task, such as a `trio.Lock`, is not the connection's there. It sees the connection's context variables all the
        same, and a coroutine that it returns is awaited in the connection's task. A leave hook runs in the task that
        leaves; see `Membership.leave_nowait` for the one that nobody waits for, whose exception the error hook is told
        in a task of `ws.nursery`.

        What `open` and `message` return is sent to their client,
        unless it is `None`, a number (a broadcast returns one) or something of verbtrio's, as a membership; and with
        the `ref` of the message that it answers. A class may have a method for each type of message: see `on`.

        A coroutine's path parameters are converted by their annotations (see `parameters`): `n: int` gets an `int`, or
        the upgrade is refused with 404. `ws.params` has them as the path's own convertors leave them.

        Raises:
            TypeError: the handler is none, or asks for what the path doesn't have, or contradicts it.
            ValueError: the path does not begin with "/", or has a handler already.
        """
        path = starlette_path(path)
        heartbeat = self.heartbeat if heartbeat is UNSET else heartbeat
        _check_settings(limits or self.limits, heartbeat)
        merged = self.limits.override(limits)
        settings: dict[str, Any] = {
            "limits": merged,
            "heartbeat": heartbeat,
            "compression": self.compression if compression is None else compression,
            "origins": self.origins.replace(allowed_origins, require_origin),
            "quotas": self._quotas + _own(limits, merged),
            "subprotocols": subprotocols,
            "sends": sends,
        }
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols is a sequence: [{subprotocols!r}]")
        wrapped = as_middleware(middleware)

        def add(kind: HandlerKind, description: str | None = None) -> None:
            settings["description"] = description
            endpoint = WebSocketEndpoint(self._prefix + path, kind, self._hub_now, **settings)
            self._add(WebSocketRoute(path, endpoint, name=name, middleware=wrapped))

        def decorate(handler: F) -> F:
            if hooks:
                raise TypeError("app.ws() with hooks decorates nothing: remove the hooks, or the decorator")
            add(handler_kind(handler, compile_path(self._prefix + path)[2], self._decode), handler.__doc__)
            return handler

        given = {"open": open, "message": message, "close": close, "error": error}
        hooks = {hook: function for hook, function in given.items() if function is not None}
        if hooks:
            add(hooks_kind(hooks, self._decode))
        return decorate

    @explained()
    def sse(
        self,
        path: str,
        *,
        room: str | None = None,
        guard: Guard | None = None,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
        limits: Limits | None = None,
        keep_alive: float | None = KEEP_ALIVE,
        retry: float | None = None,
        sends: Any = None,
        name: str | None = None,
    ) -> None:
        """Add a route on which a room can be heard without a WebSocket: what is broadcast, as server-sent events.

            app.sse("/events/:room", middleware=[auth], guard=may_listen)

        The browser's side is `new EventSource("/events/lobby")`. A text message is an event's data, a binary one an
        event `binary`, in base64; an event `close` carries the code and reason of an end of the server's making.

        Args:
            path: `:room` and `{room}` are parameters.
            room: the room's name, in which `{room}` stands for that parameter of the path. Default: `"{room}"`.
            guard: `async def may_listen(request, room)`: whether this client may listen (if not, it gets a 403), or the
                response it gets instead. Without a guard, whoever the middleware lets through may.
            middleware: as in `ws`; with `JWTAuth` the stream ends when the token does.
            limits: as in `ws`: how many there may be, and the backlog.
            keep_alive: seconds of silence after which a comment is sent; `None` for never.
            retry: seconds a client is to wait before it connects again (its own default is about 3).
            sends: as in `ws`.
            name: the route's name, for `url_path_for`.

        Raises:
            TypeError: `room` asks for a parameter the path doesn't have.
            ValueError: the path does not begin with "/", or has a handler for GET already.
        """
        path = starlette_path(path)
        params = set(compile_path(self._prefix + path)[2])
        _check_settings(limits or self.limits, None)
        merged = self.limits.override(limits)
        endpoint = EventStreamEndpoint(
            "{room}" if room is None else room,
            params,
            guard,
            self._hub_now,
            limits=merged,
            quotas=self._quotas + _own(limits, merged),
            keep_alive=keep_alive,
            retry=retry,
            sends=sends,
        )
        self._add(Route(path, endpoint, methods=["GET"], name=name, middleware=as_middleware(middleware)))

    @explained("middleware", "name")
    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Add an HTTP route for GET (and HEAD): `(request) -> Response`, or `(request, id: int) -> Response`.

        Args:
            path: `:name` and `{name}` are parameters.
            options: `middleware` and `name`, as in `ws`.

        The path's parameters are the handler's as a WebSocket handler's are: those it names, converted by their
        annotations, a 404 where that can't be. `request.path_params` has all of them. A class (`HTTPEndpoint`) and
        an ASGI application take what they take in Starlette.

        Make it `async def`: Starlette runs a plain function (a `BackgroundTask`'s, too) in a thread of its own. There
        it may read who is connected, and issue tokens; to send, broadcast, close, join or leave raises `RuntimeError`,
        and `trio.from_thread.run_sync(app.users.send, user_id, data)` does it in Trio's thread.

        Raises:
            TypeError: the handler asks for what the path doesn't have, or contradicts it.
            ValueError: the path does not begin with "/", or has a handler for this method already.
        """
        return self._http("GET", path, **options)

    @explained("middleware", "name")
    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Add an HTTP route for POST. See `get`."""
        return self._http("POST", path, **options)

    @explained("middleware", "name")
    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Add an HTTP route for PUT. See `get`."""
        return self._http("PUT", path, **options)

    @explained("middleware", "name")
    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Add an HTTP route for PATCH. See `get`."""
        return self._http("PATCH", path, **options)

    @explained("middleware", "name")
    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Add an HTTP route for DELETE. See `get`."""
        return self._http("DELETE", path, **options)

    def _http(
        self,
        method: str,
        path: str,
        *,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
        name: str | None = None,
    ) -> Callable[[F], F]:
        """A decorator for `(request) -> Response`, a coroutine function or a plain one (run in a thread)."""
        path = starlette_path(path)
        wrapped = as_middleware(middleware)

        def decorate(endpoint: F) -> F:
            plain = http_endpoint(endpoint, compile_path(self._prefix + path)[2])
            self._add(Route(path, plain, methods=[method], name=name, middleware=wrapped))
            return endpoint

        return decorate

    def _add(self, route: Route | WebSocketRoute) -> None:
        check_not_taken(self._tree, route, self._prefix)
        self._added.append(route)

    @explained()
    def group(
        self,
        prefix: str,
        *,
        middleware: Sequence[MiddlewareFunction | Middleware] = (),
        limits: Limits | None = None,
        heartbeat: Heartbeat | None = UNSET,
        compression: bool | None = None,
        allowed_origins: Sequence[str] | None = None,
        require_origin: bool | None = None,
    ) -> Group:
        """Add a group of routes, whose paths begin with `prefix` and which share what is given here.

            api = app.group("/api", middleware=[auth])

            @api.get("/me")                      # GET /api/me, by who has a token
            async def me(request: Request) -> Response: ...

        A request for which the group has no route goes on to what was added after it, so several groups may have one
        prefix, or none ("").

        Args:
            prefix: `:name` and `{name}` are parameters, as in the routes' own paths.
            middleware: as in `App`, for these routes, inside the app's and outside a route's own. There is one of
                each, which all routes of the group share.
            limits, heartbeat, compression, allowed_origins, require_origin: for these routes instead of the app's. Of
                `limits` those count that are named; the others stay the app's.

        Raises:
            TypeError: `prefix` is no text.
            ValueError: `prefix` is not empty and does not begin with "/", or ends with one.
        """
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise ValueError(f'a group\'s prefix is "" or like "/api", not {prefix!r}')
        _check_settings(limits or self.limits, self.heartbeat)
        merged = self.limits.override(limits)
        path = starlette_path(prefix)
        mount = GroupMount(path, routes=[], middleware=as_middleware(middleware))
        self._added.append(mount)
        return Group(
            mount.routes,
            self._hub_now,
            prefix=self._prefix + path,
            tree=self._tree,
            limits=merged,
            heartbeat=self.heartbeat if heartbeat is UNSET else heartbeat,
            compression=self.compression if compression is None else compression,
            origins=self.origins.replace(allowed_origins, require_origin),
            quotas=self._quotas + _own(limits, merged),
            decode=self._decode,
        )


class Group(Routes):
    """Routes with a prefix and middleware in common. Made by `app.group`; groups may hold groups."""

    def __repr__(self) -> str:
        return f"<Group {self._prefix!r} ({len(self._added)} routes)>"


def _own(limits: Limits | None, merged: Limits) -> tuple[Quotas, ...]:
    """Where connections are counted for limits of their own."""
    return () if limits is None else (Quotas(merged.counted_by(limits)),)


def _check_settings(limits: object, heartbeat: object) -> None:
    """Raise `TypeError` for what would only fail at the first connection."""
    if not isinstance(limits, Limits):
        raise TypeError(f"limits is a verbtrio.Limits(...), not {limits!r}")
    if heartbeat is not None and not isinstance(heartbeat, Heartbeat):
        raise TypeError(f"heartbeat is a verbtrio.Heartbeat(...), or None for none, not {heartbeat!r}")


def starlette_path(path: str) -> str:
    """`/ws/:room` as Starlette writes it: `/ws/{room}`."""
    return re.sub(r"(?<=/):([A-Za-z_]\w*)", r"{\1}", path)
