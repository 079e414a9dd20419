"""HTTP/1.1 under the take-over: hypercorn's protocol, up to an upgrade to a WebSocket."""

from __future__ import annotations

import itertools
from typing import Any

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

from verbtrio.server.takeover.http1_heads import HeadConnection, asks_for_websocket, fault_of
from verbtrio.server.takeover.http1_upgrade import upgrade_of
from verbtrio.server.takeover.requests import begin_request, stream_for
from verbtrio.server.takeover.targets import resource_of

EVENTS_AT_ONCE = 16
"""What h11 takes apart before other tasks have their turns: half a millisecond."""


class _ClientGone(Exception):  # noqa: N818 -- a way out of the loop over what a client has sent
    """The client has gone, and the requests it has pipelined are not begun."""


class H11(H11Protocol):
    """hypercorn's HTTP/1.1. There is no upgrade but a WebSocket's: h2c is ignored (RFC 9113 section 3.1)."""

    _closed = False
    _is_refused = False

    def begin(self, *, knows_http2: bool) -> None:
        """Called before anything is received. `knows_http2`: HTTP/2's preface may come in clear text."""
        self._knows_http2 = knows_http2
        self.connection = HeadConnection(self.config.h11_max_incomplete_size)

    async def handle(self, event: Event) -> None:
        if self._closed and isinstance(event, RawData):
            return
        if isinstance(event, Closed):
            self._closed = True
            await self.can_read.set()  # hypercorn 0.18 waits for ever for the end of a response that was cut off
        try:
            await super().handle(event)
        except _ClientGone:
            pass

    async def _handle_events(self) -> None:
        """Work through what has come. Wait for responses to end, and for room for a body. Other tasks have their turns
        in between: a read may bring 10,000 chunks."""
        connection = self.connection
        assert isinstance(connection, h11.Connection), "only hypercorn's own WebSocket would replace it"
        for number in itertools.count(1):
            if number % EVENTS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if connection.they_are_waiting_for_100_continue:
                headers = self.config.response_headers("h11")
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))
            try:
                # What comes behind the last request is ignored (RFC 9112 section 9.6); h11 takes it for an error.
                is_last = connection.their_state is h11.MUST_CLOSE and connection.trailing_data[0]
                event = h11.PAUSED if is_last else connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._end(error.error_status_hint)
                return
            if isinstance(event, h11.Request):
                if status := self._fault_of(event):
                    await self._end(status)
                    return
                await self.send(Updated(idle=False))
                await self._create_stream(event)
            elif event is h11.PAUSED:
                if self._closed:
                    return
                await self.can_read.clear()
                await self.can_read.wait()
            elif self.stream is None or event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    def _fault_of(self, request: h11.Request) -> int:
        """As `fault_of`. HTTP/2's preface changes the protocol where that is allowed."""
        if (request.method, request.target, request.http_version) == (b"PRI", b"*", b"2.0") and self._knows_http2:
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])
        if asks_for_websocket(request.method, request.headers):
            return 0  # its handshake has its own answers
        return fault_of(request)

    async def _end(self, status: int) -> None:
        """Answer an invalid request, if nothing has been answered yet, and close the connection."""
        await self.refuse(status)
        await self.send(Closed())

    async def refuse(self, status: int) -> None:
        """Answer in the application's place, if it has not begun to."""
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._is_refused = True
            await self._send_error_response(status)

    async def stream_send(self, event: Any) -> None:
        """What the application sends. After a refusal none of it is sent: the application may not know of that yet."""
        if not self._is_refused or isinstance(event, StreamClosed):
            await super().stream_send(event)

    async def _create_stream(self, request: h11.Request) -> None:
        """Begin a request. (hypercorn's own would make a WebSocket of its own.)"""
        if self._closed:  # hypercorn 0.18 begins all that a client has pipelined before it went
            raise _ClientGone  # only to return would not do: hypercorn would wait for ever for the request's answer
        assert isinstance(self.connection, h11.Connection)
        if (upgrade := upgrade_of(request, self.connection)) is not None:
            raise upgrade
        raw = self.config.h11_pass_raw_headers
        headers = request.headers.raw_items() if raw else list(request.headers)
        resource = resource_of(request.method, request.target, headers)
        assert resource is not None, "else `fault_of` had it refused"
        target, headers = resource
        self.stream = stream_for(self, STREAM_ID, target)
        await begin_request(self, self.stream, request.method, target, headers, request.http_version.decode())
        self.keep_alive_requests += 1
        await self.context.mark_request()
        stream: HTTPStream | None = self.stream
        if stream is not None and stream.closed:
            # Another server's name: hypercorn 0.18 leaves the connection open behind its 404, for ever.
            await self.stream_send(StreamClosed(stream_id=STREAM_ID))
