"""The server's half of the opening handshake (RFC 6455 section 4.2, RFC 8441 section 5). Pure.

websockets' `ServerProtocol` parses the headers. It runs only once the request as a whole is known to be an upgrade, and
whatever a header holds, nothing but `HandshakeError` is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import parse_subprotocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

from verbtrio.base.errors import HandshakeError
from verbtrio.wire.codec import Codec
from verbtrio.wire.protocol import QUIET

RawHeaders = list[tuple[bytes, bytes]]

# Small windows: 12 bits cost 16 KiB a connection; zlib's default costs 256 KiB. websockets makes the same choice.
DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)


@dataclass(slots=True)
class Handshake:
    """A checked upgrade request, waiting for the app to accept or deny it."""

    headers: Headers
    accept_token: str | None
    """The value of `Sec-WebSocket-Accept`; `None` over HTTP/2, which does without it."""
    subprotocols: list[str]
    """The client's offers, in its order of preference."""

    def accept(
        self,
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        max_message_bytes: int,
        compression: bool,
    ) -> tuple[RawHeaders, Codec]:
        """Return the response's headers, and the codec of the connection that begins with it.

        Raises:
            ValueError: `subprotocol` was not offered; or one of `headers` is malformed, or set by the handshake itself.
        """
        if subprotocol is not None and subprotocol not in self.subprotocols:
            offered = ", ".join(self.subprotocols) or "none"
            raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}; it offers: {offered}")
        answer: RawHeaders = []
        if self.accept_token is not None:
            answer += [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
            answer.append((b"sec-websocket-accept", self.accept_token.encode()))
        granted, extensions = self._extensions() if compression else (None, [])
        if granted is not None:
            answer.append((b"sec-websocket-extensions", granted.encode()))
        if subprotocol is not None:
            answer.append((b"sec-websocket-protocol", subprotocol.encode()))
        for name, value in headers:
            if name.lower() in _OWN_HEADERS or name.startswith(b":"):
                raise ValueError(f"the handshake sets the header {name.decode('latin-1')!r} itself")
            if not _TOKEN(name) or not _FIELD_VALUE(value):
                raise ValueError(f"the header {name!r} has characters that are not allowed (RFC 9110 section 5)")
            answer.append((bytes(name), bytes(value)))
        return answer, Codec(max_message_bytes=max_message_bytes, extensions=extensions)

    def _extensions(self) -> tuple[str | None, list[Extension]]:
        """The extensions negotiated from the client's offers: the header's value, and the extensions."""
        try:
            return ServerProtocol(extensions=[DEFLATE], logger=QUIET).process_extensions(self.headers)
        except InvalidHandshake:  # a malformed offer is declined, and not fatal (RFC 7692 section 5)
            return None, []


_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+").fullmatch
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
_OWN_HEADERS = frozenset(
    (
        b"connection",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"upgrade",
    )
)


def check_http1(method: str, target: str, http_version: str, headers: RawHeaders) -> Handshake:
    """Check an HTTP/1.1 upgrade request.

    Raises:
        HandshakeError: status 400 (a header is missing or malformed, or there is a body), 405, 426 (the version is not
            13) or 505.
    """
    if method != "GET":
        raise HandshakeError(405, "an upgrade request is a GET", [(b"allow", b"GET")])
    if http_version != "1.1":
        raise HandshakeError(505, "an upgrade request is HTTP/1.1")
    if not target.startswith("/"):
        raise HandshakeError(400, "the target is a path, or an http(s) URL with a host (RFC 9112 section 3.2)")
    decoded = _decode(headers)
    if decoded.get_all("Transfer-Encoding") or any(v != "0" for v in decoded.get_all("Content-Length")):
        raise HandshakeError(400, "an upgrade request has no body (RFC 6455 section 4.1)")
    _check_version(decoded)
    request = Request(target, decoded, method=method, protocol=f"HTTP/{http_version}")
    try:
        token, _, _ = ServerProtocol(logger=QUIET).process_request(request)
    except InvalidUpgrade as error:
        raise HandshakeError(426, str(error), [(b"upgrade", b"websocket")]) from error
    except InvalidHandshake as error:
        raise HandshakeError(400, str(error)) from error
    return Handshake(decoded, token, _subprotocols(decoded))


def check_http2(headers: RawHeaders) -> Handshake:
    """Check the headers of an extended CONNECT with `:protocol` "websocket" (RFC 8441 section 5).

    Raises:
        HandshakeError: as `check_http1`.
    """
    decoded = _decode(headers)
    _check_version(decoded)
    return Handshake(decoded, None, _subprotocols(decoded))


_OFFER = b"sec-websocket-protocol"
_LISTS = frozenset((b"connection", b"sec-websocket-extensions", _OFFER, b"upgrade"))
"""Headers whose lines form one list (RFC 9110 section 5.3). Joined here, since websockets takes quadratic time."""


def _decode(headers: RawHeaders) -> Headers:
    # ISO-8859-1 never fails: it is the parser that refuses a header, not the decoder.
    decoded = Headers()
    lists: dict[bytes, list[str]] = {}
    try:
        for name, value in headers:
            text = value.decode("latin-1")
            if (key := name.lower()) in _LISTS:
                lists.setdefault(key, []).append(text)
            else:
                decoded[name.decode("latin-1")] = text
        for key, texts in lists.items():
            text = ", ".join(texts).strip(" \t")
            if key != _OFFER or text.strip(", \t"):  # empty elements are ignored (RFC 9110 section 5.6.1.2)
                decoded[key.decode("latin-1")] = text
    except InvalidHandshake as error:  # a control character, which h11 lets through
        raise HandshakeError(400, str(error)) from error
    return decoded


def _check_version(headers: Headers) -> None:
    if headers.get_all("Sec-WebSocket-Version") != ["13"]:
        # RFC 6455 section 4.4: the answer names the versions that the server supports.
        raise HandshakeError(
            426,
            "the WebSocket version must be 13",
            [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")],
        )


def _subprotocols(headers: Headers) -> list[str]:
    offered: list[str] = []
    try:
        for value in headers.get_all("Sec-WebSocket-Protocol"):
            offered += parse_subprotocol(value)
    except InvalidHandshake as error:
        raise HandshakeError(400, str(error)) from error
    return offered
