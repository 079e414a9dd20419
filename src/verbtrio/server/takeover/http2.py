"""HTTP/2 under the take-over, as it comes in: hypercorn's protocol, with limits.

What one stream does holds up no other (RFC 9113 section 5.2). What comes is taken apart in slices. A body waits in its
own stream's window until its application takes it, and where the connection is read, nothing is waited for. Priorities
are ignored (RFC 9113 section 5.3.2). A WebSocket is a tunnel, or is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, StreamClosed
from hypercorn.protocol.h2 import StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from priority.priority import DuplicateStreamError

from verbtrio.server.takeover.http2_credit import CONNECTION
from verbtrio.server.takeover.http2_frames import PER_REQUEST
from verbtrio.server.takeover.http2_heads import Head, are_trailers, head_of
from verbtrio.server.takeover.http2_responses import Responses
from verbtrio.server.takeover.http2_tunnel import Tunnel
from verbtrio.server.takeover.requests import begin_request, stream_for
from verbtrio.wire.handshake import RawHeaders

IN_PROGRESS = 2
"""Times `h2_max_concurrent_streams` that requests may be in progress: as many as a client may have open, and as many
that it has reset (a page that is left, with all it was loading) and whose handlers have not returned."""

CLOSED_AT_ONCE = 8
"""Streams that are ended before other tasks have their turns."""

logger = logging.getLogger("verbtrio.hypercorn")

_CODES = h2.settings.SettingCodes
_ERRORS = h2.errors.ErrorCodes


class H2(Responses):
    """hypercorn's HTTP/2, with WebSockets in tunnels, where they are offered."""

    def begin(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None) -> None:
        """Called before the connection begins.

        Args:
            serve_tunnel: runs one WebSocket; `None`: they are not offered, and a request for one is answered with 501.
        """
        self._serve_tunnel = serve_tunnel
        self.prepare()
        self._max_head = min(self.config.h2_max_header_list_size, self.config.h11_max_incomplete_size)
        # `head_of` does that. h2 would end the connection for a malformed request, with all of its streams.
        self.connection.config.validate_inbound_headers = False
        values: Any = {**self.connection.local_settings, _CODES.MAX_HEADER_LIST_SIZE: self._max_head}
        if serve_tunnel is None:
            values.pop(_CODES.ENABLE_CONNECT_PROTOCOL, None)
        self.connection.local_settings = h2.settings.Settings(client=False, initial_values=values)

    # What comes

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._receive(event.data)
            return
        if not self.closed:  # both the writer and the reader say so
            await self._close()

    async def _close(self) -> None:
        """The connection is closed: end all its streams, some at a time. A hundred handlers told at once would hold up
        all other tasks for 30 ms."""
        self.closed = True
        for number, stream_id in enumerate({**self.streams, **self.stream_buffers}):
            if number % CLOSED_AT_ONCE == CLOSED_AT_ONCE - 1:
                await trio.lowlevel.cancel_shielded_checkpoint()
            await self._close_stream(stream_id)
            # hypercorn 0.18 has a response wait for ever for flow control that can't come any more.
            if (buffer := self.stream_buffers.get(stream_id)) is not None:
                await buffer.close()
        self._written.unpark_all()
        await self.has_data.set()

    async def _receive(self, data: bytes) -> None:
        """Take what was read, in slices. Other tasks have their turns between them."""
        for number, part in enumerate(self._frames.slices(data, trio.current_time())):
            if number:
                await trio.lowlevel.checkpoint()
            if self.closed:
                return
            try:
                events = self.connection.receive_data(part)
            except h2.exceptions.ProtocolError:
                await self._hang_up()
                return
            await self._handle_events(events)
        if self._frames.is_flood and not self.closed:
            logger.warning("a connection was ended: its client floods it with HTTP/2 control frames")
            await self._end(_ERRORS.ENHANCE_YOUR_CALM)

    async def _end(self, error: h2.errors.ErrorCodes, last_stream_id: int | None = None) -> None:
        """Close the connection with an error. The client may send the requests after `last_stream_id` again."""
        self.connection.close_connection(error, last_stream_id=last_stream_id)
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Send the client what tells it why, and close the connection."""
        await self._flush()
        await self.send(Closed())

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if self.closed:  # in the middle of what was read: a request begun now would not end
                return
            if isinstance(event, h2.events.RequestReceived):
                if not await self._begin(event, event.stream_id or 0):
                    return
            elif isinstance(event, h2.events.DataReceived):
                await self._take_data(event, event.stream_id or 0)
            elif isinstance(event, h2.events.PriorityUpdated):
                pass
            elif isinstance(event, h2.events.TrailersReceived) and not are_trailers(_raw(event.headers)):
                await self._end(_ERRORS.PROTOCOL_ERROR)
                return
            else:
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    self._request_ended(event.stream_id or 0)
                if isinstance(event, h2.events.StreamReset):
                    # hypercorn 0.18 finds out only when it sends: not while the client's window is closed.
                    await self._drop(event.stream_id or 0)
                await super()._handle_events([event])
                if isinstance(event, h2.events.StreamReset):
                    await self.send(Updated(idle=self.idle))  # else the keep-alive timer may never start
        await self._flush()

    async def _begin(self, event: h2.events.RequestReceived, stream_id: int) -> bool:
        """A request has come. Returns whether the connection goes on."""
        if event.stream_ended is None:
            self._unfinished.add(stream_id)
        if self._sent_goaway or self.context.terminated.is_set():
            self._reset_stream(stream_id, _ERRORS.REFUSED_STREAM)
            return True
        if self._is_over_limit():
            # This one, and those that came with it in one read, have not been begun: they may be sent again.
            await self._end(_ERRORS.ENHANCE_YOUR_CALM, stream_id - 2)
            return False
        self._frames.forgive(PER_REQUEST)
        self._last = stream_id
        await self._create_stream(event)
        await self.send(Updated(idle=self.idle))
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            await self._send_goaway(stream_id)
        return True

    async def _take_data(self, event: h2.events.DataReceived, stream_id: int) -> None:
        """Take a part of a body. Does not wait: the stream's window bounds what the application has not taken."""
        data, counted = bytes(event.data or b""), event.flow_controlled_length or 0
        self.give_credit(CONNECTION, counted)
        stream = self.streams.get(stream_id)
        if counted and not data:
            self._frames.charge()
        if stream is None:  # it has its answer, and the rest is thrown away (`_limit_upload`)
            self.give_credit(stream_id, counted)
            return
        if isinstance(stream, Tunnel):
            stream.feed(data)
        else:
            await stream.handle(Body(stream_id=stream_id, data=data))
        self.give_credit(stream_id, counted - len(data))  # padding

    # Requests

    def _is_over_limit(self) -> bool:
        """Whether too many requests are in progress, those included that the client has reset. That is logged.

        HTTP/2's own limit counts open streams: h2 ends a connection that exceeds it. A stream that is reset is no
        longer open (CVE-2023-44487), but its handler goes on.
        """
        in_progress = len(self._tasks.in_progress)
        if in_progress < IN_PROGRESS * self.config.h2_max_concurrent_streams:
            return False
        logger.warning(
            "a connection was ended: its client has reset requests and asked for more, with %d in progress "
            "(at most twice h2_max_concurrent_streams)",
            in_progress,
        )
        return True

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        """Begin a request. (hypercorn's own would make a WebSocket of its own of a CONNECT.)"""
        stream_id = request.stream_id or 0
        self.keep_alive_requests += 1
        await self.context.mark_request()
        head = head_of(_raw(request.headers), self._max_head)
        if not isinstance(head, Head):
            await self._refuse(stream_id, head)
        elif head.method != b"CONNECT":
            stream = stream_for(self, stream_id, head.path)
            self._add_stream(stream_id, stream)
            await begin_request(self, stream, head.method, head.path, head.fields, "2")
            if stream.closed:  # another server's name: hypercorn 0.18 leaves the stream open behind its 404
                await self.stream_send(StreamClosed(stream_id=stream_id))
        elif self._serve_tunnel is None or head.protocol != b"websocket":
            await self._refuse(stream_id, b"501")
        else:
            tunnel = Tunnel(self, stream_id, head.path, head.fields)
            self._add_stream(stream_id, tunnel)
            self._tasks.in_progress.add(tunnel)
            self.task_group.spawn(self._serve, self._serve_tunnel, tunnel)

    def _add_stream(self, stream_id: int, stream: HTTPStream | Tunnel) -> None:
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:  # hypercorn's own pushes
            return
        self.priority.block(stream_id)

    async def _refuse(self, stream_id: int, status: bytes) -> None:
        """Answer a request with nothing but a status."""
        try:
            self.connection.send_headers(stream_id, [(b":status", status)], end_stream=True)
        except h2.exceptions.ProtocolError:
            pass  # the client has reset the stream by now
        self._limit_upload(stream_id)
        await self._flush()

    # Tunnels

    async def _serve(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]], tunnel: Tunnel) -> None:
        try:
            await serve_tunnel(tunnel)
        finally:
            self._tasks.in_progress.discard(tunnel)

    def sent_bytes(self, stream_id: int) -> int | None:
        buffer = self.stream_buffers.get(stream_id)
        return None if buffer is None else buffer.taken

    def take_down(self, stream_id: int) -> None:
        self.streams.pop(stream_id, None)
        self._reset_stream(stream_id, _ERRORS.NO_ERROR)
        self.task_group.spawn(self._settle, stream_id)

    async def _settle(self, stream_id: int) -> None:
        """Do what the end of a tunnel leaves to the connection's own tasks."""
        if (buffer := self.stream_buffers.get(stream_id)) is not None:
            await buffer.close()
        await self.has_data.set()
        await self._flush()
        await self.send(Updated(idle=self.idle))


def _raw(headers: Any) -> RawHeaders:
    return [(bytes(name), bytes(value)) for name, value in headers or []]
