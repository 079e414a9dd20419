"""Names of rooms: an application's, and the broker's; and what is said of those that lack something. Pure."""

from __future__ import annotations

from collections.abc import Hashable

from verbtrio.base.position import Position

OWN = "\0"
"""What the broker's names of the framework's own rooms begin with."""


def channel_of(key: Hashable) -> str:
    """The broker's name of a room: that of an application's room is its own."""
    if isinstance(key, str):
        return OWN + key if key.startswith(OWN) else key
    return OWN + repr(key)


def check_since(since: object) -> None:
    """Raise `TypeError` where `since` is not a position: `None`, a `Position`, or a text, which clients give."""
    if since is not None and not isinstance(since, Position | str):
        raise TypeError(f"since is a Position, or its text, not {since!r:.100}")


def without(key: Hashable, what: str, argument: str) -> str:
    """What to say where a room lacks what it is asked for."""
    return f"the room {key!r:.100} has no {what}: app.rooms(pattern, {argument}) gives it to rooms whose names match"
