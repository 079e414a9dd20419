"""What a peer can do, as a transport tells it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from verbtrio.closing import ABNORMAL_CLOSURE, Cause


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered a ping, or sent a pong of its own accord."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The end: the peer's Close frame, the violation the connection is failed for, or a peer that is gone.

    Attributes:
        cause: `Cause.PEER`, `Cause.GONE`, `Cause.SIZE` or `Cause.PROTOCOL`.
        code: the peer's close code (1005 if it gave none), or the one the violation is answered with.
        reason: the peer's reason, or what was wrong.
    """

    cause: Cause
    code: int
    reason: str


GONE = Closed(Cause.GONE, ABNORMAL_CLOSURE, "")

Event: TypeAlias = str | bytes | Pong | Closed
"""A text message, a binary message, a pong, or the end."""
