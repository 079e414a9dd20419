"""A message of a room's history on its way to the members: with its position. Pure."""

from __future__ import annotations

import msgspec

from verbtrio.base.position import Position
from verbtrio.messages.frame import Frame


class Published(Frame):
    """One published message, made once for all members of a room that are in this process.

    Attributes:
        position: its place in the room's history.
        frame: the message as it was published, without a stamp.
    """

    __slots__ = ("frame", "position")

    def __init__(self, frame: Frame, position: Position, stamp: str | None) -> None:
        """`stamp`: the field that is added with the position. (Not to a message of another app that shares the broker
        and has no stamp, which need not be a JSON object.)"""
        if stamp is not None and _takes_fields(frame.text, frame.payload):
            super().__init__(_stamped(frame.payload, position, stamp), text=True, is_json=True)
        else:
            self.share(frame)
        self.position = position
        self.frame = frame


class ClientInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a client is, for others. `conn_info` comes with the connection's token, `chan_info` with the subscription."""

    user: str = ""
    client: str = ""
    conn_info: msgspec.Raw | None = None
    chan_info: msgspec.Raw | None = None


class SignedFrame(Frame):
    """A message that says which client has published it. Only clients of protocols that tell so see it.

    Attributes:
        info: who the client is.
    """

    __slots__ = ("info",)

    def __init__(self, frame: Frame, info: ClientInfo) -> None:
        self.share(frame)
        self.info = info


class PresenceFrame(Frame):
    """Tells members who is present. Clients of a protocol that has its own way to tell so don't get it."""

    __slots__ = ()

    def __init__(self, frame: Frame) -> None:
        self.share(frame)


def check_stamp(frame: Frame, stamp: str) -> None:
    """Raise `TypeError` if a position can't be added to the message: it is not a JSON object."""
    if not _takes_fields(frame.text, frame.payload):
        raise TypeError(
            f"this room's history adds a field {stamp!r} to each message (History.stamp), so what is published must "
            "become a JSON object: a dict, or an object with fields"
        )


def _takes_fields(text: bool, payload: bytes) -> bool:
    return text and payload[:1] == b"{" and payload[-1:] == b"}"


def _stamped(payload: bytes, position: Position, stamp: str) -> bytes:
    field = msgspec.json.encode({stamp: str(position)})[1:]
    others = payload[:-1].rstrip(b" \t\r\n")
    return others + (b"" if others == b"{" else b",") + field
