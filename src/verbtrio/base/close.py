"""How a connection ends: the close codes, the causes, and the record of an end.

A connection ends once. What ends it first is recorded as a `CloseInfo`. What happens afterwards (a second failure, the
cancellation that follows) does not change the record. The close hook, the log line and the statistics all show it.
"""

from __future__ import annotations

import enum
import operator
from dataclasses import dataclass, field
from typing import Any

# RFC 6455 section 7.4.1, and the IANA registry that it establishes.
NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
NO_STATUS_RECEIVED = 1005  # never sent: the peer's Close frame had no code
ABNORMAL_CLOSURE = 1006  # never sent: there was no Close frame
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
# RFC 6455 section 7.4.2: 4000 to 4999 are for private use. 4401 corresponds to HTTP's 401 (Unauthorized), 4408 to its
# 408 (Request Timeout).
TOKEN_EXPIRED = 4401
HEARTBEAT_TIMEOUT = 4408

MAX_CONTROL_BYTES = 125  # a control frame's payload (RFC 6455 section 5.5)
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2  # less the code


class Cause(enum.StrEnum):
    """What ended a connection. Logs and statistics show the value."""

    PEER = "peer"
    """The peer sent a Close frame."""
    GONE = "gone"
    """The peer's stream ended or broke without a Close frame (1006)."""
    RETURNED = "returned"
    """The handler finished (1000)."""
    ERROR = "error"
    """The handler or a hook raised (1011)."""
    HEARTBEAT = "heartbeat"
    """The peer did not answer in time (4408, configurable)."""
    EXPIRED = "expired"
    """The peer's token has expired (4401)."""
    SLOW = "slow"
    """The peer reads too slowly: its backlog, or the time for one write, exceeds the limit. Or it does not finish a
    message in time (1008)."""
    RATE = "rate"
    """The peer exceeds a limit: messages a second, rooms (1008), connections of its user (1013)."""
    UNAUTHENTICATED = "unauthenticated"
    """The peer did not send a valid token as its first message (1008; 1013 if the token could not be checked)."""
    SIZE = "size"
    """The peer sent a message over the size limit (1009)."""
    DENIED = "denied"
    """The peer may not join a room, or wants to go on from where the room's history does not reach, and the handler
    leaves it at that (1008; 1013 where the room, or the broker, is not available now)."""
    INVALID = "invalid"
    """The peer sent more invalid messages than `Limits.max_bad_messages` allows (1008)."""
    PROTOCOL = "protocol"
    """The peer broke RFC 6455 (1002), or sent text that is not UTF-8 (1007)."""
    CLOSED = "closed"
    """The connection's own handler, a hook, or a task of theirs called `close()` (1000, or the given code)."""
    KICKED = "kicked"
    """Other code called `close()`, or `users.disconnect`; or `kick` or `close` of a room that the connection was in for
    its whole life (1008, or the given code)."""
    DRAIN = "drain"
    """The server is shutting down (1012)."""


PEERS_ENDS = (Cause.PEER, Cause.GONE)
"""Ends that the peer causes. Messages that came before them are still handled. After any other end, none are."""

CANCEL_GRACE = 0.1
"""Seconds that a handler has, once its connection has ended, before it is cancelled. After the peer's end it can handle
the messages that arrived before: a client that sends and closes expects that. After an end of the server's no more
messages come, but the handler has this time to finish."""


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """How a connection ended."""

    cause: Cause
    code: int = NORMAL_CLOSURE
    """The close code: the peer's for `Cause.PEER`, otherwise the code that was sent (1006 if none was)."""
    reason: str = ""
    exception: BaseException | None = field(default=None, compare=False)
    """What the handler raised, for `Cause.ERROR`."""


RETURNED = CloseInfo(Cause.RETURNED, NORMAL_CLOSURE)
DRAINED = CloseInfo(Cause.DRAIN, SERVICE_RESTART, "The server is restarting")


def _may_be_sent(code: int) -> bool:
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999


def check_close(code: object, reason: object) -> None:
    """Check that `code` and `reason` may be sent in a Close frame (RFC 6455 section 7.4).

    Raises:
        TypeError: `code` is not an `int` (for example 4000.0, from JSON, or a `bool`), or `reason` is not a `str`.
        ValueError: the code must not be sent, or the reason can't be encoded as UTF-8, or exceeds 123 bytes.
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a close code is an int, not {code!r}")
    if not isinstance(reason, str):
        raise TypeError(f'a close reason is a str, not {reason!r}; leave it out, or use "", if there is none')
    if not _may_be_sent(code):
        raise ValueError(
            f"the close code {code} must not be sent; use 1000 to 1014 (except 1004 to 1006) or 3000 to 4999"
        )
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the close reason {reason!r} has surrogates, which UTF-8 can't encode") from None
    if size > MAX_REASON_BYTES:
        raise ValueError(f"the close reason has {size} bytes; a Close frame holds {MAX_REASON_BYTES} at most")


def fitting_reason(text: str) -> str:
    """`text`, for example an exception's, cut to what a Close frame holds."""
    return text.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def sendable_close(code: Any, reason: Any) -> tuple[int, str]:
    """The code and reason to send for those that an ASGI application gave, whatever they are.

    A code that must not be sent, or is not an integer, becomes 1011: the application has made a mistake. `None` becomes
    1000. A reason over 123 bytes is cut at a character boundary; lone surrogates, which UTF-8 can't encode, become "?";
    a reason that is not text is left out.
    """
    if code is None:
        number = NORMAL_CLOSURE
    else:
        try:
            number = operator.index(code)
        except TypeError:
            number = INTERNAL_ERROR
        if not _may_be_sent(number):
            number = INTERNAL_ERROR
    if not isinstance(reason, str):
        return number, ""
    return number, fitting_reason(reason)
