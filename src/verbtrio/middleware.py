"""What middleware is made of: a public door."""

from verbtrio.guards.middleware import CallNext as CallNext
from verbtrio.guards.middleware import FunctionMiddleware as FunctionMiddleware
from verbtrio.guards.middleware import MiddlewareFunction as MiddlewareFunction
from verbtrio.guards.middleware import Upgrade as Upgrade
from verbtrio.guards.middleware import UpgradeRequest as UpgradeRequest
