"""Responses whose body is made while it is sent: `Stream`, and `JSONArray` for one JSON document of many items.

    @app.get("/numbers")
    async def numbers(request: Request) -> Stream:
        return Stream(count(), media_type="text/plain")

Starlette's `StreamingResponse` and `FileResponse` (files, ranges) work as everywhere. `Stream` adds what they leave
open:

- the content's iterator is closed by the task that ran it. Starlette leaves an async generator that stands at its
  `yield` when the client goes to the garbage collector: when its `finally` runs, and that nothing in it may be awaited,
  is then Trio's to say, with a `ResourceWarning`.
- a client that stops reading ends it on every server, and in a time of the response's own (`send_timeout`).
- a HEAD request, which Starlette gives every GET route, is answered without starting it.

A client that leaves cancels the content where it waits: at an await of its own, or at its `yield` (then it is closed:
`GeneratorExit`). What a `finally` block awaits needs a shield with a deadline in both cases, as everywhere in Trio.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import trio
from starlette.background import BackgroundTask
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from verbtrio.base.types import EncodeHook, Shared, Waitable

CHUNK_BYTES = 64 * 1024
"""The most that one ASGI message carries, and that `send_timeout` is for."""
SEND_TIMEOUT = 60.0
"""Seconds: nginx's own default for a client that takes nothing."""

Content: TypeAlias = AsyncIterable[Any] | AbstractAsyncContextManager[AsyncIterable[Any]] | Iterable[Any]
"""An async iterable, one that a context manager gives (a generator under `@trio.as_safe_channel`, which may hold
nurseries and cancel scopes), or a plain iterable (run in a thread)."""

END_SECONDS = 1.0
"""What the end of a response may take that was told to end."""

LINK = "verbtrio.http"
"""The ASGI scope's extension that holds the take-over's `Link`."""


@dataclass(eq=False, slots=True)
class Link(Shared):
    """What the take-over tells a response about its connection.

    Attributes:
        terminated: set when the server begins to shut down.
        abort: close the connection, whatever is being written; where others share it (HTTP/2), reset the stream.
        send_timeout: seconds that the connection waits for a client that takes nothing of this response; one that has
            a time limit of its own may want more.
    """

    terminated: Waitable
    abort: Callable[[], Awaitable[None]]
    send_timeout: float


def link_of(scope: Scope) -> Link | None:
    """The connection's `Link`, under the take-over."""
    link: Link | None = (scope.get("extensions") or {}).get(LINK)
    return link


def encode_hook_of(scope: Scope) -> EncodeHook | None:
    """The `encode=` hook of the app whose route this is."""
    hook: EncodeHook | None = getattr(scope.get("app"), "encode_hook", None)
    return hook


class Stream(Response):
    """A response that sends what its content gives, piece by piece: each piece once the one before is on its way.

    Args:
        content: gives `str` (sent as UTF-8) or bytes; see `Content`.
        status_code, headers, media_type, background: as in Starlette.
        send_timeout: seconds that 64 KiB may wait for the client to read; then the response is cut off. `None`: for
            as long as the client likes.

    If the content raises, or the client leaves, or the server's time for a shutdown is over, the response is cut off:
    a client can tell it from one that is complete. An upload that is still coming in is thrown away: read it before.

    Raises:
        TypeError: `content` is none (a generator function has to be called).
    """

    ends_at_shutdown = False
    """Whether it ends when the server begins to shut down, rather than when its grace period is over."""

    _encode_hook: EncodeHook | None = None  # the app's, once it is being sent

    def __init__(
        self,
        content: Content,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        *,
        send_timeout: float | None = SEND_TIMEOUT,
    ) -> None:
        if isinstance(content, str | bytes) or not isinstance(
            content, AsyncIterable | AbstractAsyncContextManager | Iterable
        ):
            raise TypeError(f"the content of a {type(self).__name__} is an async iterable, not {content!r}")
        self._content = content
        self._send_timeout = send_timeout
        self.status_code = status_code
        self.media_type = self.media_type if media_type is None else media_type
        self.background = background
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. If cancelled, the content is closed and the response cut off."""
        self._encode_hook = encode_hook_of(scope)
        if scope["type"] == "websocket":  # it denies an upgrade
            send = _as_denial(send)
        if scope.get("method") == "HEAD":
            await send(self._start())
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._run(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        link = link_of(scope)
        if link is not None:  # ours comes first; the connection's is for what else is sent, as the head
            own = math.inf if self._send_timeout is None else self._send_timeout
            link.send_timeout = max(link.send_timeout, own + END_SECONDS)
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            if scope["type"] == "http":
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            writer = Writer(send, self._send_timeout, link, nursery.cancel_scope)
            body = trio.CancelScope()
            if link is not None and self.ends_at_shutdown:
                nursery.start_soon(_cancel_when_set, link.terminated, body)
            self._accompany(nursery, writer, body)
            try:
                await send(self._start())
                with body:
                    await self._send_body(writer)
                await writer.finish(within=END_SECONDS if body.cancelled_caught else math.inf)
            except Exception as raised:  # the application's own error handling knows no groups
                error = raised
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}

    async def _send_body(self, writer: Writer) -> None:
        async with _opened(self._content) as items, aclosing(self._chunks(items)) as chunks:
            async for chunk in chunks:
                await writer.write(chunk)

    async def _chunks(self, items: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        """What is sent, made of what the content gives."""
        async for item in items:
            yield item.encode(self.charset) if isinstance(item, str) else item

    def _accompany(self, nursery: trio.Nursery, writer: Writer, body: trio.CancelScope) -> None:
        """Start what runs beside the body, in the response's nursery. To be overridden."""


class JSONArray(Stream):
    """One JSON array, sent while its items are made.

    Args:
        content: gives the items: whatever msgspec can encode, or the app's `encode=` hook (see `Content`).
        batch: how many items (or 64 KiB of them) go into one piece. An item waits until its batch is full: for a
            source that is slow, 1.
        status_code, headers, background, send_timeout: as in `Stream`.

    An item that can't be encoded cuts the response off, like anything else that raises.
    """

    media_type = "application/json"

    def __init__(self, content: Content, *, batch: int = 100, **options: Any) -> None:
        if batch < 1:
            raise ValueError(f"JSONArray: a batch has 1 item or more, not {batch!r}")
        super().__init__(content, **options)
        self._batch = batch

    async def _chunks(self, items: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        encode = msgspec.json.Encoder(enc_hook=self._encode_hook).encode
        piece, count, separator = bytearray(b"["), 0, b""
        async for item in items:
            piece += separator + encode(item)
            count += 1
            separator = b",\n"
            if count == self._batch or len(piece) >= CHUNK_BYTES:
                yield bytes(piece)
                piece, count = bytearray(), 0
        yield bytes(piece + b"]")


class Writer:
    """The one way to a response's client: whole pieces, one at a time, each within the time limit."""

    def __init__(self, send: Send, timeout: float | None, link: Link | None, response: trio.CancelScope) -> None:
        self._send = send
        self._timeout = float("inf") if timeout is None else timeout
        self._link = link
        self._response = response
        self._lock = trio.Lock()
        self.written_at = trio.current_time()
        """When the last piece was on its way, on Trio's clock."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`. Where the client does not take it in time, or this is cancelled, the response is cut off."""
        async with self._lock:
            view = memoryview(data)
            for begin in range(0, len(view), CHUNK_BYTES):
                await self._put(bytes(view[begin : begin + CHUNK_BYTES]), more=True)
            self.written_at = trio.current_time()

    async def finish(self, *, within: float) -> None:
        """Say that this was all, `within` seconds; else cut the response off."""
        with trio.move_on_after(within) as limit:
            async with self._lock:
                await self._put(b"", more=False)
        if limit.cancelled_caught:
            await self._cut()

    async def _put(self, piece: bytes, *, more: bool) -> None:
        """Send one piece. If it can't be sent whole, for whatever reason, the response ends where it stands."""
        sent = False
        try:
            with trio.move_on_after(self._timeout):
                await self._send({"type": "http.response.body", "body": piece, "more_body": more})
                sent = True
        except OSError:
            pass  # how ASGI 2.4 says that the client has left
        finally:
            if not sent:
                await self._cut()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _cut(self) -> None:
        """End the response where it stands."""
        self._response.cancel()
        if self._link is not None:
            # A middleware may stand between us and the connection: it would go on waiting for the client.
            await self._link.abort()


@asynccontextmanager
async def _opened(content: Content) -> AsyncIterator[AsyncIterator[Any]]:
    """The content's iterator, closed at the end of the block by the task that ran it."""
    if isinstance(content, AsyncIterable):
        iterator = aiter(content)
        try:
            yield iterator
        finally:
            if (aclose := getattr(iterator, "aclose", None)) is not None:
                await aclose()
    elif isinstance(content, AbstractAsyncContextManager):
        async with content as items, _opened(items) as iterator:
            yield iterator
    else:
        async with _opened(iterate_in_threadpool(content)) as iterator:
            yield iterator


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _cancel_when_set(event: Waitable, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _as_denial(send: Send) -> Send:
    """`send` for a response to an upgrade request (ASGI's extension `websocket.http.response`)."""

    async def denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return denial
