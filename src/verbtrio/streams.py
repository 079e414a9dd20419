"""The take-over's transport: a Trio stream, and the codec on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import trio

from verbtrio.codec import Codec
from verbtrio.events import GONE, Event
from verbtrio.messages import Frame
from verbtrio.transports import Close, Packet, Transport

RECEIVE_BYTES = 64 * 1024
SLICE_BYTES = 4 * 1024
"""What is decoded at a time. 64 KiB hold 10,900 empty frames, which take 70 ms, or compressed messages of 64 MiB:
between slices others have their turn, and the inbox's limit is looked at. (The rest of a frame that has begun may be
read in larger portions: it costs nothing to take apart.)"""
LINGER_BYTES = 256 * 1024
LINGER_SECONDS = 1.0


class StreamTransport(Transport):
    """A Trio stream whose handshake is over: the way of the take-over.

    Args:
        stream: from now on read and written by this transport alone.
        codec: the connection's frames.
        early: bytes the peer sent behind its upgrade request.
    """

    can_ping = True

    def __init__(self, stream: trio.abc.Stream, codec: Codec, early: bytes = b"") -> None:
        self._stream = stream
        self._codec = codec
        self._unread = early
        # A plain socket is read and written in place: a write costs its system call and no task (0.5 us against 20).
        if isinstance(stream, trio.SocketStream) and sys.platform != "win32":
            self.fd = stream.socket.fileno()

    async def receive(self) -> list[Event]:
        if self._unread:
            await trio.lowlevel.checkpoint()
        else:
            try:
                self._unread = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return [GONE]
            if not self._unread:
                return [GONE]
        return self._decode()[0]

    def receive_nowait(self) -> tuple[list[Event], int]:
        if not self._unread:
            assert self.fd is not None, "asked only of a transport that has one, until it is closed"
            try:
                self._unread = os.read(self.fd, self._portion())
            except BlockingIOError:
                return [], 0
            except OSError:
                return [GONE], 0
            if not self._unread:
                return [GONE], 0
        return self._decode()

    @property
    def has_unread(self) -> bool:
        return bool(self._unread)

    def _decode(self) -> tuple[list[Event], int]:
        """The next slice of what was read, and what that is worth: bytes that have to be taken apart."""
        portion = self._portion()
        if len(self._unread) <= portion:
            part, self._unread = self._unread, b""
        else:
            part, self._unread = self._unread[:portion], self._unread[portion:]
        return self._codec.receive(part), min(len(part), SLICE_BYTES)

    def _portion(self) -> int:
        return max(SLICE_BYTES, min(self._codec.owed, RECEIVE_BYTES))

    def replies(self) -> bytes:
        return self._codec.replies()

    def pack(self, packet: Packet) -> bytes | memoryview:
        if isinstance(packet, Frame):
            return self._codec.encode(packet)
        if isinstance(packet, bytes | memoryview):
            return packet
        if isinstance(packet, Close):
            return self._codec.close(packet.code, packet.reason)
        return self._codec.ping()

    def join(self, frames: Sequence[Frame]) -> bytes | None:
        if self._codec.compresses:  # what is thrown away must not have been compressed
            return None
        return b"".join([frame.wire for frame in frames])

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
        data = b"".join(map(self.pack, packets))
        if data:
            await self._stream.send_all(data)
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self, *, linger: bool) -> None:
        if self.fd is not None and not linger:
            self.fd = None
            self._stream.socket.close()  # type: ignore[attr-defined]  # only a socket stream has an `fd` here
            await trio.lowlevel.checkpoint()
            return
        self.fd = None
        # hypercorn's TLS is `https_compatible`: it sends no close_notify, so the socket below can be closed at once.
        stream = getattr(self._stream, "transport_stream", self._stream)
        try:
            with trio.move_on_after(LINGER_SECONDS):
                if isinstance(stream, trio.abc.HalfCloseableStream):
                    await stream.send_eof()
                    left = LINGER_BYTES if linger else 0
                    while left > 0 and (data := await stream.receive_some(RECEIVE_BYTES)):
                        left -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            await trio.aclose_forcefully(self._stream)
