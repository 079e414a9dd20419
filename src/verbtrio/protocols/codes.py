"""The protocol's codes: of error replies, of unsubscribe pushes, and of the ends of connections. Pure.

SDKs go by these numbers: whether they try again, and what their users are told. (centrifugal.dev, "Client protocol
codes".)
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

import msgspec

from verbtrio.base.close import PEERS_ENDS, TRY_AGAIN_LATER, Cause, CloseInfo, fitting_reason


class ProtocolError(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error of a reply. After one that is `temporary`, and after 109, SDKs try a subscribe or connect again."""

    code: int
    message: str
    temporary: bool = False


INTERNAL: Final = ProtocolError(100, "internal server error", temporary=True)
UNAUTHORIZED: Final = ProtocolError(101, "unauthorized")
UNKNOWN_CHANNEL: Final = ProtocolError(102, "unknown channel")
PERMISSION_DENIED: Final = ProtocolError(103, "permission denied")
METHOD_NOT_FOUND: Final = ProtocolError(104, "method not found")
ALREADY_SUBSCRIBED: Final = ProtocolError(105, "already subscribed")
LIMIT_EXCEEDED: Final = ProtocolError(106, "limit exceeded")
BAD_REQUEST: Final = ProtocolError(107, "bad request")
NOT_AVAILABLE: Final = ProtocolError(108, "not available")
TOKEN_EXPIRED: Final = ProtocolError(109, "token expired")
EXPIRED: Final = ProtocolError(110, "expired")
TOO_MANY_REQUESTS: Final = ProtocolError(111, "too many requests", temporary=True)
UNRECOVERABLE_POSITION: Final = ProtocolError(112, "unrecoverable position")
TIMEOUT: Final = ProtocolError(100, "timeout", temporary=True)
"""A call has not returned within its deadline. (The protocol has no code of its own for it.)"""


class Refused(Exception):  # noqa: N818 -- an answer, not a failure of ours
    """A command is answered with an error."""

    def __init__(self, error: ProtocolError) -> None:
        self.error = error
        super().__init__(f"{error.code} {error.message}")


# How a subscription ends, other than by the client. SDKs subscribe again after the codes from 2500 on.
UNSUBSCRIBED = 2000
_COMES_AGAIN = 2500
INSUFFICIENT_STATE = 2500
SUBSCRIPTION_EXPIRED = 2501
SUBSCRIPTION_FAILED = 2503
"""The subscription's handler, or the room's task, has failed. (The protocol leaves this code to servers.)"""


def check_unsubscribe(code: object) -> None:
    """Raise `ValueError` where `code` is not one for the end of a subscription: 2000 to 2999."""
    if not isinstance(code, int) or isinstance(code, bool) or not 2000 <= code <= 2999:
        raise ValueError(
            f"a subscription ends with a code from 2000 to 2999, not {code!r}: below 2500 for good, from 2500 on the "
            "client subscribes again"
        )


def unsubscribe_reason(code: int) -> str:
    """The protocol's words for the end of a subscription."""
    return {
        INSUFFICIENT_STATE: "insufficient state",
        SUBSCRIPTION_EXPIRED: "subscription expired",
        SUBSCRIPTION_FAILED: "internal server error",
    }.get(code, "unsubscribed")


def refusal(code: int, reason: str) -> ProtocolError:
    """The error for a subscription that ends with `code` before its client is let in. SDKs try again, or not, as they
    do after the code."""
    if code < _COMES_AGAIN:
        return ProtocolError(PERMISSION_DENIED.code, reason or PERMISSION_DENIED.message)
    return ProtocolError(INTERNAL.code, reason or unsubscribe_reason(code), temporary=True)


# How a connection ends. SDKs connect again, but after 3500 to 3999 and 4500 to 4999.
CONNECTION_CLOSED = 3000
SHUTDOWN = 3001
SERVER_ERROR = 3004
CONNECTION_EXPIRED = 3005
EXPIRED_SUBSCRIPTION = 3006
SLOW = 3008
LOST_TRACK = 3010
"""Messages of a room are lost to which the server has subscribed the client: it connects again, and recovers."""
NO_PONG = 3012
TOO_MANY = 3013
INVALID_TOKEN = 3500
BAD_PROTOCOL = 3501
STALE = 3502
FORCE_DISCONNECT = 3503
CONNECTION_LIMIT = 3504
CHANNEL_LIMIT = 3505
INAPPROPRIATE_PROTOCOL = 3506
DENIED = 3507
TOO_MANY_ERRORS = 3509

_REASONS = {
    CONNECTION_CLOSED: "connection closed",
    SHUTDOWN: "shutdown",
    SERVER_ERROR: "internal server error",
    CONNECTION_EXPIRED: "connection expired",
    EXPIRED_SUBSCRIPTION: "subscription expired",
    SLOW: "slow",
    LOST_TRACK: "insufficient state",
    NO_PONG: "no pong",
    TOO_MANY: "too many requests",
    INVALID_TOKEN: "invalid token",
    BAD_PROTOCOL: "bad request",
    STALE: "stale",
    FORCE_DISCONNECT: "force disconnect",
    CONNECTION_LIMIT: "connection limit",
    CHANNEL_LIMIT: "channel limit",
    INAPPROPRIATE_PROTOCOL: "inappropriate protocol",
    DENIED: "permission denied",
    TOO_MANY_ERRORS: "too many errors",
}

_BY_CAUSE = {
    Cause.RETURNED: CONNECTION_CLOSED,
    Cause.CLOSED: CONNECTION_CLOSED,
    Cause.ERROR: SERVER_ERROR,
    Cause.HEARTBEAT: NO_PONG,
    Cause.EXPIRED: CONNECTION_EXPIRED,
    Cause.SLOW: SLOW,
    Cause.RATE: TOO_MANY,
    Cause.UNAUTHENTICATED: INVALID_TOKEN,
    Cause.DENIED: DENIED,
    Cause.INVALID: TOO_MANY_ERRORS,
    Cause.KICKED: FORCE_DISCONNECT,
    Cause.DRAIN: SHUTDOWN,
}
"""The other causes keep RFC 6455's codes: 1002, 1007, 1009."""

_OFTEN_GIVEN = (Cause.CLOSED, Cause.KICKED)
"""Causes for which an application may give a code and a reason of its own."""

# Codes below are RFC 6455's, codes above are an application's, and verbtrio's own for plain clients (4401, 4408).
_FIRST, _LAST = 3000, 3999


def reason_of(code: int) -> str:
    """The protocol's words for a code; "" for one that it does not have."""
    return _REASONS.get(code, "")


def closing(info: CloseInfo) -> CloseInfo:
    """`info`, with the code and the reason that go out in this protocol.

    The protocol's codes go out as they are, and so does what an application has given from 4000 on. The reason is
    never empty, and never JSON: after an empty one the JavaScript SDK connects again, whatever the code; one that it
    can parse it takes for advice.
    """
    if info.cause in PEERS_ENDS:
        return info
    code = _code(info)
    is_kept = code == info.code or info.cause in _OFTEN_GIVEN
    reason = info.reason.strip() if is_kept else ""
    reason = reason or _REASONS.get(code) or info.reason.strip() or "disconnected"
    if _is_json(reason):
        reason = fitting_reason(f"closed: {reason}")
    return replace(info, code=code, reason=reason)


def _code(info: CloseInfo) -> int:
    if _FIRST <= info.code <= _LAST or (info.code > _LAST and info.cause in _OFTEN_GIVEN):
        return info.code
    if info.code == TRY_AGAIN_LATER:  # what is not available now is no reason to stay away for good
        return CONNECTION_LIMIT if info.cause is Cause.RATE else SERVER_ERROR
    return _BY_CAUSE.get(info.cause, info.code)


def _is_json(text: str) -> bool:
    """Whether JavaScript's `JSON.parse` takes it, as Python's does: 1e999 and a lone surrogate, too."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
