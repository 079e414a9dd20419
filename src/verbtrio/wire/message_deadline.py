"""How long a peer may take for a message that has begun. Pure: the time is a parameter.

The rule: `Limits.message_timeout`, and a second more for each KiB of the message that has come, up to the largest
message's size. So a large message may come over a slow line. A message that stops, or goes on by a byte now and then,
ends the connection, whatever else the peer sends: pongs, or empty fragments.
"""

from __future__ import annotations

from typing import Protocol

from verbtrio.base.limits import Limits

MIN_BYTES_PER_SECOND = 1024
"""How fast a message has to come in the long run. The slowest line in use is several times faster."""
LATE_SECONDS = 1.0
"""If a timer is this late, the process itself was stopped: the peer is not to blame for that time."""
NEVER = float("inf")


class Assembler(Protocol):
    """What assembles messages from the peer's bytes: a `Codec`."""

    @property
    def unfinished(self) -> bool:
        """Whether a message, or a control frame, has begun and not ended."""

    @property
    def partial_bytes(self) -> int:
        """Bytes received of that message."""


class MessageDeadline:
    """The deadline of a peer's messages, of those that do not come whole.

    Args:
        assembler: the connection's.
        limits: the connection's.
    """

    __slots__ = ("_assembler", "_began", "_limits", "_paused", "_put_off", "due")

    def __init__(self, assembler: Assembler, limits: Limits) -> None:
        self._assembler = assembler
        self._limits = limits
        self._began = 0.0
        self._paused = NEVER  # since when we have not been reading
        self._put_off = False  # whether the deadline has passed since then
        self.due = NEVER
        """When to ask `is_overdue`."""

    def begun(self, now: float) -> bool:
        """A message has begun. Returns whether `due` has changed.

        It changes once for many messages: only when the time of the first is over does `is_overdue` look which message
        is in progress.
        """
        self._began = now
        if self.due < NEVER:
            return False
        self.due = now + self._limits.message_timeout
        return True

    def pause(self, now: float) -> None:
        """The peer is not being read: the time from now on does not count."""
        self._paused = now

    def resume(self, now: float) -> bool:
        """The peer is being read again. Returns whether `due` has changed."""
        if self._paused == NEVER:
            return False
        self._began += max(0.0, now - self._paused)
        self._paused = NEVER
        put_off, self._put_off = self._put_off, False
        if put_off:
            self.due = self._began + self._limits.message_timeout
        return put_off

    def is_overdue(self, now: float) -> bool:
        """Whether the peer has taken too long. If not, `due` says when to ask again."""
        late = now - self.due
        if late < 0:
            return False
        self._put_off = self._paused < NEVER
        if self._put_off or not self._assembler.unfinished:
            self.due = NEVER  # until `resume`, or until the next one begins
            return False
        if late > LATE_SECONDS:
            self._began = now
        received = min(self._assembler.partial_bytes, self._limits.max_message_bytes)
        self.due = self._began + self._limits.message_timeout + received / MIN_BYTES_PER_SECOND
        return now >= self.due
