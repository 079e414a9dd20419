"""HTTP/2 as it goes out: responses, within the flow control and the time of their clients."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from hypercorn.events import RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hyperframe.frame import GoAwayFrame
from priority.priority import MissingStreamError

from verbtrio.http.link import Link, link_of
from verbtrio.server.takeover.http2_frames import PER_SENT_FRAME, Frames
from verbtrio.server.takeover.http2_resets import Resets
from verbtrio.server.takeover.stalled import stall_timeout

CONNECTION_HEADERS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""Headers that HTTP/2 does not allow (RFC 9113 section 8.2.2): h2 sends no response that has one of them."""

logger = logging.getLogger("verbtrio.hypercorn")


class Responses(Resets):
    """hypercorn's HTTP/2, with responses that end as they should."""

    _sent_goaway = False

    def prepare(self) -> None:
        super().prepare()
        self._frames = Frames()
        self._last = 0  # the last request that was begun

    async def _send_goaway(self, stream_id: int) -> None:
        """Send GOAWAY. `stream_id` is the last request that the connection takes (`keep_alive_max_requests`).

        hypercorn 0.18 begins all requests that came in one read, and h2 sends no response after a GOAWAY of its own.
        """
        self._sent_goaway = True
        await self.send(RawData(self.connection.data_to_send() + GoAwayFrame(0, last_stream_id=stream_id).serialize()))

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
            self._limit_upload(stream_id)
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
            # hypercorn 0.18 leaves the client of a response that was cut off waiting for the rest.
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer.is_ended:
                await self._reset(event.stream_id)
            if self.context.terminated.is_set():
                await self._close_last(event.stream_id)
                return
        await super().stream_send(event)

    async def _close_last(self, stream_id: int) -> None:
        """A response is over, and the server shuts down. hypercorn 0.18 sends h2's own GOAWAY before the response's
        END_STREAM is out. h2 then refuses to send that, so each answer in flight counted as cut off."""
        while stream_id in self.stream_buffers and not self.closed:
            await self._written.park()
        await self._close_stream(stream_id)
        if self.idle and not self._sent_goaway and not self.closed:
            await self._send_goaway(self._last)
        await self.send(Updated(idle=self.idle))

    async def _send_body(self, event: Any, link: Link | None) -> None:
        """Send a part of a response. A client that takes nothing of it is treated as one that has left."""
        if link is None:  # hypercorn's own answer
            await super().stream_send(event)
            return
        progress = partial(self._progress, event.stream_id)
        with stall_timeout(self._tasks.timers, lambda: link.send_timeout, progress) as limit:
            await super().stream_send(event)
        if limit.cancelled_caught:
            logger.warning("a response over HTTP/2 was ended: its client took nothing for %g s", link.send_timeout)
            await self.give_up(event.stream_id)

    def _progress(self, stream_id: int) -> object:
        """A value that changes whenever the client lets the stream go on, so far as flow control decides that."""
        state = self.connection.streams.get(stream_id)
        if state is None or state.outbound_flow_control_window <= 0:
            buffer = self.stream_buffers.get(stream_id)
            return None if buffer is None else buffer.taken
        if self.connection.outbound_flow_control_window <= 0:
            return "others have used it up", sum(buffer.taken for buffer in self.stream_buffers.values())
        return object()  # others are being sent, or the socket is waited for where it is written to
