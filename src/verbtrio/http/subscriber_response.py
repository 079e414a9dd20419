"""The response an event subscriber receives: its messages as server-sent events, until its end.

A text message is an event's data. One of a room with history has its position as the event's id, from which the client
goes on when it reconnects. A binary one is an event of the type `binary`, in base64. If the server ends the
stream, the last event has the type `close`, with the code and the reason that a WebSocket's Close frame would carry.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import trio

from verbtrio.base.close import TOKEN_EXPIRED, Cause, CloseInfo
from verbtrio.http.event_subscriber import EventBlock, Packet, SubscriberPeer
from verbtrio.http.sse import EventStream, ServerSentEvent
from verbtrio.http.writer import Writer
from verbtrio.messages.published import Published


class SubscriberResponse(EventStream):
    """What an event subscriber receives. A shutdown ends the subscriber, which then sends its `close` event."""

    ends_at_shutdown = False

    def __init__(self, peer: SubscriberPeer, **options: Any) -> None:
        super().__init__(events(peer), send_timeout=peer.limits.send_timeout, **options)
        self._peer = peer

    async def _chunks(self, items: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        if self._retry is not None:
            yield ServerSentEvent(retry=self._retry).encode()
        async for chunk in items:
            yield chunk

    def _accompany(self, nursery: trio.Nursery, writer: Writer, body: trio.CancelScope) -> None:
        super()._accompany(nursery, writer, body)
        self._peer.bind_body(body)
        if self._peer.settling is not None:
            nursery.start_soon(self._peer.settling.run)
        nursery.start_soon(self._expire)

    async def _expire(self) -> None:
        """End the subscriber when its token expires. An `exp` is a wall-clock time (RFC 7519)."""
        expires = self._peer.subscriber.scope.get("verbtrio.expires")
        if expires is not None:
            await trio.sleep(max(0.0, expires - time.time()))
            self._peer.end(CloseInfo(Cause.EXPIRED, TOKEN_EXPIRED, "Token expired"))


async def events(peer: SubscriberPeer) -> AsyncGenerator[bytes, None]:
    """What is sent to the client, until its end. If cancelled, what is queued is lost with the stream."""
    while (frames := await peer.take()) is not None:
        yield b"".join(map(_event, frames))
    assert peer.closed is not None, "it is its end that leaves nothing to take"
    yield ServerSentEvent({"code": peer.closed.code, "reason": peer.closed.reason}, event="close").encode()


def _event(frame: Packet) -> bytes:
    if isinstance(frame, EventBlock):
        return frame
    payload = frame.payload
    head = b"id: %b\n" % str(frame.position).encode() if isinstance(frame, Published) else b""
    if not frame.text:
        return head + b"event: binary\ndata: " + base64.b64encode(payload) + b"\n\n"
    if b"\n" in payload or b"\r" in payload:
        return head + ServerSentEvent(payload.decode()).encode()
    return head + b"data: " + payload + b"\n\n"
