"""What the responses of an HTTP/2 connection have ready for their client, in the place of hypercorn's buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, StreamBuffer

HELD_BYTES = 32 * 1024 * 1024
"""Bytes of a connection's responses that may wait for its client before further requests have to wait. A client whose
window is 0 would otherwise hold a hundred whole responses: at 20 MB each, 2 GB."""
EXPECTED_BYTES = 8 * 1024 * 1024
"""The most that an announced length counts for: the body need not come as one piece."""
HELD_SECONDS = 10.0
"""How long a request waits for room. Then it is begun all the same, one at a time: a paused response must not hold up
the others of its connection for good."""


class Held:
    """The bytes of a connection's responses that wait for the client."""

    def __init__(self) -> None:
        self._bytes = 0
        self._turn = trio.Lock()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def is_full(self) -> bool:
        return self._bytes >= HELD_BYTES

    def add(self, count: int) -> None:
        """`count` more bytes wait; fewer, if it is negative."""
        self._bytes += count
        if count < 0 and not self.is_full:
            self._room.unpark()

    async def wait_for_room(self, is_over: Callable[[], bool]) -> None:
        """Wait until a request may be begun, or `is_over()`. One at a time: each may take all the room."""
        async with self._turn:
            with trio.move_on_after(HELD_SECONDS):
                while self.is_full and not is_over():
                    await self._room.park()


class Streams(dict[int, Any]):
    """A connection's streams. An event for a stream that has ended is ignored, where hypercorn raises `KeyError`."""

    def __missing__(self, stream_id: int) -> Any:
        return _GONE


class Buffer(StreamBuffer):
    """What a response has still to send.

    hypercorn 0.18 takes whatever it is given. It asks for more whenever little is taken out, and so whenever the
    client's flow control lets little or nothing through.

    Attributes:
        taken: bytes of it that have been taken out.
    """

    taken = 0

    def __init__(self, event_class: Any, held: Held) -> None:
        super().__init__(event_class)
        self._held = held
        self._expected = 0

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will be put in."""
        return self._complete

    def expect(self, count: int) -> None:
        """A body of `count` bytes is announced. It counts as held until its first part comes: between a response's head
        and its body, other requests would be begun."""
        count = min(count, EXPECTED_BYTES)
        self._held.add(count - self._expected)
        self._expected = count

    def set_complete(self) -> None:
        self.expect(0)
        super().set_complete()

    async def close(self) -> None:
        self.expect(0)
        await super().close()

    async def push(self, data: bytes) -> None:
        """Take `data`, a piece at a time. If cancelled, a part of it may have been taken: the response can't go on."""
        self.expect(0)
        left = len(data)
        self._held.add(left)
        try:
            view = memoryview(data)
            while True:
                piece = bytes(view[len(data) - left :][:BUFFER_HIGH_WATER])
                await super().push(piece)
                self._held.add(-len(piece))
                left -= len(piece)
                if not left:
                    break
        finally:
            self._held.add(-left)

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[: len(data)]
        self.taken += len(data)
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Buffers(dict[int, Buffer]):
    """A connection's buffers: ours, in the place of hypercorn's."""

    def __init__(self, event_class: Any, held: Held) -> None:
        super().__init__()
        self._event_class = event_class
        self._held = held

    def __setitem__(self, stream_id: int, buffer: StreamBuffer) -> None:
        super().__setitem__(stream_id, Buffer(self._event_class, self._held))


class _Gone:
    async def handle(self, event: Any) -> None:
        """Ignore an event that comes late."""


_GONE = _Gone()
