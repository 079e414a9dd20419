"""What the take-over keeps for each stream of an HTTP/2 connection, in the place of hypercorn's own."""

from __future__ import annotations

from typing import Any

from hypercorn.protocol.h2 import BUFFER_LOW_WATER, StreamBuffer


class Streams(dict[int, Any]):
    """A connection's streams; what is addressed to one that has ended goes nowhere, where hypercorn raises."""

    def __missing__(self, stream_id: int) -> Any:
        return _GONE


class Buffer(StreamBuffer):
    """What a response has still to send. hypercorn 0.18 lets it grow whenever little is taken out, and so whenever the
    client's flow control lets little or nothing through: then it would hold all that a handler can make.

    Attributes:
        taken: bytes of it that have been taken out.
    """

    taken = 0

    @property
    def is_ended(self) -> bool:
        """Nothing more will be put in."""
        return self._complete

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

    def __init__(self, event_class: Any) -> None:
        super().__init__()
        self._event_class = event_class

    def __setitem__(self, stream_id: int, buffer: StreamBuffer) -> None:
        super().__setitem__(stream_id, Buffer(self._event_class))


class _Gone:
    async def handle(self, event: Any) -> None:
        """Ignore what comes late."""


_GONE = _Gone()
