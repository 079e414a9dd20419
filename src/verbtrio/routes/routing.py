"""Where routes are added: an `App`, and groups of its routes with a prefix, middleware and settings in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute

from verbtrio.base.habits import with_habits
from verbtrio.base.limits import Limits
from verbtrio.base.mistakes import explained
from verbtrio.base.types import Hook
from verbtrio.connection.handler_kinds import HandlerKind, handler_kind, hooks_kind
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.guards.middleware import MiddlewareFunction, as_middleware
from verbtrio.http.sse import KEEP_ALIVE
from verbtrio.hub.hub import Hub
from verbtrio.routes.event_stream_route import EventStreamEndpoint, Guard
from verbtrio.routes.groups import GroupMount
from verbtrio.routes.http_routes import HTTPRoutes, starlette_path
from verbtrio.routes.settings import UNSET, RouteSettings
from verbtrio.routes.websocket_route import WebSocketEndpoint

F = TypeVar("F", bound=Callable[..., Any])


class Routes(HTTPRoutes):
    """What an `App` and a `Group` have in common: the methods that add routes.

    Args:
        routes, prefix, tree: see `HTTPRoutes`.
        hub: gives the app's hub; raises `NotRunning` outside the app's lifespan.
        settings: for the routes that name none of their own.

    Attributes:
        limits, heartbeat, compression, origins: those of `settings`. A value set later holds for what is added next.
    """

    def __init__(
        self,
        routes: list[BaseRoute],
        hub: Callable[[], Hub],
        settings: RouteSettings,
        *,
        prefix: str = "",
        tree: list[BaseRoute] | None = None,
    ) -> None:
        super().__init__(routes, prefix=prefix, tree=tree)
        self._hub_now = hub
        self._settings = settings
        self.limits = settings.limits
        self.heartbeat = settings.heartbeat
        self.compression = settings.compression
        self.origins = settings.origins

    @property
    def _current(self) -> RouteSettings:
        """The settings, with the attributes' present values."""
        return replace(
            self._settings,
            limits=self.limits,
            heartbeat=self.heartbeat,
            compression=self.compression,
            origins=self.origins,
        )

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
                the group's. `limits` replaces only those that it names; the others stay the app's or the group's.
            subprotocols: what the handler speaks, in its order of preference.
            sends: the type of what clients are sent, a union where there are several: for `app.asyncapi` alone.
            name: the route's name, for `url_path_for`.

        Hooks may be plain functions or coroutine functions. They run in the connection's task, as a handler does, with
        two exceptions. A message hook that is a plain function is called by the task that has read the message (one for
        all connections, or one of the framework's for this one), which saves a switch of tasks. So what belongs to a
        task, such as a `trio.Lock`, is not the connection's there. The hook still sees the connection's context
        variables, and a coroutine that it returns is awaited in the connection's task. A leave hook runs in the task
        that leaves. After `Membership.leave_nowait` nobody waits for it; if it raises, the error hook is called in a
        task of `ws.nursery`.

        What `open` and `message` return is sent to their client, with the `ref` of the message that it answers, unless
        it is `None`, a number (a broadcast returns one) or something of verbtrio's, such as a membership. A class may
        have a method for each type of message: see `on`.

        A coroutine's path parameters are converted by their annotations (see `parameters`): `n: int` gets an `int`, or
        the upgrade is refused with 404. `ws.params` has them as the path's own convertors leave them.

        Raises:
            TypeError: the handler is neither a coroutine function nor a class with hooks, asks for what the path
                doesn't have, or contradicts the path; or a setting has the wrong type.
            ValueError: the path does not begin with "/", or has a handler already; or the limits don't go together.
        """
        path = starlette_path(path)
        settings = self._current.override(limits, heartbeat, compression, allowed_origins, require_origin)
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols is a sequence: [{subprotocols!r}]")
        wrapped = as_middleware(middleware)

        def add(kind: HandlerKind, description: str | None = None) -> None:
            endpoint = WebSocketEndpoint(
                self._prefix + path,
                kind,
                self._hub_now,
                settings,
                subprotocols=subprotocols,
                sends=sends,
                description=description,
            )
            self._add(WebSocketRoute(path, endpoint, name=name, middleware=wrapped))

        def decorate(handler: F) -> F:
            if hooks:
                raise TypeError("app.ws() with hooks decorates nothing: remove the hooks, or the decorator")
            add(handler_kind(handler, self._parameters(path), settings.decode), handler.__doc__)
            return handler

        given = {"open": open, "message": message, "close": close, "error": error}
        hooks = {hook: function for hook, function in given.items() if function is not None}
        if hooks:
            add(hooks_kind(hooks, settings.decode))
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
        """Add a route on which a room can be heard without a WebSocket: what is broadcast or published, as server-sent
        events.

            app.sse("/events/:room", middleware=[auth], guard=may_listen)

        The browser's side is `new EventSource("/events/lobby")`. A text message is sent as an event's data, a binary
        one as an event `binary`, in base64. When the server ends the stream, an event `close` carries the code and
        reason. In a room with a history, events have ids: a client that comes back with its `Last-Event-ID` gets what
        it has missed, or an event `gap`.

        Args:
            path: `:room` and `{room}` are parameters.
            room: the room's name, in which `{room}` stands for that parameter of the path. Default: `"{room}"`.
            guard: `async def may_listen(request, room)`: whether this client may listen (if not, it gets a 403), or the
                response it gets instead. Without a guard, every client that the middleware lets through may listen.
            middleware: as in `ws`; with `JWTAuth` the stream ends when the token does.
            limits: as in `ws`. Those on connections and on the backlog apply.
            keep_alive: seconds of silence after which a comment is sent; `None` for never.
            retry: seconds a client should wait before it connects again (its own default is about 3).
            sends: as in `ws`.
            name: the route's name, for `url_path_for`.

        Raises:
            TypeError: `room` asks for a parameter that the path doesn't have, or writes one as a path does; or `guard`
                can't be called with `(request, room)`.
            ValueError: the path does not begin with "/", or has a handler for GET already.
        """
        path = starlette_path(path)
        endpoint = EventStreamEndpoint(
            "{room}" if room is None else room,
            set(self._parameters(path)),
            guard,
            self._hub_now,
            self._current.override(limits),
            keep_alive=keep_alive,
            retry=retry,
            sends=sends,
        )
        self._add(Route(path, endpoint, methods=["GET"], name=name, middleware=as_middleware(middleware)))

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

            @api.get("/me")                      # GET /api/me, for clients with a token
            async def me(request: Request) -> Response: ...

        A request for which the group has no route goes on to what was added after it, so several groups may have one
        prefix, or none ("").

        Args:
            prefix: `:name` and `{name}` are parameters, as in the routes' own paths.
            middleware: as in `App`, for these routes, inside the app's and outside a route's own. There is one of
                each, which all routes of the group share.
            limits, heartbeat, compression, allowed_origins, require_origin: for these routes instead of the app's.
                `limits` replaces only those that it names; the others stay the app's.

        Raises:
            TypeError: `prefix` is not a `str`, or a setting has the wrong type.
            ValueError: `prefix` is not empty and does not begin with "/", or ends with one; or the limits don't go
                together.
        """
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise ValueError(f'a group\'s prefix is "" or like "/api", not {prefix!r}')
        settings = self._current.override(limits, heartbeat, compression, allowed_origins, require_origin)
        path = starlette_path(prefix)
        mount = GroupMount(path, routes=[], middleware=as_middleware(middleware))
        self._added.append(mount)
        return Group(mount.routes, self._hub_now, settings, prefix=self._prefix + path, tree=self._tree)


@with_habits
class Group(Routes):
    """Routes with a prefix, middleware and settings in common. Made by `app.group`; groups may hold groups."""

    def __repr__(self) -> str:
        return f"<Group {self._prefix!r} ({len(self._added)} routes)>"
