"""Which pages may come in: the check of the `Origin` header (RFC 6454). Pure.

A browser lets every page open a WebSocket to every server, and sends the user's cookies along (cross-site WebSocket
hijacking). What it also sends, and no page can forge, is the page's origin. Same-origin pages come in by default.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

MAX_SHOWN = 100
"""Characters of a header's value that are shown in a log line."""

MAX_NAMED = 300
"""Characters of an origin that are shown as what to allow: a host has 253 at most (RFC 1035 section 2.3.4)."""

MAX_TOLD = 20
"""See `Refusals`."""

DEFAULT_PORTS = {"http": 80, "https": 443}
WEB_SCHEMES = {"ws": "http", "wss": "https"}
"""The scheme of the pages that belong to a WebSocket's."""

_AUTHORITY = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_match_authority = re.compile(_AUTHORITY, re.IGNORECASE | re.ASCII).fullmatch
_match_origin = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:{_AUTHORITY})?", re.IGNORECASE | re.ASCII).fullmatch


class Origin(NamedTuple):
    """A page's origin (RFC 6454 section 4), in one spelling: lower case, no default port, IPv6 as short as can be."""

    scheme: str
    host: str
    """Empty for a scheme without hosts: `file://`."""
    port: int | None
    """`None`: the scheme's default."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port is None else f":{self.port}")


def parse_origin(text: str) -> Origin | None:
    """The origin that `text` is, or `None`: "null", a URL with a path or a user, or nothing one can read."""
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


class Refusals:
    """Warns of what is refused: of each once, and of `MAX_TOLD` different ones; the rest is logged at DEBUG.

    A refusal is worth a line, since it may be a setting that is missing. But whoever is refused could fill the log.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[str] = set()  # MAX_TOLD at most

    def tell(self, text: str, more: Callable[[], str] = str) -> None:
        """Log `text`; where it is warned of, with what `more` gives."""
        new = text not in self._told and len(self._told) < MAX_TOLD
        if new:
            self._told.add(text)
            self._logger.warning("%s%s", text, more())
        else:
            self._logger.debug("%s", text)


class Origins:
    """The origins that may come in beside the server's own.

    Args:
        allowed: origins like "https://example.com", "app://localhost" or "file://"; "https://*.example.com" for all
            below a domain (not itself), "null" for pages without one (files, sandboxed frames: any page
            can be in one), "*" for everybody.
        require: whether a request must have an `Origin`, which every browser sends and other programs need not.
            `None`: where cookies may let it in, that is where there is a session.

    Raises:
        ValueError: one of `allowed` is none of these.
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
                    f"{text!r} is no origin: use a scheme, a host and, if need be, a port, without a path or a slash "
                    f'at the end, like "https://example.com", "https://*.example.com" or "http://localhost:5173"; '
                    f'or "file://", "null"'
                )
            if below:
                self._below.add(origin._replace(host=f".{origin.host}"))
            else:
                self._exact.add(origin)

    def __repr__(self) -> str:
        return f"Origins({list(self.allowed)}, require={self.require})"

    def replace(self, allowed: Iterable[str] | None, require: bool | None) -> Origins:
        """These, but for what is given."""
        return Origins(
            self.allowed if allowed is None else allowed, require=self.require if require is None else require
        )

    def refusal(self, values: list[str], own: Origin | None, *, session: bool) -> str | None:
        """Why a request may not come in, for the server's log; `None` where it may.

        Args:
            values: the values of its `Origin` headers.
            own: the server's origin, as the request names it.
            session: whether a cookie may let it in.
        """
        if not values:
            if session if self.require is None else self.require:
                return "it names no origin, as browsers do and this route requires; require_origin=False lets it in"
            return None
        if "*" in self.allowed or (len(values) == 1 and self._allows(values[0], own)):
            return None
        shown = ", ".join(values)[:MAX_SHOWN]
        origin = parse_origin(values[0])
        if len(values) > 1 or origin is None:
            hint = 'allowed_origins=["null"] lets it in, and any page in a sandbox' if values == ["null"] else ""
            return f"its origin {shown!r} names no page. {hint}".rstrip(" .")
        here = "that of the host" if own is None else repr(str(own)[:MAX_SHOWN])
        reason = (
            f"its origin {shown!r} is not {here}, where it was sent. If these pages may come in, add "
            f"allowed_origins=[{str(origin)[:MAX_NAMED]!r}]"
        )
        if origin.scheme not in DEFAULT_PORTS:
            return reason
        return (
            f"{reason}. Behind a reverse proxy they may be your own: let it pass "
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
