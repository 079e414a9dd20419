"""One room that this process has subscribed to, as the broker sees it: where it is in the history, who is elsewhere.

Pure: it decides what is to be done about a message, and about what a new link finds.
"""

from __future__ import annotations

from enum import Enum, auto

import trio

from verbtrio.base.position import Position


class Step(Enum):
    """What to do about a message of a history."""

    DELIVER = auto()
    SKIP = auto()
    """It was delivered, or will be when the history has been read."""
    READ = auto()
    """Some are missing before it: read the history."""


class Room:
    """A room that members, or watchers, of this process are in.

    Attributes:
        wanted: how many subscriptions of the process's are open.
        here: its members in this process.
        told: how many of them the others know of, by the present link.
        is_sent: whether the present link has subscribed to it.
        is_marked: whether the process is marked as one that has members in it.
        is_reading: whether its history is being read.
        seen: that of the newest message that has come, and was not delivered: it will be read.
        elsewhere: members by process, this one included. Until the subscription is confirmed it has what has been told
            since, zeros too.
        arrived: set once the present link has confirmed the subscription.
    """

    __slots__ = (
        "_has_arrived",
        "_moved",
        "_position",
        "arrived",
        "elsewhere",
        "here",
        "is_marked",
        "is_reading",
        "is_sent",
        "name",
        "seen",
        "told",
        "wanted",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted = self.here = self.told = 0
        self.is_sent = self.is_reading = self.is_marked = self._has_arrived = False
        self._position: Position | None = None
        self._moved: trio.Event | None = None  # while somebody waits
        self.seen: Position | None = None
        self.elsewhere: dict[bytes, int] = {}
        self.arrived: trio.Event | None = None

    @property
    def position(self) -> Position | None:
        """That of the newest message that was delivered; `None` if the history has never had one."""
        return self._position

    @position.setter
    def position(self, position: Position | None) -> None:
        self._position = position
        self.wake()

    def has_reached(self, position: Position) -> bool:
        """Whether all up to there was delivered, or is known to be missed."""
        known = self._position
        if known is None or known.epoch != position.epoch:
            return not position.offset
        return known.offset >= position.offset

    async def wait_moved(self) -> None:
        """Wait until there is another position, or `wake` is called."""
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()

    def wake(self) -> None:
        """Whoever waits is to look again."""
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    @property
    def has_arrived(self) -> bool:
        """Whether a link has confirmed the subscription before, the present one or one that is lost."""
        return self._has_arrived

    def take(self, position: Position) -> Step:
        """A message with this position has come."""
        known = self.position
        if self.is_reading or (self._has_arrived and self.is_arriving):
            self.seen = position
            return Step.SKIP
        if known is not None and known.epoch == position.epoch:
            if position.offset <= known.offset:
                return Step.SKIP
            if position.offset > known.offset + 1:
                return Step.READ
        elif known is not None:
            return Step.READ
        self.position = position
        return Step.DELIVER

    def arrive(self, top: Position | None) -> tuple[bool, bool]:
        """A link has subscribed to the room, whose newest message is at `top`.

        Returns:
            Whether messages are missing that the history may have, and whether some are that it can't have.
        """
        known, seen = self.position, self.seen
        if not self._has_arrived:
            self._has_arrived = True
            if known is None:
                self.position = top
                return False, False
            # A message is here before the answer, for they come by two tasks: it may be a newer one; or an older one,
            # of a subscription that has just ended, and then there is more to read.
            return top is not None and top.epoch == known.epoch and top.offset > known.offset, False
        self.seen = None
        is_ahead = seen is not None and (top is None or seen.epoch != top.epoch or seen.offset > top.offset)
        if known is None and top is None:
            return is_ahead, True
        if known is None:
            assert top is not None
            self.position = Position(top.epoch, 0)
            return True, False
        if top is None or top.epoch != known.epoch:
            self.position = top
            return is_ahead, True
        return is_ahead or top.offset > known.offset, False

    @property
    def is_arriving(self) -> bool:
        """Whether the subscription is not confirmed yet, on this link."""
        return self.arrived is not None and not self.arrived.is_set()

    def covers(self, top: Position) -> bool:
        """Whether all is delivered, once the history was read up to `position`, and had its newest message at `top`."""
        known, seen = self.position, self.seen
        if known is None or known.epoch != top.epoch or known.offset < top.offset:
            return False
        return seen is None or (seen.epoch == known.epoch and seen.offset <= known.offset)

    def lost(self) -> None:
        """The link is lost."""
        self.is_sent = self.is_reading = False
        self.seen = None
        self.told = 0
        self.elsewhere = {}
        self.arrived = trio.Event()  # another one: whoever waits for the present one is woken, and told
        self.wake()
