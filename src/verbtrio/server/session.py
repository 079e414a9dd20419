"""The handshake by ASGI's receive and send, over a stream that was taken over from the server.

Every WebSocket begins with a `Session`: accept and denial are ASGI messages, which pass through whatever middleware the
application has. After the accept, verbtrio's own endpoint takes the stream (`take`). Any other ASGI application
(Starlette's `WebSocketRoute`, FastAPI) goes on with `receive` and `send`, which lead to its `Conversation`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio
from starlette.types import Message

from verbtrio.base.errors import HandshakeError
from verbtrio.base.limits import Limits
from verbtrio.base.types import Shared
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.server.asgi_messages import close_of, frame_of
from verbtrio.server.asgi_websocket import Conversation, PeerGone
from verbtrio.server.host import Host
from verbtrio.wire.stream_transport import StreamTransport, has_descriptor

if TYPE_CHECKING:
    from verbtrio.wire.handshake import Handshake, RawHeaders


class HandshakeResponse(Protocol):
    """Answers an upgrade request, over HTTP/1.1 or HTTP/2."""

    async def accept(self, headers: RawHeaders) -> None:
        """Accept the upgrade (101 over HTTP/1.1, 200 over HTTP/2)."""

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Deny the upgrade: begin another response."""

    async def body(self, data: bytes, *, more: bool) -> None:
        """Send a part of that response's body."""

    async def refuse(self, error: HandshakeError) -> None:
        """Answer a request that is not a valid upgrade."""


class _State(enum.Enum):
    HANDSHAKE = enum.auto()
    DENYING = enum.auto()
    DENIED = enum.auto()
    OPEN = enum.auto()
    TAKEN = enum.auto()
    CLOSED = enum.auto()


class Session(Shared):
    """One upgrade request and the WebSocket it may become.

    Args:
        stream: the peer, from the end of the handshake on.
        handshake: the checked request.
        response: answers it.
        early: bytes that came after the request.
        terminated: the worker's event, set when it begins to shut down.
        limits: until the application accepts; then a route of ours brings its own.
        host: the hub.
        asgi_settings: returns the limits and the heartbeat for an application that goes on with `receive` and `send`.

    Attributes:
        nursery: around the application's call, for the reader of a connection that the poller can't read.
    """

    nursery: trio.Nursery | None = None

    def __init__(
        self,
        stream: trio.abc.Stream,
        handshake: Handshake,
        response: HandshakeResponse,
        early: bytes,
        terminated: Any,
        limits: Limits,
        host: Host,
        asgi_settings: Callable[[], tuple[Limits, Heartbeat | None]],
    ) -> None:
        self._host = host
        self._asgi_settings = asgi_settings
        self.terminated = terminated
        """The worker's event."""
        self.answering = trio.CancelScope(deadline=trio.current_time() + limits.handshake_timeout)
        """Around the application's call, with a deadline until the request is answered."""
        self.remain: Callable[[], Awaitable[None]] | None = None
        """Run by the server, in the same task, after the application's call: the connection, where nobody else waits
        for its end (see `unwind`)."""
        self._stream = stream
        self._handshake = handshake
        self._response: HandshakeResponse | None = response
        self._early = early
        self._limits = limits
        self._compression = False
        self._state = _State.HANDSHAKE
        self._connected = False
        self._denial: tuple[int, RawHeaders] = (403, [])
        self._status = 0
        self.subprotocol: str | None = None
        self._transport: StreamTransport
        self._conversation: Conversation | None = None
        self._configured = False
        self.draining = False
        self._cut_at = math.inf

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers, in its order of preference."""
        return self._handshake.subprotocols

    @property
    def status(self) -> int:
        """The status of the answer; 0 before there is one."""
        return self._status

    def configure(self, limits: Limits, *, compression: bool) -> None:
        """Set what holds for a route of ours. Called before it accepts."""
        self._limits = limits
        self._compression = compression
        self._configured = True

    @property
    def is_polled(self) -> bool:
        """Whether the poller can read the connection; if not, `nursery` is needed."""
        return self._host.poller is not None and has_descriptor(self._stream)

    def take(self) -> StreamTransport:
        """Hand the accepted connection over. `receive` and `send` can't be used any more."""
        if self._state is not _State.OPEN:
            raise RuntimeError("only a connection that was just accepted can be taken")
        self._state = _State.TAKEN
        transport = self._transport
        # An idle connection has no use for them.
        del self._handshake, self._transport, self._asgi_settings
        self._host.discard_session(self)  # the hub drains the connection instead
        return transport

    @property
    def is_taken(self) -> bool:
        return self._state is _State.TAKEN

    def drain(self) -> None:
        """Close with 1012, now or when the application accepts."""
        self.draining = True
        if self._conversation is not None:
            self._conversation.drain()

    def hurry(self, deadline: float) -> None:
        """Set the drain's time limit. The application's call is cancelled then, and the closing handshake cut short."""
        if self._state is not _State.TAKEN:
            self._cut_at = deadline
            self.answering.deadline = min(self.answering.deadline, deadline)
            if self._conversation is not None:
                self._conversation.hurry(deadline)

    async def receive(self) -> Message:
        """ASGI's receive. If cancelled, no message is lost.

        Raises:
            trio.BusyResourceError: another task is receiving.
        """
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._state is _State.OPEN:
            return await self._converse().receive()
        await trio.lowlevel.checkpoint()
        return {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async def send(self, message: Message) -> None:
        """ASGI's send.

        Raises:
            PeerGone: the connection is closed, or the peer has not read for `Limits.send_timeout`.
            RuntimeError: `message` has no place in the connection's state.
            ValueError: the accept names a subprotocol that was not offered, or a header of the handshake's own.
            TypeError: neither `text` nor `bytes` of a `websocket.send` has the type that ASGI requires.
            UnicodeEncodeError: `text` holds a lone surrogate.
        """
        kind = message["type"]
        if self._state is _State.HANDSHAKE and kind == "websocket.accept":
            await self._accept(message)
        elif self._state is _State.HANDSHAKE and kind == "websocket.close":
            await self._deny(403, [], b"", more=False)
        elif self._state is _State.HANDSHAKE and kind == "websocket.http.response.start":
            self._denial = (int(message["status"]), list(message.get("headers", ())))
            self._state = _State.DENYING
        elif self._state is _State.DENYING and kind == "websocket.http.response.body":
            await self._deny(*self._denial, bytes(message.get("body", b"")), more=bool(message.get("more_body")))
        elif self._state is _State.CLOSED or (self._conversation is not None and self._conversation.closed is not None):
            await trio.lowlevel.checkpoint()
            raise PeerGone("the WebSocket is closed")
        elif self._state is _State.OPEN and kind == "websocket.send":
            await self._converse().send(frame_of(message))
        elif self._state is _State.OPEN and kind == "websocket.close":
            await self._converse().close(*close_of(message))
        else:
            raise RuntimeError(f"{kind!r} has no place in the state {self._state.name}")

    async def finish(self, *, failed: bool) -> None:
        """The application has returned, or failed: answer what it left unanswered."""
        if self._state is _State.HANDSHAKE:
            if self.answering.cancelled_caught:
                headers = [(b"retry-after", b"5"), (b"content-length", b"0")]
                await self._deny(503, headers, b"", more=False)
            else:
                await self._deny(500, [], b"", more=False)
        elif self._state is _State.DENYING and self._status:
            await self._deny(*self._denial, b"", more=False)
        elif self._state is _State.DENYING:  # its head has not been sent
            await self._deny(500, [], b"", more=False)
        elif self._state is _State.OPEN:
            await self._converse().finish(failed=failed)

    async def _accept(self, message: Message) -> None:
        heartbeat: Heartbeat | None = None
        if not self._configured:
            self._limits, heartbeat = self._asgi_settings()
        headers, codec = self._handshake.accept(
            message.get("subprotocol"),
            message.get("headers", ()),
            max_message_bytes=self._limits.max_message_bytes,
            compression=self._compression,
        )
        assert self._response is not None
        response, self._response = self._response, None
        self.subprotocol = message.get("subprotocol")
        self._status = 101
        self._state = _State.CLOSED  # if the answer can't be sent
        with _peer_gone():
            await response.accept(headers)
        self.answering.deadline = self._cut_at
        self._transport = StreamTransport(self._stream, codec, self._early)
        self._early = b""
        self._heartbeat = heartbeat
        self._state = _State.OPEN
        if not self._configured:  # else a route of ours takes the connection
            self._converse()

    def _converse(self) -> Conversation:
        """The open WebSocket: begun by the accept, or by the first message where a route of ours has not taken it."""
        if self._conversation is None:
            nursery = None if self.is_polled else self.nursery
            self._conversation = Conversation(self._transport, self._limits, self._heartbeat, self._host, nursery)
            if self.draining:
                self._conversation.drain()
                self._conversation.hurry(self.answering.deadline)
        return self._conversation

    async def _deny(self, status: int, headers: RawHeaders, body: bytes, *, more: bool) -> None:
        assert self._response is not None
        if self._status == 0:
            self.answering.deadline = self._cut_at
            if not headers and not more:
                headers = [(b"content-length", str(len(body)).encode())]
            try:
                with _peer_gone():
                    await self._response.start(status, headers)
            except PeerGone:
                self._state = _State.DENIED  # there is nobody left to answer
                raise
            self._status = status
        self._state = _State.DENYING if more else _State.DENIED
        with _peer_gone():
            await self._response.body(body, more=more)


@contextmanager
def _peer_gone() -> Iterator[None]:
    """Turn Trio's errors for a peer that has left into ASGI's."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise PeerGone("the peer is gone") from error
