"""Whether an ASGI application's call can be over while the connection it has accepted lives on.

Starlette's layers (errors, exceptions, router, route, its middleware) and ours have nothing to do after an accept but
to wait: eleven coroutines and what they hold, 4.4 KB of an idle connection's 15.5, and each switch to its handler goes
through all of them. Where nobody else waits with them, the endpoint returns, they unwind, and the server runs the
connection itself. Whoever has put something around it (another ASGI middleware, another framework, a subclass) is
around it for as long as it lives.
(Seen are Python's frames: a middleware compiled to C has none, and would be over when the connection begins.)
"""

from __future__ import annotations

import sys

_MAY_UNWIND = frozenset(
    (
        "hypercorn.app_wrappers",
        "starlette._exception_handler",
        "starlette.applications",
        # Starlette's own, which for a WebSocket have nothing to do behind the accept.
        "starlette.middleware.authentication",
        "starlette.middleware.cors",
        "starlette.middleware.errors",
        "starlette.middleware.exceptions",
        "starlette.middleware.gzip",
        "starlette.middleware.httpsredirect",
        "starlette.middleware.sessions",
        "starlette.middleware.trustedhost",
        "starlette.routing",
        "verbtrio.app",
        "verbtrio.routes.websocket_route",
        "verbtrio.guards.middleware",
        "verbtrio.routes.paths",
        "verbtrio.guards.proxies",
        "verbtrio.guards.browser",
    )
)
_SERVER = "verbtrio.server.takeover.websocket"


def nobody_waits() -> bool:
    """Whether all that waits for the caller, up to the server, is known to have nothing to do afterwards."""
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        frame = caller
        name = frame.f_globals.get("__name__")
        if name == _SERVER:
            return True
        if name not in _MAY_UNWIND:
            return False
    return False
