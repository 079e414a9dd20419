"""The client behind a reverse proxy: its address and scheme, from the header of a trusted proxy. Pure.

Anybody can send `X-Forwarded-For`. Only what a trusted proxy has appended can be believed. So the list is read from its
end, and the first address that is not a trusted proxy's is the client's. Only one of the two notations is read: a proxy
that writes one passes on whatever a client has written in the other.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Header = Literal["x-forwarded-for", "forwarded"]

UNIX = "unix"
"""The name under which a proxy on a UNIX socket is trusted."""


class TrustedProxies:
    """The proxies whose headers are believed.

    Args:
        proxies: addresses and networks ("127.0.0.1", "10.0.0.0/8", "::1"), and "unix" for all peers on a UNIX socket.
        header: what they write: "x-forwarded-for" (with "x-forwarded-proto"), or "forwarded" (RFC 7239).

    Raises:
        ValueError: one of `proxies` is not an address or a network, or `header` is not one of these.
    """

    def __init__(self, proxies: Iterable[str], *, header: Header = "x-forwarded-for") -> None:
        if isinstance(proxies, str):
            raise ValueError(f"trusted_proxies is a sequence: [{proxies!r}]")
        if header not in ("x-forwarded-for", "forwarded"):
            raise ValueError(f"the header is 'x-forwarded-for' or 'forwarded', not {header!r}")
        names = list(proxies)
        self._unix = UNIX in names
        try:
            self._networks = [ipaddress.ip_network(name) for name in names if name != UNIX]
        except ValueError as error:
            raise ValueError(f'{error}: trusted proxies are like "127.0.0.1", "10.0.0.0/8" or "unix"') from None
        self._header = header

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._unix or bool(self._networks)

    def trusts(self, peer: str | None) -> bool:
        """Whether `peer` is one of them. It is an address, or `None` for a UNIX socket."""
        return self._unix if peer is None else self._is_trusted(_address(peer))

    def client(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
        """The client's address and scheme; `None` for each that no trusted proxy tells.

        Args:
            peer: the connection's remote address; `None` for a UNIX socket.
            headers: the request's.
        """
        if not self.trusts(peer):
            return None, None
        found: Address | None = None
        scheme: str | None = None
        for entry, proto in self._hops(list(headers)):  # each written by a trusted proxy
            scheme = proto or scheme
            address = _address(entry)
            if address is None:  # "unknown", or malformed: nothing beyond it counts
                break
            found = address
            if not self._is_trusted(address):
                break
        return None if found is None else str(found), scheme

    def _hops(self, headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, str | None]]:
        """Each hop's client and scheme, the nearest first."""
        if self._header == "forwarded":
            for value in reversed(_values(headers, b"forwarded")):
                if (elements := _elements(value)) is None:
                    return
                for element in reversed(elements):
                    yield element.get("for", ""), _scheme(element.get("proto", ""))
        else:
            proto = _scheme(",".join(_values(headers, b"x-forwarded-proto")).rpartition(",")[2])
            for entry in reversed(",".join(_values(headers, b"x-forwarded-for")).split(",")):
                yield entry, proto

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


class ProxyMiddleware:
    """ASGI middleware that puts the client's address and scheme into the scope, if a trusted proxy tells them."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self.app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            peer = scope.get("client")
            address, scheme = self._proxies.client(_host(peer), scope["headers"])
            if address is not None:
                scope["client"] = (address, 0)
            if scheme is not None:
                secure = scheme in ("https", "wss")
                plain, encrypted = ("http", "https") if scope["type"] == "http" else ("ws", "wss")
                scope["scheme"] = encrypted if secure else plain
        await self.app(scope, receive, send)


def _host(peer: Any) -> str | None:
    return str(peer[0]) if peer and peer[0] else None


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _address(text: str) -> Address | None:
    """The address in `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`; `None` for anything else."""
    text = text.strip().strip('"')
    match = _match_port(text)
    try:
        address = ipaddress.ip_address(match["v4"] or match["v6"] if match else text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:1.2.3.4, as a dual-stack socket writes it
    return mapped or address


def _scheme(text: str) -> str | None:
    scheme = text.strip().lower()
    return scheme if scheme in ("http", "https", "ws", "wss") else None


def _elements(value: str) -> list[dict[str, str]] | None:
    """The elements of one `Forwarded` header (RFC 7239 section 4); `None` if it is malformed anywhere.

    It is strict, since a client may have written the beginning. If text were allowed after a closing quote,
    `for=1.2.3.4;x="` would swallow what a proxy appends (`,for="[2001:db8::1]"`).
    """
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(value):
        match = _match_pair(value, position)
        if match is None:
            return None
        name, text, separator = match["name"], match["value"], match["separator"]
        if name is not None:
            if text.startswith('"'):
                text = re.sub(r"\\(.)", r"\1", text[1:-1])
            elements[-1][name.lower()] = text
        if separator == ",":
            elements.append({})
        position = match.end()
    return [element for element in elements if element]


_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]"
_match_port = re.compile(r"(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[^\]]*)\](?::[0-9]+)?").fullmatch
# Possessive quantifiers never backtrack, so the time is linear. (No pair can be read in two ways.)
_match_pair = re.compile(
    rf"""[ \t]*+(?:(?P<name>{_TOKEN}++)=(?P<value>"(?:[^"\\]|\\.)*+"|(?:{_TOKEN}|[:\[\]])*+))?+"""
    rf"""[ \t]*+(?P<separator>[;,]|\Z)"""
).match
