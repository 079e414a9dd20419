"""A member that is being told what it has missed. Until that is done, what is said in the room meanwhile waits here."""

from __future__ import annotations

from typing import Protocol

import trio

from verbtrio.base.counters import Counters
from verbtrio.base.errors import HistoryGap
from verbtrio.base.position import Position
from verbtrio.brokers.base import Session
from verbtrio.brokers.records import History
from verbtrio.messages.published import Published
from verbtrio.rooms.member import Peer
from verbtrio.rooms.stand_in import StandIn, size_of

REPLAY_MESSAGES = 64
"""How many missed messages are read at once."""


class Resuming(Protocol):
    """A member that goes on after a gap, and wants to know where it is."""

    def begins(self, position: Position) -> None:
        """It is at this position: what was published before is not for it."""

    def missed(self, gap: HistoryGap) -> None:
        """It has missed what the history does not have any more, and goes on from `gap.last`."""


class CatchUp(StandIn):
    """Stands in a room for a member's peer, until the member has been sent what it has missed.

    Args:
        peer: the member's.
        channel: the room, for the broker.
        settings: of the room's history.
        since: the position of the last message that the client has; `None` for one that is not a position.
        resuming: told where it is; `None` for a member that can't be in the room after a gap.
        counters: the app's: resumes and gaps are counted there.
        begins: it has missed nothing: it has not been there before.
    """

    def __init__(
        self,
        peer: Peer,
        channel: str,
        settings: History,
        since: Position | None,
        resuming: Resuming | None,
        counters: Counters,
        *,
        begins: bool,
    ) -> None:
        super().__init__(peer)
        self._position = since
        self._channel = channel
        self._settings = settings
        self._resuming = resuming
        self._counters = counters
        self._begins = begins

    async def replay(self, session: Session) -> None:
        """Send the peer what it has missed. No checkpoint is between the last reading of the history and the return:
        `finish` goes on from there.

        If cancelled, a part has been sent.

        Raises:
            HistoryGap: the history does not reach back to the position, or no longer did during the replay.
            ConnectionClosed: the connection has ended.
        """
        await session.wait_subscribed(self._channel)
        if self._begins:
            page = await session.history(self._channel, self._settings, since=None, limit=0, reverse=False)
            self.flush()
            if self._resuming is not None and not self._is_published_to:
                self._resuming.begins(page.position)
            return
        while True:
            page = await session.history(
                self._channel, self._settings, since=self._position, limit=REPLAY_MESSAGES, reverse=False
            )
            await trio.lowlevel.checkpoint_if_cancelled()  # it may have left since the page has come
            if not page.is_complete or self._position is None:
                self._position = page.position
                self._counters.resumes += 1
                self._counters.history_gaps += 1
                gap = HistoryGap(self._channel, page.oldest, page.position)
                if self._resuming is None:
                    raise gap
                self._resuming.missed(gap)
                return
            has_waited = False
            for message in page.messages:
                frame = Published(message.frame, message.position, self._settings.stamp)
                has_waited |= await self._wait_for_room(size_of(frame))
                self._peer.put(frame)
                self._position = message.position
            if self._position.offset >= page.position.offset and not has_waited:
                self._counters.resumes += 1
                return  # else more may have been published, and is read again, without duplicates

    async def _wait_for_room(self, size: int) -> bool:
        """Wait, if the client has so much to read that it would be too slow with `size` bytes more. Returns whether
        this was a checkpoint."""
        limits, queued = self._peer.limits, self._peer.queued
        if not queued or queued + size <= limits.high_water_bytes:
            return False
        await self._peer.wait_below(max(0, limits.high_water_bytes - size))
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have left since there is room
        return True

    def finish(self) -> None:
        """Hand the peer what has waited, without what it has been sent already. See `StandIn.hand_over`."""
        self.hand_over(self._position)
