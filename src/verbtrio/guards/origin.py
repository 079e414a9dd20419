"""Which pages may connect: the check of the `Origin` header (RFC 6454). Pure.

A browser lets every page open a WebSocket to every server, and sends the user's cookies along (cross-site WebSocket
hijacking). It also sends the page's origin, which no page can forge. By default pages of the same origin may connect.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from verbtrio.guards.refusals import MAX_SHOWN

MAX_ORIGIN_CHARACTERS = 300
"""How much of an origin is logged as what to allow: a host has 253 characters at most (RFC 1035 section 2.3.4)."""
DEFAULT_PORTS = {"http": 80, "https": 443}
WEB_SCHEMES = {"ws": "http", "wss": "https"}
"""The scheme of pages for each WebSocket scheme."""

_AUTHORITY = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_match_authority = re.compile(_AUTHORITY, re.IGNORECASE | re.ASCII).fullmatch
_match_origin = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:{_AUTHORITY})?", re.IGNORECASE | re.ASCII).fullmatch


class Origin(NamedTuple):
    """A page's origin (RFC 6454 section 4), in one spelling: lower case, no default port, IPv6 in its shortest form."""

    scheme: str
    host: str
    """Empty for a scheme without hosts: `file://`."""
    port: int | None
    """`None` for the scheme's default port."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port is None else f":{self.port}")


def parse_origin(text: str) -> Origin | None:
    """The origin in `text`; `None` for "null", a URL with a path or a user, or anything else."""
    match = _match_origin(text)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    if match["host"] is None:
        return None if scheme in DEFAULT_PORTS or scheme in WEB_SCHEMES else Origin(scheme, "", None)
    return _origin(scheme, match)


def server_origin(scheme: str, host: str) -> Origin | None:
    """The server's own origin, from the scheme of the request (`ws` counts as `http`) and its `Host` header."""
    match = _match_authority(host)
    return None if match is None else _origin(WEB_SCHEMES.get(scheme, scheme), match)


def _origin(scheme: str, match: re.Match[str]) -> Origin | None:
    host, port = match["host"].lower(), None if match["port"] is None else int(match["port"])
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    if port is not None and port > 65535:
        return None
    return Origin(scheme, host, None if port == DEFAULT_PORTS.get(scheme) else port)


class Origins:
    """The origins that are allowed besides the server's own.

    Args:
        allowed: origins like "https://example.com", "app://localhost" or "file://"; "https://*.example.com" for all
            subdomains (not the domain itself); "null" for pages without an origin (files, and sandboxed frames, which
            any page can create); "*" for all.
        require: whether a request must have an `Origin`. Every browser sends one; other programs need not. `None`: it
            must if cookies may let it in, that is, if there is a session.

    Raises:
        ValueError: one of `allowed` is not an origin.
    """

    def __init__(self, allowed: Iterable[str] = (), *, require: bool | None = None) -> None:
        if isinstance(allowed, str):
            raise ValueError(f"allowed_origins is a sequence: [{allowed!r}]")
        self.allowed = tuple(allowed)
        self.require = require
        self._exact: set[Origin] = set()
        self._below: set[Origin] = set()  # their hosts begin with a dot
        for text in self.allowed:
            if text in ("*", "null"):
                continue
            below = "://*." in text
            origin = parse_origin(text.replace("://*.", "://", 1))
            if origin is None or (below and not origin.host):
                raise ValueError(
                    f"{text!r} is not an origin: use a scheme, a host and, if need be, a port, without a path or a "
                    f'slash at the end, like "https://example.com", "https://*.example.com" or '
                    f'"http://localhost:5173"; or "file://", "null"'
                )
            if below:
                self._below.add(origin._replace(host=f".{origin.host}"))
            else:
                self._exact.add(origin)

    def __repr__(self) -> str:
        return f"Origins({list(self.allowed)}, require={self.require})"

    def replace(self, allowed: Iterable[str] | None, require: bool | None) -> Origins:
        """These origins, with other settings for what is not `None`."""
        return Origins(
            self.allowed if allowed is None else allowed, require=self.require if require is None else require
        )

    def refusal(self, values: list[str], own: Origin | None, *, session: bool) -> str | None:
        """Why a request is refused, for the server's log; `None` if it is allowed.

        Args:
            values: the values of its `Origin` headers.
            own: the server's origin, as the request names it.
            session: whether a cookie may let the request in.
        """
        if not values:
            if session if self.require is None else self.require:
                return "it has no Origin header, which this route requires; require_origin=False lets it in"
            return None
        if "*" in self.allowed or (len(values) == 1 and self._allows(values[0], own)):
            return None
        shown = ", ".join(values)[:MAX_SHOWN]
        origin = parse_origin(values[0])
        if len(values) > 1 or origin is None:
            hint = 'allowed_origins=["null"] lets it in, and any page in a sandbox' if values == ["null"] else ""
            return f"its origin {shown!r} is not valid. {hint}".rstrip(" .")
        here = "that of the host" if own is None else repr(str(own)[:MAX_SHOWN])
        reason = (
            f"its origin {shown!r} is not {here}, to which it was sent. If these pages may connect, add "
            f"allowed_origins=[{str(origin)[:MAX_ORIGIN_CHARACTERS]!r}]"
        )
        if origin.scheme not in DEFAULT_PORTS:
            return reason
        return (
            f"{reason}. Behind a reverse proxy they may be your own: have it pass "
            f"the Host header on, and name it in App(trusted_proxies=[...]) if it ends TLS"
        )

    def _allows(self, value: str, own: Origin | None) -> bool:
        origin = parse_origin(value)
        if origin is None:
            return value == "null" and "null" in self.allowed
        if origin == own or origin in self._exact:
            return True
        return any(
            (origin.scheme, origin.port) == (below.scheme, below.port) and origin.host.endswith(below.host)
            for below in self._below
        )
