"""What a peer can do, as a transport tells it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from verbtrio.base.close import ABNORMAL_CLOSURE, Cause


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


PEER_GONE = Closed(Cause.GONE, ABNORMAL_CLOSURE, "")

Event: TypeAlias = str | bytes | Pong | Closed
"""A text message, a binary message, a pong, or the end."""


class Progress(NamedTuple):
    """A look at a peer. Two looks tell whether it has done anything between them."""

    taken: int = 0
    """Grows with what the peer has taken."""
    waits: bool = False
    """Whether something is on its way to it, so that `taken` may grow without anything new."""
    coming: int = 0
    """Bytes of a message that has begun to come and is not whole; 0 without one."""
