"""Adding HTTP routes: `app.get` and its like."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute, compile_path

from verbtrio.base.mistakes import explained
from verbtrio.connection.parameters import Convertors
from verbtrio.guards.middleware import MiddlewareFunction, as_middleware
from verbtrio.routes.groups import check_not_taken
from verbtrio.routes.http_endpoint import http_endpoint

F = TypeVar("F", bound=Callable[..., Any])


class RouteOptions(TypedDict, total=False):
    """What `get` and its like take besides the path: as in `ws`."""

    middleware: Sequence[MiddlewareFunction | Middleware]
    name: str | None


class HTTPRoutes:
    """A list of routes, with the methods that add HTTP routes to it.

    Args:
        routes: the list.
        prefix: what stands before the paths of these routes, as Starlette writes it.
        tree: all of the app's routes, with those of its groups. Default: `routes`.
    """

    def __init__(self, routes: list[BaseRoute], *, prefix: str = "", tree: list[BaseRoute] | None = None) -> None:
        self._added = routes
        self._prefix = prefix
        self._tree = routes if tree is None else tree

    @explained("middleware", "name")
    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Add an HTTP route for GET (and HEAD): `(request) -> Response`, or `(request, id: int) -> Response`.

        Args:
            path: `:name` and `{name}` are parameters.
            options: `middleware` and `name`, as in `ws`.

        A handler gets the path's parameters as a WebSocket handler does: those it names, converted by their
        annotations, with a 404 where that is not possible. `request.path_params` has all of them. A class
        (`HTTPEndpoint`) and an ASGI application take what they take in Starlette.

        Make it `async def`: Starlette runs a plain function (a `BackgroundTask`'s, too) in a thread of its own. There
        it may read who is connected, and issue tokens; to send, broadcast, close, join or leave raises `RuntimeError`,
        and `trio.from_thread.run(app.users.send, user_id, data)` does it in Trio's thread.

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
        path = starlette_path(path)
        wrapped = as_middleware(middleware)

        def decorate(handler: F) -> F:
            endpoint = http_endpoint(handler, self._parameters(path))
            self._add(Route(path, endpoint, methods=[method], name=name, middleware=wrapped))
            return handler

        return decorate

    def _parameters(self, path: str) -> Convertors:
        """The parameters of the whole path, the prefix's among them, with their convertors."""
        return compile_path(self._prefix + path)[2]

    def _add(self, route: Route | WebSocketRoute) -> None:
        check_not_taken(self._tree, route, self._prefix)
        self._added.append(route)


def starlette_path(path: str) -> str:
    """`/ws/:room` as Starlette writes it: `/ws/{room}`."""
    return re.sub(r"(?<=/):([A-Za-z_]\w*)", r"{\1}", path)
