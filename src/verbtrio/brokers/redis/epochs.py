"""The epochs of histories: a history that has lost something begins another one. Pure.

A replica that takes over may lack what its primary has confirmed. It would give the same offsets once more. So each
command says which position the process knows, and where Redis is behind it, a new epoch begins.
"""

from __future__ import annotations

import secrets

from verbtrio.base.position import Position

EPOCH_SECONDS = 24 * 3600
"""For how long the epoch and the offset outlive the messages: so nobody who comes back late is told of a new epoch, and
has missed everything, where nothing was said meanwhile."""
MAX_POSITIONS = 10_000
"""Of how many rooms that a process publishes to, without hearing them, it remembers the position."""


def new_epoch() -> str:
    """The name of an epoch, if one begins."""
    return secrets.token_hex(6)


def epoch_ttl(seconds: float = 0.0) -> int:
    """For how long the epoch outlives the last message, in milliseconds. `seconds`: the history's ttl."""
    return round((seconds + EPOCH_SECONDS) * 1000)


def known_by(position: Position | None) -> tuple[str, int]:
    """A known position, as scripts are told of it."""
    return ("", 0) if position is None else (position.epoch, position.offset)


class Positions:
    """The newest positions of what this process has published, of the rooms in which it did so last."""

    def __init__(self) -> None:
        self._positions: dict[str, Position] = {}

    def note(self, room: str, position: Position) -> None:
        """A message has got this position."""
        self._positions.pop(room, None)
        self._positions[room] = position
        if len(self._positions) > MAX_POSITIONS:
            del self._positions[next(iter(self._positions))]

    def newest(self, room: str, heard: Position | None) -> Position | None:
        """What is known of the room. `heard`: the newest position that has come from there."""
        noted = self._positions.get(room)
        if heard is None or (noted is not None and noted.epoch == heard.epoch and noted.offset > heard.offset):
            return noted
        return heard
