"""HTTP/2 streams that end before their time: a response that is given up, an upload that already has its answer."""

from __future__ import annotations

from functools import partial
from typing import Any

import h2.errors
import h2.exceptions
import trio
from hypercorn.events import Updated
from hypercorn.protocol.h2 import H2Protocol
from priority.priority import MissingStreamError

from verbtrio.server.takeover.http2_buffers import Buffers, Streams
from verbtrio.server.takeover.http2_credit import Credit
from verbtrio.server.takeover.requests import RequestTasks

UPLOAD_SECONDS = 2.0
"""How long an upload that has its answer goes on before its stream is reset."""

_ERRORS = h2.errors.ErrorCodes


class Resets(H2Protocol):
    """hypercorn's HTTP/2, with streams that can be reset.

    Attributes:
        credit: the flow control that the client is owed.
    """

    def prepare(self) -> None:
        """Called before the connection begins."""
        self.streams: Any = Streams()
        self.stream_buffers: Any = Buffers(self.context.event_class, self._tasks.held)
        self.credit = Credit(self.connection)
        self._unfinished = set[int]()  # streams whose requests have not ended
        self._written = trio.lowlevel.ParkingLot()  # woken when a response is written whole, or never will be

    @property
    def _tasks(self) -> RequestTasks:
        """hypercorn's `task_group`, as what it is here."""
        tasks: Any = self.task_group
        requests: RequestTasks = tasks
        return requests

    def give_credit(self, stream_id: int, count: int) -> None:
        """Give flow control back to the client (see `Credit.give`). Does not wait."""
        if self.credit.give(stream_id, count):
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Write what h2 has ready, in a task of the connection's. Does not wait."""
        self.task_group.spawn(self._flush)

    async def give_up(self, stream_id: int) -> None:
        """Reset a stream in the middle of its response. Its application receives a disconnect, as from a client that
        has left. Does not wait for the client, and does the same in a cancelled scope."""
        await self._reset(stream_id)
        await self._close_stream(stream_id)
        await self.send(Updated(idle=self.idle))

    async def _reset(self, stream_id: int) -> None:
        if await self._drop(stream_id):
            self._reset_stream(stream_id, _ERRORS.INTERNAL_ERROR)
            self._flush_soon()

    async def _drop(self, stream_id: int) -> bool:
        """Drop what a stream has still to send. Returns whether it was open."""
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is None:
            return False
        await buffer.close()
        try:
            self.priority.remove_stream(stream_id)
        except MissingStreamError:
            pass
        self._written.unpark_all()
        return True

    def _limit_upload(self, stream_id: int) -> None:
        """A response is complete. The rest of its request is of no use (RFC 9113 section 8.1). It is read and thrown
        away for a while: RST_STREAM at once would cost half of curl's uploads, and all of httpx's, their answer."""
        if stream_id in self._unfinished:
            self._tasks.timers.at(trio.current_time() + UPLOAD_SECONDS, partial(self._cut_off, stream_id))

    def _cut_off(self, stream_id: int, now: float, due: float) -> None:
        """Called by the timers."""
        if stream_id in self._unfinished and not self.closed:
            self._reset_stream(stream_id, _ERRORS.NO_ERROR)
            self._flush_soon()

    def _reset_stream(self, stream_id: int, error: h2.errors.ErrorCodes) -> None:
        self._request_ended(stream_id)
        try:
            self.connection.reset_stream(stream_id, error)
        except h2.exceptions.ProtocolError:
            pass  # it has ended, or the client has reset it

    def _request_ended(self, stream_id: int) -> None:
        """Nothing more comes in the stream."""
        self._unfinished.discard(stream_id)
        self.credit.forget(stream_id)
