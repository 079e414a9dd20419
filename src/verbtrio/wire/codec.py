"""RFC 6455 frames from and to bytes, over websockets' sans-I/O protocol. Pure: no Trio, no clock.

Rules of this file:
- what a stream of bytes means does not depend on how it was cut (there is a property test);
- a message is returned whole; at most `max_message_bytes` of it are ever held, counted after decompression;
- after a Close frame, received or sent, no message from the peer reaches the handler;
- a short, whole, uncompressed message or pong, which is nearly all traffic, is parsed here. That takes 0.8 us;
  websockets' parser and our checks take 5.9. So is a Close frame, if the connection has not needed websockets' parser
  yet: 3 us instead of 25. websockets parses every other frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.frames import (  # type: ignore[attr-defined]  # apply_mask, in C if that is installed, is not exported
    Close,
    Opcode,
    apply_mask,
)
from websockets.frames import Frame as WireFrame
from websockets.protocol import State

from verbtrio.base.close import (
    INVALID_DATA,
    MAX_CONTROL_BYTES,
    MESSAGE_TOO_BIG,
    NO_STATUS_RECEIVED,
    PROTOCOL_ERROR,
    Cause,
)
from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Disconnect, Event, Pong
from verbtrio.wire.protocol import CheckedProtocol

SHORT_BYTES = 4096
"""A frame of up to this size, header included, waits here until it is whole. Longer ones are parsed as they come."""
_TEXT = 0x81
_BINARY = 0x82
_CLOSE = 0x88
_PONG = 0x8A
_SHORT = (_TEXT, _BINARY, _PONG)  # FIN set, no reserved bit


def _frame_size(data: bytes, at: int) -> int:
    """The size of the frame at `at`, header included (RFC 6455 section 5.2); 0 if its header is not complete yet."""
    available = len(data) - at
    if available < 2:
        return 0
    second = data[at + 1]
    length, mask = second & 0x7F, 4 if second >= 0x80 else 0
    if length < 126:
        return 2 + mask + length
    extended = 4 if length == 126 else 10
    if available < extended:
        return 0
    return extended + mask + int.from_bytes(data[at + 2 : at + extended], "big")


def _unmasked(data: bytes, at: int, size: int) -> str | bytes | Pong | None:
    """The message or pong in the whole short frame at `at`; `None` for text that is not UTF-8."""
    start = at + (6 if data[at + 1] < 0xFE else 8)
    payload = apply_mask(data[start : at + size], data[start - 4 : start])
    if data[at] == _TEXT:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None
    return payload if data[at] == _BINARY else Pong(payload)


def _parse_close(data: bytes, at: int, size: int) -> Disconnect | None:
    """The event for the whole Close frame at `at`; `None` for an invalid frame."""
    try:
        close = Close.parse(apply_mask(data[at + 6 : at + size], data[at + 2 : at + 6]))
    except (UnicodeDecodeError, ProtocolError):
        return None
    return Disconnect(Cause.PEER, int(close.code), close.reason)


def _reply_to(close: Disconnect) -> bytes:
    """The Close frame that answers the peer's, with the same payload (RFC 6455 section 5.5.1)."""
    payload = b"" if close.code == NO_STATUS_RECEIVED else close.code.to_bytes(2, "big") + close.reason.encode()
    return bytes((_CLOSE, len(payload))) + payload


class Codec:
    """The frames of one connection, on the server's side, once the handshake is over."""

    __slots__ = (
        "_begins_message",
        "_close_reply",
        "_closing",
        "_ended",
        "_fragments",
        "_is_data",
        "_is_text",
        "_limit",
        "_protocol",
        "_received",
        "_tail",
        "compresses",
        "frame_bytes_left",
        "on_begin",
    )

    def __init__(self, *, max_message_bytes: int, extensions: Sequence[Extension] = ()) -> None:
        self._limit = max_message_bytes
        self._protocol: CheckedProtocol | None = None  # 1.3 KB, made when first needed
        if extensions:
            self._websockets().extensions = list(extensions)
        self._close_reply = b""  # to the peer's Close frame, if no `_protocol` answers it
        self._tail = b""  # the beginning of an incomplete frame, `SHORT_BYTES` at most
        self.frame_bytes_left = 0
        """Bytes still to come of the frame that websockets is parsing; 0 between frames."""
        self._fragments: bytearray | None = None
        self._received = 0  # payload of the unfinished message so far, as it came
        self._is_data = False  # whether the frame that websockets is parsing is a data frame, not a control frame
        self._begins_message = False  # whether that frame is the message's first
        self.on_begin: Callable[[Codec], None] | None = None
        """Called with this codec when a message, or a control frame outside of one, begins and does not end in the same
        bytes."""
        self._is_text = False
        self._ended = False
        self._closing = False
        self.compresses = bool(extensions)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer and return what they complete. Never raises, whatever the peer sends.

        Send `replies()` afterwards: pongs, and the answer to a Close frame.
        """
        events: list[Event] = []
        tail = self._tail
        if tail:
            data, self._tail = tail + data, b""
        at, end = 0, len(data)
        while at < end and not self._ended:
            if self.frame_bytes_left:
                part = data[at : at + self.frame_bytes_left]
                at += len(part)
                self.frame_bytes_left -= len(part)
                if self._is_data:
                    self._received += len(part)
                self._feed(part, events)
                if self._begins_message and self.unfinished:
                    self._begins_message = False
                    self._begin()
                continue
            size = _frame_size(data, at)
            if size == 0:
                self._hold(data, at, tail)
                break
            if self._is_short(data[at], data[at + 1], size):
                if at + size > end:
                    self._hold(data, at, tail)
                    break
                message = _unmasked(data, at, size)
                if message is not None:
                    at += size
                    if not self._closing or isinstance(message, Pong):
                        events.append(message)
                    continue
            elif self._is_first_close(data[at], data[at + 1]):
                if at + size > end:
                    self._hold(data, at, tail)
                    break
                close = _parse_close(data, at, size)
                if close is not None:
                    at += size
                    self._ended = True
                    self._close_reply = _reply_to(close)
                    events.append(close)
                    continue
            self._expect(size, data[at], data[at + 1], begins=not (tail and at == 0))
        return events

    @property
    def unfinished(self) -> bool:
        """Whether a message, or a control frame, has begun and not ended."""
        return self._fragments is not None or self.frame_bytes_left > 0 or bool(self._tail)

    @property
    def partial_bytes(self) -> int:
        """Bytes received of the unfinished message, as they came: without headers and interleaved control frames."""
        return max(self._received, 0) + len(self._tail)

    def let_go(self) -> None:
        """The connection is closed: free what the peer has not finished, since others may keep a reference to us."""
        self._ended = True
        self._tail, self.frame_bytes_left, self._fragments, self._protocol = b"", 0, None, None
        self.on_begin = None

    def replies(self) -> bytes:
        """What the protocol itself has to send since the last call: pongs, and a Close frame in reply."""
        if self._protocol is None:
            if not self._close_reply:
                return b""
            reply, self._close_reply = self._close_reply, b""
            return reply
        if not self._protocol.writes:
            return b""
        return b"".join(self._protocol.data_to_send())

    def encode(self, frame: Frame) -> bytes:
        """`frame` as bytes for this peer: compressed if that was negotiated, else the bytes that receivers share."""
        if not self.compresses:
            return frame.wire
        opcode = Opcode.TEXT if frame.text else Opcode.BINARY
        return WireFrame(opcode, frame.payload).serialize(mask=False, extensions=self._websockets().extensions)

    def ping(self, payload: bytes = b"") -> bytes:
        """A Ping frame (RFC 6455 section 5.5.2). `payload` has 125 bytes at most."""
        return WireFrame(Opcode.PING, payload).serialize(mask=False)

    def close(self, code: int, reason: str) -> bytes:
        """A Close frame, or nothing if one has been sent. `check_close` says what it may hold."""
        if self._ended:
            return b""
        protocol = self._websockets()
        if protocol.state is not State.OPEN:
            return b""
        self._closing = True
        if code == NO_STATUS_RECEIVED:
            protocol.send_close()
        else:
            protocol.send_close(code, reason)
        return self.replies()

    def _hold(self, data: bytes, at: int, tail: bytes) -> None:
        """Keep the incomplete frame at `at`. `tail` is what had been kept of the first frame in `data`."""
        self._tail = data[at:]
        if self._fragments is None and not (tail and at == 0):
            self._received = 0
            self._begin()

    def _expect(self, size: int, first: int, second: int, *, begins: bool) -> None:
        """Pass a frame of `size` bytes, header included, to websockets. `begins`: none of it has come before."""
        self.frame_bytes_left = size
        self._is_data = not first & 0x08  # RFC 6455 section 5.2: control frames
        self._begins_message = begins and self._fragments is None
        if self._fragments is None:
            self._received = 0
        if self._is_data:
            length = second & 0x7F
            self._received -= 6 if length < 126 else 8 if length == 126 else 14  # its header

    def _begin(self) -> None:
        if self.on_begin is not None:
            self.on_begin(self)

    def _websockets(self) -> CheckedProtocol:
        if self._protocol is None:
            self._protocol = CheckedProtocol(self._limit)
        return self._protocol

    def _is_short(self, first: int, second: int, size: int) -> bool:
        """Whether a frame that begins with these two bytes is one for `_unmasked`."""
        return (
            first in _SHORT
            and 0x80 <= second < 0xFF  # masked, and without the 8-byte length of a long one
            and size <= SHORT_BYTES
            and size <= 6 + (MAX_CONTROL_BYTES if first == _PONG else self._limit)
            and (self._protocol is None or self._protocol.current_size is None)
        )

    def _is_first_close(self, first: int, second: int) -> bool:
        """Whether a frame that begins with these two bytes is a Close frame, and websockets' protocol is not in use."""
        return first == _CLOSE and 0x80 <= second <= 0x80 + MAX_CONTROL_BYTES and self._protocol is None

    def _feed(self, data: bytes, events: list[Event]) -> None:
        """Have websockets parse a frame, or a part of one."""
        protocol = self._websockets()
        protocol.receive_data(data)
        for frame in protocol.events_received():
            self._take(frame, events)  # type: ignore[arg-type]  # after the handshake all its events are frames
        if protocol.parser_exc is not None and not self._ended:
            self._ended = True
            self._fragments = None
            events.append(self._violation(protocol.parser_exc))

    def _take(self, frame: WireFrame, events: list[Event]) -> None:
        """Add what a valid frame means to `events`."""
        opcode = frame.opcode
        if opcode is Opcode.PING:
            return
        if opcode is Opcode.PONG:
            events.append(Pong(bytes(frame.data)))
            return
        if opcode is Opcode.CLOSE:
            self._ended = True
            close = self._websockets().close_rcvd
            assert close is not None, "websockets sets it before it returns the frame"
            events.append(Disconnect(Cause.PEER, int(close.code), close.reason))
            return
        message = self._assemble(frame)
        if message is not None and not self._closing:
            events.append(message)

    def _assemble(self, frame: WireFrame) -> str | bytes | None:
        """The message that `frame` completes, if it does. Fragments are gathered in one buffer, not in a list: so a
        fragment of 1 byte costs 1 byte, not an object."""
        data, frame.data = frame.data, b""  # websockets' parser keeps the frame until the next one is whole
        if frame.opcode is not Opcode.CONT:
            protocol = self._websockets()
            decoded, protocol.decoded = protocol.decoded, None
            if frame.fin:
                return decoded if frame.opcode is Opcode.TEXT else bytes(data)
            self._fragments = bytearray(data)
            self._is_text = frame.opcode is Opcode.TEXT
        else:
            assert self._fragments is not None, "websockets refuses a continuation frame without a message"
            self._fragments += data
        if not frame.fin:
            return None
        payload, self._fragments = bytes(self._fragments), None
        return payload.decode() if self._is_text else payload

    def _violation(self, error: Exception) -> Disconnect:
        """What the protocol failed the connection for, with the code of its Close frame."""
        if isinstance(error, UnicodeDecodeError):
            return Disconnect(Cause.PROTOCOL, INVALID_DATA, f"invalid UTF-8: {error.reason}")
        sent = self._websockets().close_sent
        if isinstance(error, PayloadTooBig):
            return Disconnect(Cause.SIZE, MESSAGE_TOO_BIG, sent.reason if sent is not None else str(error))
        return Disconnect(Cause.PROTOCOL, int(sent.code) if sent is not None else PROTOCOL_ERROR, str(error))
