"""ASGI's receive and send over a stream that was taken over from the server.

A `Session` carries the handshake for everybody: accept and deny are ASGI messages that pass through whatever
middleware the application has. Once accepted, verbtrio's own endpoint takes the stream (`take`); any other ASGI
application (Starlette's `WebSocketRoute`, FastAPI) goes on with `receive` and `send`, over the same codec and with the
peer's real close code and reason.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio
from starlette.types import Message

from verbtrio.closing import INTERNAL_ERROR, NORMAL_CLOSURE, SERVICE_RESTART, Cause, check_close
from verbtrio.events import Closed
from verbtrio.limits import Limits
from verbtrio.messages import encode
from verbtrio.streams import StreamTransport
from verbtrio.transports import Close, Packet

if TYPE_CHECKING:
    from verbtrio.handshake import Handshake, RawHeaders


class PeerGone(OSError):  # noqa: N818 -- a fact
    """The peer has left, or reads nothing: what ASGI's send raises (the one `OSError` that is not worth a log line)."""


class Response(Protocol):
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


class Session:
    """One upgrade request and the WebSocket it may become.

    Args:
        stream: the peer, from the end of the handshake on.
        handshake: the checked request.
        response: how to answer it.
        early: bytes that came behind the request.
        terminated: the worker's event: set when it begins to shut down.
        limits: for an application that goes on with `receive` and `send`.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        handshake: Handshake,
        response: Response,
        early: bytes,
        terminated: Any,
        limits: Limits,
    ) -> None:
        self.terminated = terminated
        """The worker's event."""
        self.answering = trio.CancelScope(deadline=trio.current_time() + limits.handshake_timeout)
        """What the application is called in: it has a deadline until the request is answered."""
        self.remain: Callable[[], Awaitable[None]] | None = None
        """What the server is to run, in the same task, when the application's call is over: the connection, where
        nobody else waits for its end (see `unwind`)."""
        self._stream = stream
        self._handshake = handshake
        self._response: Response | None = response
        self._early = early
        self._limits = limits
        self._compression = False
        self._state = _State.HANDSHAKE
        self._connected = False
        self._denial: tuple[int, RawHeaders] = (403, [])
        self._status = 0
        self.subprotocol: str | None = None
        self._transport: StreamTransport
        self._events: deque[str | bytes | Closed] = deque()  # what one read brought; read on only when empty
        self._disconnect: Message = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        self._writing = trio.Lock()
        self._receiving: trio.CancelScope | None = None
        self._ended = trio.Event()
        self._draining = False

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

    def take(self) -> StreamTransport:
        """Hand the accepted connection over; `receive` and `send` are done with."""
        if self._state is not _State.OPEN:
            raise RuntimeError("only a connection that was just accepted can be taken")
        self._state = _State.TAKEN
        transport = self._transport
        # 5 KB that an idle connection would hold for nothing.
        del self._handshake, self._events, self._transport, self._writing, self._ended, self._disconnect
        return transport

    @property
    def is_taken(self) -> bool:
        return self._state is _State.TAKEN

    def drain(self) -> None:
        """End with 1012 at the application's next `receive`, or the one it is in."""
        self._draining = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def receive(self) -> Message:
        """ASGI's receive. If cancelled, no message is lost."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._draining and self._state is _State.OPEN:
                await self._close(SERVICE_RESTART, "The server is restarting")
            if self._state is not _State.OPEN:
                return self._disconnect
            await self._read()
        event = self._events.popleft()
        if isinstance(event, Closed):
            if self._state is _State.OPEN:
                self._state = _State.CLOSED
                self._disconnect = {"type": "websocket.disconnect", "code": event.code, "reason": event.reason}
                await self._transport.aclose(linger=event.cause in (Cause.SIZE, Cause.PROTOCOL))
            return self._disconnect
        return {
            "type": "websocket.receive",
            "text": event if isinstance(event, str) else None,
            "bytes": event if isinstance(event, bytes) else None,
        }

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
        elif self._state is _State.OPEN and kind == "websocket.send":
            data = message.get("bytes")
            await self._write(encode(message["text"] if data is None else data))
        elif self._state is _State.OPEN and kind == "websocket.close":
            code, reason = message.get("code") or NORMAL_CLOSURE, message.get("reason") or ""
            check_close(code, reason)
            await self._close(code, reason)
        elif self._state is _State.CLOSED:
            raise PeerGone("the WebSocket is closed")
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
            if self._draining:
                await self._close(SERVICE_RESTART, "The server is restarting")
            else:
                await self._close(INTERNAL_ERROR if failed else NORMAL_CLOSURE, "")

    async def _accept(self, message: Message) -> None:
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
        self.answering.deadline = math.inf
        self._transport = StreamTransport(self._stream, codec, self._early)
        self._early = b""
        self._state = _State.OPEN

    async def _deny(self, status: int, headers: RawHeaders, body: bytes, *, more: bool) -> None:
        assert self._response is not None
        if self._status == 0:
            self.answering.deadline = math.inf
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

    async def _read(self) -> None:
        """Read once: what came is kept before anything else is waited for, so no cancellation can lose it."""
        try:
            with trio.CancelScope() as self._receiving:
                events = await self._transport.receive()
                self._events.extend(event for event in events if isinstance(event, str | bytes | Closed))
                if any(isinstance(event, Closed) for event in events):
                    self._ended.set()
        finally:
            self._receiving = None
        if self._state is _State.OPEN and (replies := self._transport.replies()):
            with trio.move_on_after(2 * self._limits.send_timeout, shield=True):  # behind one that is being sent
                try:
                    await self._write(replies)
                except PeerGone:
                    pass  # `receive` tells

    async def _write(self, packet: Packet) -> None:
        """Write one packet whole; a write that is cut short ends the connection."""
        async with self._writing:
            if self._state is not _State.OPEN:
                raise PeerGone("the WebSocket is closed")
            whole = False
            try:
                with trio.move_on_after(self._limits.send_timeout), _peer_gone():
                    await self._transport.write([self._transport.pack(packet)])
                    whole = True
            finally:
                if not whole:
                    self._state = _State.CLOSED
            if not whole:
                raise PeerGone(f"the peer has read nothing for {self._limits.send_timeout:g} s")

    async def _close(self, code: int, reason: str) -> None:
        """Our Close frame, then the peer's (RFC 6455 section 7.1.2), `Limits.close_timeout` at most."""
        self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        with trio.move_on_after(self._limits.close_timeout):
            try:
                await self._write(Close(code, reason))
                self._state = _State.CLOSED
                while not self._ended.is_set():
                    if self._receiving is not None:  # another task is in `receive`: it will see the end
                        await self._ended.wait()
                    else:
                        await self._read()
            except PeerGone:
                pass
        self._state = _State.CLOSED
        await self._transport.aclose(linger=False)


@contextmanager
def _peer_gone() -> Iterator[None]:
    """Trio's words for a peer that has left, in ASGI's."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise PeerGone("the peer is gone") from error
