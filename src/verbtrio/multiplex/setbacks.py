"""Rooms whose handler has failed for a client, and when it may subscribe again. Pure: time is a parameter.

SDKs subscribe again at once where a subscription has ended with a code from 2500 on. One whose handler fails each time
would begin, and be logged, some hundred times a second. A subscribe that comes too soon gets a temporary error, after
which SDKs wait longer each time.
"""

from __future__ import annotations

FIRST_SECONDS = 1.0
"""For so long a subscribe is refused; twice as long after each further failure."""
MOST_SECONDS = 30.0
FORGOTTEN_SECONDS = 60.0
"""So long after that, the failures are forgotten."""
MAX_ROOMS = 1000
"""Those that have failed last. Others are forgotten first."""


class Setbacks:
    """One client's."""

    __slots__ = ("_rooms",)

    def __init__(self) -> None:
        self._rooms: dict[str, tuple[float, float]] = {}  # until when, and for how long; the latest failure last

    def __len__(self) -> int:
        return len(self._rooms)

    def failed(self, name: str, now: float) -> None:
        """The room's handler has failed."""
        until, seconds = self._rooms.pop(name, (now, 0.0))
        is_forgotten = not seconds or now >= until + FORGOTTEN_SECONDS
        seconds = FIRST_SECONDS if is_forgotten else min(2 * seconds, MOST_SECONDS)
        self._rooms[name] = (now + seconds, seconds)
        for other, (until, _) in tuple(self._rooms.items()):
            if len(self._rooms) <= MAX_ROOMS and now < until + FORGOTTEN_SECONDS:
                break
            del self._rooms[other]

    def is_too_soon(self, name: str, now: float) -> bool:
        """Whether the client may not subscribe yet."""
        until, _ = self._rooms.get(name, (now, 0.0))
        return now < until
