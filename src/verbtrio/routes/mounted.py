"""Which applications are mounted among an application's routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from starlette.routing import BaseRoute

T = TypeVar("T")


def mounted(routes: Sequence[BaseRoute], kind: type[T]) -> list[T]:
    """The applications of this kind that are mounted below `routes`, the nearest only: each looks after those that are
    mounted in itself."""
    found: list[T] = []
    for route in routes:
        app = getattr(route, "_base_app", None) or getattr(route, "app", None)
        if isinstance(app, kind):
            if app not in found:
                found.append(app)
        elif isinstance(inner := getattr(route, "routes", None), list):
            found += [app for app in mounted(inner, kind) if app not in found]
    return found
