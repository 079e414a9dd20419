"""What balancers and orchestrators ask: is this process alive, and may it be sent clients?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio.base.errors import NotRunning
from verbtrio.guards.middleware import MiddlewareFunction
from verbtrio.http.link import link_of
from verbtrio.hub.hub import Hub
from verbtrio.routes.centrifuge import ClientRoutes

BROKER_AWAY = "it can't be reached: rooms go on in this process alone"
"""Not what the broker says of itself: that may have an address or a password in it."""


class HealthRoutes(ClientRoutes):
    """Adds the routes that tell how a process is: part of an `App`."""

    def health(self, path: str = "/health", *, middleware: Sequence[MiddlewareFunction | Middleware] = ()) -> None:
        """Add three routes for balancers and orchestrators. They answer with JSON, `{"status": ...}`.

        `{path}` and `{path}/ready` tell whether the process may be sent clients: for a balancer, or as a readiness
        probe. 200 "ok"; 200 "degraded" while the broker is away, since rooms go on in each process, and without them
        there would be none left; 503 "draining" once the server shuts down; 503 "starting" unless the app runs.

        `{path}/live` tells whether the process works, as a liveness probe: 200 "ok" as long as its event loop answers.
        It does while it drains: a process that is on its way out need not be killed.

        Nothing in the answers is secret. What is wrong with the broker is in the log.

        Args:
            path: that of the first route.
            middleware: as in `get`.

        Raises:
            ValueError: the path does not begin with "/", or one of the three has a handler already.
        """

        async def ready(request: Request) -> Response:
            return _readiness(self._hub_now, request)

        async def live(request: Request) -> Response:
            return _answer(200, "ok")

        base = path.rstrip("/")
        self.get(path, middleware=middleware)(ready)
        self.get(f"{base}/ready", middleware=middleware)(ready)
        self.get(f"{base}/live", middleware=middleware)(live)


def _readiness(running: Callable[[], Hub], request: Request) -> Response:
    try:
        hub = running()
    except NotRunning:
        return _answer(503, "starting")
    if (link := link_of(request.scope)) is not None:
        hub.watch(link.terminated)  # or the drain would begin only with the end of the lifespan
    if hub.draining:
        return _answer(503, "draining")
    if not hub.host.session.health.is_connected:
        return _answer(200, "degraded", broker=BROKER_AWAY)
    return _answer(200, "ok")


def _answer(code: int, status: str, **details: str) -> Response:
    return JSONResponse({"status": status, **details}, code, headers={"Cache-Control": "no-store"})
