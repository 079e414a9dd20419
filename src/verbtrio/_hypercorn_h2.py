"""The take-over's half for HTTP/2: hypercorn's protocol, held to its limits and to its clients' patience.

What one stream does holds up no other (RFC 9113 section 5.2): what comes is taken apart in slices, a body waits in its
own stream's window until its application takes it, and nothing is waited for where the connection is read. Priorities
are ignored (RFC 9113 section 5.3.2), and WebSockets are tunnels, or none.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hyperframe.frame import GoAwayFrame
from priority.priority import DuplicateStreamError, MissingStreamError

from verbtrio._hypercorn_buffers import Buffers, Streams
from verbtrio._hypercorn_frames import PER_REQUEST, PER_SENT_FRAME, Frames
from verbtrio._hypercorn_heads import is_method
from verbtrio._hypercorn_patience import patience
from verbtrio._hypercorn_targets import answer_for_all, are_trailers, fields_of, is_path
from verbtrio._hypercorn_tunnel import Tunnel
from verbtrio.handshake import RawHeaders
from verbtrio.streaming import Link, link_of

CREDIT_BYTES = 16 * 1024
"""Flow control is given back in such portions (a window is 64 KiB), not in a WINDOW_UPDATE for each message."""

IN_PROGRESS = 2
"""Times `h2_max_concurrent_streams` that requests may be in progress: as many as a client may have open, and as many
that it has reset (a page that is left, with all it was loading) and whose handlers have not returned."""

FIELD_BYTES = 32
"""What a header counts for beside its characters (RFC 9113 section 6.5.2)."""

CONNECTION_HEADERS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""What HTTP/2 has no place for (RFC 9113 section 8.2.2): h2 would send no response that has one of them."""

logger = logging.getLogger("verbtrio.hypercorn")

_CODES = h2.settings.SettingCodes
_ERRORS = h2.errors.ErrorCodes


def hush() -> None:
    """Keep hpack from logging each header with its value at DEBUG, tokens and cookies too, unless its level was set."""
    log = logging.getLogger("hpack")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


class H2(H2Protocol):
    """hypercorn's HTTP/2, with WebSockets in tunnels, or none.

    Attributes:
        serve_tunnel: runs one WebSocket; `None`: they are not offered, and asking for one is answered with 501.
    """

    serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None = None
    _said_goodbye = False

    def offer(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None) -> None:
        """Say whether WebSockets are offered, before the connection begins."""
        self.serve_tunnel = serve_tunnel
        self.streams: Any = Streams()
        self.stream_buffers: Any = Buffers(self.context.event_class, self._tasks.held)
        self._frames = Frames()
        self._unfinished = set[int]()  # streams whose requests have not ended
        self._owed = dict[int, int]()  # flow control to give back, by stream; the connection's is stream 0's
        self._max_head = min(self.config.h2_max_header_list_size, self.config.h11_max_incomplete_size)
        # `fields_of` does that: of h2 a malformed request would end the connection, with all of its streams.
        self.connection.config.validate_inbound_headers = False
        values: Any = {**self.connection.local_settings, _CODES.MAX_HEADER_LIST_SIZE: self._max_head}
        if serve_tunnel is None:
            values.pop(_CODES.ENABLE_CONNECT_PROTOCOL, None)
        self.connection.local_settings = h2.settings.Settings(client=False, initial_values=values)

    @property
    def _tasks(self) -> Any:
        """The connection's `RequestTasks`."""
        return self.task_group

    # What comes

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._receive(event.data)
            return
        await super().handle(event)
        if isinstance(event, Closed):
            # hypercorn 0.18 lets a response wait for ever for flow control that can't come any more.
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()

    async def _receive(self, data: bytes) -> None:
        """Take what was read, in slices. The others have their turns between them."""
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
        """Close the connection, with the reason. Requests after `last_stream_id` may be asked for again."""
        self.connection.close_connection(error, last_stream_id=last_stream_id)
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Close the connection; the client is to see why."""
        await self._flush()
        await self.send(Closed())

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if self.closed:  # in the middle of what was read: nothing that is begun now could be sent, or would end
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
                    self._unfinished.discard(event.stream_id or 0)
                if isinstance(event, h2.events.StreamReset):
                    # hypercorn 0.18 finds out when it has to send, and so not while the client's window is closed.
                    await self._drop(event.stream_id or 0)
                await super()._handle_events([event])
        await self._flush()

    async def _begin(self, event: h2.events.RequestReceived, stream_id: int) -> bool:
        """A request has come. Returns whether the connection goes on."""
        if event.stream_ended is None:
            self._unfinished.add(stream_id)
        if self._said_goodbye or self.context.terminated.is_set():
            self._reset_stream(stream_id, _ERRORS.REFUSED_STREAM)
            return True
        if self._is_beyond():
            # That, and what came with it in one read, has not been begun: it may be asked for again.
            await self._end(_ERRORS.ENHANCE_YOUR_CALM, stream_id - 2)
            return False
        self._frames.forgive(PER_REQUEST)
        await self._create_stream(event)
        await self.send(Updated(idle=False))
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            await self._say_goodbye(stream_id)
        return True

    async def _take_data(self, event: h2.events.DataReceived, stream_id: int) -> None:
        """A part of a body. Never waits: it is held by its stream's window until its application takes it."""
        data, counted = bytes(event.data or b""), event.flow_controlled_length or 0
        self.credit(0, counted)
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if isinstance(stream, Tunnel):
            stream.feed(data)
        else:
            await stream.handle(Body(stream_id=stream_id, data=data))
        self.credit(stream_id, counted - len(data))  # padding

    def credit(self, stream_id: int, count: int) -> None:
        """Give flow control back: a stream's when its application has taken that much, the whole connection's (0) at
        once, since each stream has its own, which bounds it."""
        owed = self._owed.get(stream_id, 0) + count
        if owed < CREDIT_BYTES:
            self._owed[stream_id] = owed
            return
        self._owed.pop(stream_id, None)
        try:
            self.connection.increment_flow_control_window(owed, stream_id or None)
        except h2.exceptions.ProtocolError:
            return  # the stream has ended; what was read is still good
        self.task_group.spawn(self._flush)

    # Requests

    async def _say_goodbye(self, stream_id: int) -> None:
        """GOAWAY with the last request that the connection may have (`keep_alive_max_requests`).

        hypercorn 0.18 begins all that came in one read; and h2 lets no answer be sent after a GOAWAY of its own.
        """
        self._said_goodbye = True
        await self.send(RawData(self.connection.data_to_send() + GoAwayFrame(0, last_stream_id=stream_id).serialize()))

    def _is_beyond(self) -> bool:
        """Whether the client has gone beyond all measure by reset requests.

        HTTP/2's own limit counts what is open: h2 ends a connection that exceeds it. A stream that is reset is no
        longer open (CVE-2023-44487), but its handler runs on.
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
        headers = _raw(request.headers)
        pseudo, stream_id = dict(headers), request.stream_id or 0
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        self.keep_alive_requests += 1
        await self.context.mark_request()
        fields = fields_of(headers)
        if sum(len(name) + len(value) + FIELD_BYTES for name, value in headers) > self._max_head:
            await self._refuse(stream_id, b"431")
        elif fields is None or not (method.isascii() and path.isascii()):
            await self._refuse(stream_id, b"400")  # hypercorn would end the connection, with all of its streams
        elif not is_method(method):
            await self._refuse(stream_id, b"501")
        elif b":path" in pseudo and not is_path(method, path):
            await self._refuse(stream_id, b"400")
        elif method != b"CONNECT":
            stream = HTTPStream(
                answer_for_all if path == b"*" else self.app,
                self.config,
                self.context,
                self.task_group,
                self.ssl,
                self.client,
                self.server,
                self.stream_send,
                stream_id,
            )
            self._add_stream(stream_id, stream)
            await stream.handle(
                Request(
                    stream_id=stream_id,
                    headers=fields,
                    http_version="2",
                    method=method.decode("ascii"),
                    raw_path=path,
                    state=self.connection_state,
                )
            )
        elif self.serve_tunnel is None or pseudo.get(b":protocol") != b"websocket":
            await self._refuse(stream_id, b"501")
        else:
            tunnel = Tunnel(self, stream_id, path, fields)
            self._add_stream(stream_id, tunnel)
            self._tasks.in_progress.add(tunnel)
            self.task_group.spawn(self._serve, self.serve_tunnel, tunnel)

    def _add_stream(self, stream_id: int, stream: HTTPStream | Tunnel) -> None:
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:  # hypercorn's own pushes
            return
        self.priority.block(stream_id)

    async def _serve(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]], tunnel: Tunnel) -> None:
        try:
            await serve_tunnel(tunnel)
        finally:
            self._tasks.in_progress.discard(tunnel)

    async def _refuse(self, stream_id: int, status: bytes) -> None:
        """Answer a request with nothing but a status."""
        try:
            self.connection.send_headers(stream_id, [(b":status", status)], end_stream=True)
        except h2.exceptions.ProtocolError:
            pass  # the peer has reset the stream by now
        self._finish(stream_id)
        await self._flush()

    def _finish(self, stream_id: int) -> None:
        """A response is complete. The rest of its request is of no use (RFC 9113 section 8.1)."""
        self._owed.pop(stream_id, None)
        if stream_id in self._unfinished:
            self._reset_stream(stream_id, _ERRORS.NO_ERROR)

    def _reset_stream(self, stream_id: int, error: h2.errors.ErrorCodes) -> None:
        self._unfinished.discard(stream_id)
        self._owed.pop(stream_id, None)
        try:
            self.connection.reset_stream(stream_id, error)
        except h2.exceptions.ProtocolError:
            pass  # the client has reset it

    # What goes out

    async def _send_data(self, stream_id: int) -> None:
        self._frames.forgive(PER_SENT_FRAME)
        try:
            await super()._send_data(stream_id)
        except (KeyError, MissingStreamError):
            return  # it was dropped while a part of it was written
        if stream_id not in self.stream_buffers:
            self._finish(stream_id)
            await self._flush()

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
        await super().stream_send(event)

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
        return True


def _raw(headers: Any) -> RawHeaders:
    return [(bytes(name), bytes(value)) for name, value in headers or []]
