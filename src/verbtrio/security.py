"""What browsers are told, and what they must not do: a public door."""

from verbtrio.guards.browser import DEFAULT_HEADERS as DEFAULT_HEADERS
from verbtrio.guards.browser import CSRFProtection as CSRFProtection
from verbtrio.guards.browser import SecurityHeaders as SecurityHeaders
