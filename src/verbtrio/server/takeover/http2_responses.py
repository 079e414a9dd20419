"""The take-over's half for HTTP/2, as far as it goes out: responses, within their clients' windows and patience."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import h2.errors
import h2.exceptions
import trio
from hypercorn.events import RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hyperframe.frame import GoAwayFrame
from priority.priority import MissingStreamError

from verbtrio.http.link import Link, link_of
from verbtrio.server.takeover.http2_buffers import Buffers, Streams
from verbtrio.server.takeover.http2_frames import PER_SENT_FRAME, Frames
from verbtrio.server.takeover.stalled import patience

UPLOAD_SECONDS = 2.0
"""How long an upload that has its answer goes on before its stream is reset."""

CONNECTION_HEADERS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""What HTTP/2 has no place for (RFC 9113 section 8.2.2): h2 would send no response that has one of them."""

logger = logging.getLogger("verbtrio.hypercorn")

_ERRORS = h2.errors.ErrorCodes


class Responses(H2Protocol):
    """hypercorn's HTTP/2, with responses that end as they should."""

    _said_goodbye = False

    def prepare(self) -> None:
        """Called before the connection begins."""
        self.streams: Any = Streams()
        self.stream_buffers: Any = Buffers(self.context.event_class, self._tasks.held)
        self._frames = Frames()
        self._last = 0  # the last request that was begun
        self._written = trio.lowlevel.ParkingLot()  # woken when a response is written whole, or never will be
        self._unfinished = set[int]()  # streams whose requests have not ended
        self._owed = dict[int, int]()  # flow control to give back, by stream; the connection's is stream 0's

    @property
    def _tasks(self) -> Any:
        """The connection's `RequestTasks`."""
        return self.task_group

    async def _say_goodbye(self, stream_id: int) -> None:
        """GOAWAY with the last request that the connection may have (`keep_alive_max_requests`).

        hypercorn 0.18 begins all that came in one read; and h2 lets no answer be sent after a GOAWAY of its own.
        """
        self._said_goodbye = True
        await self.send(RawData(self.connection.data_to_send() + GoAwayFrame(0, last_stream_id=stream_id).serialize()))

    def _finish(self, stream_id: int) -> None:
        """A response is complete. The rest of its request is of no use (RFC 9113 section 8.1), and is read and thrown
        away for a while: at once, RST_STREAM would cost half of curl's uploads, and all of httpx's, their answer."""
        if stream_id in self._unfinished:
            self._tasks.timers.at(trio.current_time() + UPLOAD_SECONDS, partial(self._cut_off, stream_id))

    def _cut_off(self, stream_id: int, now: float, due: float) -> None:
        """Called by the timers."""
        if stream_id in self._unfinished and not self.closed:
            self._reset_stream(stream_id, _ERRORS.NO_ERROR)
            self.task_group.spawn(self._flush)

    def _reset_stream(self, stream_id: int, error: h2.errors.ErrorCodes) -> None:
        self._unfinished.discard(stream_id)
        self._owed.pop(stream_id, None)
        try:
            self.connection.reset_stream(stream_id, error)
        except h2.exceptions.ProtocolError:
            pass  # the client has reset it

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        before = 0 if buffer is None else buffer.taken
        try:
            await super()._send_data(stream_id)
        except (KeyError, MissingStreamError):
            return  # it was dropped while a part of it was written
        if buffer is not None and buffer.taken > before:
            self._frames.forgive(PER_SENT_FRAME)
        if stream_id not in self.stream_buffers:
            self._finish(stream_id)
            self._written.unpark_all()

    async def stream_send(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if isinstance(event, Response):
            fields = [field for field in event.headers if field[0].lower() not in CONNECTION_HEADERS]
            event = Response(stream_id=event.stream_id, headers=fields, status_code=event.status_code)
            length = dict(fields).get(b"content-length", b"")
            if event.stream_id in self.stream_buffers and length.isdigit():
                self.stream_buffers[event.stream_id].expect(int(length))
        elif isinstance(event, Body | EndBody) and isinstance(stream, HTTPStream):
            scope: Any = stream.scope
            await self._send_body(event, link_of(scope))
            return
        elif isinstance(event, StreamClosed):
            # hypercorn 0.18 leaves the client of a response that has ended before its end waiting for more.
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer.is_ended:
                await self._reset(event.stream_id)
            if self.context.terminated.is_set():
                await self._close_last(event.stream_id)
                return
        await super().stream_send(event)

    async def _close_last(self, stream_id: int) -> None:
        """A response is over, and the server shuts down. hypercorn 0.18 says goodbye in h2's name before the response's
        END_STREAM is out, which h2 then refuses to send: each answer in flight counted as cut off."""
        while stream_id in self.stream_buffers and not self.closed:
            await self._written.park()
        await self._close_stream(stream_id)
        if self.idle and not self._said_goodbye and not self.closed:
            await self._say_goodbye(self._last)
        await self.send(Updated(idle=self.idle))

    async def _send_body(self, event: Any, link: Link | None) -> None:
        """Send a part of a response; if its client takes nothing of it, it is as if that had left."""
        if link is None:  # hypercorn's own answer
            await super().stream_send(event)
            return
        taken = partial(self._taken, event.stream_id)
        with patience(self._tasks.timers, lambda: link.send_timeout, taken) as limit:
            await super().stream_send(event)
        if limit.cancelled_caught:
            logger.warning("a response over HTTP/2 was ended: its client took nothing for %g s", link.send_timeout)
            await self.give_up(event.stream_id)

    def _taken(self, stream_id: int) -> object:
        """Something else whenever the client lets the stream go on, as far as that is a matter of flow control."""
        state = self.connection.streams.get(stream_id)
        if state is None or state.outbound_flow_control_window <= 0:
            buffer = self.stream_buffers.get(stream_id)
            return None if buffer is None else buffer.taken
        if self.connection.outbound_flow_control_window <= 0:
            return "others have used up", sum(buffer.taken for buffer in self.stream_buffers.values())
        return object()  # it is others' turn; or the socket's, which is waited for where it is written to

    async def give_up(self, stream_id: int) -> None:
        """Reset the stream of a response in the middle; its application is told what it is of a client that has left.
        Does not wait for the client, and does the same in a cancelled scope."""
        await self._reset(stream_id)
        await self._close_stream(stream_id)
        await self.send(Updated(idle=self.idle))

    async def _reset(self, stream_id: int) -> None:
        if await self._drop(stream_id):
            self._reset_stream(stream_id, _ERRORS.INTERNAL_ERROR)
            self.task_group.spawn(self._flush)

    async def _drop(self, stream_id: int) -> bool:
        """Let go of what a stream has still to send. Returns whether it was open."""
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
