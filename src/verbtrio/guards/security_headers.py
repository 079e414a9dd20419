"""What browsers are told, and what they are held to: security headers, and no writing across sites (CSRF).

Both are ASGI middleware that passes messages on as they come, so streaming and the take-over work behind them:

    App(middleware=[Middleware(SecurityHeaders), Middleware(CSRFProtection)])
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verbtrio.guards.origin import MAX_SHOWN, Origins, Refusals, server_origin

logger = logging.getLogger("verbtrio.security")

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods that change nothing (RFC 9110 section 9.2.1)."""

DEFAULT_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        # Scripts, styles, images and sockets of this origin alone; nothing inline, no plug-ins, in nobody's frame.
        "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'",
        "x-frame-options": "DENY",  # frame-ancestors, for browsers that don't know it
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",  # a URL may hold what is nobody else's business
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
)


class SecurityHeaders:
    """ASGI middleware: adds `DEFAULT_HEADERS` to every HTTP response, denied upgrades included, and under TLS
    `Strict-Transport-Security` (RFC 6797 forbids it elsewhere). What a route has set itself stays.

    Args:
        headers: other values for some of them, or further ones; `None` leaves a header out.
        hsts_seconds: for how long browsers shall use TLS alone; `None`: don't tell them. It can't be taken back sooner.
    """

    def __init__(
        self, app: ASGIApp, *, headers: Mapping[str, str | None] | None = None, hsts_seconds: int | None = 31_536_000
    ) -> None:
        self.app = app
        wanted = {**DEFAULT_HEADERS, **{name.lower(): value for name, value in (headers or {}).items()}}
        self._plain = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in wanted.items() if v is not None]
        self._encrypted = list(self._plain)
        if hsts_seconds is not None:
            self._encrypted.append((b"strict-transport-security", f"max-age={hsts_seconds}".encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        added = self._encrypted if scope.get("scheme") in ("https", "wss") else self._plain

        async def send_more(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                headers += [header for header in added if header[0] not in there]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_more)


class CSRFProtection:
    """ASGI middleware: answers 403 to what a page of another site asks for, with the user's cookies perhaps, unless the
    method is a safe one. (WebSockets are seen to by `allowed_origins`.)

    No tokens are needed in forms: browsers themselves say where a request comes from, in `Sec-Fetch-Site` and
    `Origin`, and pages can't change that. A request with neither is let in where it has no cookies either.

    Args:
        allowed_origins: other sites that may, as for `App`.
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
        if sites in (["same-origin"], ["none"]):  # "none": the user's own doing, no page's
            return None
        origins, hosts = headers.getlist("origin"), headers.getlist("host")
        if not origins:
            if sites or "cookie" in headers:
                return "it has cookies, or is a browser's, and does not say which page it comes from"
            return None
        own = server_origin(scheme, hosts[0]) if len(hosts) == 1 else None
        return self._origins.refusal(origins, own, session=False)
