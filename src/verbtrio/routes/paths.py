"""Which paths are looked up at all: none with a control character, `.` or `..` for a segment, or too long a number.
And the answers for paths without a route.

Starlette's paths are regular expressions that end in `$`, which also matches before a line break at the end. So
`/admin%0a` would be `/admin` here and another path for the reverse proxy that guards it. And a proxy removes dot
segments (RFC 3986 section 5.2.4) before it compares a path, but sends the path on as it came: `/admin/..` is `/` for
nginx, and would match a route `/admin/{rest:path}` here. Browsers remove dot segments before they send a request. The
check stands before the application's router, so it holds for every route in it, Starlette's included.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from verbtrio.guards.middleware import deny
from verbtrio.guards.refusals import MAX_SHOWN, Refusals

logger = logging.getLogger("verbtrio.paths")

MAX_NAMED = 10
"""Routes that are named in a log line, at most."""

_BAD = re.compile(r"[\x00-\x1f\x7f-\x9f]|(?:^|/)\.\.?(?:[/#]|$)").search
"""Characters that no URL and no IRI has unescaped (RFC 3987 section 2.2), and no sensible name has at all; and dot
segments. (A `#`, which must not be sent, ends a path for nginx.)"""
_HUGE_NUMBER = re.compile(r"(?<![0-9])[0-9]{4301}").search
"""Python's `int` raises for more than 4,300 digits (CVE-2020-10735), and so would `{n:int}`: a 500 with a traceback."""


class PathRouter(Router):
    """Starlette's router, which answers such a path with 404: for HTTP like any unknown path, for a WebSocket before
    the upgrade.

    An upgrade request for a path without a route gets a 404, too, where Starlette answers with 403. An HTTP request for
    a path that only WebSocket routes have gets a 426 (RFC 9110 section 15.5.22). The app's middleware is around both
    answers. That of a group or a route is not, so any client may learn that there is such a route.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refusals = Refusals(logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not (_BAD(scope["path"]) or _HUGE_NUMBER(scope["path"])):
            await super().__call__(scope, receive, send)
        elif scope["type"] == "websocket":
            await deny(PlainTextResponse("Not Found", 404), scope, receive, send)
        else:
            await super().not_found(scope, receive, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what none of the routes takes."""
        if scope["type"] == "websocket":
            refused = f"the upgrade of {scope['path'][:MAX_SHOWN]!r} is refused with 404"
            self._refusals.tell(refused, lambda: self._known(scope))
            await deny(PlainTextResponse("Not Found", 404), scope, receive, send)
            return
        asked = {**scope, "type": "websocket"}
        if not any(route.matches(asked)[0] is Match.FULL for route in self.routes):
            await super().not_found(scope, receive, send)
            return
        # Whatever the method: a 405 would have to name the methods that are allowed, and there are none.
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"} if scope["http_version"] in ("1.0", "1.1") else {}
        raise HTTPException(426, "This is a WebSocket: connect to it by ws:// or wss://", headers)

    def _known(self, scope: Scope) -> str:
        """The paths that have a WebSocket route, for the log."""
        paths = list(_websocket_paths(self.routes))
        prefix = scope.get("root_path", "")[:MAX_SHOWN]  # a mount's path may have parameters, which the client chooses
        under = f", under {prefix!r}," if prefix else ""
        more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
        routes = f"the WebSocket routes{under} are {', '.join(paths[:MAX_NAMED])}{more}"
        return f": {routes if paths else 'there are no WebSocket routes'}"


def _websocket_paths(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[str]:
    """The paths of the WebSocket routes among `routes`, and in what is mounted there."""
    for route in routes:
        if isinstance(route, WebSocketRoute):
            yield prefix + route.path
        elif isinstance(inner := getattr(route, "routes", None), list):
            yield from _websocket_paths(inner, prefix + getattr(route, "path", ""))
