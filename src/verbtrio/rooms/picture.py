"""Who is present in a room, as those here have been told. Pure.

Where changes were lost, what they have been told is not what is so. With this, the difference can be told, and what
comes meanwhile fits what they know: nobody comes twice, or leaves who has not come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from verbtrio.brokers.records import PresenceChange, Presences


class Picture:
    """Who is present in one room, with which public info.

    Args:
        present: who is at the start.
    """

    __slots__ = ("_info",)

    def __init__(self, present: Presences) -> None:
        self._info: dict[str, Any] = {user: each.info for user, each in present.items()}

    def fitting(self, change: PresenceChange) -> PresenceChange | None:
        """A change, as it has to be told to those who know this picture; `None`: not at all. It is in the picture from
        now on."""
        user = change.user
        if change.kind == "leave":
            if user not in self._info:
                return None
            del self._info[user]
            return change
        is_known = user in self._info
        if is_known and change.kind == "join" and self._info[user] == change.info:
            return None
        self._info[user] = change.info
        return PresenceChange("update" if is_known else "join", user, change.info)

    def differences(self, present: Presences) -> Iterator[PresenceChange]:
        """The changes that make `present` of this picture. What is told of them has to go through `fitting`."""
        for user, info in tuple(self._info.items()):
            if user not in present:
                yield PresenceChange("leave", user, info)
        for user, each in present.items():
            if user not in self._info:
                yield PresenceChange("join", user, each.info)
            elif self._info[user] != each.info:
                yield PresenceChange("update", user, each.info)
