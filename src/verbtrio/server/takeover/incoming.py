"""What the application of one HTTP request receives: its body, within a limit and a time, and the disconnect."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

BODY_BYTES = 64 * 1024
"""The part of a request's body that may wait for its application. Beyond it, the client is not read over HTTP/1.1.
(Over HTTP/2 the stream's window is as large.)"""
PROGRESS_BYTES = 4 * 1024
"""The progress of a body that counts. A client that sends a byte now and then would otherwise keep its request for
ever. At this much in `http_receive_timeout` it needs a line of 70 bytes a second."""


class Incoming:
    """One request's body and its disconnect, on the way to the application.

    hypercorn 0.18 puts the parts into a queue of ten, and waits for room in it where it reads the connection. A handler
    that does not read would hold up everything on its connection, the disconnect included.

    Args:
        timeout: seconds that the application waits for `PROGRESS_BYTES` of a body, or for its end.
        taken: called with the number of bytes that the application has taken.
        give_up: called, by the application's task, when the body has not come in time.

    Attributes:
        is_over: `end` has been called.
    """

    def __init__(self, timeout: float, taken: Callable[[int], None], give_up: Callable[[], Awaitable[None]]) -> None:
        self._timeout = timeout
        self._taken = taken
        self._give_up = give_up
        self.is_over = False
        self._body = bytearray()
        self._received = 0
        self._waited = 0.0  # seconds, since the last progress
        self._is_complete = False
        self._is_given = False
        self._has_hung_up = False
        self._was_told = False
        self._changed = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def put(self, data: bytes, *, more: bool) -> None:
        """A part of the body has come."""
        if self.is_over:
            return  # nobody wants the rest
        self._body += data
        self._received += len(data)
        self._is_complete = not more
        self._changed.unpark_all()

    def hang_up(self) -> None:
        """The client sends nothing more. What it sent before is received first."""
        self._has_hung_up = True
        self._changed.unpark_all()

    def end(self) -> None:
        """The client has left, or has its answer: nobody waits for one any more."""
        self.is_over = True
        self._changed.unpark_all()
        self._room.unpark_all()

    async def wait_for_room(self) -> None:
        """Wait until the application has taken some of the body, or nobody wants the rest."""
        while len(self._body) >= BODY_BYTES and not self.is_over:
            await self._room.park()

    async def receive(self) -> Any:
        """ASGI's receive. If cancelled, nothing is lost.

        What is there is returned even in a cancelled scope: Starlette's `is_disconnected` asks in one, and a checkpoint
        would keep it from looking. A loop that goes on asking after the end can be cancelled.
        """
        while not (self._has_part or self._has_left):
            await self._wait()
        if self._has_part:
            data = bytes(self._body)
            self._body.clear()
            self._is_given = self._is_complete
            self._taken(len(data))
            self._room.unpark_all()
            message: Any = {"type": "http.request", "body": data, "more_body": not self._is_complete}
        else:
            if self._was_told:
                await trio.lowlevel.checkpoint_if_cancelled()
            self._was_told, message = True, {"type": "http.disconnect"}
        await trio.lowlevel.cancel_shielded_checkpoint()
        return message

    @property
    def _has_part(self) -> bool:
        return bool(self._body) or (self._is_complete and not self._is_given)

    @property
    def _has_left(self) -> bool:
        return self.is_over or (self._has_hung_up and self._is_given)

    async def _wait(self) -> None:
        """Wait for a change, within what is left of the time for a body."""
        limit = math.inf if self._is_complete else self._timeout - self._waited
        begin, steps = trio.current_time(), self._received // PROGRESS_BYTES
        try:
            with trio.move_on_after(limit) as scope:
                await self._changed.park()
        finally:
            progressed = self._received // PROGRESS_BYTES > steps
            self._waited = 0.0 if progressed else self._waited + trio.current_time() - begin
        if scope.cancelled_caught and not self._has_part and not self._has_left:
            self.end()
            await self._give_up()
