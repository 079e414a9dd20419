"""Protection against cross-site request forgery: pages of other sites change nothing.

    App(middleware=[Middleware(CSRFProtection)])

It reads the headers alone, and passes messages on as they come, so uploads and streams work behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from verbtrio.guards.origin import Origins, server_origin
from verbtrio.guards.refusals import MAX_SHOWN, Refusals

logger = logging.getLogger("verbtrio.security")

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods that change nothing (RFC 9110 section 9.2.1)."""


class CSRFProtection:
    """ASGI middleware that answers 403 to a request from a page of another site, unless its method is a safe one.
    (For WebSockets there is `allowed_origins`.)

    Forms need no tokens: browsers say in `Sec-Fetch-Site` and `Origin` where a request comes from, and pages can't
    change that. A request with neither header is let in if it has no cookies.

    Args:
        allowed_origins: other sites whose pages are let in, as for `App`.
    """

    def __init__(self, app: ASGIApp, *, allowed_origins: Iterable[str] = ()) -> None:
        self.app = app
        self._origins = Origins(allowed_origins)
        self._refusals = Refusals(logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            reason = self._refusal(Headers(scope=scope), scope.get("scheme", "http"))
            if reason is not None:
                self._refusals.tell(
                    f"{scope['method'][:MAX_SHOWN]!r} {scope['path'][:MAX_SHOWN]!r} is refused: {reason}"
                )
                await PlainTextResponse("Forbidden", 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, headers: Headers, scheme: str) -> str | None:
        sites = headers.getlist("sec-fetch-site")
        if sites in (["same-origin"], ["none"]):  # "none": the user, not a page, has made the request
            return None
        origins, hosts = headers.getlist("origin"), headers.getlist("host")
        if not origins:
            if sites or "cookie" in headers:
                return "it has cookies, or is a browser's, and does not name the page that it comes from"
            return None
        own = server_origin(scheme, hosts[0]) if len(hosts) == 1 else None
        return self._origins.refusal(origins, own, session=False)
