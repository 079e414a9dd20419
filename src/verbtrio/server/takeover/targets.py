"""A request's target: the one path and the one host that it names (RFC 9110 section 7).

An application sees one path and one `host`, whatever the form in which they came. What checks the host (origins,
`TrustedHostMiddleware`, virtual hosts in front) must see the one that the client means.
"""

from __future__ import annotations

import re
from typing import Any

from verbtrio.wire.handshake import RawHeaders

# RFC 3986 section 3.2, without a user (RFC 9110 section 4.2.4) and with a host (section 4.2.1)
is_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[-A-Za-z0-9._~%!$&'()*+,;=]+)(?::[0-9]*)?").fullmatch
_absolute_form = re.compile(rb"https?://(?P<authority>[^/?#]*)(?P<rest>[^#]*)", re.IGNORECASE).fullmatch


def resource_of(method: bytes, target: bytes, headers: RawHeaders) -> tuple[bytes, RawHeaders] | None:
    """The path and query, or `*`, that an HTTP/1.1 target stands for, and the headers, with the host that it names;
    `None` for a target that is not valid (RFC 9112 section 3.2). Not for CONNECT."""
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
    # The target's host holds, whatever `Host` says (RFC 9112 section 3.2.2).
    others = [(name, value) for name, value in headers if name.lower() != b"host"]
    return rest, [(b"host", match["authority"]), *others]


def is_path(method: bytes, target: bytes) -> bool:
    """Whether `target` can be served as it is: a path, or `*`, which stands for the whole server in an OPTIONS."""
    return target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")


async def answer_for_all(scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
    """In the application's place, with hypercorn's arguments, for `OPTIONS *`: that is about the server, not about a
    route (RFC 9110 section 9.3.7)."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
