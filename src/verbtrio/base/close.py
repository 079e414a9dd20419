"""How a connection ends: the close codes, the causes, and the record of an end.

A connection ends once. The first thing that ends it is recorded as a `CloseInfo`; whatever happens
afterwards (a second failure, the cancellation that follows) does not change the record. The close hook,
the log line and the statistics all show the same record.
"""

from __future__ import annotations

import enum
import operator
from dataclasses import dataclass, field
from typing import Any

# RFC 6455 section 7.4.1 and the IANA registry it set up.
NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
NO_STATUS_RECEIVED = 1005  # never on the wire: the peer's Close frame had no code
ABNORMAL_CLOSURE = 1006  # never on the wire: there was no Close frame
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
# RFC 6455 section 7.4.2: 4000 to 4999 are private use. 4401 mirrors HTTP's 401 (Unauthorized), 4408 its 408 (Request
# Timeout).
TOKEN_EXPIRED = 4401
HEARTBEAT_TIMEOUT = 4408

MAX_CONTROL_BYTES = 125  # a control frame's payload (RFC 6455 section 5.5)
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2  # two are the code


class Cause(enum.StrEnum):
    """What ended a connection. The value is what logs and statistics show."""

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
    """The token the peer came in with has expired (4401)."""
    SLOW = "slow"
    """The peer reads too slowly: its backlog or the time for one write is over the limit. Or it does not finish a
    message in time (1008)."""
    RATE = "rate"
    """The peer wants more than a limit allows: messages a second, rooms (1008), connections of its user (1013)."""
    UNAUTHENTICATED = "unauthenticated"
    """The peer has not sent a valid token as its first message (1008; 1013 where it could not be checked)."""
    SIZE = "size"
    """The peer sent a message over the size limit (1009)."""
    INVALID = "invalid"
    """The peer has sent more messages the handler does not take than `Limits.max_bad_messages` allows (1008)."""
    PROTOCOL = "protocol"
    """The peer broke RFC 6455 (1002), or sent text that is not UTF-8 (1007)."""
    CLOSED = "closed"
    """Its own handler, hook or a task of theirs called `close()` (1000, or the code that was given)."""
    KICKED = "kicked"
    """Somebody else did, or `users.disconnect`, or `kick` or `close` of a room it was in as long as it lived (1008, or
    the code that was given)."""
    DRAIN = "drain"
    """The server shuts down (1012)."""


PEERS_ENDS = (Cause.PEER, Cause.GONE)
"""Ends of the peer's making. What came before them is still handled; after the others, nothing is."""


CANCEL_GRACE = 0.1
"""Seconds a handler has, once its connection has ended, to finish what it is at before it is cancelled. It is
for the messages that arrived before the peer's end: a client that sends and closes expects them handled. After an end
of the server's there are none, only this time."""


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """The one record of how a connection ended."""

    cause: Cause
    code: int = NORMAL_CLOSURE
    """The close code: the peer's own for `Cause.PEER`, else the one that was sent (or 1006: none was)."""
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
        TypeError: `code` is no `int` (4000.0, as JSON may have it, or a `bool`), or `reason` no `str`.
        ValueError: the code must not be sent, or the reason is no UTF-8, or over 123 bytes of it.
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a close code is a whole number, an int, not {code!r}")
    if not isinstance(reason, str):
        raise TypeError(f'a close reason is text, not {reason!r}; where there is none, leave it out or use ""')
    if not _may_be_sent(code):
        raise ValueError(
            f"{code} is no close code that may be sent; use 1000 to 1014 (but 1004 to 1006) or 3000 to 4999"
        )
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the close reason {reason!r} is no UTF-8: surrogates stand for no character") from None
    if size > MAX_REASON_BYTES:
        raise ValueError(f"the close reason has {size} bytes; a Close frame holds {MAX_REASON_BYTES} at most")


def fitting_reason(text: str) -> str:
    """As much of `text`, an exception's, as a Close frame holds."""
    return text.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def sendable_close(code: Any, reason: Any) -> tuple[int, str]:
    """The code and reason that are sent for those an ASGI application gave, whatever it gave.

    A code that must not be sent, or is no integer, becomes 1011: the application has made a mistake. No code at all is
    1000. A reason over 123 bytes is cut at a character's boundary; what UTF-8 has no form for (lone surrogates) becomes
    "?", and a reason that is no text is left out.
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
