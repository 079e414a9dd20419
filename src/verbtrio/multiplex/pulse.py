"""When something is due for a client: its first command, its next ping, a pong, the end of its token. Pure: time is a
parameter.

A ping is an empty message, and so is its answer. It counts from when the ping was sent; but while the client is in the
middle of a large message, or is taking one, its answer may stand behind that, and gets more time.
"""

from __future__ import annotations

import enum
import random

NEVER = float("inf")


class Due(enum.Enum):
    """What is due."""

    NOTHING = enum.auto()
    PING = enum.auto()
    STALE = enum.auto()
    """It has not said who it is."""
    NO_PONG = enum.auto()
    EXPIRED = enum.auto()


class Pulse:
    """One client's deadlines.

    Args:
        interval: seconds between two pings.
        timeout: seconds within which each has to be answered.

    Attributes:
        stale: when it has to have said who it is.
        expires: when its token is over.
    """

    __slots__ = ("_interval", "_next_ping", "_pong", "_timeout", "expires", "stale")

    def __init__(self, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._next_ping = self._pong = self.expires = self.stale = NEVER

    def connected(self, now: float) -> None:
        """It is let in. The first ping comes after a random part of the interval, half at least, so that
        clients that come back at the same time are not all pinged at the same time ever after."""
        self._next_ping = now + self._interval * random.uniform(0.5, 1)

    def pong(self) -> bool:
        """It has answered. Returns whether there was anything to answer."""
        was_asked, self._pong = self._pong < NEVER, NEVER
        return was_asked

    @property
    def next(self) -> float:
        """When `due` has to be asked again."""
        return min(self.stale, self._next_ping, self._pong, self.expires)

    def due(self, now: float, *, is_busy: bool) -> Due:
        """What is due at `now`. A `PING` is due once.

        Args:
            is_busy: an answer may be on its way, behind something else.
        """
        if now >= self.stale:
            return Due.STALE
        if now >= self.expires:
            return Due.EXPIRED
        if now >= self._pong:
            if not is_busy:
                return Due.NO_PONG
            self._pong = now + self._timeout
        if now >= self._next_ping:
            missed = (now - self._next_ping) // self._interval
            self._next_ping += (missed + 1) * self._interval
            if self._pong == NEVER:  # a second one would not have an answer of its own
                self._pong = now + self._timeout
                return Due.PING
        return Due.NOTHING
