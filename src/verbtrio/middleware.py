"""The types of middleware functions, which serve HTTP and WebSocket routes alike.

    async def log_requests(request: Request | UpgradeRequest, call_next: CallNext) -> Response:
        return await call_next(request)

`App(middleware=[log_requests])` takes such functions as they are.
"""

from verbtrio.guards.middleware import CallNext as CallNext
from verbtrio.guards.middleware import FunctionMiddleware as FunctionMiddleware
from verbtrio.guards.middleware import MiddlewareFunction as MiddlewareFunction
from verbtrio.guards.middleware import Upgrade as Upgrade
from verbtrio.guards.middleware import UpgradeRequest as UpgradeRequest
