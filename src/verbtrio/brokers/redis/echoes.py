"""What a process publishes to itself: so it finds that a node is silent, or that it is too slow for what comes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable

import trio


class Echoes:
    """One message through each connection, and back.

    Args:
        name: gives channels on which only this process listens, by a number.
    """

    def __init__(self, name: Callable[[int], bytes]) -> None:
        self._name = name
        self._is_back: dict[bytes, bool] = {}  # by channel
        self._done = trio.Event()

    def choose(self, way: Callable[[bytes], Hashable], count: int) -> Collection[bytes]:
        """A channel for each of so many connections. `way`: by which one a channel's messages come."""
        chosen: dict[Hashable, bytes] = {}
        for number in itertools.count():
            channel = self._name(number)
            chosen.setdefault(way(channel), channel)
            if len(chosen) == count:
                break
        self._is_back = dict.fromkeys(chosen.values(), True)
        return self._is_back.keys()

    def begin(self) -> Collection[bytes]:
        """Something is about to be published on these channels."""
        self._is_back = dict.fromkeys(self._is_back, False)
        self._done = trio.Event()
        return self._is_back.keys()

    def take(self, channel: bytes) -> bool:
        """A message has come. Returns whether it was one of these."""
        if channel not in self._is_back:
            return False
        self._is_back[channel] = True
        if all(self._is_back.values()):
            self._done.set()
        return True

    async def wait(self) -> None:
        """Wait until all are back."""
        await self._done.wait()
