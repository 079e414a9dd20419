"""A place in a room's history. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"([0-9a-zA-Z_-]{1,32}):(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a room's history: the one of the message with this offset. `str(position)` is its text, for clients:
    they give it back when they return, to `ws.join(name, since=...)`.
    """

    epoch: str
    """Names one life of the history. When a history is lost, and begins anew, the epoch is another one: offsets of two
    epochs have nothing to do with each other."""
    offset: int
    """Counts the room's messages in their order, from 1 and without holes; 0 is before the first."""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """The position that `text` stands for; `None` if it is not a position's text. It may come from a client."""
        match = _TEXT.fullmatch(text)
        return None if match is None else cls(match[1], int(match[2]))
