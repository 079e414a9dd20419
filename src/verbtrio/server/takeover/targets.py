"""The take-over's rules for what a request is about: its target, and the one host that it names (RFC 9110 section 7).

An application has to see one path and one `host`, whatever the form in which they came: what checks the host (origins,
`TrustedHostMiddleware`, virtual hosts in front) must not be shown another than the one that was meant.
"""

from __future__ import annotations

import re
from typing import Any

import h2.exceptions
from h2.utilities import HeaderValidationFlags, validate_headers

from verbtrio.wire.handshake import RawHeaders

# RFC 3986 section 3.2, without a user (RFC 9110 section 4.2.4) and with a host (section 4.2.1)
is_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[-A-Za-z0-9._~%!$&'()*+,;=]+)(?::[0-9]*)?").fullmatch
_absolute_form = re.compile(rb"https?://(?P<authority>[^/?#]*)(?P<rest>[^#]*)", re.IGNORECASE).fullmatch

_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}
_REQUEST = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)
_TRAILERS = _REQUEST._replace(is_trailer=True)


def resource_of(method: bytes, target: bytes, headers: RawHeaders) -> tuple[bytes, RawHeaders] | None:
    """The path and query, or `*`, that an HTTP/1.1 target stands for, and the headers, with the host that it names;
    `None` for a target that is none (RFC 9112 section 3.2). Not for CONNECT."""
    if is_path(method, target):
        return target, headers
    match = _absolute_form(target)
    if match is None or not is_authority(match["authority"]):
        return None
    rest = match["rest"]
    if method == b"OPTIONS" and not rest:
        rest = b"*"  # RFC 9112 section 3.2.4
    elif not rest.startswith(b"/"):
        rest = b"/" + rest
    # RFC 9112 section 3.2.2: whatever `Host` says
    others = [(name, value) for name, value in headers if name.lower() != b"host"]
    return rest, [(b"host", match["authority"]), *others]


def is_path(method: bytes, target: bytes) -> bool:
    """Whether `target` can be served as it is: a path; or `*`, which stands for the whole server in an OPTIONS."""
    return target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")


def fields_of(headers: RawHeaders) -> RawHeaders | None:
    """The fields of an HTTP/2 request as HTTP/1.1 has them, with one `host`; `None` where it is malformed.

    Whatever names the host twice has to name the same (RFC 9113 section 8.3.1); `:authority` is what is told.
    """
    pseudo = {name: value for name, value in headers if name.startswith(b":")}
    hosts = [value for name, value in headers if name == b"host"]
    authority = pseudo.get(b":authority")
    if len(hosts) > 1:
        return None
    if authority is None:
        authority = hosts[0] if hosts else b""
    elif not is_authority(authority) or (hosts and _plain(hosts[0], pseudo) != _plain(authority, pseudo)):
        return None
    named = [(name, value) for name, value in headers if name != b"host" or b":authority" not in pseudo]
    if not _is_valid(named, _REQUEST):
        return None
    fields = [(name, value) for name, value in headers if name != b"host" and not name.startswith(b":")]
    return [(b"host", authority), *fields]


def are_trailers(headers: RawHeaders) -> bool:
    """Whether these may stand behind a body (RFC 9113 section 8.1)."""
    return _is_valid(headers, _TRAILERS)


def _plain(host: bytes, pseudo: dict[bytes, bytes]) -> bytes:
    """A host in one spelling (RFC 9110 section 4.2.3)."""
    return host.lower().removesuffix(_DEFAULT_PORTS.get(pseudo.get(b":scheme", b""), b":"))


def _is_valid(headers: RawHeaders, flags: HeaderValidationFlags) -> bool:
    try:
        for _ in validate_headers(headers, flags):
            pass
    except h2.exceptions.ProtocolError:
        return False
    return True


async def answer_for_all(scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
    """The application, as hypercorn calls it, for `OPTIONS *`: yes, there is a server (RFC 9110 section 9.3.7). That is
    about no route."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
