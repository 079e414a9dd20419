"""What brokers and rooms tell each other: history, presence, leases, health, what it costs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from verbtrio.base.checks import check_count, check_seconds
from verbtrio.base.position import Position
from verbtrio.messages.frame import Frame


@dataclass(frozen=True, slots=True)
class History:
    """What a room remembers of what is published in it (`room.publish`; a `broadcast` is not remembered).

    Raises:
        TypeError: `size` is not an `int`, `ttl` not a number, or `stamp` not text.
        ValueError: `size` is less than 1; `ttl` is not more than 0, or not finite; or `stamp` is empty.
    """

    size: int = 100
    """How many messages: the newest. (`Limits.max_history_bytes` bounds the bytes of all rooms together.)"""
    ttl: float = 300.0
    """Seconds after the last message until all are forgotten."""
    stamp: str | None = None
    """The name of a field that is added to each published message, at its end, with the message's position as text. So
    clients of plain WebSockets know what to say when they come back. Such messages must be JSON objects, without a
    field of that name. (Events of `app.sse` have the position as their id, without this.)"""

    def __post_init__(self) -> None:
        check_count("History.size", self.size)
        check_seconds("History.ttl", self.ttl)
        _check_field(self.stamp)


@dataclass(frozen=True, slots=True)
class Publication:
    """One message of a room's history."""

    position: Position
    frame: Frame = field(repr=False)
    """For the framework: the message as it was published."""

    @property
    def data(self) -> str | bytes:
        """The message as a client receives it, without a stamp."""
        return self.frame.payload.decode() if self.frame.text else self.frame.payload

    @property
    def raw(self) -> msgspec.Raw:
        """A JSON message as it is: to be sent as a part of another message, without decoding it."""
        return msgspec.Raw(self.frame.payload)

    def json(self) -> Any:
        """A JSON message, decoded.

        Raises:
            msgspec.DecodeError: the message is not JSON.
        """
        return msgspec.json.decode(self.frame.payload)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a room's history."""

    messages: tuple[Publication, ...]
    position: Position
    """That of the room's newest message, whether it is on this page or not: `ws.join(name, since=page.position)` goes
    on from there. Offset 0 where there has been none yet."""
    oldest: Position | None = None
    """That of the oldest message there is; `None` if there is none."""
    is_complete: bool = True
    """Whether everything after `since` is still there. (If not, `room.history` raises `HistoryGap` instead.)"""


@dataclass(frozen=True, slots=True)
class Present:
    """A user who is present in a room."""

    info: Any = None
    """What is public: the `presence=` of the latest join, or of `membership.update`."""
    connections: int = 1
    """How many: the user's tabs and devices. 0 for one who has just left, and may be back in a moment."""


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """A user has come, has gone, or has other public info. Once for a user, however many connections there are."""

    kind: Literal["join", "leave", "update"]
    user: str
    info: Any = None
    """The public info; for `leave` the last one."""


@dataclass(frozen=True, slots=True)
class PresentConnection:
    """A connection that is present in a room."""

    user: str
    """Its user's id; for a connection without a user its own."""
    info: Any = None
    """The public info that this connection gave; `None` if it gave none."""
    details: Any = None
    """What else it gave when it entered, which is no part of its user's info: JSON that a client protocol has a use
    for."""


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """A connection has come, or has gone. Once for each connection, and without a grace."""

    kind: Literal["join", "leave"]
    connection: str
    user: str
    """Its user's id; for a connection without a user its own."""
    info: Any = None
    """The public info that this connection gave; for `leave` the last one."""
    details: Any = None
    """See `PresentConnection`; for `leave` the last ones."""


Presences: TypeAlias = dict[str, Present]
"""By the user's id; for a connection without a user by the connection's id."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do something alone, for some time."""

    name: str
    fence: int
    """Counts up with each holder. Whoever is told of work with a lower number than one seen before can refuse it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a broker keeps in this process's memory."""

    histories: int = 0
    """Rooms with a history."""
    history_bytes: int = 0
    """What all histories cost, as `Limits.max_history_bytes` counts it."""
    presences: int = 0
    """Users who are present in rooms: in each of them once, until their grace is over."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a broker is."""

    is_connected: bool = True
    """Whether it reaches the other processes now."""
    detail: str = ""
    """What is wrong, for those who run the service. It may have an address in it: clients are not shown it."""
    dropped: int = 0
    """Broadcasts of this process that were dropped so far on their way to the others: the broker was away, or too
    slow."""


def _check_field(stamp: object) -> None:
    if stamp is not None and not isinstance(stamp, str):
        raise TypeError(f"History.stamp is the name of a field, a str, not {stamp!r}")
    if stamp == "":
        raise ValueError("History.stamp is the name of a field: it must not be empty")
