"""Whether an ASGI application's call may return while the connection that it has accepted lives on.

After an accept, Starlette's layers (errors, exceptions, router, route, its middleware) and ours only wait: that is
eleven coroutines and what they hold, 4.4 KB of an idle connection's 15.5, and each switch to its handler goes through
all of them. If nothing else waits with them, the endpoint returns, they unwind, and the server runs the connection
itself. Anything else around a connection (another ASGI middleware, another framework, a subclass) stays around it for
as long as it lives.

(The check sees Python's frames. A middleware compiled to C has none, and would return when the connection begins.)
"""

from __future__ import annotations

import sys

_MAY_UNWIND = frozenset(
    (
        "hypercorn.app_wrappers",
        "starlette._exception_handler",
        "starlette.applications",
        # Starlette's own middleware has nothing to do for a WebSocket after the accept.
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
        "verbtrio.guards.csrf",
        "verbtrio.guards.security_headers",
    )
)
_SERVER = "verbtrio.server.takeover.websocket"


def nobody_waits() -> bool:
    """Whether all callers, up to the server, are known to have nothing to do afterwards."""
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        frame = caller
        name = frame.f_globals.get("__name__")
        if name == _SERVER:
            return True
        if name not in _MAY_UNWIND:
            return False
    return False
