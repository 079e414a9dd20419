"""What an application's routes are, for the AsyncAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute, compile_path

from verbtrio.routes.asyncapi import Channel
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
            receives = endpoint.receives if isinstance(endpoint, WebSocketEndpoint) else None
            yield Channel(prefix + route.path_format, receives, endpoint.sends, endpoint.description)
