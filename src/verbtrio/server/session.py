"""ASGI's receive and send over a stream that was taken over from the server.

A `Session` carries the handshake for everybody: accept and deny are ASGI messages that pass through whatever
middleware the application has. Once accepted, verbtrio's own endpoint takes the stream (`take`); any other ASGI
application (Starlette's `WebSocketRoute`, FastAPI) goes on with `receive` and `send`, over the same codec and with the
peer's real close code and reason.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio
from starlette.types import Message

from verbtrio.base.close import sendable_close
from verbtrio.base.limits import Limits
from verbtrio.base.types import Shared
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.messages.frame import Frame, encode
from verbtrio.server.asgi_websocket import Conversation, Host, PeerGone
from verbtrio.wire.stream_transport import StreamTransport, has_descriptor

if TYPE_CHECKING:
    from verbtrio.wire.handshake import Handshake, RawHeaders


logger = logging.getLogger("verbtrio.asgi")


class HandshakeAnswer(Protocol):
    """The HTTP side of the connection, for as long as the handshake lasts. The server's adapter brings it."""

    async def accept(self, headers: RawHeaders) -> None:
        """Grant the upgrade (101 over HTTP/1.1, 200 over HTTP/2)."""

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Begin another response: the upgrade is denied."""

    async def body(self, data: bytes, *, more: bool) -> None:
        """Send a part of that response's body."""


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
        response: how to answer it.
        early: bytes that came behind the request.
        terminated: the worker's event: set when it begins to shut down.
        limits: until the application accepts; a route of ours then brings its own.
        host: the hub.
        terms: gives the limits and the heartbeat for an application that goes on with `receive` and `send`.

    Attributes:
        nursery: for the reader of a connection that the poller can't read: around the application's call.
    """

    nursery: trio.Nursery | None = None

    def __init__(
        self,
        stream: trio.abc.Stream,
        handshake: Handshake,
        response: HandshakeAnswer,
        early: bytes,
        terminated: Any,
        limits: Limits,
        host: Host,
        terms: Callable[[], tuple[Limits, Heartbeat | None]],
    ) -> None:
        self._host = host
        self._terms = terms
        self.terminated = terminated
        """The worker's event."""
        self.answering = trio.CancelScope(deadline=trio.current_time() + limits.handshake_timeout)
        """What the application is called in: it has a deadline until the request is answered."""
        self.remain: Callable[[], Awaitable[None]] | None = None
        """What the server is to run, in the same task, when the application's call is over: the connection, where
        nobody else waits for its end (see `unwind`)."""
        self._stream = stream
        self._handshake = handshake
        self._response: HandshakeAnswer | None = response
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
        """The status the request was answered with; 0 before it is."""
        return self._status

    def configure(self, limits: Limits, *, compression: bool) -> None:
        """Settings of the route, before it accepts."""
        self._limits = limits
        self._compression = compression
        self._configured = True

    @property
    def is_polled(self) -> bool:
        """Whether the poller will read it; else `nursery` is needed."""
        return self._host.poller is not None and has_descriptor(self._stream)

    def take(self) -> StreamTransport:
        """Hand the accepted connection over; `receive` and `send` are done with."""
        if self._state is not _State.OPEN:
            raise RuntimeError("only a connection that was just accepted can be taken")
        self._state = _State.TAKEN
        transport = self._transport
        # What an idle connection would hold for nothing.
        del self._handshake, self._transport, self._terms
        self._host.discard_session(self)  # the connection is drained by itself
        return transport

    @property
    def is_taken(self) -> bool:
        return self._state is _State.TAKEN

    def drain(self) -> None:
        """End with 1012, now or when the application accepts."""
        self.draining = True
        if self._conversation is not None:
            self._conversation.drain()

    def hurry(self, deadline: float) -> None:
        """The drain's time limit: what the application has not ended by then is cut short, its call cancelled."""
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
            return await self._talk().receive()
        await trio.lowlevel.checkpoint()
        return {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async def send(self, message: Message) -> None:
        """ASGI's send.

        Raises:
            PeerGone: the connection is closed, or the peer has not read for `Limits.send_timeout`.
            RuntimeError: `message` has no place in the connection's state.
            ValueError: the accept names a subprotocol nobody offered, or a header of the handshake's own; or a code or
                a reason must not be sent.
            TypeError: the code is no `int`, or the reason no `str`.
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
            await self._talk().send(_frame(message))
        elif self._state is _State.OPEN and kind == "websocket.close":
            await self._talk().close(*_close_of(message))
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
        elif self._state is _State.DENYING:  # its beginning could not be sent
            await self._deny(500, [], b"", more=False)
        elif self._state is _State.OPEN:
            await self._talk().finish(failed=failed)

    async def _accept(self, message: Message) -> None:
        heartbeat: Heartbeat | None = None
        if not self._configured:
            self._limits, heartbeat = self._terms()
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
        self._state = _State.CLOSED  # should the answer not get through
        with _peer_gone():
            await response.accept(headers)
        self.answering.deadline = self._cut_at
        self._transport = StreamTransport(self._stream, codec, self._early)
        self._early = b""
        self._heartbeat = heartbeat
        self._state = _State.OPEN
        if not self._configured:  # else it will be taken, most likely
            self._talk()

    def _talk(self) -> Conversation:
        """The open WebSocket by ASGI's messages: from the accept on, or where a route of ours has not taken it."""
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


def _frame(message: Message) -> Frame:
    """What `websocket.send` says, as a frame.

    Raises:
        TypeError: neither `text` nor `bytes` is what it should be.
        UnicodeEncodeError: `text` holds a lone surrogate.
    """
    data, text = message.get("bytes"), message.get("text")
    if isinstance(data, bytes | bytearray | memoryview) or (data is None and isinstance(text, str)):
        return encode(text if data is None else data)
    kinds = f"text: {type(text).__name__}, bytes: {type(data).__name__}"
    raise TypeError(f"websocket.send takes 'bytes' (bytes) or 'text' (str), not {kinds}")


def _close_of(message: Message) -> tuple[int, str]:
    """The code and reason of `websocket.close` that can be sent, and a line in the log where the code could not."""
    given = message.get("code")
    code, reason = sendable_close(given, message.get("reason"))
    if given is not None and given != code:
        logger.warning("the application closed a WebSocket with %.100r, which can't be sent: %d is sent", given, code)
    return code, reason


@contextmanager
def _peer_gone() -> Iterator[None]:
    """Trio's words for a peer that has left, in ASGI's."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise PeerGone("the peer is gone") from error
