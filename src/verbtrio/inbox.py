"""Messages received and not yet taken by the handler: a bounded queue between the reader and the handler."""

from __future__ import annotations

from collections import deque

import trio


class Inbox:
    """One reader puts, one handler gets.

    The bound is kept by the reader: it doesn't read from the peer while the inbox is full, so the peer's own
    sends slow down (TCP's flow control). After `close` what is left can still be taken.

    Args:
        max_messages: full at this many messages.
        max_bytes: full at this many bytes (for text: characters).
    """

    __slots__ = ("_bytes", "_closed", "_got", "_max_bytes", "_max_messages", "_put", "_queue")

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._queue: deque[str | bytes] = deque()  # bounded by `is_full`, see above
        self._bytes = 0
        self._closed = False
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._put = trio.lowlevel.ParkingLot()
        self._got = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        return len(self._queue) >= self._max_messages or self._bytes >= self._max_bytes

    def put_nowait(self, message: str | bytes) -> None:
        """Add a message; thrown away once the inbox is closed."""
        if not self._closed:
            self._queue.append(message)
            self._bytes += len(message)
            self._put.unpark()

    async def wait_room(self) -> None:
        """Wait until the inbox is not full, or closed. A checkpoint only if it has to wait."""
        while self.is_full and not self._closed:
            await self._got.park()

    async def get(self) -> str | bytes | None:
        """Wait for a message; `None` once the inbox is closed and empty. If cancelled, no message is lost."""
        if self._queue or self._closed:
            await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                return None
            await self._put.park()
        message = self._queue.popleft()
        self._bytes -= len(message)
        if not self.is_full:
            self._got.unpark_all()
        return message

    def close(self) -> None:
        """No more messages. Wakes whoever waits; may be called twice."""
        self._closed = True
        self._put.unpark_all()
        self._got.unpark_all()
