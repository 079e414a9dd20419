"""Keeps the order of what goes to several nodes, where it matters: they know nothing of each other.

What a process has in a room is on the room's node; that it has it (a mark, by which others clear away after it) is on
another. So what follows a mark waits until the mark is there. That takes a round trip, and only for a new mark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Ordering:
    """Holds back what is sent after something that has to be carried out first. Synchronous; what is held is bounded by
    whoever sends."""

    def __init__(self) -> None:
        self._ahead = 0
        self._held: deque[Callable[[], None]] = deque()

    def begin(self) -> None:
        """Something is sent that has to be carried out first: hold back what comes from now on."""
        self._ahead += 1

    def end(self) -> None:
        """It is carried out. If nothing else is awaited, what was held goes out, in its order."""
        self._ahead -= 1
        while self._held and not self._ahead:
            self._held.popleft()()

    def do(self, send: Callable[[], None]) -> None:
        """Send, now or later. A later one is sent after what was held before it."""
        if self._ahead:
            self._held.append(send)
        else:
            send()
