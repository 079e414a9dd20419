"""Stands in a room for a member that can't be told yet what is said there: it waits here, within the backlog limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

import trio

from verbtrio.base.close import POLICY_VIOLATION, Cause, CloseInfo
from verbtrio.base.limits import Limits
from verbtrio.base.position import Position
from verbtrio.base.types import Data
from verbtrio.messages.frame import Frame
from verbtrio.messages.published import Published
from verbtrio.messages.waiting import PACKET_BYTES, Waiting
from verbtrio.rooms.member import Outlet, Peer


class StandIn:
    """A room's `Peer`, until `hand_over`; then `Rooms.replace` has to put the member's own in its place.

    Args:
        peer: the member's.

    Attributes:
        has_gap: messages of the room were lost meanwhile, although it has a history.
    """

    def __init__(self, peer: Peer) -> None:
        self.held: list[Frame] = []
        self.has_gap = False
        self._peer = peer
        self._waiting: Waiting[Frame] = Waiting(peer.limits, size_of)
        self._is_published_to = False  # a message with a position has come

    def hand_over(self, after: Position | None) -> None:
        """Hand the peer what has waited, without what was published up to `after`. That may be too much for it, which
        ends then."""
        self.flush()
        if not self._waiting:
            return
        now = trio.current_time()
        while self._waiting:
            frame, late = self._waiting.take(math.inf, now)
            self._peer.drop(late)
            if frame is not None and not (isinstance(frame, Published) and _has(after, frame.position)):
                self._peer.outlet.held.append(frame)
        self._peer.outlet.flush()

    # What rooms do with a peer

    @property
    def outlet(self) -> Outlet:
        """Itself: what is broadcast waits."""
        return self

    def flush(self) -> None:
        """Keep what is held; beyond the backlog limit, `backlog_policy` decides."""
        frames = self.held.copy()
        self.held.clear()
        for frame in frames:
            self._is_published_to |= isinstance(frame, Published)
            self._peer.drop(self._waiting.add(frame))
        if self._waiting.is_over and self._peer.closed is None:
            self._waiting.clear()
            reason = f"Too slow: over {self._peer.limits.max_backlog_bytes} bytes behind"
            self._peer.end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, reason))

    @property
    def limits(self) -> Limits:
        return self._peer.limits

    @property
    def closed(self) -> CloseInfo | None:
        return self._peer.closed

    @property
    def dropped(self) -> int:
        return self._peer.dropped

    def drop(self, messages: int) -> None:
        self._peer.drop(messages)

    def encode(self, data: Data) -> Frame:
        return self._peer.encode(data)

    def put(self, frame: Frame) -> object:
        return self._peer.put(frame)

    @property
    def queued(self) -> int:
        return self._peer.queued

    async def wait_below(self, size: int) -> None:
        await self._peer.wait_below(size)

    def close(self, code: int, reason: str) -> None:
        self._peer.close(code, reason)

    def end(self, info: CloseInfo) -> object:
        return self._peer.end(info)

    def gap_in(self, key: Hashable) -> bool:
        """Nothing is known to the member yet: who takes over asks `has_gap`."""
        self.has_gap = True
        return False

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        return self._peer.dismiss(key, info)


def size_of(frame: Frame) -> int:
    """What a message counts for that waits."""
    return len(frame) + PACKET_BYTES


def _has(mine: Position | None, position: Position) -> bool:
    return mine is not None and mine.epoch == position.epoch and position.offset <= mine.offset
