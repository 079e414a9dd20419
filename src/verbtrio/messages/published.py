"""A message of a room's history on its way to the members: with its position. Pure."""

from __future__ import annotations

import msgspec

from verbtrio.base.position import Position
from verbtrio.messages.frame import Frame


class Published(Frame):
    """One published message, made once for all members of a room that are in this process.

    Attributes:
        position: its place in the room's history.
    """

    __slots__ = ("position",)

    def __init__(self, frame: Frame, position: Position, stamp: str | None) -> None:
        """`stamp`: the field that is added with the position, for a message that `check_stamp` has passed."""
        if stamp is None:
            self.share(frame)
        else:
            super().__init__(_stamped(frame.payload, position, stamp), text=frame.text)
        self.position = position


def check_stamp(frame: Frame, stamp: str) -> None:
    """Raise `TypeError` if a position can't be added to the message: it is not a JSON object."""
    payload = frame.payload
    if not (frame.text and payload[:1] == b"{" and payload[-1:] == b"}"):
        raise TypeError(
            f"this room's history adds a field {stamp!r} to each message (History.stamp), so what is published must "
            "become a JSON object: a dict, or an object with fields"
        )


def _stamped(payload: bytes, position: Position, stamp: str) -> bytes:
    field = msgspec.json.encode({stamp: str(position)})[1:]
    others = payload[:-1].rstrip(b" \t\r\n")
    return others + (b"" if others == b"{" else b",") + field
