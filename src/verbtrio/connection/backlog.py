"""What is queued for a peer that does not take everything at once. Pure.

The queue holds messages, not bytes: a message that a policy drops was never compressed, so dropping it can't upset the
compression's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from verbtrio.base.close import MAX_CONTROL_BYTES
from verbtrio.base.limits import Limits
from verbtrio.messages.frame import Frame
from verbtrio.messages.waiting import PACKET_BYTES, Waiting
from verbtrio.wire.transport import Close, Packet

CHUNK_BYTES = 64 * 1024


class Backlog:
    """Packets in order, from the first one that the peer did not take whole until all are written.

    Args:
        rest: what is left of the packet in front.
        limits: how much may be queued, and what happens to more.
    """

    __slots__ = ("_in_flight", "_rest", "_waiting")

    def __init__(self, rest: Packet, limits: Limits) -> None:
        self._rest: Packet | None = rest
        self._in_flight = _size(rest)  # bytes taken out of the queue and not yet written
        self._waiting: Waiting[Packet] = Waiting(limits, _size)

    @property
    def queued(self) -> int:
        """Bytes in the queue. What is being written is not counted, so one message may be larger than the limit."""
        return self._waiting.bytes

    @property
    def size(self) -> int:
        """Bytes queued or being written."""
        return self._waiting.bytes + self._in_flight

    @property
    def has_more(self) -> bool:
        """Whether there is something to write."""
        return self._rest is not None or bool(self._waiting)

    @property
    def is_over(self) -> bool:
        """Whether more is queued than the limit allows, although messages were dropped, if that is the policy."""
        return self._waiting.is_over

    def add(self, packet: Packet) -> int:
        """Queue `packet`; return how many messages the policy has dropped for it. Control frames and replies are never
        dropped, but they count: a peer that pings and never reads is too slow."""
        return self._waiting.add(packet)

    def clear(self) -> None:
        """Throw away what is queued, but not the packet the peer has begun to take."""
        self._waiting.clear()

    def abandon(self) -> None:
        """Throw away all of it: nothing can be written any more."""
        self._rest = None
        self._in_flight = 0
        self.clear()

    def take(self, pack: Callable[[Packet], Packet], now: float) -> tuple[list[Packet], int, int]:
        """The packets that go next, in order, and their size: 64 KiB of them, or a part of one that is larger. And how
        many messages were dropped because their time was over by `now`; if nothing else was left, there are no packets.

        Args:
            pack: puts a packet on the wire's terms; called once for each, in order.
        """
        first, dropped = self._rest, 0
        if first is None:
            first, dropped = self._take_packet(pack, math.inf, now)
            if first is None:
                return [], 0, dropped
        if isinstance(first, bytes | memoryview) and len(first) > CHUNK_BYTES:
            view = memoryview(first)
            self._rest = view[CHUNK_BYTES:]
            return [view[:CHUNK_BYTES]], CHUNK_BYTES, dropped  # (the packet's own cost goes with its last part)
        chunk, size = [first], _size(first)
        self._rest = None
        while self._waiting:
            packet, late = self._take_packet(pack, CHUNK_BYTES - size, now)
            dropped += late
            if packet is None:
                break
            chunk.append(packet)
            size += _size(packet)
        return chunk, size, dropped

    def written(self, size: int) -> None:
        """A chunk of that size is written."""
        self._in_flight = max(0, self._in_flight - size)

    def _take_packet(self, pack: Callable[[Packet], Packet], at_most: float, now: float) -> tuple[Packet | None, int]:
        packet, late = self._waiting.take(at_most, now)
        if packet is None:
            return None, late
        packed = pack(packet)
        self._in_flight += _size(packed)
        return packed, late


def _size(packet: Packet) -> int:
    """What a packet counts for: its bytes, and what it costs to keep it. A million empty messages are not nothing."""
    if isinstance(packet, Frame | bytes | memoryview):
        return len(packet) + PACKET_BYTES
    return PACKET_BYTES + (MAX_CONTROL_BYTES if isinstance(packet, Close) else 2)
