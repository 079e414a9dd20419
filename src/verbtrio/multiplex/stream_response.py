"""The response that carries a client's messages: in chunks of lines or of Protobuf, or as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping

import trio

from verbtrio.base.close import TOKEN_EXPIRED, Cause, CloseInfo
from verbtrio.http.sse import ServerSentEvent
from verbtrio.http.streaming import Stream
from verbtrio.http.writer import Writer
from verbtrio.multiplex.streamed import StreamedCarrier

BINARY = "application/octet-stream"


class ClientResponse(Stream):
    """What a client receives, until its end.

    Args:
        carrier: gives the messages.
        is_binary: whether they are Protobuf.
        headers: further ones.

    Attributes:
        is_overdue: whether it was cut off because the client did not take a piece of it in time.
    """

    def __init__(self, carrier: StreamedCarrier, *, is_binary: bool, headers: Mapping[str, str]) -> None:
        self._carrier = carrier
        self._is_binary = is_binary
        self._writer: Writer | None = None
        chunked = BINARY if is_binary else "application/x-ndjson"
        # Otherwise a cache might keep it, and nginx would wait until a buffer is full.
        headers = {**headers, "cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(
            self._batches(),
            headers=headers,
            media_type="text/event-stream" if carrier.name == "sse" else chunked,
            send_timeout=carrier.limits.send_timeout,
        )

    @property
    def is_overdue(self) -> bool:
        return self._writer is not None and self._writer.is_overdue

    async def _batches(self) -> AsyncGenerator[bytes, None]:
        """If cancelled, what is queued is lost with the response."""
        while (messages := await self._carrier.take()) is not None:
            if self._carrier.name == "sse":
                yield ServerSentEvent(b"\n".join(messages).decode()).encode()
            elif self._is_binary:
                yield b"".join(messages)
            else:
                yield b"".join([message + b"\n" for message in messages])

    def _accompany(self, nursery: trio.Nursery, writer: Writer, body: trio.CancelScope) -> None:
        self._carrier.bind_body(body)
        self._writer = writer
        expires = self._carrier.ws.scope.get("verbtrio.expires")
        if expires is not None:
            nursery.start_soon(self._expire, expires)

    async def _expire(self, expires: float) -> None:
        """End the client when the token of its middleware expires. An `exp` is a wall-clock time (RFC 7519)."""
        await trio.sleep(max(0.0, expires - time.time()))
        self._carrier.end(CloseInfo(Cause.EXPIRED, TOKEN_EXPIRED, "Token expired"))
