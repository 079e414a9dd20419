"""How fast a peer may send: a token bucket. Pure: the time is a parameter."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What to do with a message."""

    PASS = enum.auto()
    REFUSE = enum.auto()
    """It is one too many."""
    END = enum.auto()
    """It goes on and on: as many as the burst, or more, have been refused without a pause."""


PASS, REFUSE, END = Verdict


class Bucket:
    """A bucket of `burst` tokens, refilled at `per_second`; each message takes one, those refused included.

    So a sender that is refused and pauses may go on; one that keeps up its pace runs into a debt, and at twice the
    burst comes the end. The state is one number, the time at which the bucket will be full again (the "generic cell
    rate algorithm" of ITU-T I.371): a message costs an addition and a comparison.

    Args:
        per_second: messages a second, more than 0.
        burst: how many may come at once, 1 at least.
    """

    __slots__ = ("_debt", "_full", "_interval", "_tolerance")

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        # A thousandth of a message more, for the rounding: clocks are floats, too.
        self._tolerance = (burst + 0.001) * self._interval
        self._debt = (2 * burst + 0.001) * self._interval
        self._full = float("-inf")

    def take(self, now: float) -> Verdict:
        """A message has come at `now` (seconds, never going back)."""
        full = self._full
        self._full = full = (full if full > now else now) + self._interval
        if full - now <= self._tolerance:
            return PASS
        return REFUSE if full - now <= self._debt else END
