"""What a transport reports: events from the peer, and its progress. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from verbtrio.base.close import ABNORMAL_CLOSURE, Cause


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered a ping, or sent an unsolicited pong."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The last event: the peer's Close frame, a violation that the connection is failed for, or a peer that is gone.

    Attributes:
        cause: `Cause.PEER`, `Cause.GONE`, `Cause.SIZE` or `Cause.PROTOCOL`.
        code: the peer's close code (1005 if it gave none), or the code that answers the violation.
        reason: the peer's reason, or what the violation was.
    """

    cause: Cause
    code: int
    reason: str


PEER_GONE = Disconnect(Cause.GONE, ABNORMAL_CLOSURE, "")

Event: TypeAlias = str | bytes | Pong | Disconnect
"""A text message, a binary message, a pong, or the end."""


class Progress(NamedTuple):
    """How far a peer has got. Two of these tell whether it has done anything in between."""

    taken: int = 0
    """Grows as the peer takes what it is sent."""
    in_flight: bool = False
    """Whether something is on its way to the peer, so that `taken` may grow although nothing more is sent."""
    partial_bytes: int = 0
    """Bytes received of an unfinished message; 0 if there is none."""
