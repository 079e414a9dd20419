"""Security headers, and protection against cross-site request forgery, as ASGI middleware.

    App(middleware=[Middleware(SecurityHeaders), Middleware(CSRFProtection)])

Both pass messages on as they come, so streaming and WebSockets work behind them. `Middleware` is Starlette's.
"""

from verbtrio.guards.csrf import CSRFProtection as CSRFProtection
from verbtrio.guards.security_headers import DEFAULT_HEADERS as DEFAULT_HEADERS
from verbtrio.guards.security_headers import SecurityHeaders as SecurityHeaders
