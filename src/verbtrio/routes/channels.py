"""An application's routes, for its AsyncAPI document, and the endpoint that serves that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute, compile_path

from verbtrio.routes.asyncapi import Channel, document
from verbtrio.routes.event_stream_route import EventStreamEndpoint
from verbtrio.routes.websocket_route import WebSocketEndpoint


def channels(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[Channel]:
    """The WebSocket and event stream routes among `routes`, and in what is mounted there, in their order."""
    for route in routes:
        if isinstance(route, Mount):
            yield from channels(route.routes or (), prefix + compile_path(route.path)[1])
        elif isinstance(route, WebSocketRoute | Route) and isinstance(
            endpoint := route.endpoint, WebSocketEndpoint | EventStreamEndpoint
        ):
            if isinstance(endpoint, WebSocketEndpoint) and not endpoint.is_described:
                continue
            receives = endpoint.receives if isinstance(endpoint, WebSocketEndpoint) else None
            yield Channel(prefix + route.path_format, receives, endpoint.sends, endpoint.description)


def description_endpoint(
    find: Callable[[], Iterable[Channel]], info: dict[str, Any]
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers with the document of the channels that `find` gives.

    To make it takes milliseconds: it is made anew only when those have changed.

    Args:
        info: the `title`, `version` and `description`, as in `document`.
    """
    described: list[Channel] | None = None
    body = b""

    async def describe(request: Request) -> Response:
        nonlocal described, body
        found = list(find())
        if found != described:
            body = bytes(JSONResponse(document(found, **info)).body)
            described = found
        return Response(body, media_type="application/json")

    return describe
