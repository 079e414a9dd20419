"""The take-over's transport: a Trio stream with a codec."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Sequence

import trio

from verbtrio.messages.frame import Frame
from verbtrio.wire.codec import Codec
from verbtrio.wire.events import PEER_GONE, Event, Progress
from verbtrio.wire.message_deadline import Assembler
from verbtrio.wire.tcp_info import acknowledged_and_in_flight
from verbtrio.wire.tls import RECORD_BYTES, Tls
from verbtrio.wire.transport import Close, Packet, Transport

RECEIVE_BYTES = 64 * 1024
"""What one read takes at most."""
SLICE_BYTES = 1024
"""What is decoded at a time: 14 messages of 64 bytes, or 150 of the frames that cost most (1-byte fragments, empty
pings), which take 1 ms. Between slices other connections have their turn, and the inbox's limit is checked. (The rest
of a frame that has begun may be read in larger portions: there is nothing in it to parse.)"""
TLS_READ_BYTES = 4 * 1024
"""What one read takes under TLS, whose records may hold nothing but TLS's own messages (150 key updates: 3 ms)."""
LINGER_BYTES = 256 * 1024
"""What is read and thrown away before a socket is closed, at most."""
LINGER_SECONDS = 1.0
"""How long that may take."""


def has_descriptor(stream: trio.abc.Stream) -> bool:
    """Whether a `StreamTransport` of `stream` has an `fd`."""
    if isinstance(stream, trio.SocketStream):
        return sys.platform != "win32"
    return Tls.taken_from(stream) is not None


class StreamTransport(Transport):
    """A Trio stream, after the opening handshake.

    Args:
        stream: from now on only this transport reads and writes it.
        codec: the connection's.
        early: bytes that the peer sent after its upgrade request.
    """

    __slots__ = ("_codec", "_joins", "_stream", "_tls", "_unread", "_written", "fd")

    can_ping = True

    def __init__(self, stream: trio.abc.Stream, codec: Codec, early: bytes = b"") -> None:
        self._stream = stream
        self._codec = codec
        self._joins = not codec.compresses  # kept here: a broadcast then does not touch the codec's memory
        self._unread = early
        self._written = 0  # writes by `write`
        self._tls = Tls.taken_from(stream)
        if isinstance(stream, trio.SSLStream) and self._tls is not None:
            self._stream = stream.transport_stream
        self.fd: int | None = None
        # A socket is read and written in place: a write costs a system call and no task (0.5 us instead of 20).
        if isinstance(self._stream, trio.SocketStream) and sys.platform != "win32":
            self.fd = self._stream.socket.fileno()

    def watch(self, on_begin: Callable[[Assembler], None]) -> None:
        self._codec.on_begin = on_begin

    async def receive(self) -> list[Event]:
        if self._unread:
            await trio.lowlevel.checkpoint()
        while not self._unread:
            try:
                if self._tls is not None and self._tls.has_more:
                    await trio.lowlevel.checkpoint()
                    self._unread = self._decrypt(self._tls, b"")
                    continue
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                if not data:
                    return [PEER_GONE]
                self._unread = data if self._tls is None else self._decrypt(self._tls, data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
                return [PEER_GONE]
        return self._decode()[0]

    def receive_nowait(self) -> tuple[list[Event], int]:
        if self._unread:
            return self._decode()
        assert self.fd is not None, "only called on an open transport with a descriptor"
        tls = self._tls
        try:
            if tls is None:
                data = os.read(self.fd, self._portion())
            elif tls.has_more:
                self._unread = self._decrypt(tls, b"")
                return self._decode()
            else:
                long = self._codec.frame_bytes_left > TLS_READ_BYTES
                data = os.read(self.fd, RECORD_BYTES if long else TLS_READ_BYTES)
        except BlockingIOError:
            return [], 0
        except OSError:  # `ssl.SSLError` is one
            return [PEER_GONE], 0
        if not data:
            return [PEER_GONE], 0
        if tls is None:
            events = self._codec.receive(data)
            if not events and self._codec.frame_bytes_left > SLICE_BYTES:
                events = self._read_on(self.fd)
            return events, min(len(data), SLICE_BYTES)
        try:
            self._unread = self._decrypt(tls, data)
        except ssl.SSLError:
            return [PEER_GONE], 0
        return self._decode()[0], len(data)

    def _read_on(self, fd: int) -> list[Event]:
        """Read on in a long message: the rest has most likely arrived, so it need not wait for another turn."""
        try:
            return self._codec.receive(os.read(fd, self._portion()))
        except OSError:  # nothing yet, or an error, which the next turn reports
            return []

    def _decrypt(self, tls: Tls, data: bytes) -> bytes:
        return tls.decrypt(data, self._portion())

    @property
    def has_unread(self) -> bool:
        return bool(self._unread) or (self._tls is not None and self._tls.has_more)

    def _decode(self) -> tuple[list[Event], int]:
        """Decode the next slice of what was read. Returns its events, and the work that it was: bytes parsed."""
        portion = self._portion()
        if len(self._unread) <= portion:
            part, self._unread = self._unread, b""
        else:
            part, self._unread = self._unread[:portion], self._unread[portion:]
        return self._codec.receive(part), min(len(part), SLICE_BYTES)

    def _portion(self) -> int:
        left = self._codec.frame_bytes_left
        return min(left, RECEIVE_BYTES) if left > SLICE_BYTES else SLICE_BYTES

    def progress(self) -> Progress:
        taken, in_flight = acknowledged_and_in_flight(self._stream) or (self._written, False)
        partial_bytes = self._codec.partial_bytes if self._codec.unfinished else 0
        return Progress(taken + int(getattr(self._stream, "taken", 0)), in_flight, partial_bytes)

    def replies(self) -> bytes:
        return self._codec.replies()

    def pack(self, packet: Packet) -> bytes | memoryview:
        if isinstance(packet, Frame):
            data: bytes | memoryview = self._codec.encode(packet)
        elif isinstance(packet, bytes | memoryview):
            data = packet
        elif isinstance(packet, Close):
            data = self._codec.close(packet.code, packet.reason)
        else:
            data = self._codec.ping()
        return data if self._tls is None else self._encrypt(self._tls, data)

    def _encrypt(self, tls: Tls, data: bytes | memoryview) -> bytes:
        try:
            return tls.encrypt(data)
        except ssl.SSLError:
            return b""  # the peer has closed TLS, which the reader reports

    def join(self, frames: Sequence[Frame]) -> bytes | None:
        if not self._joins:  # a compressed frame must be sent: the next one builds on it
            return None
        return frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames])

    def write_nowait(self, packet: Packet) -> Packet | None:
        data = self.pack(packet)
        if data and self.fd is not None:
            try:
                written = os.write(self.fd, data)
            except BlockingIOError:
                return data
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
            if written < len(data):
                return memoryview(data)[written:]
            return None
        return data or None

    async def write(self, packets: Sequence[Packet]) -> None:
        data = b"".join(packets)  # type: ignore[arg-type]  # packed ones are bytes
        if data:
            await self._stream.send_all(data)
            self._written += 1
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self, *, linger: bool) -> None:
        if self.fd is not None and not linger:
            self.fd = None
            self._let_go()
            self._stream.socket.close()  # type: ignore[attr-defined]  # a stream with an `fd` is a socket stream here
            await trio.lowlevel.checkpoint()
            return
        self.fd = None
        self._let_go()
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await drain(self._stream, LINGER_BYTES if linger else 0)
        finally:
            await trio.aclose_forcefully(self._stream)

    def _let_go(self) -> None:
        """Free what was read and is not a message yet, since the application may keep the `WebSocket`."""
        self._unread = b""
        self._codec.let_go()


async def drain(stream: trio.abc.Stream, max_bytes: int) -> None:
    """Shut down the sending side, then read and discard up to `max_bytes`. Closing a socket with unread data would
    reset the connection, and the peer might lose what it was sent last."""
    # hypercorn's TLS is `https_compatible`: it sends no close_notify, so the socket below it can be shut down at once.
    stream = getattr(stream, "transport_stream", stream)
    try:
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
            while max_bytes > 0 and (data := await stream.receive_some(RECEIVE_BYTES)):
                max_bytes -= len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
        pass
