"""The plain transport: ASGI's `receive` and `send`."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from starlette.types import Receive, Send

from verbtrio.base.close import ABNORMAL_CLOSURE, MESSAGE_TOO_BIG, NO_STATUS_RECEIVED, Cause
from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Disconnect, Event
from verbtrio.wire.transport import Close, Packet, Transport


class ASGITransport(Transport):
    """A WebSocket through ASGI's own messages: for other servers, and without the take-over.

    It can promise no more than the server does. hypercorn, for example, reports every close as 1006, and a send to a
    peer that has stopped reading can't be cancelled. There are no pings.
    """

    can_ping = False

    def __init__(self, receive: Receive, send: Send, *, max_message_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_message_bytes = max_message_bytes
        self._closed = False

    async def receive(self) -> list[Event]:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            code = int(message.get("code") or NO_STATUS_RECEIVED)
            cause = Cause.GONE if code == ABNORMAL_CLOSURE else Cause.PEER
            return [Disconnect(cause, code, message.get("reason") or "")]
        text = message.get("text")
        data: str | bytes = message["bytes"] if text is None else text
        if self._is_too_big(data):
            return [Disconnect(Cause.SIZE, MESSAGE_TOO_BIG, f"over {self._max_message_bytes} bytes")]
        return [data]

    def replies(self) -> bytes:
        return b""

    def pack(self, packet: Packet) -> Packet:
        return packet

    def write_nowait(self, packet: Packet) -> Packet | None:
        return packet  # a send may block, so the writer task does it

    async def write(self, packets: Sequence[Packet]) -> None:
        try:
            for packet in packets:
                if self._closed:
                    break
                if isinstance(packet, Frame):
                    kind = {"text": packet.payload.decode()} if packet.text else {"bytes": packet.payload}
                    await self._send({"type": "websocket.send", **kind})
                elif isinstance(packet, Close):
                    self._closed = True
                    await self._send({"type": "websocket.close", "code": packet.code, "reason": packet.reason})
            else:
                await trio.lowlevel.checkpoint()
        except OSError as error:  # ASGI: `send` raises it once the peer is gone
            raise trio.BrokenResourceError(str(error)) from error

    async def aclose(self, *, linger: bool) -> None:
        await trio.lowlevel.checkpoint()  # the server closes the connection when the application returns

    def _is_too_big(self, data: str | bytes) -> bool:
        limit = self._max_message_bytes
        if len(data) > limit:
            return True
        # A character takes 4 bytes in UTF-8 at most, so only long texts need encoding.
        return isinstance(data, str) and 4 * len(data) > limit and len(data.encode()) > limit
