"""Security headers, which tell browsers what a page may do.

    App(middleware=[Middleware(SecurityHeaders)])

It passes messages on as they come, so streaming and the take-over work behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEFAULT_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        # Scripts, styles, images and sockets of this origin alone; nothing inline, no plug-ins, not in a frame.
        "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'",
        "x-frame-options": "DENY",  # for browsers that don't know frame-ancestors
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",  # a URL may hold what other sites must not see
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
)


class SecurityHeaders:
    """ASGI middleware that adds `DEFAULT_HEADERS` to every HTTP response, denied upgrades included, and under TLS
    `Strict-Transport-Security` (RFC 6797 forbids it elsewhere). A header that a route sets stays as it is.

    Args:
        headers: other values for some headers, or further headers; `None` as a value leaves a header out.
        hsts_seconds: how long browsers use TLS only; `None` leaves the header out. It can't be revoked sooner.
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
