"""RFC 6455 frames from and to bytes, over websockets' sans-I/O protocol. Pure: no Trio, no clock.

Rules of this file:
- what a stream of bytes means does not depend on how it was cut (there is a property test);
- a message is handed out whole; at most `max_message_bytes` of one are ever held, counted in bytes after
  decompression;
- after a Close frame, in or out, nothing the peer sends reaches the handler any more;
- a short, whole, uncompressed message or pong, which is what nearly all traffic is made of, is taken apart here:
  0.8 us, where websockets' parser and what we check beside it take 5.9. So is the Close frame of a connection that has
  had nothing else: 3 us of 25. Every other frame is websockets', to the byte.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Sequence

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.frames import (  # type: ignore[attr-defined]  # apply_mask is the C one where there is one
    Close,
    CloseCode,
    Opcode,
    apply_mask,
)
from websockets.frames import Frame as WireFrame
from websockets.protocol import Protocol, Side, State

from verbtrio.base.close import (
    INVALID_DATA,
    MAX_CONTROL_BYTES,
    MESSAGE_TOO_BIG,
    NO_STATUS_RECEIVED,
    PROTOCOL_ERROR,
    Cause,
)
from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Closed, Event, Pong

SHORT_BYTES = 4096
"""A message of up to this size, head and all, waits here until it is whole; other frames go on as they come."""
_TEXT = 0x81
_BINARY = 0x82
_CLOSE = 0x88
_PONG = 0x8A
_SHORT = (_TEXT, _BINARY, _PONG)  # with FIN and no reserved bit

# websockets logs every frame, payload and all, at DEBUG: tokens among them. What matters comes out as events.
QUIET = logging.Logger("verbtrio.codec", level=logging.CRITICAL + 1)


class _Protocol(Protocol):
    """websockets' protocol, with the checks it leaves to its users made where a frame is received: whatever stands
    behind a violation in the same bytes then has no effect, however the stream was cut.

    Args:
        max_message_bytes: for messages alone. websockets counts control frames as parts of the message they stand
            in, and a compressed frame by its length on the wire: the parser's own limit has room for both.
    """

    def __init__(self, max_message_bytes: int) -> None:
        slack = MAX_CONTROL_BYTES + max_message_bytes // 64 + 64  # deflate adds 5 bytes to 16 KiB it can't compress
        super().__init__(Side.SERVER, state=State.OPEN, max_size=max_message_bytes + slack, logger=QUIET)
        self._limit = max_message_bytes
        self._text: codecs.IncrementalDecoder | None = None
        self.decoded: str | None = None
        """The text of the frame received last, where that is all of its message."""

    def recv_frame(self, frame: WireFrame) -> None:
        """Check a frame, then take it.

        Raises:
            PayloadTooBig: the message grows over the limit (1009).
            UnicodeDecodeError: the text is not UTF-8; at the first bad byte, not at the message's end (1007).
        """
        opcode = frame.opcode
        begins = opcode is Opcode.TEXT or opcode is Opcode.BINARY
        if (begins and self.current_size is None) or (opcode is Opcode.CONT and self.current_size is not None):
            so_far = self.current_size or 0
            if so_far + len(frame.data) > self._limit:
                raise PayloadTooBig(len(frame.data), self._limit - so_far)
            if begins:
                whole = opcode is Opcode.TEXT and frame.fin
                self.decoded = str(frame.data, "utf-8") if whole else None
                self._text = codecs.getincrementaldecoder("utf-8")() if opcode is Opcode.TEXT and not whole else None
            if self._text is not None:
                self._text.decode(frame.data, final=frame.fin)
        elif opcode is Opcode.CLOSE:
            # Like any control frame it may stand in the middle of a message (RFC 6455 section 5.4). websockets answers
            # such a one with 1002, unless it has forgotten the message.
            self.current_size = None
        super().recv_frame(frame)

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection; over the limit, with the limit that was set rather than the parser's."""
        if code == MESSAGE_TOO_BIG:
            reason = f"message over {self._limit} bytes"
        super().fail(code, reason)


def _frame_size(data: bytes, at: int) -> int:
    """The size of the frame at `at`, head and all (RFC 6455 section 5.2); 0 where its head is not there yet."""
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
    """The message, or pong, in the whole short frame at `at`; `None` for text that is not UTF-8."""
    start = at + (6 if data[at + 1] < 0xFE else 8)
    payload = apply_mask(data[start : at + size], data[start - 4 : start])
    if data[at] == _TEXT:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None
    return payload if data[at] == _BINARY else Pong(payload)


def _closed(data: bytes, at: int, size: int) -> Closed | None:
    """What the whole Close frame at `at` says; `None` for an invalid one."""
    try:
        close = Close.parse(apply_mask(data[at + 6 : at + size], data[at + 2 : at + 6]))
    except (UnicodeDecodeError, ProtocolError):
        return None
    return Closed(Cause.PEER, int(close.code), close.reason)


def _answer(close: Closed) -> bytes:
    """The Close frame that answers the peer's: the same (RFC 6455 section 5.5.1)."""
    said = b"" if close.code == NO_STATUS_RECEIVED else close.code.to_bytes(2, "big") + close.reason.encode()
    return bytes((_CLOSE, len(said))) + said


class Codec:
    """The frames of one connection, server side, from the moment the handshake is over."""

    __slots__ = (
        "_answer",
        "_closing",
        "_counters",
        "_ended",
        "_fragments",
        "_is_text",
        "_limit",
        "_protocol",
        "_received",
        "_starts",
        "_tail",
        "compresses",
        "on_begin",
        "owed",
    )

    def __init__(self, *, max_message_bytes: int, extensions: Sequence[Extension] = ()) -> None:
        self._limit = max_message_bytes
        self._protocol: _Protocol | None = None  # made when needed: an idle connection does without its 1.3 KB
        if extensions:
            self._websockets().extensions = list(extensions)
        self._answer = b""  # to the peer's Close frame, where there is no `_protocol` to answer it
        self._tail = b""  # the beginning of a frame that is not whole yet: `SHORT_BYTES` and its head at most
        self.owed = 0
        """Bytes that are still to come of the frame that websockets is taking; 0 between frames."""
        self._fragments: bytearray | None = None
        self._received = 0  # of the message that is not whole yet: its payload as it came
        self._counters = False  # whether the frame that websockets is taking is a part of it, and no control frame
        self._starts = False  # whether that frame is the first of it
        self.on_begin: Callable[[Codec], None] | None = None
        """Called, with this codec, when a message, or a control frame outside of one, has begun and is not whole with
        the same bytes."""
        self._is_text = False
        self._ended = False
        self._closing = False
        self.compresses = bool(extensions)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer and return what they complete. Never raises for what the peer sent.

        `replies()` must be sent afterwards: pongs and the answer to a Close frame are among them.
        """
        events: list[Event] = []
        tail = self._tail
        if tail:
            data, self._tail = tail + data, b""
        at, end = 0, len(data)
        while at < end and not self._ended:
            if self.owed:
                part = data[at : at + self.owed]
                at += len(part)
                self.owed -= len(part)
                if self._counters:
                    self._received += len(part)
                self._feed(part, events)
                if self._starts and self.unfinished:
                    self._starts = False
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
                closed = _closed(data, at, size)
                if closed is not None:
                    at += size
                    self._ended = True
                    self._answer = _answer(closed)
                    events.append(closed)
                    continue
            self._expect(size, data[at], data[at + 1], begins=not (tail and at == 0))
        return events

    @property
    def unfinished(self) -> bool:
        """Whether a message, or a control frame, has begun and is not whole yet."""
        return self._fragments is not None or self.owed > 0 or bool(self._tail)

    @property
    def progress(self) -> int:
        """Bytes that have come of that message, as they came: without heads, and without control frames within it."""
        return max(self._received, 0) + len(self._tail)

    def let_go(self) -> None:
        """The connection is closed: keep nothing of what the peer has not finished, whoever still refers to us."""
        self._ended = True
        self._tail, self.owed, self._fragments, self._protocol = b"", 0, None, None
        self.on_begin = None

    def replies(self) -> bytes:
        """What the protocol itself has to say since the last call: pongs, and the Close frame it owes."""
        if self._protocol is None:
            if not self._answer:
                return b""
            answer, self._answer = self._answer, b""
            return answer
        if not self._protocol.writes:
            return b""
        return b"".join(self._protocol.data_to_send())

    def encode(self, frame: Frame) -> bytes:
        """`frame` as bytes for this peer: compressed if that was agreed on, else shared with everybody."""
        if not self.compresses:
            return frame.wire
        opcode = Opcode.TEXT if frame.text else Opcode.BINARY
        return WireFrame(opcode, frame.payload).serialize(mask=False, extensions=self._websockets().extensions)

    def ping(self, payload: bytes = b"") -> bytes:
        """A Ping frame (RFC 6455 section 5.5.2), `payload` 125 bytes at most."""
        return WireFrame(Opcode.PING, payload).serialize(mask=False)

    def close(self, code: int, reason: str) -> bytes:
        """The Close frame, or nothing where one was sent already. `check_close` says what may be in it."""
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
        """Keep the frame at `at`, which is not whole; `tail` is what was kept of the first one in `data` before."""
        self._tail = data[at:]
        if self._fragments is None and not (tail and at == 0):
            self._received = 0
            self._begin()

    def _expect(self, size: int, first: int, second: int, *, begins: bool) -> None:
        """A frame of `size` bytes, head and all, is websockets'. `begins`: nothing of it has come before."""
        self.owed = size
        self._counters = not first & 0x08  # RFC 6455 section 5.2: control frames
        self._starts = begins and self._fragments is None
        if self._fragments is None:
            self._received = 0
        if self._counters:
            length = second & 0x7F
            self._received -= 6 if length < 126 else 8 if length == 126 else 14  # its head

    def _begin(self) -> None:
        if self.on_begin is not None:
            self.on_begin(self)

    def _websockets(self) -> _Protocol:
        if self._protocol is None:
            self._protocol = _Protocol(self._limit)
        return self._protocol

    def _is_short(self, first: int, second: int, size: int) -> bool:
        """Whether a frame that begins with these two bytes is a message for `_unmasked`."""
        return (
            first in _SHORT
            and 0x80 <= second < 0xFF  # masked, and none of those that are long: 8 bytes of length
            and size <= SHORT_BYTES
            and size <= 6 + (MAX_CONTROL_BYTES if first == _PONG else self._limit)
            and (self._protocol is None or self._protocol.current_size is None)
        )

    def _is_first_close(self, first: int, second: int) -> bool:
        """Whether a frame that begins with these two bytes is a Close frame, and websockets' protocol not in use."""
        return first == _CLOSE and 0x80 <= second <= 0x80 + MAX_CONTROL_BYTES and self._protocol is None

    def _feed(self, data: bytes, events: list[Event]) -> None:
        """Let websockets take a frame, or a part of one."""
        protocol = self._websockets()
        protocol.receive_data(data)
        for frame in protocol.events_received():
            self._take(frame, events)  # type: ignore[arg-type]  # an open protocol has only frames for events
        if protocol.parser_exc is not None and not self._ended:
            self._ended = True
            self._fragments = None
            events.append(self._violation(protocol.parser_exc))

    def _take(self, frame: WireFrame, events: list[Event]) -> None:
        """Add to `events` what one valid frame brings."""
        opcode = frame.opcode
        if opcode is Opcode.PING:
            return
        if opcode is Opcode.PONG:
            events.append(Pong(bytes(frame.data)))
            return
        if opcode is Opcode.CLOSE:
            self._ended = True
            close = self._websockets().close_rcvd
            assert close is not None, "websockets sets it before it hands the frame out"
            events.append(Closed(Cause.PEER, int(close.code), close.reason))
            return
        message = self._assemble(frame)
        if message is not None and not self._closing:
            events.append(message)

    def _assemble(self, frame: WireFrame) -> str | bytes | None:
        """The message `frame` completes, if it does. Fragments are gathered in one buffer, not in a list:
        a peer that sends 1-byte fragments may cost one byte for each, not an object."""
        data, frame.data = frame.data, b""  # websockets' parser refers to the frame until the next one is whole
        if frame.opcode is not Opcode.CONT:
            protocol = self._websockets()
            decoded, protocol.decoded = protocol.decoded, None
            if frame.fin:
                return decoded if frame.opcode is Opcode.TEXT else bytes(data)
            self._fragments = bytearray(data)
            self._is_text = frame.opcode is Opcode.TEXT
        else:
            assert self._fragments is not None, "websockets refuses a continuation without a beginning"
            self._fragments += data
        if not frame.fin:
            return None
        payload, self._fragments = bytes(self._fragments), None
        return payload.decode() if self._is_text else payload

    def _violation(self, error: Exception) -> Closed:
        """What the protocol failed the connection for, with the code its Close frame carries."""
        if isinstance(error, UnicodeDecodeError):
            return Closed(Cause.PROTOCOL, INVALID_DATA, f"invalid UTF-8: {error.reason}")
        sent = self._websockets().close_sent
        if isinstance(error, PayloadTooBig):
            return Closed(Cause.SIZE, MESSAGE_TOO_BIG, sent.reason if sent is not None else str(error))
        return Closed(Cause.PROTOCOL, int(sent.code) if sent is not None else PROTOCOL_ERROR, str(error))
