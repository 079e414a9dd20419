"""Responses whose body is produced while it is sent: `Stream`, and `JSONArray` for one JSON document of many items.

    @app.get("/numbers")
    async def numbers(request: Request) -> Stream:
        return Stream(count(), media_type="text/plain")

Starlette's `StreamingResponse` and `FileResponse` (files, ranges) work as usual. `Stream` does more:

- The task that iterates over the content closes it. With Starlette, an async generator that is at its `yield` when the
  client leaves is left to the garbage collector. Trio then runs its `finally` block at some later time, with a
  `ResourceWarning`, and nothing in that block may wait.
- A client that stops reading ends the response on every server, after the response's own `send_timeout`.
- A HEAD request, which Starlette accepts for every GET route, is answered without starting the content.

When a client leaves, the content is cancelled where it waits: at one of its awaits, or at its `yield` (then it is
closed: `GeneratorExit`). In both cases an await in a `finally` block needs a shield with a deadline, as always in Trio.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeAlias

import msgspec
import trio
from starlette.background import BackgroundTask
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from verbtrio.base.types import EncodeHook, Waitable
from verbtrio.http.link import link_of
from verbtrio.http.writer import CHUNK_BYTES, END_SECONDS, Writer

SEND_TIMEOUT_SECONDS = 60.0
"""nginx's default, too, for a client that takes nothing."""

Content: TypeAlias = AsyncIterable[Any] | AbstractAsyncContextManager[AsyncIterable[Any]] | Iterable[Any]
"""An async iterable; a context manager that gives one (a generator under `@trio.as_safe_channel`, which may hold
nurseries and cancel scopes); or a plain iterable (iterated over in a thread)."""


def encode_hook_of(scope: Scope) -> EncodeHook | None:
    """The `encode=` hook of the app whose route this is."""
    hook: EncodeHook | None = getattr(scope.get("app"), "encode_hook", None)
    return hook


class Stream(Response):
    """A response that sends its content piece by piece, each once the one before has been sent.

    Args:
        content: yields `str` (sent as UTF-8) or bytes; see `Content`.
        status_code, headers, media_type, background: as in Starlette.
        send_timeout: seconds that 64 KiB may wait for the client to read; then the response is cut off. `None`: no
            limit.

    If the content raises, the client leaves, or the server's time for its shutdown is over, the response is cut off,
    and the client can tell that it is not complete. An upload that is still coming in is discarded, so read it first.

    Raises:
        TypeError: `content` is not a `Content`, for example a generator function that has not been called.
    """

    ends_at_shutdown = False
    """Whether it ends when the server begins to shut down, rather than at the end of the grace period."""

    _encode_hook: EncodeHook | None = None  # set when it is sent

    def __init__(
        self,
        content: Content,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        *,
        send_timeout: float | None = SEND_TIMEOUT_SECONDS,
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
        """Send the response. If cancelled, the content is closed, and the response cut off."""
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
        if link is not None:  # our own limit comes first; the connection's is for the rest, such as the head
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
            except Exception as raised:  # the application's error handlers expect no groups
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
        """The pieces to send, made from the content's items."""
        async for item in items:
            yield item.encode(self.charset) if isinstance(item, str) else item

    def _accompany(self, nursery: trio.Nursery, writer: Writer, body: trio.CancelScope) -> None:
        """Start what runs beside the body, in the response's nursery. Subclasses override this."""


class JSONArray(Stream):
    """One JSON array, sent while its items are produced.

    Args:
        content: yields the items: whatever msgspec, or the app's `encode=` hook, can encode (see `Content`).
        batch: how many items (or 64 KiB of them) make one piece. An item waits until its batch is full, so a slow
            source wants 1.
        status_code, headers, background, send_timeout: as in `Stream`.

    An item that can't be encoded cuts the response off, like any exception.
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


@asynccontextmanager
async def _opened(content: Content) -> AsyncIterator[AsyncIterator[Any]]:
    """The content's iterator. At the end of the block the task that used it closes it."""
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
    """`send` for a response that denies an upgrade (ASGI's extension `websocket.http.response`)."""

    async def denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return denial
