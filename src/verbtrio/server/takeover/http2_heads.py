"""The take-over's rules for the head of an HTTP/2 request: what is refused before anything is begun. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import h2.exceptions
from h2.utilities import HeaderValidationFlags, validate_headers

from verbtrio.server.takeover.http1_heads import is_method
from verbtrio.server.takeover.targets import is_authority, is_path
from verbtrio.wire.handshake import RawHeaders

FIELD_BYTES = 32
"""What a header counts for in addition to its characters (RFC 9113 section 6.5.2)."""

_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}
_REQUEST = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)
_TRAILERS = _REQUEST._replace(is_trailer=True)


@dataclass(frozen=True, slots=True)
class Head:
    """A request that is well-formed.

    Attributes:
        path: the path and query, or `*`; empty for a plain CONNECT.
        fields: as HTTP/1.1 has them, with one `host`.
        protocol: of an extended CONNECT (RFC 8441).
    """

    method: bytes
    path: bytes
    fields: RawHeaders
    protocol: bytes | None


def head_of(headers: RawHeaders, max_bytes: int) -> Head | bytes:
    """The request that `headers` are the head of, or the status that answers it where no application may see it."""
    pseudo = dict(headers)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if sum(len(name) + len(value) + FIELD_BYTES for name, value in headers) > max_bytes:
        return b"431"
    fields = _fields_of(headers)
    if fields is None or not (method.isascii() and path.isascii()):
        return b"400"  # hypercorn would end the connection, with all of its streams
    if not is_method(method):
        return b"501"
    if b":path" in pseudo and not is_path(method, path):
        return b"400"
    return Head(method, path, fields, pseudo.get(b":protocol"))


def are_trailers(headers: RawHeaders) -> bool:
    """Whether these may stand behind a body (RFC 9113 section 8.1)."""
    return _is_valid(headers, _TRAILERS)


def _fields_of(headers: RawHeaders) -> RawHeaders | None:
    """The fields of a request as HTTP/1.1 has them, with one `host`; `None` where the request is malformed.

    If the host is named twice, both names have to be the same (RFC 9113 section 8.3.1). The application is told
    `:authority`.
    """
    pseudo = {name: value for name, value in headers if name.startswith(b":")}
    hosts = [value for name, value in headers if name == b"host"]
    authority = pseudo.get(b":authority")
    if len(hosts) > 1:
        return None
    if authority is None:
        authority = hosts[0] if hosts else b""
    elif not is_authority(authority) or (hosts and _normalized(hosts[0], pseudo) != _normalized(authority, pseudo)):
        return None
    named = [(name, value) for name, value in headers if name != b"host" or b":authority" not in pseudo]
    if not _is_valid(named, _REQUEST):
        return None
    fields = [(name, value) for name, value in headers if name != b"host" and not name.startswith(b":")]
    return [(b"host", authority), *fields]


def _normalized(host: bytes, pseudo: dict[bytes, bytes]) -> bytes:
    """A host in one spelling (RFC 9110 section 4.2.3)."""
    return host.lower().removesuffix(_DEFAULT_PORTS.get(pseudo.get(b":scheme", b""), b":"))


def _is_valid(headers: RawHeaders, flags: HeaderValidationFlags) -> bool:
    try:
        for _ in validate_headers(headers, flags):
            pass
    except h2.exceptions.ProtocolError:
        return False
    return True
