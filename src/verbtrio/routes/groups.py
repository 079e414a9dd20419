"""How a group's routes are found, and which routes would never be, since others take their requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from starlette.routing import PARAM_REGEX, BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Scope


class GroupMount(Mount):
    """Starlette's `Mount`, but only for requests that one of its routes takes. A plain `Mount` takes all with its
    prefix, and would hide what is added after it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.NONE:
            return match, child_scope
        inner = {**scope, **child_scope}
        # PARTIAL (another method) counts: the 405, and CORS's answer to an OPTIONS, are the group's to give.
        best = max((route.matches(inner)[0] for route in self.routes), key=lambda m: m.value, default=Match.NONE)
        return (best, child_scope) if best is not Match.NONE else (best, {})


def check_not_taken(routes: Iterable[BaseRoute], route: Route | WebSocketRoute, prefix: str) -> None:
    """Raise `ValueError` if one of `routes`, or of those in their groups, takes all requests that `route` would.

    A parameter's name makes no difference; its convertor does: `/{n:int}` is not `/{n}`.

    Args:
        routes: all of the app's.
        prefix: what stands before the new route's path.
    """
    path = prefix + route.path
    shape = _shape(path)
    for other_path, other in _leaves(routes):
        if _shape(other_path) != shape:
            continue
        if isinstance(route, WebSocketRoute):
            taken = isinstance(other, WebSocketRoute)
        else:
            taken = isinstance(other, Route) and (other.methods is None or (route.methods or {""}) <= other.methods)
        if taken:
            raise ValueError(
                f"{path!r} has a handler already, {_handler(other)} by {other_path!r}: of it and {_handler(route)}, "
                f"one would never be called. Give one of them another path"
            )


def _leaves(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Route | WebSocketRoute]]:
    for route in routes:
        if isinstance(route, GroupMount):
            yield from _leaves(route.routes, prefix + route.path)
        elif isinstance(route, Route | WebSocketRoute):
            yield prefix + route.path, route


def _shape(path: str) -> str:
    """The path without its parameters' names."""
    return PARAM_REGEX.sub(lambda match: f"{{{match[2] or ':str'}}}", path) if "{" in path else path


def _handler(route: Route | WebSocketRoute) -> str:
    endpoint: Any = route.endpoint
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    name = getattr(endpoint, "__name__", type(endpoint).__name__)
    return str(getattr(endpoint, "__qualname__", name))
