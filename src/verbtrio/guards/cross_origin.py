"""Requests from pages of other origins (the Fetch standard's CORS protocol), by the same rules as WebSockets have.

A browser sends a simple request of any page, cookies included, and only keeps the answer from a page that may not have
it. So a request from a page that is not allowed is refused, and not only left without headers.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from verbtrio.guards.origin import Origins, server_origin

PREFLIGHT_SECONDS = 600
"""How long a browser may remember the answer to a preflight request: Chromium does for 7200 s at most, by default 5."""


class CrossOrigin:
    """Which pages may send requests, and what their browsers are told.

    Args:
        origins: the endpoint's; several where endpoints share one path: a page that one of them allows is let in.
    """

    def __init__(self, *origins: Origins) -> None:
        self.origins = origins

    def refusal(self, scope: Scope) -> str | None:
        """Why a request is refused; `None` if it is not.

        Browsers leave `Origin` out of GETs of the same origin, and of those for images and scripts, whatever page has
        them. What they say in `Sec-Fetch-Site` (Fetch Metadata) tells one from the other.
        """
        headers = Headers(scope=scope)
        origins, hosts, site = headers.getlist("origin"), headers.getlist("host"), headers.getlist("sec-fetch-site")
        if not origins and site:
            if site in (["same-origin"], ["none"]) or self._is_open:
                return None
            return "its browser says that a page of another origin has sent it, and not which one"
        own = server_origin(scope.get("scheme", "http"), hosts[0]) if len(hosts) == 1 else None
        refusals = [each.refusal(origins, own, session="session" in scope) for each in self.origins]
        return None if None in refusals else refusals[0]

    def headers(self, scope: Scope) -> dict[str, str]:
        """What the answer to a request that is not refused has to say."""
        origin = Headers(scope=scope).get("origin")
        if origin is None:
            return {"vary": "Origin"}
        said = {"access-control-allow-origin": origin, "vary": "Origin"}
        if not self._is_open:  # otherwise nobody has named the pages that may use a visitor's cookies
            said["access-control-allow-credentials"] = "true"
        return said

    @property
    def _is_open(self) -> bool:
        """Whether all pages may send requests."""
        return any("*" in each.allowed for each in self.origins)

    def preflight(self, scope: Scope, method: str) -> Response:
        """The answer to a browser that asks whether a page may send a request."""
        asked = Headers(scope=scope).get("access-control-request-headers", "")
        headers = {
            **self.headers(scope),
            "access-control-allow-methods": method,
            "access-control-max-age": str(PREFLIGHT_SECONDS),
        }
        if asked:
            headers["access-control-allow-headers"] = asked
        return Response(status_code=204, headers=headers)
