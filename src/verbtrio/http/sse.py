"""Server-sent events (the HTML standard, section 9.2): a response for the browser's `EventSource`.

    @app.get("/clock")
    async def clock(request: Request) -> EventStream:
        return EventStream(ticks(last_event_id(request)))

Whatever an event holds, clients read it as one event: line breaks in data become lines of data, others are refused.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import trio
from starlette.requests import HTTPConnection

from verbtrio.base.types import Data
from verbtrio.http.streaming import Content, Stream
from verbtrio.http.writer import Writer
from verbtrio.messages.frame import Encode, Frame, encode, encoder

KEEP_ALIVE = 15.0
"""Seconds. The HTML standard recommends this, since proxies end silent connections."""
KEEP_ALIVE_COMMENT = b": keep-alive\n\n"

_NO_BYTES = "server-sent events are text: send bytes as base64, or another way"

LINE_BREAK = re.compile(r"\r\n|\r|\n")  # the standard's three; `str.splitlines` has more


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event, or one block without data (a comment, a new `retry`).

    Args:
        data: `str` as it is, anything else as JSON; `None`: no data, and the client gets no event.
        event: its type, for `addEventListener`; `message` by default.
        id: what the client sends as `Last-Event-ID` when it reconnects.
        retry: seconds that the client waits before it reconnects.
        comment: text that clients ignore, for debugging.

    Raises:
        ValueError: `event` or `id` has a line break or a NUL. After a line break another field would begin.
        TypeError: `data` is bytes: the format carries text.
    """

    data: Data = None
    event: str | None = None
    id: str | None = None
    retry: float | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("event", self.event), ("id", self.id)):
            if value is not None and (LINE_BREAK.search(value) or "\0" in value):
                raise ValueError(f"a server-sent event's {name} must not have line breaks or NULs: {value!r}")
        if isinstance(self.data, bytes | bytearray | memoryview):
            raise TypeError(_NO_BYTES)

    def encode(self, encode: Encode = encode) -> bytes:
        """The event as bytes.

        Args:
            encode: encodes data that is not text; an `EventStream` passes its app's.

        Raises:
            TypeError: `data` can't be encoded, or the app's `encode=` hook has returned bytes.
        """
        lines = []
        if self.comment is not None:
            lines += [f": {line}" for line in LINE_BREAK.split(self.comment)]
        if self.retry is not None:
            lines.append(f"retry: {round(self.retry * 1000)}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.data is not None:
            text = self.data if isinstance(self.data, str) else _text(encode(self.data))
            lines += [f"data: {line}" for line in LINE_BREAK.split(text)]
        return "\n".join([*lines, "", ""]).encode()


def _text(frame: Frame) -> str:
    if not frame.text:
        raise TypeError(_NO_BYTES)
    return frame.payload.decode()


class EventStream(Stream):
    """A response of server-sent events.

    Args:
        content: yields `ServerSentEvent`s, or the data of events that have only data (text, or what becomes JSON).
        keep_alive: seconds of silence after which a comment is sent. So proxies keep the connection, and a client that
            has vanished is noticed. `None`: never.
        retry: seconds that the client waits before it reconnects (its own default is about 3).
        status_code, headers, background, send_timeout: as in `Stream`.

    Under the take-over (see docs/architecture.md) it ends when the server begins to shut down, since such a stream has
    no end of its own and would hold up every restart. The client then reconnects by itself.
    """

    media_type = "text/event-stream"
    ends_at_shutdown = True

    def __init__(
        self,
        content: Content,
        *,
        keep_alive: float | None = KEEP_ALIVE,
        retry: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(content, **options)
        self.headers.setdefault("cache-control", "no-store")
        self.headers.setdefault("x-accel-buffering", "no")  # otherwise nginx waits until a buffer is full
        self._keep_alive = keep_alive
        self._retry = retry

    async def _chunks(self, items: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        if self._retry is not None:
            yield ServerSentEvent(retry=self._retry).encode()
        write = encoder(self._encode_hook)
        async for item in items:
            event = item if isinstance(item, ServerSentEvent) else ServerSentEvent(item)
            yield event.encode(write)

    def _accompany(self, nursery: trio.Nursery, writer: Writer, body: trio.CancelScope) -> None:
        if self._keep_alive is not None:
            nursery.start_soon(self._break_silence, writer, self._keep_alive)

    async def _break_silence(self, writer: Writer, interval: float) -> None:
        while True:
            due = writer.written_at + interval
            if trio.current_time() >= due:
                await writer.write(KEEP_ALIVE_COMMENT)
            else:
                await trio.sleep_until(due)


def last_event_id(request: HTTPConnection) -> str | None:
    """The `id` of the last event that the client got before it reconnected; `None` for a first connection."""
    value = request.headers.get("last-event-id")
    if value is None:
        return None
    return value.encode("latin-1").decode("utf-8", "replace")  # browsers send UTF-8; Starlette reads latin-1
