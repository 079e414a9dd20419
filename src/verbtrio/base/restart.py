"""How often a task that fails is started again, and when. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from verbtrio.base.checks import check_count, check_seconds

MAX_DELAY = 30.0
"""Seconds between a failure and the restart, at most."""


@dataclass(frozen=True, slots=True)
class Restart:
    """How often a task that fails is started again.

    Raises:
        ValueError: `max` is less than 0, or one of the others is not more than 0 or not finite.
        TypeError: `max` is not an `int`, or one of the others is not a number.
    """

    max: int = 5
    """At most so many times within `within` seconds; the failure after that is its last."""
    within: float = 60.0
    delay: float = 0.1
    """Seconds until the first restart. Each further one within that time waits twice as long, up to 30 s."""

    def __post_init__(self) -> None:
        check_count("Restart.max", self.max, least=0)
        check_seconds("Restart.within", self.within)
        check_seconds("Restart.delay", self.delay)


class Restarts:
    """The restarts of one task.

    Args:
        bounds: how many there may be; `None` for none.
    """

    def __init__(self, bounds: Restart | None) -> None:
        self._bounds = bounds
        self._times: deque[float] = deque()  # `Restart.max` at most

    def next(self, now: float) -> float | None:
        """Seconds until the task that has failed may start again, which is counted; `None` for never."""
        bounds = self._bounds
        if bounds is None:
            return None
        while self._times and self._times[0] <= now - bounds.within:
            self._times.popleft()
        count = len(self._times)
        if count >= bounds.max:
            return None
        self._times.append(now)
        return min(bounds.delay * 2.0 ** min(count, 30), max(bounds.delay, MAX_DELAY))
