"""The histories of rooms, in memory, within a number of bytes in all. Pure: time is a parameter."""

from __future__ import annotations

import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from verbtrio.base.position import Position
from verbtrio.brokers.records import History, Page, Publication
from verbtrio.messages.frame import Frame

MESSAGE_BYTES = 200
"""What a remembered message costs beside its bytes, at most."""
ROOM_BYTES = 1500
"""What a room's history costs beside its messages, at most."""
EMPTY_TRIES = 16
"""How many histories without a message are looked at for each call that comes while the limit is reached."""


class _Stream:
    """One room's history."""

    __slots__ = ("bytes", "due", "epoch", "evicted", "frames", "room", "top", "ttl")

    def __init__(self, room: str, epoch: str) -> None:
        self.room = room
        self.epoch = epoch
        self.top = 0  # the newest message's offset
        self.frames: deque[Frame] = deque()  # those that are remembered: without holes up to `top`
        self.bytes = 0  # what they cost
        self.evicted = 0  # how many of its entries in the common order are stale
        self.ttl = 0.0
        self.due = 0.0  # when all is forgotten

    @property
    def oldest(self) -> Position | None:
        return Position(self.epoch, self.top - len(self.frames) + 1) if self.frames else None


class Histories:
    """The histories of all rooms.

    Args:
        max_bytes: of all of them together. Beyond it the oldest messages of all go first.
        is_occupied: whether a room has members. Its epoch and offset are kept while it has: its members have positions.
        dropped: is called for a room of which nothing is known any more.
    """

    def __init__(
        self,
        max_bytes: int,
        is_occupied: Callable[[str], bool] = lambda room: False,
        dropped: Callable[[str], object] = lambda room: None,
    ) -> None:
        self._max_bytes = max_bytes
        self._is_occupied = is_occupied
        self._dropped = dropped
        self._streams: dict[str, _Stream] = {}
        self._order: deque[_Stream] = deque()  # one entry a message, in the order of all; some are stale
        self._stale = 0
        self._empty: dict[str, None] = {}  # rooms whose history has no message, by age
        self.bytes = 0
        """What they cost now."""

    def __len__(self) -> int:
        return len(self._streams)

    def append(self, room: str, frame: Frame, history: History, now: float) -> Position:
        """Remember `frame`; return its position. One that alone costs more than the limit is forgotten at once."""
        stream = self._stream(room, history, now)
        cost = _cost(frame)
        stream.top += 1
        stream.frames.append(frame)
        stream.bytes += cost
        self.bytes += cost
        self._order.append(stream)
        self._empty.pop(room, None)
        while len(stream.frames) > history.size:
            self._forget(stream)
        self._relieve(room)
        return Position(stream.epoch, stream.top)

    def page(
        self, room: str, history: History, now: float, *, since: Position | None, limit: int | None, reverse: bool
    ) -> Page:
        """See `Session.history`."""
        stream = self._streams.get(room)
        if stream is None or stream.due <= now:
            stream = self._stream(room, history, now)
        self._relieve(room)
        kept = len(stream.frames)
        before_oldest = stream.top - kept
        first, last = before_oldest + 1, stream.top  # the offsets that are wanted
        is_complete = True
        if since is not None and since.epoch != stream.epoch:
            is_complete = False
        elif since is not None and reverse:
            last = min(last, since.offset - 1)
        elif since is not None:
            is_complete = before_oldest <= since.offset <= stream.top
            first = max(first, since.offset + 1)
        count = max(0, last - first + 1)
        if limit is not None:
            count = min(count, limit)
        if reverse:
            first = last - count + 1
        frames = _slice(stream.frames, first - before_oldest - 1, count)
        messages = [Publication(Position(stream.epoch, offset), frame) for offset, frame in enumerate(frames, first)]
        if reverse:
            messages.reverse()
        return Page(tuple(messages), Position(stream.epoch, stream.top), stream.oldest, is_complete)

    def expire(self, room: str, now: float) -> float | None:
        """Forget the room's messages if they are due. Returns when to ask again; `None` once there is no more of it."""
        stream = self._streams.get(room)
        if stream is None:
            return None
        if stream.due > now:
            return stream.due
        self._forget_all(stream)
        if self._is_occupied(room):
            stream.due = now + stream.ttl
            return stream.due
        self._drop(room)
        return None

    def due(self, room: str) -> float | None:
        """When `expire` has something to do."""
        stream = self._streams.get(room)
        return None if stream is None else stream.due

    def _stream(self, room: str, history: History, now: float) -> _Stream:
        stream = self._streams.get(room)
        if stream is None:
            stream = self._streams[room] = _Stream(room, secrets.token_hex(6))
            self._empty[room] = None
            self.bytes += _room_cost(room)
        elif stream.due <= now:  # not yet expired only because its timer is late
            self._forget_all(stream)
        stream.ttl = history.ttl
        stream.due = now + history.ttl
        return stream

    def _forget(self, stream: _Stream) -> None:
        """Forget the stream's oldest message, out of turn."""
        self._pop(stream)
        self._leave_stale(stream, 1)

    def _forget_all(self, stream: _Stream) -> None:
        """Forget the stream's messages, out of turn: there may be very many."""
        count = len(stream.frames)
        stream.frames.clear()
        self.bytes -= stream.bytes
        stream.bytes = 0
        self._empty[stream.room] = None
        self._leave_stale(stream, count)

    def _leave_stale(self, stream: _Stream, count: int) -> None:
        """The stream's first entries in the common order stand for nothing any more."""
        stream.evicted += count
        self._stale += count
        if self._stale > max(64, len(self._order) // 2):  # a constant cost a message
            self._compact()

    def _relieve(self, asked: str) -> None:
        """Get within the limit: first by histories without a message, of rooms without members (there may be many of
        them: somebody has asked), but for the one that has been asked for now; then by the oldest messages."""
        if self.bytes <= self._max_bytes:
            return
        for _ in range(min(len(self._empty), EMPTY_TRIES)):
            room = next(iter(self._empty))
            if room == asked or self._is_occupied(room):
                del self._empty[room]
                self._empty[room] = None  # its turn comes again
            else:
                self._drop(room)
                if self.bytes <= self._max_bytes:
                    return
        while self.bytes > self._max_bytes and len(self._order) > self._stale:
            self._forget_oldest(asked)

    def _drop(self, room: str) -> None:
        """Forget that the room ever had a history. The next one has another epoch."""
        del self._streams[room]
        del self._empty[room]
        self.bytes -= _room_cost(room)
        self._dropped(room)

    def _forget_oldest(self, asked: str) -> None:
        """Forget the oldest message of all, and its room's history with it if it was the last there."""
        while True:
            stream = self._order.popleft()
            if not stream.evicted:
                break
            stream.evicted -= 1
            self._stale -= 1
        self._pop(stream)
        if not stream.frames and stream.room != asked and not self._is_occupied(stream.room):
            self._drop(stream.room)

    def _pop(self, stream: _Stream) -> None:
        cost = _cost(stream.frames.popleft())
        stream.bytes -= cost
        self.bytes -= cost
        if not stream.frames:
            self._empty[stream.room] = None

    def _compact(self) -> None:
        """Drop the stale entries: of each stream the first ones."""
        kept: deque[_Stream] = deque()
        for stream in self._order:
            if stream.evicted:
                stream.evicted -= 1
            else:
                kept.append(stream)
        self._order = kept
        self._stale = 0


def _slice(frames: deque[Frame], start: int, count: int) -> Iterable[Frame]:
    """`count` of them from `start`, reached from the nearer end: who resumes wants a few of the newest."""
    if not count:
        return ()
    end = len(frames) - start - count
    if start <= end:
        return islice(frames, start, start + count)
    return reversed(list(islice(reversed(frames), end, end + count)))


def _cost(frame: Frame) -> int:
    return len(frame) + MESSAGE_BYTES


def _room_cost(room: str) -> int:
    return ROOM_BYTES + sys.getsizeof(room)
