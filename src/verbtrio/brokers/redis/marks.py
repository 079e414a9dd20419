"""Which rooms have something of this process in Redis. If the process dies, others clear it away by this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.names import Names, to_bytes

BATCH = 500
"""How many rooms one command names."""


class Marks:
    """The rooms that have something of this process. Synchronous.

    Args:
        names: of the keys.
        link: gives the present link; `None` while there is none.
        process: gives the name under which this process is known now.
    """

    def __init__(self, names: Names, link: Callable[[], Link | None], process: Callable[[], str]) -> None:
        self._names = names
        self._link = link
        self._process = process
        self._reasons: Counter[str] = Counter()

    def add(self, room: str) -> None:
        """The room has one thing more of this process. Called before it is written."""
        self._reasons[room] += 1
        if self._reasons[room] == 1:
            self._add([room])

    def discard(self, room: str) -> None:
        """One thing less. Called after it is removed."""
        self._reasons[room] -= 1
        if not self._reasons[room]:
            del self._reasons[room]
            if (link := self._link()) is not None:
                key = self._names.rooms(self._process())
                link.command_last(b"SREM", key, to_bytes(room), wanted=lambda: room not in self._reasons)

    def resume(self) -> None:
        """There is a new link, or a new name: mark them all."""
        rooms = list(self._reasons)
        for start in range(0, len(rooms), BATCH):
            self._add(rooms[start : start + BATCH])

    def _add(self, rooms: list[str]) -> None:
        if (link := self._link()) is not None:
            link.command_first(b"SADD", self._names.rooms(self._process()), *map(to_bytes, rooms))
