"""Function middleware: `async def authenticate(request, call_next)`, the same for HTTP and WebSocket routes.

For HTTP it is Starlette's own (`BaseHTTPMiddleware`). For a WebSocket, `call_next` grants the upgrade: it returns an
`Upgrade`, which the function returns in turn, and whose headers are added to the handshake's. Any other response denies
the upgrade with its status, headers and body. The function has returned before the connection begins, so nothing of it
stays on the stack, or in memory, while the connection is open.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verbtrio.base.mistakes import check_list

logger = logging.getLogger("verbtrio.middleware")

CallNext: TypeAlias = Callable[[Any], Awaitable[Response]]
MiddlewareFunction: TypeAlias = Callable[[Any, CallNext], Awaitable[Response]]
"""Called with a Starlette `Request`, or with an `UpgradeRequest` before a WebSocket's handshake is answered."""


class UpgradeRequest(HTTPConnection):
    """A request to upgrade to a WebSocket, as middleware sees it: a Starlette request without a body."""

    method = "GET"

    @property
    def subprotocols(self) -> list[str]:
        """The client's offers, in its order of preference."""
        return [name for name in self.scope.get("subprotocols", ()) if name]  # hypercorn's parser offers empty ones


class Upgrade(Response):
    """The middleware's consent to the upgrade. Its headers are added to the answer: the handshake, or the response of
    an inner layer that denies the upgrade. `subprotocol` answers the client's offer."""

    def __init__(self) -> None:
        super().__init__(status_code=101)
        self.raw_headers = []
        self.subprotocol: str | None = None


class FunctionMiddleware(BaseHTTPMiddleware):
    """A middleware function as ASGI middleware.

    An exception it raises denies an upgrade with 500 and is logged once; for HTTP it is Starlette's to handle.
    """

    def __init__(self, app: ASGIApp, dispatch: MiddlewareFunction) -> None:
        async def checked(request: Any, call_next: CallNext) -> Response:
            response: Any = await dispatch(request, call_next)
            if isinstance(response, Response):
                return response
            raise TypeError(
                f"the middleware {dispatch!r} returned {response!r}; it must return a Response, or what "
                f"`await call_next(request)` returned"
            )

        super().__init__(app, dispatch=checked)
        self._function = checked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)
            return
        try:
            response = await self._function(UpgradeRequest(scope), _grant)
        except HTTPException as error:
            response = PlainTextResponse(error.detail, error.status_code, headers=error.headers)
        except Exception:
            logger.exception("middleware failed before the upgrade of %r", scope["path"])
            response = PlainTextResponse("Internal Server Error", status_code=500)
        if isinstance(response, Upgrade):
            await self.app(scope, receive, _accept_with(response, send))
        else:
            await deny(response, scope, receive, send)


async def _grant(request: Any) -> Response:
    return Upgrade()


def _accept_with(upgrade: Upgrade, send: Send) -> Send:
    """`send`, which adds the headers and the subprotocol of `upgrade` to the answer."""
    if not upgrade.raw_headers and upgrade.subprotocol is None:
        return send

    async def send_accept(message: Message) -> None:
        if message["type"] == "websocket.accept":
            message = {
                **message,
                "headers": [*message.get("headers", ()), *upgrade.raw_headers],
                "subprotocol": message.get("subprotocol") or upgrade.subprotocol,
            }
        elif message["type"] == "websocket.http.response.start":  # an inner layer denies the upgrade
            message = {**message, "headers": [*message.get("headers", ()), *upgrade.raw_headers]}
        await send(message)

    return send_accept


async def deny(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an upgrade request with `response` instead of the upgrade.

    A server without ASGI's denial extension can only answer 403.
    """
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


def as_middleware(entries: Sequence[MiddlewareFunction | Middleware]) -> list[Middleware]:
    """`entries` as Starlette takes them: functions are wrapped, Starlette's `Middleware` is left as it is.

    Raises:
        TypeError: `entries` is not a list; or an entry is a class, or can't be called.
    """
    check_list(entries)
    for entry in entries:
        if isinstance(entry, list | tuple):
            raise TypeError("middleware is one list, not a list of lists; `app.use(one, another)` takes no list")
        if inspect.isclass(entry) or not (isinstance(entry, Middleware) or callable(entry)):
            raise TypeError(
                f"{entry!r} is not middleware: use a function (request, call_next), an instance of a class with such a "
                f"__call__, or starlette.middleware.Middleware(cls, ...) for an ASGI middleware class"
            )
    return [
        entry if isinstance(entry, Middleware) else Middleware(FunctionMiddleware, dispatch=entry) for entry in entries
    ]
