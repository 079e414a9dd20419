"""What waits for a peer that reads too slowly, and what gives way once that is too much. Pure: time is a parameter.

One queue for both kinds of peers, WebSockets and event subscribers, so a policy means the same for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from verbtrio.base.limits import Limits
from verbtrio.messages.frame import Frame, Key, ReplyFrame, TransientFrame

PACKET_BYTES = 64
"""What a packet that waits costs beside its bytes: an entry in the queue and its share of an object."""

PacketT = TypeVar("PacketT")


class Waiting(Generic[PacketT]):
    """Packets in the order in which they go out. Only messages (`Frame`, but no `ReplyFrame`) are ever dropped.

    An empty one takes 800 bytes, and more after it was full: keep one only while something waits in it.

    Args:
        limits: how many bytes may wait, and what happens to more.
        size: what a packet counts for, in bytes.
        exempt: so many packets may wait whatever their size.
    """

    __slots__ = ("_entries", "_exempt", "_limits", "_newest", "_size", "bytes")

    def __init__(self, limits: Limits, size: Callable[[PacketT | Frame], int], *, exempt: int = 0) -> None:
        self._limits = limits
        self._size = size
        self._exempt = exempt
        self._entries: deque[PacketT | Key] = deque()  # bounded by `max_backlog_bytes`; a key stands for its message
        self._newest: dict[Key, Frame] = {}  # of each key in `_entries`, which is there once
        self.bytes = 0
        """What all of it counts for."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_over(self) -> bool:
        """Whether more waits than the limit allows, although messages were dropped, if that is the policy."""
        return self.bytes > self._limits.max_backlog_bytes and len(self._entries) > self._exempt

    def add(self, packet: PacketT) -> int:
        """Add `packet`; return how many messages the policy has dropped for it.

        Under "latest", a message with a key takes the turn of the one with the same key that waits. (At the end of the
        queue, one that changes faster than the peer reads would never have its turn.)
        """
        policy = self._limits.backlog_policy
        self.bytes += self._size(packet)
        if policy == "latest" and isinstance(packet, TransientFrame) and packet.key is not None:
            older = self._newest.get(packet.key)
            self._newest[packet.key] = packet
            if older is not None:
                self.bytes -= self._size(older)
                return 1
            self._entries.append(packet.key)
        else:
            self._entries.append(packet)
        if policy in ("close", "latest") or not self.is_over:
            return 0
        return self._drop(from_front=policy == "drop_oldest")

    def take(self, at_most: float, now: float) -> tuple[PacketT | Frame | None, int]:
        """Take the packet in front, if it counts for `at_most` bytes (else `None`), and say how many messages before it
        were dropped because their time was over."""
        late = 0
        while self._entries:
            packet = self._message_of(self._entries[0])
            if isinstance(packet, TransientFrame) and packet.expires <= now:
                self._remove_front()
                late += 1
            elif self._size(packet) > at_most:
                break
            else:
                return self._remove_front(), late
        return None, late

    def clear(self) -> None:
        """Throw away all of it."""
        self._entries.clear()
        self._newest.clear()
        self.bytes = 0

    def _message_of(self, entry: PacketT | Key) -> PacketT | Frame:
        return self._newest[entry] if isinstance(entry, tuple) else entry

    def _remove_front(self) -> PacketT | Frame:
        entry = self._entries.popleft()
        packet = self._newest.pop(entry) if isinstance(entry, tuple) else entry
        self.bytes -= self._size(packet)
        return packet

    def _drop(self, *, from_front: bool) -> int:
        """Drop messages until what waits is within the limit; return how many. (No key is among the entries: a policy
        that drops replaces nothing.)"""
        entries, dropped = self._entries, 0
        kept: list[PacketT | Key] = []
        take = entries.popleft if from_front else entries.pop
        while self.is_over:
            entry = take()
            if isinstance(entry, Frame) and not isinstance(entry, ReplyFrame):
                self.bytes -= self._size(entry)
                dropped += 1
            else:
                kept.append(entry)
        kept.reverse()
        put_back = entries.extendleft if from_front else entries.extend
        put_back(kept)
        return dropped
