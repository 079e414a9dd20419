"""What a link listens to in a cluster, where a subscription may end by itself: its slot has moved. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Listening:
    """The channels that are subscribed to by one link, and those that are being left."""

    def __init__(self) -> None:
        self._wanted: set[bytes] = set()
        self._leaving: Counter[bytes] = Counter()  # how often it was left, and that is not confirmed

    def add(self, channels: Iterable[bytes]) -> None:
        """They are subscribed to."""
        self._wanted.update(channels)

    def discard(self, channels: Iterable[bytes]) -> None:
        """They are left."""
        self._wanted.difference_update(channels)
        self._leaving.update(channels)

    def ended(self, channel: bytes) -> bool:
        """A subscription has ended. Returns whether it was to; else its slot has moved."""
        if left := self._leaving[channel]:
            self._leaving[channel] = left - 1
        if left <= 1:
            del self._leaving[channel]
        return left > 0 or channel not in self._wanted
