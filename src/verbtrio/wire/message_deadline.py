"""Messages that have begun and are not whole yet: how long the peer may take for one. Pure: the time is a parameter.

The rule: `Limits.message_timeout`, and a second more for each KiB of it that has come, up to those of the largest
message. So a large message may come over a slow line, and one of which nothing more comes, or a byte now and then, ends
the connection, whatever the peer sends beside it: answers to pings, or empty fragments.
"""

from __future__ import annotations

from typing import Protocol

from verbtrio.base.limits import Limits

BYTES_PER_SECOND = 1024
"""How fast a message has to come in the long run; the slowest line in use is several times faster."""
LATE_SECONDS = 1.0
"""A timer that is this late has been asleep itself (a stopped process): peers are not to blame for what it missed."""
NEVER = float("inf")


class Source(Protocol):
    """What takes the bytes apart: a `Codec`."""

    @property
    def unfinished(self) -> bool:
        """Whether a message, or a control frame, has begun and is not whole yet."""

    @property
    def progress(self) -> int:
        """Bytes that have come of that message."""


class Unfinished:
    """The time for a peer's messages, for those that are not whole when they begin to come.

    Args:
        source: what takes the peer's bytes apart.
        limits: the connection's.
    """

    __slots__ = ("_began", "_limits", "_paused", "_put_off", "_source", "due")

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._began = 0.0
        self._paused = NEVER  # since when we have not been reading
        self._put_off = False  # it was asked meanwhile
        self.due = NEVER
        """When `is_overdue` has to be asked."""

    def begun(self, now: float) -> bool:
        """A message has begun. Returns whether `due` has changed: once for many messages, since it is asked only after
        the time of the first of them which of them that time is for."""
        self._began = now
        if self.due < NEVER:
            return False
        self.due = now + self._limits.message_timeout
        return True

    def pause(self, now: float) -> None:
        """The peer is not read any more: from now on it has all the time we take."""
        self._paused = now

    def resume(self, now: float) -> bool:
        """It is read again. Returns whether `due` has changed."""
        if self._paused == NEVER:
            return False
        self._began += max(0.0, now - self._paused)
        self._paused = NEVER
        put_off, self._put_off = self._put_off, False
        if put_off:
            self.due = self._began + self._limits.message_timeout
        return put_off

    def is_overdue(self, now: float) -> bool:
        """Whether the peer has taken too long; if not, `due` is when to ask again."""
        late = now - self.due
        if late < 0:
            return False
        self._put_off = self._paused < NEVER
        if self._put_off or not self._source.unfinished:
            self.due = NEVER  # until `resume`, or until the next one begins
            return False
        if late > LATE_SECONDS:
            self._began = now
        came = min(self._source.progress, self._limits.max_message_bytes)
        self.due = self._began + self._limits.message_timeout + came / BYTES_PER_SECOND
        return now >= self.due
