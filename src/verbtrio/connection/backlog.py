"""What is queued for a peer that does not take everything at once. Pure.

The queue holds messages, not bytes: a message that a policy drops was never compressed, so dropping it can't upset the
compression's state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from verbtrio.base.close import MAX_CONTROL_BYTES
from verbtrio.base.limits import Limits
from verbtrio.messages.frame import Frame
from verbtrio.wire.transport import Close, Packet

CHUNK_BYTES = 64 * 1024
PACKET_BYTES = 64
"""What a queued packet costs beside its bytes: an entry in the queue and its share of an object."""


class Backlog:
    """Packets in order, from the first one that the peer did not take whole until all are written.

    Args:
        rest: what is left of the packet in front.
        limits: how much may be queued, and what happens to more.
    """

    __slots__ = ("_in_flight", "_limits", "_queue", "_rest", "queued")

    def __init__(self, rest: Packet, limits: Limits) -> None:
        self._limits = limits
        self._rest: Packet | None = rest
        self._in_flight = _size(rest)  # bytes taken out of the queue and not yet written
        self._queue: deque[Packet] = deque()  # bounded by `max_backlog_bytes`, see `add`
        self.queued = 0
        """Bytes in the queue. What is being written is not counted, so one message may be larger than the limit."""

    @property
    def size(self) -> int:
        """Bytes queued or being written."""
        return self.queued + self._in_flight

    @property
    def has_more(self) -> bool:
        """Whether there is something to write."""
        return self._rest is not None or bool(self._queue)

    @property
    def is_over(self) -> bool:
        """Whether more is queued than the limit allows, although messages were dropped, if that is the policy."""
        return self.queued > self._limits.max_backlog_bytes

    def add(self, packet: Packet) -> int:
        """Queue `packet`. Over the limit, the policy drops messages: return how many. Control frames and replies are
        never dropped, but they count: a peer that pings and never reads is too slow."""
        self._queue.append(packet)
        self.queued += _size(packet)
        if not self.is_over or self._limits.backlog_policy == "close":
            return 0
        return self._drop(from_front=self._limits.backlog_policy == "drop_oldest")

    def clear(self) -> None:
        """Throw away what is queued, but not the packet the peer has begun to take."""
        self._queue.clear()
        self.queued = 0

    def abandon(self) -> None:
        """Throw away all of it: nothing can be written any more."""
        self._rest = None
        self._in_flight = 0
        self.clear()

    def take(self, pack: Callable[[Packet], Packet]) -> tuple[list[Packet], int]:
        """The packets that go next, in order, and their size: 64 KiB of them, or a part of one that is larger.

        Args:
            pack: puts a packet on the wire's terms; called once for each, in order.
        """
        if self._rest is None:
            self._rest = self._take_packet(pack)
        if isinstance(self._rest, bytes | memoryview) and len(self._rest) > CHUNK_BYTES:
            view = memoryview(self._rest)
            self._rest = view[CHUNK_BYTES:]
            return [view[:CHUNK_BYTES]], CHUNK_BYTES  # (the packet's own cost goes with its last part)
        chunk, size = [self._rest], _size(self._rest)
        self._rest = None
        while self._queue and size + _size(self._queue[0]) <= CHUNK_BYTES:
            packet = self._take_packet(pack)
            chunk.append(packet)
            size += _size(packet)
        return chunk, size

    def written(self, size: int) -> None:
        """A chunk of that size is written."""
        self._in_flight = max(0, self._in_flight - size)

    def _take_packet(self, pack: Callable[[Packet], Packet]) -> Packet:
        packet = self._queue.popleft()
        self.queued -= _size(packet)
        packed = pack(packet)
        self._in_flight += _size(packed)
        return packed

    def _drop(self, *, from_front: bool) -> int:
        """Drop messages until the backlog is within the limit; return how many."""
        queue, dropped = self._queue, 0
        kept: list[Packet] = []
        take = queue.popleft if from_front else queue.pop
        while queue and self.is_over:
            packet = take()
            if isinstance(packet, Frame):
                self.queued -= _size(packet)
                dropped += 1
            else:
                kept.append(packet)
        kept.reverse()
        put_back = queue.extendleft if from_front else queue.extend
        put_back(kept)
        return dropped


def _size(packet: Packet) -> int:
    """What a packet counts for: its bytes, and what it costs to keep it. A million empty messages are not nothing."""
    if isinstance(packet, Frame | bytes | memoryview):
        return len(packet) + PACKET_BYTES
    return PACKET_BYTES + (MAX_CONTROL_BYTES if isinstance(packet, Close) else 2)
