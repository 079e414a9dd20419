"""Which paths are looked up at all: none with a control character, `.` or `..` for a segment, or too long a number.

Starlette's paths are regular expressions that end in `$`, and that matches before a line break at the end, too. So
`/admin%0a` would be `/admin` here and another path for the reverse proxy that guards it. And a proxy takes dots out
(RFC 3986 section 5.2.4) before it compares a path, but sends it on as it came: `/admin/..` is `/` for nginx, and would
be of a route `/admin/{rest:path}` here. Browsers take dots out before they ask. The check stands before the
application's router, so it holds for every route in it, whoever has made it.
"""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from verbtrio.middleware import deny

_BAD = re.compile(r"[\x00-\x1f\x7f-\x9f]|(?:^|/)\.\.?(?:[/#]|$)").search
"""What no URL and no IRI has unescaped (RFC 3987 section 2.2), and no name that somebody gives; and segments of dots.
(A `#`, which nobody may send, ends a path for nginx.)"""
_HUGE_NUMBER = re.compile(r"(?<![0-9])[0-9]{4301}").search
"""Python's `int` raises for more than 4,300 digits (CVE-2020-10735), and so would `{n:int}`: a 500 with a traceback."""


class PathRouter(Router):
    """Starlette's router, which answers 404 to such a path: for HTTP as to any unknown path, for a WebSocket before the
    upgrade."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not (_BAD(scope["path"]) or _HUGE_NUMBER(scope["path"])):
            await super().__call__(scope, receive, send)
        elif scope["type"] == "websocket":
            await deny(PlainTextResponse("Not Found", 404), scope, receive, send)
        else:
            await self.default(scope, receive, send)
