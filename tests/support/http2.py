"""A WebSocket client over HTTP/2 (RFC 8441): h2 for the stream, wsproto for the frames."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio
import wsproto.events as ws_events
from wsproto.connection import Connection, ConnectionType

TIMEOUT = 10.0


class Http2Denied(Exception):  # noqa: N818 -- an answer
    """The extended CONNECT was answered with another status than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__(status, body)


class Http2Peer:
    """One WebSocket on one HTTP/2 connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._ws = Connection(ConnectionType.CLIENT)
        self._id = 0
        self._status = 0
        self._body = b""
        self._ended = False
        self._messages: list[str] = []
        self._text = ""
        self._closed: tuple[int, str] | None = None
        self._sending = trio.Lock()
        self._reading = trio.Lock()
        self._reads = 0

    async def open(self, authority: str, path: str) -> None:
        self._h2.initiate_connection()
        await self._flush()
        while not self._h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL):
            await self._read()
        self._id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(
            self._id,
            [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", path),
                (":authority", authority),
                ("sec-websocket-version", "13"),
            ],
        )
        await self._flush()
        while not self._status:
            await self._read()
        if self._status != 200:
            while not self._ended:
                await self._read()
            raise Http2Denied(self._status, self._body)

    async def send(self, message: Any) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        await self._send_event(ws_events.TextMessage(text))

    async def receive(self) -> Any:
        with trio.fail_after(TIMEOUT):
            while not self._messages:
                assert self._closed is None, f"closed: {self._closed}"
                await self._read()
        return json.loads(self._messages.pop(0))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closed is None:
            await self._send_event(ws_events.CloseConnection(code, reason))
            with trio.fail_after(TIMEOUT):
                while self._closed is None:
                    await self._read()

    async def closed(self) -> tuple[int, str]:
        with trio.fail_after(TIMEOUT):
            while self._closed is None:
                await self._read()
        return self._closed

    async def _send_event(self, event: Any) -> None:
        data = self._ws.send(event)
        while data and self._closed is None:
            room = min(self._h2.local_flow_control_window(self._id), self._h2.max_outbound_frame_size)
            if room:
                self._h2.send_data(self._id, data[:room])
                data = data[room:]
                await self._flush()
            else:
                await self._read()

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._h2.data_to_send():
                await self._stream.send_all(data)

    async def _read(self) -> None:
        """Read once; where another task is at it, wait until it has."""
        before = self._reads
        async with self._reading:
            if self._reads == before:
                await self._read_once()
                self._reads += 1

    async def _read_once(self) -> None:
        with trio.fail_after(TIMEOUT):
            data = await self._stream.receive_some(65536)
        if not data:
            self._ended = True
            self._closed = self._closed or (1006, "")
            self._status = self._status or 599
            return
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self._status = int(dict(event.headers)[b":status"])
            elif isinstance(event, h2.events.DataReceived) and event.data is not None:
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, self._id)
                if self._status == 200 and event.data and self._closed is None:
                    self._ws.receive_data(event.data)
                    self._take()
                elif self._status != 200:
                    self._body += event.data
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated):
                self._ended = True
                self._closed = self._closed or (1006, "")
        await self._flush()

    def _take(self) -> None:
        for event in self._ws.events():
            if isinstance(event, ws_events.TextMessage):
                self._text += event.data
                if event.message_finished:
                    self._messages.append(self._text)
                    self._text = ""
            elif isinstance(event, ws_events.CloseConnection):
                self._closed = (event.code, event.reason or "")


@asynccontextmanager
async def open_http2_websocket(url: str) -> AsyncIterator[Http2Peer]:
    """Connect in clear text with prior knowledge (RFC 9113 section 3.3)."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    async with stream:
        peer = Http2Peer(stream)
        with trio.fail_after(TIMEOUT):
            await peer.open(parts.netloc, path)
        yield peer
        with trio.move_on_after(TIMEOUT):
            await peer.close()
